/*
 * Halts with interrupts enabled and no timer, as a guest does that was suspended to idle: only a
 * device wakes it (stuck.sh).
 */
#include "guest.h"

void test_main(void)
{
	print("good night\n");
	for (;;)
		__asm__ volatile("sti; hlt");
}
