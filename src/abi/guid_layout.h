/*
 * The type of GUIDs as they lie on disk and in rings: three little-endian fields, then eight bytes.
 * What is done with them: lib/guid.h.
 */
#pragma once

#include <stdint.h>

struct guid { uint8_t byte[16]; };

#define GUID(a, b, c, d0, d1, d2, d3, d4, d5, d6, d7)                                             \
	((struct guid){ { (a)&255, (a) >> 8 & 255, (a) >> 16 & 255, (uint32_t)(a) >> 24, (b)&255, \
			  (b) >> 8, (c)&255, (c) >> 8, d0, d1, d2, d3, d4, d5, d6, d7 } })
