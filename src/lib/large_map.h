/*
 * Memory of which much will be touched, in no order: in large pages, where the host has them, each
 * two megabytes of it are missed once, and not up to 512 times.
 */
#pragma once

#include <stddef.h>

/*
 * Zeroed memory that costs nothing until it is used, the first `large` bytes of it in large pages;
 * NULL.
 */
void *large_map(size_t bytes, size_t large);
/*
 * A file in memory, shared, whose own large pages are mapped as such. MAP_FAILED. It is unmapped
 * as any other.
 */
void *large_map_file(size_t bytes, int protection, int fd);
/* NULL: nothing is done. */
void large_unmap(void *at, size_t bytes);
