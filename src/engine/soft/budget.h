/*
 * What the software engine may use of the host's memory beside the guest's, divided once, at its
 * creation:
 *
 *   code      the code cache: thunks, and regions that are reused (code/region.c)
 *   blocks    descriptions, pc maps, kept bytes and links of each region; sized so that its code is
 *             full first, but for a guest that makes the shortest blocks
 *   tables    of the address spaces, in chunks; when a space has used its share, it drops
 *             everything (mmu/space.c). Half of them are of the common spaces, if there are any
 *
 * What is not in it has a fixed size: two bytes and four for each page of guest memory, and what a
 * processor has.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct engine_options;

struct soft_budget {
	size_t code_bytes, region_bytes, region_kept_bytes;
	uint32_t region_blocks, region_maps, region_links;
	uint32_t table_chunks, table_regions; /* of each processor */
	uint32_t spaces;                      /* the same: address spaces that are kept */
	/* of all processors (mmu/common.h); 0: each has its own */
	uint32_t common_spaces, common_chunks, common_regions, processors;
};

struct soft_budget budget_divide(const struct engine_options *options);
