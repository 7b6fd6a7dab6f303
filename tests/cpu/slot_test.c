/*
 * A kernel's jumps to known addresses in other pages, through slots (code/jump_slot.c): they lead
 * where they should, with the guest's flags, however what is there changes; and who goes round and
 * round does not come to the dispatcher for it.
 *
 *   FIRST    invlpg [rsi]; then each round: call LAST; compare; jmp SECOND
 *   SECOND   dl = whether the flags came; rbx += rdx; dec ecx; jnz back to FIRST's round; hlt
 *   LAST     ret
 *
 * What is at SECOND is then changed in its place (rdx twice), and by the page tables (four times).
 */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "rounds.h"

enum {
	RAM_BYTES = 8 << 20,
	LARGE_BYTES = 2 << 20,
	FIRST = 0x100000,
	ROUND = FIRST + 0x10,
	LAST = 0x180000,
	OTHER = 0x400000,
	PLAIN = 0x600000, /* no code */
	STACK = 0x1f0000,
	RBX = 3,
	RCX = 1,
	RDX = 2,
	RSP = 4,
	RSI = 6,
	ROUNDS = 2000,
	MOST_DISPATCHES = 60,
	ALARM_S = 60,
	STOP_NS = 20000000
};

static void put_code(void)
{
	static const uint8_t begin[] = { 0x0f, 0x01, 0x3e, 0xeb, ROUND - FIRST - 5 };
	static const uint8_t round[] = { 0xe8, 0, 0, 0, 0, 0x39, 0xc0, 0xe9, 0, 0, 0, 0 };
	enum { CALL_REL = 1, JMP_REL = 8, RET = 0xc3 };

	memcpy(ram + FIRST, begin, sizeof(begin));
	memcpy(ram + ROUND, round, sizeof(round));
	put_rel32(ram + ROUND + CALL_REL, ROUND + CALL_REL, LAST);
	put_rel32(ram + ROUND + JMP_REL, ROUND + JMP_REL, SECOND);
	ram[LAST] = RET;
	put_second(SECOND, 0, ROUND);
	put_second(OTHER, 2, ROUND);
}

static void set(struct engine_cpu *cpu, uint32_t rounds)
{
	struct engine_state state = { .nmi_pending = false };

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.rip = FIRST;
	state.x86.rflags = 2;
	state.x86.gpr[RSP] = STACK;
	state.x86.gpr[RSI] = PLAIN;
	state.x86.gpr[RCX] = rounds;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
}

/* What is in RBX in the end; goes on from where it halted, flushing nothing but this page. */
static uint64_t run(struct engine_cpu *cpu, uint64_t flushed, uint64_t *ret_dispatches)
{
	const struct soft_cpu *soft = (const struct soft_cpu *)cpu;
	struct engine_state state;

	engine_get(cpu, ENGINE_GENERAL, &state);
	state.x86.rip = FIRST;
	state.x86.gpr[RBX] = state.x86.gpr[RDX] = 0;
	state.x86.gpr[RCX] = ROUNDS;
	state.x86.gpr[RSI] = flushed;
	engine_set(cpu, ENGINE_GENERAL, &state);
	*ret_dispatches = soft->misses + soft->jumps.recovered;
	if (engine_run(cpu) != ENGINE_EXIT_HALT)
		abort();
	*ret_dispatches = soft->misses + soft->jumps.recovered - *ret_dispatches;
	engine_get(cpu, ENGINE_GENERAL, &state);
	return state.x86.gpr[RBX];
}

static bool leads_to(struct engine_cpu *cpu, uint64_t flushed, uint64_t times)
{
	uint64_t dispatches;
	bool is_right = run(cpu, flushed, &dispatches) == times * ROUNDS;

	if (dispatches > MOST_DISPATCHES)
		printf("%lu dispatches\n", dispatches);
	return is_right && dispatches <= MOST_DISPATCHES;
}

/* The large page of SECOND has another frame. */
static void move_second(struct engine *engine, uint64_t gpa)
{
	enum { LARGE_PRESENT = 0x87, ENTRIES = 512 };
	const uint64_t entry = TABLES + 2 * PAGE + SECOND / LARGE_BYTES * sizeof(uint64_t);
	const uint64_t value = gpa | LARGE_PRESENT;

	memcpy(ram + entry, &value, sizeof(value));
	engine_memory_written(engine, entry, sizeof(value));
}

static void *stop_soon(void *cpu)
{
	const struct timespec time = { .tv_nsec = STOP_NS };

	nanosleep(&time, NULL);
	engine_stop(cpu, ENGINE_EXIT_STOP);
	return NULL;
}

/* A thousand million rounds without the call, whose return looks at the kick as well. */
static bool stops(struct engine *engine, struct engine_cpu *cpu)
{
	enum { MANY = 1000000000 };
	static const uint8_t nop[] = { 0x0f, 0x1f, 0x44, 0, 0 };
	pthread_t thread;
	enum engine_exit why;

	memcpy(ram + ROUND, nop, sizeof(nop));
	engine_memory_written(engine, ROUND, sizeof(nop));
	set(cpu, MANY);
	if (pthread_create(&thread, NULL, stop_soon, cpu))
		abort();
	why = engine_run(cpu);
	pthread_join(thread, NULL);
	return why == ENGINE_EXIT_STOP;
}

static bool is_led_away(const struct soft_engine *engine, const struct block *b)
{
	enum { JMP = 0xe9 };
	const uint8_t *entry = engine->code_write + b->host_offset;

	return entry[0] == JMP && entry[b->direct] == JMP;
}

/* How many slots lead to blocks whose entries are as they were made, or lead away. */
static unsigned count_leading(const struct soft_engine *engine, const struct soft_cpu *cpu,
			      bool away)
{
	unsigned count = 0;

	for (uint32_t n = 0; n < engine->slot_count; n++)
		if (cpu->slots[n] != engine->empty_slots[n] &&
		    is_led_away(engine, soft_block_of(engine, cpu->slots[n])) == away)
			count++;
	return count;
}

/*
 * All code is given up, by somebody else: who follows a slot before he hears of it, and has written
 * where it leads, comes to the dispatcher, since that is not noticed any more.
 */
static void test_given_up(struct guest guest)
{
	struct soft_engine *engine = (struct soft_engine *)guest.engine;
	const struct soft_cpu *cpu = (const struct soft_cpu *)guest.cpu;
	const unsigned leading = count_leading(engine, cpu, false);
	bool closed;

	soft_acquire(&engine->lock);
	closed = soft_close_regions(engine);
	soft_release(&engine->lock);
	expect(closed && leading && !count_leading(engine, cpu, false) &&
		       count_leading(engine, cpu, true) == leading,
	       "away from code that is given up");
	expect(leads_to(guest.cpu, PLAIN, 2), "and then to what is there");
}

static void test(const char *how, unsigned without)
{
	struct guest guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, without);
	const struct soft_engine *soft = (const struct soft_engine *)guest.engine;

	puts(how);
	put_code();
	set(guest.cpu, 1);
	expect(leads_to(guest.cpu, PLAIN, 1) && leads_to(guest.cpu, PLAIN, 1),
	       "round and round, with flags");
	expect(!soft->slot_count == !soft->uses_slots, "slots are given where they are used");
	put_addition(ADDED, 1);
	engine_memory_written(guest.engine, ADDED, ADDITION_BYTES);
	expect(leads_to(guest.cpu, PLAIN, 2) && leads_to(guest.cpu, PLAIN, 2),
	       "to what was written there");
	move_second(guest.engine, OTHER);
	expect(leads_to(guest.cpu, SECOND, 4) && leads_to(guest.cpu, PLAIN, 4),
	       "to what is mapped there");
	move_second(guest.engine, SECOND);
	expect(leads_to(guest.cpu, SECOND, 2), "and back");
	if (soft->uses_slots)
		test_given_up(guest);
	expect(stops(guest.engine, guest.cpu), "who goes round without an end is stopped");
	check_engine((struct soft_engine *)guest.engine);
	end(guest);
}

int main(void)
{
	alarm(ALARM_S);
	make_ram(RAM_BYTES);
	test("with slots", 0);
	test("without", ENGINE_WITHOUT_SLOTS);
	return failures != 0;
}
