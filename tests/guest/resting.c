/*
 * Runs and asks nothing of the host: every processor sleeps, and is woken by a device alone, until
 * it is ended from outside. For tests that want a machine, and no work of it.
 */
#include "guest.h"

void test_other(unsigned index)
{
	(void)index;
	for (;;)
		__asm__ volatile("sti; hlt");
}

void test_main(void)
{
	start_processors();
	print("READY\n");
	test_other(0);
}
