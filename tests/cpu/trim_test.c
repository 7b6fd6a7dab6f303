/*
 * What an idle machine gives back, by counts: a guest of BLOCKS blocks that runs once, or sleeps
 * and wakes.
 *
 *   idle for less than a minute nothing goes, then every region does, once everybody has left
 *   it; an engine without it is the control
 *   of a guest that wakes every hundred seconds, and runs the same, code is made again
 *   twice at most in forty times
 *   what was closed stays until who comes in has forgotten what led there
 *   one that then sleeps for longer than the longest patience gives back again
 *   of one that sleeps six minutes each time, code is made again once
 */
#include "bare_guest.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	BLOCK_GUEST_BYTES = 8,
	BLOCKS = 32768,
	STACK = 0x1f0000,
	FIRST_S = 61, /* in the first it still makes code */
	SLEEP_S = 100,
	MINUTES_S = 360,
	WAKES = 40,
	LONG_S = 700
};

/* Each block: jmp to the next. */
static void make_code(void)
{
	static const uint8_t block[BLOCK_GUEST_BYTES] = { 0xeb, BLOCK_GUEST_BYTES - 2 };

	for (unsigned n = 0; n < BLOCKS; n++)
		memcpy(ram + CODE + n * BLOCK_GUEST_BYTES, block, sizeof(block));
	ram[CODE + BLOCKS * BLOCK_GUEST_BYTES] = HLT;
}

/* The whole of it. */
static void run(struct guest guest)
{
	run_flat(guest, CODE, STACK);
}

static const struct soft_engine *soft(struct guest guest)
{
	return (const struct soft_engine *)guest.engine;
}

/* Of a guest that has just gone to sleep. */
static void sleep_s(struct guest guest, unsigned seconds)
{
	for (unsigned n = 1; n <= seconds; n++)
		engine_trim(guest.engine, n);
}

static uint64_t made(struct guest guest)
{
	const struct code_counts *counts = &soft(guest)->counts;
	uint64_t sum = counts->made_first;

	for (unsigned n = 0; n < BLOCK_ENDS; n++)
		sum += counts->made_again[n];
	return sum;
}

static void test_gives_back(void)
{
	struct guest guest = begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0);
	struct soft_cpu *cpu = (struct soft_cpu *)guest.cpu;
	const struct code_counts *counts = &soft(guest)->counts;
	uint64_t out = cpu->passed;

	run(guest);
	expect(soft_code_used(soft(guest)) > 2 << 20, "there is code to give back");
	sleep_s(guest, FIRST_S - 1);
	expect(!counts->trims, "nothing goes before the patience is over");
	cpu->passed = 0; /* as if it were in one of them */
	engine_trim(guest.engine, FIRST_S);
	expect(counts->trims == 1 && counts->blocks_evicted > BLOCKS && !counts->regions_given_back,
	       "what somebody may be in is closed, and stays");
	cpu->passed = out;
	engine_trim(guest.engine, FIRST_S + 1);
	expect(counts->regions_given_back && !soft_code_used(soft(guest)),
	       "what everybody has left goes");
	expect(!soft(guest)->code_write[CODE_THUNK_BYTES], "its pages are zeros");
	sleep_s(guest, FIRST_S);
	expect(counts->trims == 1, "nothing goes twice");
	run(guest);
	expect(made(guest) <= 2 * (BLOCKS + 2), "what is needed is made again, once");
	end(guest);
}

/* Somebody else gives back, once, while a processor that comes in forgets (the linker's --wrap). */
static struct soft_engine *gives_back;

void __real_soft_forget_code(struct soft_cpu *cpu, uint32_t begin, uint32_t end);
void __wrap_soft_forget_code(struct soft_cpu *cpu, uint32_t begin, uint32_t end);

void __wrap_soft_forget_code(struct soft_cpu *cpu, uint32_t begin, uint32_t end)
{
	struct soft_engine *engine = gives_back;

	gives_back = NULL;
	if (engine) {
		soft_acquire(&engine->lock);
		soft_give_back_regions(engine);
		soft_release(&engine->lock);
	}
	__real_soft_forget_code(cpu, begin, end);
}

static void test_comes_in(void)
{
	struct guest guest = begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0);
	struct soft_engine *engine = (struct soft_engine *)guest.engine;
	bool is_closed;

	run(guest);
	soft_acquire(&engine->lock);
	is_closed = soft_close_regions(engine);
	soft_release(&engine->lock);
	gives_back = engine;
	run(guest);
	expect(is_closed && !gives_back, "somebody gives back while a processor comes in");
	expect(!engine->counts.regions_given_back,
	       "what was closed stays until who comes in has forgotten what led there");
	engine_trim(guest.engine, 1);
	expect(engine->counts.regions_given_back, "and goes when he has");
	end(guest);
}

static void test_left_out(void)
{
	struct guest guest = begin(ENGINE_DEFAULT_OVERHEAD_BYTES, ENGINE_WITHOUT_TRIMS);

	run(guest);
	sleep_s(guest, LONG_S);
	expect(!soft(guest)->counts.trims && !soft(guest)->counts.regions_given_back &&
		       soft_code_used(soft(guest)) > 2 << 20,
	       "an engine without it keeps all");
	end(guest);
}

static void test_sleeps_and_wakes(void)
{
	struct guest guest = begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0);
	const struct code_counts *counts = &soft(guest)->counts;

	for (unsigned n = 0; n < WAKES; n++) {
		run(guest);
		sleep_s(guest, SLEEP_S - 1);
	}
	printf("woken %d times: given back %lu, regretted %lu, blocks made %lu of %d\n", WAKES,
	       counts->trims, counts->regrets, made(guest), BLOCKS);
	expect(counts->trims && counts->regrets && made(guest) <= 3 * (BLOCKS + 2),
	       "who wakes often makes nothing again after the second time");
	sleep_s(guest, LONG_S);
	expect(counts->trims > 1 && !soft_code_used(soft(guest)), "who sleeps long gives back");
	end(guest);
}

/* Longer than it is patient, each time, and not so long that the first one was right. */
static void test_needs_the_same(void)
{
	struct guest guest = begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0);
	const struct code_counts *counts = &soft(guest)->counts;

	for (unsigned n = 0; n < WAKES; n++) {
		run(guest);
		sleep_s(guest, MINUTES_S);
	}
	printf("after minutes: given back %lu, blocks made %lu of %d\n", counts->trims,
	       made(guest), BLOCKS);
	expect(counts->regrets == 1 && made(guest) <= 2 * (BLOCKS + 2),
	       "what was given back once and made again stays");
	end(guest);
}

int main(void)
{
	make_ram(RAM_BYTES);
	make_code();
	test_gives_back();
	test_comes_in();
	test_left_out();
	test_sleeps_and_wakes();
	test_needs_the_same();
	return failures != 0;
}
