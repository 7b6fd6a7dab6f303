/*
 * What the software engine may use of the host's memory beside the guest's, divided once, at its
 * creation:
 *
 *   code      the code cache: hot parts, then cold ones; when it is full it is emptied
 *             (code/block.c)
 *   blocks    their descriptions, and their pc maps; sized so that the code is full first, but
 *             for a guest that makes the shortest blocks
 *   tables    of the address spaces, in chunks; when a space has used its share, it drops
 *             everything (mmu/space.c)
 *
 * What is not in it has a fixed size: two bytes and four for each page of guest memory, and what a
 * processor has.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct engine_options;

struct soft_budget {
	size_t code_bytes, hot_bytes;
	uint32_t blocks, maps;
	uint32_t table_chunks, table_regions; /* of each processor */
	uint32_t spaces;                      /* the same: address spaces that are kept */
};

struct soft_budget budget_divide(const struct engine_options *options);
