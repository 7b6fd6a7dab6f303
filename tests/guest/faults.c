/*
 * A page fault whose handler is not mapped, on a stack of its own: each delivery ends in the next
 * one, and no instruction is ever executed again. The other processors take translated code away
 * from each other meanwhile.
 */
#include "guest.h"

enum { CODE_AT = 0x9000, RET = 0xc3, CALLS_BETWEEN = 1 << 20 };
#define NOWHERE 0x700000000000

static void touch(void *at) { (void)*(volatile uint8_t *)at; }

void test_other(unsigned index)
{
	(void)index;
	for (uint64_t n = 0;; n++)
		if (n % CALLS_BETWEEN == 0) {
			*(volatile uint8_t *)CODE_AT = RET;
			((void (*)(void))CODE_AT)();
		}
}

void test_main(void)
{
	start_processors();
	print("READY\n");
	set_gate(14, (void *)NOWHERE, 1, 0);
	touch((void *)(NOWHERE - PAGE_BYTES));
}
