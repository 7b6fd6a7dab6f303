/*
 * Pages that are about to be used, asked of the host in one call. Missed one by one each is a fault
 * of the processor as well, which takes twenty times as long as the page where the host is a
 * virtual machine itself. What they hold does not change, also where others write meanwhile.
 *
 * Where there is no memory for them nothing is said: who uses them finds out.
 */
#pragma once

#include <stddef.h>

/* Whole pages of memory that may be written. */
void touch_to_write(void *at, size_t bytes);
/* Whole pages of memory that may be read. */
void touch_to_read(const void *at, size_t bytes);
