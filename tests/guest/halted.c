/* Halts every processor with interrupts disabled: nothing can wake it (stuck.sh). */
#include "guest.h"

void test_other(unsigned index)
{
	(void)index;
	for (;;)
		__asm__ volatile("cli; hlt");
}

void test_main(void)
{
	start_processors();
	print("the last line\n");
	for (;;)
		__asm__ volatile("cli; hlt");
}
