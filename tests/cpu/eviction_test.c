/*
 * Which code goes when there is no room, by counts: a guest that executes HOT blocks again and
 * again, and in between others, each of them once, until the code cache was filled some times.
 *
 *   what is used stays: not one of HOT is made again; by age alone, which is the control, all of
 *   them are, each time round
 *   a cold part that went before its block did, since it is seldom used, is made again
 *   when everything is used something goes all the same: a guest that goes round in more code than
 *   there is room for
 */
#include "bare_guest.h"

enum {
	RAM_BYTES = 8 << 20,
	STACK = 0x80000,
	CODE = 0x100000,
	BLOCK_GUEST_BYTES = 8,
	HOT = 2048,
	RUN = 2048, /* blocks that are executed at a time, before a HLT */
	RUNS = 256,
	SELDOM = 100, /* runs */
	CROSSING = 0x90ffc
};

static const uint64_t crossing_value = 0x1122334455667788;

/*
 * Each block: jmp to the next; the last of a run stops. The first one reads two words by RDI, with
 * a jump in between, if RCX is not 0.
 */
static void make_code(void)
{
	static const uint8_t block[BLOCK_GUEST_BYTES] = { 0xeb, BLOCK_GUEST_BYTES - 2 };
	static const uint8_t first[] = {
		0xe3, 12,               /* jrcxz to the last */
		0x48, 0x8b, 7,          /* mov rax, [rdi] */
		0x85, 0xc9,             /* test ecx, ecx */
		0x75, 5,                /* jnz to the last */
		0x48, 0x8b, 0x5f, 0xf8, /* mov rbx, [rdi - 8] */
		0x90,
		0xeb, 0,                /* jmp to the next */
	};

	for (unsigned n = 0; n < RUNS * RUN; n++) {
		memcpy(ram + CODE + n * BLOCK_GUEST_BYTES, block, sizeof(block));
		if (n % RUN == RUN - 1)
			ram[CODE + n * BLOCK_GUEST_BYTES] = HLT;
	}
	memcpy(ram + CODE, first, sizeof(first));
	memcpy(ram + CROSSING, &crossing_value, sizeof(crossing_value));
}

static uint64_t run(struct guest guest, unsigned number, bool reads)
{
	struct engine_state state = { .nmi_pending = false };

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.rip = CODE + number * RUN * BLOCK_GUEST_BYTES;
	state.x86.rflags = 2;
	state.x86.gpr[4] = STACK;
	state.x86.gpr[1] = reads;
	state.x86.gpr[7] = CROSSING;
	engine_set(guest.cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(guest.cpu) != ENGINE_EXIT_HALT)
		abort();
	engine_get(guest.cpu, ENGINE_GENERAL, &state);
	return state.x86.gpr[0];
}

static const struct code_counts *counts(struct guest guest)
{
	return &((const struct soft_engine *)guest.engine)->counts;
}

/* How many were made again; the first run is the hot one. */
static uint64_t run_beside_others(unsigned without, const char *what)
{
	struct guest guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, without);
	uint64_t again;
	unsigned wrong = 0;

	for (unsigned n = 1; n < RUNS; n++) {
		const bool reads = n % SELDOM == SELDOM / 2;

		wrong += run(guest, 0, reads) != (reads ? crossing_value : 0);
		run(guest, n, false);
	}
	expect(!wrong, "what crosses pages is read");
	again = counts(guest)->made_again[END_EVICTED];
	printf("%s: made %lu and %lu parts, evicted regions %lu, kept %lu; made again %lu\n",
	       what, counts(guest)->made_first, counts(guest)->parts, counts(guest)->evictions,
	       counts(guest)->regions_kept, again);
	expect(counts(guest)->evictions > 2 * CODE_REGIONS, "the cache was filled more than twice");
	end(guest);
	return again;
}

static void run_round_and_round(void)
{
	struct guest guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, 0);

	for (unsigned n = 0; n < 2 * RUNS; n++)
		run(guest, n % RUNS, false);
	printf("round: evicted regions %lu, kept %lu\n", counts(guest)->evictions,
	       counts(guest)->regions_kept);
	expect(counts(guest)->evictions > 2 * CODE_REGIONS, "where all is used something goes");
	end(guest);
}

int main(void)
{
	make_ram(RAM_BYTES);
	make_code();
	expect(!run_beside_others(0, "by use"), "no block that is used is made again");
	expect(run_beside_others(ENGINE_WITHOUT_USES, "by age") >= 2 * (uint64_t)HOT,
	       "by age they are made again each time round");
	run_round_and_round();
	return failures != 0;
}
