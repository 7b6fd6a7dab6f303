/* Spins with interrupts off on every processor, until it is ended from outside. */
#include "guest.h"

void test_other(unsigned index)
{
	(void)index;
	for (;;)
		__asm__ volatile("cli");
}

void test_main(void)
{
	start_processors();
	print("READY\n");
	test_other(0);
}
