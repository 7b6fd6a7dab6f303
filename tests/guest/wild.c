/*
 * Jumps into random bytes at CPL 0 and writes anywhere, again and again; traps come back. Whatever happens to the guest, the
 * machine must end in one of the ways that a machine ends. Its last line comes only if the guest kept itself alive. The command
 * line is the seed.
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

extern uint64_t boot_information;

/* From the command line, a number; 1 if there is none. */
static uint64_t seed(void)
{
	const char *text = (const char *)(uint64_t)*(uint32_t *)(boot_information + 16);
	uint64_t v = 0;

	while (*text >= '0' && *text <= '9')
		v = v * 10 + (uint64_t)(*text++ - '0');
	return (v ? v : 1) * 0x9e3779b97f4a7c15ull;
}

void test_main(void)
{
	uint8_t *page = new_page();

	new_page();
	use_trap_stack(8);
	use_trap_stack(12);
	use_trap_stack(13);
	use_trap_stack(14);
	state = seed();
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
