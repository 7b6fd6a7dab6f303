/*
 * The Linux 64-bit boot protocol (Documentation/x86/boot.rst): a bzImage, an initrd and a command
 * line into guest memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/memory.h"

struct x86_state;
struct x86_segment_state;

struct boot_file { const uint8_t *data; size_t bytes; };

/* Where an image was put; beside it what is below 1 MiB was written, and boot_module_gpa() on. */
struct boot_extent { uint64_t gpa, end_gpa; };

/* Of a kernel as much as boot_is_linux() looks at. */
enum { BOOT_LINUX_HEAD_BYTES = 0x280 };

/* Whether the file begins as a bzImage. */
bool boot_is_linux(struct boot_file kernel);
/* Returns error, with the phrase for the user in *ret_reason. */
int boot_refuse(const char **ret_reason, const char *reason, int error);
/* Where an initrd or a module of so many bytes lies. */
uint64_t boot_module_gpa(const struct guest_memory *memory, uint64_t bytes);
/*
 * What every kernel finds in the processor's registers: flat segments, a busy task. Control
 * registers, GDT and the task's limit are its protocol's.
 */
void boot_state_init(struct x86_state *state, uint64_t entry, const struct x86_segment_state *code,
		     const struct x86_segment_state *data);
/*
 * Fills memory, *ret_extent and *ret_state so that the first instruction is the kernel's 64-bit
 * entry. Returns 0 or -errno with *ret_reason a phrase for the user: -ENOEXEC not a usable kernel,
 * -ENOMEM it does not fit, -E2BIG the command line is too long.
 */
int boot_linux(const struct guest_memory *memory, struct boot_file kernel, struct boot_file initrd,
	       const char *command_line, struct boot_extent *ret_extent,
	       struct x86_state *ret_state, const char **ret_reason);
