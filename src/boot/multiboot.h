/*
 * Multiboot 1 (specification 0.6.96): an ELF image that begins in 32-bit protected mode, as
 * bare-metal test guests are.
 */
#pragma once

#include <stdbool.h>

#include "linux.h"

/* Whether the file carries a multiboot header. */
bool boot_is_multiboot(struct boot_file image);
/* As boot_linux(), into memory that is zero; module becomes the one module when it has bytes. */
int boot_multiboot(const struct guest_memory *memory, struct boot_file image,
		   struct boot_file module, const char *command_line,
		   struct boot_extent *ret_extent, struct x86_state *ret_state,
		   const char **ret_reason);
