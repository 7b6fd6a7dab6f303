/* A fault without an interrupt table. */
#include "guest.h"

void test_main(void)
{
	const struct { uint16_t limit; uint64_t base; } __attribute__((packed)) none = { 0, 0 };

	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}
