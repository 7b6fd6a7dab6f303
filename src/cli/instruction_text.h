/* An instruction in words, by Zydis, which is loaded when it is asked for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { INSTRUCTION_TEXT_BYTES = 128 };

/* False: it is not installed, or Umbra was built without its header. */
bool instruction_text_load(void);
/*
 * Once that was true: the one that begins there, of code of 16, 32 or 64 bits, at that address. How
 * many bytes it has; 0: it is none.
 */
unsigned instruction_text(const uint8_t *code, unsigned bytes, unsigned code_bits, uint64_t at,
			  char ret[INSTRUCTION_TEXT_BYTES]);
