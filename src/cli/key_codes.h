/*
 * What comes from a terminal as the keys of a US keyboard: scan codes of set 1, pressed and let go.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_CODES_BYTES = 16 /* of one key at most */ };

/*
 * The key that the first bytes are: how many they were; 0: there is none for them, and the first is
 * to be left out. Codes in ret; *ret_bytes of them.
 */
size_t key_codes(const uint8_t *text, size_t bytes, uint8_t ret[KEY_CODES_BYTES],
		 size_t *ret_bytes);
