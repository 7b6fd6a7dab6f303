/* GUIDs as they lie on disk: three little-endian fields, then eight bytes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "abi/guid_layout.h"

enum { GUID_TEXT_BYTES = 37 };

static inline bool guid_equal(struct guid a, struct guid b) { return !memcmp(&a, &b, sizeof(a)); }
static inline bool guid_is_zero(struct guid guid) { return guid_equal(guid, (struct guid){ 0 }); }
/* A random one (RFC 4122 version 4). */
struct guid guid_new(void);
/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx and a NUL. */
void guid_print(struct guid guid, char text[GUID_TEXT_BYTES]);
/* With or without braces, nothing after it. */
bool guid_parse(const char *text, struct guid *ret);
