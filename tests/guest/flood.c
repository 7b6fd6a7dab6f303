/* Prints as fast as it can, escape sequences and all, until it is ended from outside. */
#include "guest.h"

void test_main(void)
{
	print("READY\n");
	for (unsigned n = 0;; n++)
		outb(0x3f8, (uint8_t)(n * 7));
}
