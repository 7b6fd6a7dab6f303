/*
 * What a peer asks of a machine, as the bytes of a record (ipc/record_ring.h). Each: how many there
 * are; or -EINVAL: the text is not of that kind, or has more than room for.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Two hexadecimal digits a byte, at least one byte. */
int ask_data_codes(const char *text, uint8_t *to, size_t room);
/* With its padding, at least one byte. */
int ask_data_base64(const char *text, uint8_t *to, size_t room);
/* struct record_copy, folder and name: both there, the name without a slash. */
int ask_data_file(const char *folder, const char *name, uint64_t bytes, uint64_t replaces,
		  uint8_t *to, size_t room);
