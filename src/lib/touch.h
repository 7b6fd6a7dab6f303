/*
 * Pages that are about to be used, asked of the host in one call. Missed one by one each is a fault
 * of the processor as well, which takes twenty times as long as the page where the host is a
 * virtual machine itself. What they hold does not change, also where others write meanwhile.
 *
 * Where there is no memory for them nothing is said: who uses them finds out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

/* What an older C library does not name. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { TOUCH_LARGE_BYTES = 2 << 20 };

/* Whole pages of memory that may be written. */
void touch_to_write(void *at, size_t bytes);
/*
 * The same in one large page, at a multiple of its size, whatever of it there was: where a host's
 * page tables are shadowed each small one costs a fault when it is used first, asked for or not.
 * False: the host has none for this, or memory of it is of several kinds.
 */
bool touch_large(void *at);
/* Whole pages of memory that may be read. */
void touch_to_read(const void *at, size_t bytes);
