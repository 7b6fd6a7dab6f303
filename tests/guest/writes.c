/*
 * Writes to each page of WRITTEN_MIB MiB, over and over, for as long as somebody looks on
 * (large_again.py), and says so once it has the first time.
 */
#include "guest.h"

enum { PAGE = 4096, WRITTEN_MIB = 512 };
#define FIRST (64ull << 20)
#define END (FIRST + ((uint64_t)WRITTEN_MIB << 20))

void test_other(unsigned index) { (void)index; }

void test_main(void)
{
	uint64_t round = 0;

	for (;; round++) {
		for (uint64_t at = FIRST; at < END; at += PAGE)
			*(volatile uint64_t *)at = round;
		if (!round)
			print("WRITES\n");
	}
}
