/* See large_map.h. */
#include "large_map.h"

#include <stdint.h>
#include <sys/mman.h>

enum { LARGE_PAGE_BYTES = 2 << 20 };

static size_t whole_pages(size_t bytes)
{
	return (bytes + LARGE_PAGE_BYTES - 1) & ~((size_t)LARGE_PAGE_BYTES - 1);
}

/* What lies before the first large page, and behind the last one, is given back. */
void *large_map(size_t bytes, size_t large)
{
	const size_t whole = whole_pages(bytes);
	uint8_t *place = mmap(NULL, whole + LARGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *begin;
	size_t before;

	if (place == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)place & (LARGE_PAGE_BYTES - 1);
	begin = place + before;
	if (before)
		munmap(place, before);
	munmap(begin + whole, LARGE_PAGE_BYTES - before);
	madvise(begin, whole_pages(large), MADV_HUGEPAGE);
	return begin;
}

void *large_map_file(size_t bytes, int protection, int fd)
{
	uint8_t *place = mmap(NULL, bytes + LARGE_PAGE_BYTES, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;
	void *at;

	if (place == MAP_FAILED)
		return MAP_FAILED;
	before = -(uintptr_t)place & (LARGE_PAGE_BYTES - 1);
	at = mmap(place + before, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
	if (at == MAP_FAILED) {
		munmap(place, bytes + LARGE_PAGE_BYTES);
		return MAP_FAILED;
	}
	if (before)
		munmap(place, before);
	munmap(place + before + bytes, LARGE_PAGE_BYTES - before);
	return at;
}

void large_unmap(void *at, size_t bytes)
{
	if (at)
		munmap(at, whole_pages(bytes));
}
