/* GUIDs as they lie on disk: three little-endian fields, then eight bytes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct guid { uint8_t byte[16]; };
enum { GUID_TEXT_BYTES = 37 };

#define GUID(a, b, c, d0, d1, d2, d3, d4, d5, d6, d7) \
	((struct guid){ { (a) & 255, (a) >> 8 & 255, (a) >> 16 & 255, (uint32_t)(a) >> 24, (b) & 255, (b) >> 8, (c) & 255, (c) >> 8, d0, d1, d2, d3, d4, d5, d6, d7 } })

static inline bool guid_equal(struct guid a, struct guid b) { return !memcmp(&a, &b, sizeof(a)); }
static inline bool guid_is_zero(struct guid a) { return guid_equal(a, (struct guid){ 0 }); }
/* A random one (RFC 4122 version 4). */
struct guid guid_new(void);
/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx and a NUL. */
void guid_print(struct guid guid, char text[GUID_TEXT_BYTES]);
/* With or without braces, nothing after it. */
bool guid_parse(const char *text, struct guid *ret);
