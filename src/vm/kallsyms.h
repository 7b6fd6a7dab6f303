/*
 * The names of a Linux kernel's functions, as it keeps them for itself (kallsyms), found in the
 * guest's memory. For who looks at a machine; the guest is not asked and may lie: a name is some
 * letters, and that is all that is promised of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct guest_memory;

enum { KALLSYMS_NAME_BYTES = 56, KALLSYMS_TOKENS = 256, KALLSYMS_TOKEN_BYTES = 4096 };

/* Where the tables are: addresses of the guest's kernel, in the window. */
struct kallsyms {
	const struct guest_memory *memory;
	uint64_t directory_gpa; /* of the 512 entries of 2 MiB each that map the window */
	uint64_t names, markers, offsets, base;
	uint32_t count, reads_left, bytes_left;
	bool from_base; /* offsets below 0 count from the base down */
	uint16_t token[KALLSYMS_TOKENS]; /* begins in token_text */
	char token_text[KALLSYMS_TOKEN_BYTES];
};

/*
 * In the memory that this root of page tables maps. False: there is no such kernel, or its tables
 * have another form. Looks through at most a GiB of addresses; any time, from any thread.
 */
bool kallsyms_find(struct kallsyms *ret, const struct guest_memory *memory, uint64_t cr3);
/* Before more names are asked for: it may read as much again as it could at first. */
void kallsyms_go_on(struct kallsyms *symbols);
/* Whether the address is where a kernel's own functions are. */
bool kallsyms_may_name(uint64_t gva);
/* "name+0x12" of what the address is in; empty: nothing. */
void kallsyms_name(struct kallsyms *symbols, uint64_t gva, char ret[KALLSYMS_NAME_BYTES]);
