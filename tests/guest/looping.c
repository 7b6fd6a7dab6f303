/*
 * For a machine that says when it is stuck: the boot processor works with interrupts disabled for a
 * while, and then spins.
 */
#include "guest.h"

enum { WORK_SECONDS = 4 };
#define TSC_HZ_AT_LEAST 1000000000ull

/* A pointer and data: it gets on. */
static void work(void)
{
	static volatile uint64_t data[64];
	uint64_t begin = rdtsc();

	for (unsigned n = 0; rdtsc() - begin < WORK_SECONDS * TSC_HZ_AT_LEAST; n++)
		data[n % 64] += n;
}

void test_main(void)
{
	__asm__ volatile("cli");
	work();
	print("the last line\n");
	for (;;)
		cpu_relax();
}
