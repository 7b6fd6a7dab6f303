/*
 * Jumps into random bytes at CPL 0 and writes anywhere, again and again; traps come back. Whatever happens to the guest, the
 * machine must end in one of the ways that a machine ends. Its last line comes only if the guest kept itself alive.
 */
#include "guest.h"

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void jump(void *to) { ((void (*)(void))to)(); }
static void write_at(void *to) { *(volatile uint64_t *)to = rnd(); }
static void set_msr(void *msr) { wrmsr((uint32_t)(uint64_t)msr, rnd()); }

void test_main(void)
{
	uint8_t *page = new_page();

	new_page();
	use_trap_stack(8);
	use_trap_stack(12);
	use_trap_stack(13);
	use_trap_stack(14);
	state = rdtsc() | 1;
	for (unsigned n = 0; n < 20000; n++) {
		for (unsigned k = 0; k < 64; k++)
			page[rnd() % 4096] = (uint8_t)rnd();
		switch (rnd() % 8) {
		case 0: try_code(write_at, (void *)(rnd() >> rnd() % 64 | 0x10000000)); break;
		case 1: try_code(set_msr, (void *)(0x40000000 + rnd() % 0x200)); break;
		case 2: try_code(jump, (void *)(rnd() >> rnd() % 64)); break;
		default: try_code(jump, page + rnd() % 4096);
		}
	}
	check("still alive", true);
}
