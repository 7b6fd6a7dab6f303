/*
 * A guest's memory for a test: zeroes between two pages that cannot be accessed. Of the heap it
 * would be as safe under a sanitizer, which marks every byte of it when it comes and when it goes:
 * of a test that makes one for each of a thousand inputs that is most of the time.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "memory/memory.h"

/* ram_bytes: of the guest's; what else lies there is added. */
static inline uint8_t *test_ram_make(uint64_t ram_bytes)
{
	const size_t bytes = guest_memory_footprint_bytes(ram_bytes);
	uint8_t *guard = mmap(NULL, bytes + 2 * GUEST_PAGE_BYTES, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int error;

	assert(guard != MAP_FAILED && bytes % GUEST_PAGE_BYTES == 0);
	error = mprotect(guard + GUEST_PAGE_BYTES, bytes, PROT_READ | PROT_WRITE);
	assert(!error);
	(void)error;
	return guard + GUEST_PAGE_BYTES;
}

static inline void test_ram_free(uint8_t *ram, uint64_t ram_bytes)
{
	munmap(ram - GUEST_PAGE_BYTES,
	       guest_memory_footprint_bytes(ram_bytes) + 2 * GUEST_PAGE_BYTES);
}
