/*
 * A picture as a PNG file (ISO 15948): 8 bits of red, green and blue, no filters, one IDAT.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* pixels: rows of width * 3 bytes. 0 or -errno; what was written then is no picture. */
int png_write(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height);
