/* See touch.h. */
#include "touch.h"

#include <stdint.h>

enum { PAGE_BYTES = 4096 };

/* Linux before 5.14 knows no such advice: there one after the other. */
void touch_to_write(void *at, size_t bytes)
{
	if (!madvise(at, bytes, MADV_POPULATE_WRITE))
		return;
	for (uint8_t *page = at; page < (uint8_t *)at + bytes; page += PAGE_BYTES)
		__atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
}

/* One that has no page yet is none to the kernel. */
bool touch_large(void *at)
{
	__atomic_fetch_or((uint8_t *)at, 0, __ATOMIC_RELAXED);
	return !madvise(at, TOUCH_LARGE_BYTES, MADV_COLLAPSE);
}

void touch_to_read(const void *at, size_t bytes)
{
	const uint8_t *begin = at;

	if (!madvise((void *)(uintptr_t)at, bytes, MADV_POPULATE_READ))
		return;
	for (const uint8_t *page = begin; page < begin + bytes; page += PAGE_BYTES)
		(void)*(const volatile uint8_t *)page;
}
