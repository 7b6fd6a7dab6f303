/*
 * Jumps of user code to addresses in other pages that are known, by their sites (code/jump_site.c):
 * they lead where they should, with the guest's flags, however what is there changes; and who goes
 * round and round does not come to the dispatcher for it.
 *
 *   FIRST    each round: call LAST; compare; jmp SECOND
 *   SECOND   dl = whether the flags came; rbx += rdx; dec ecx; jnz back to FIRST; hlt, which faults
 *   LAST     ret
 *
 * What is at SECOND is then changed in its place (rdx twice), and by the page tables (four times).
 * Of other code there are more sites than numbers.
 */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "rounds.h"

enum {
	RAM_BYTES = 8 << 20,
	LARGE_BYTES = 2 << 20,
	FIRST = 0x100010,
	LAST = 0x180000,
	OTHER = 0x400000,
	MANY = 0x600000, /* jumps from page to page */
	MANY_BYTES = 1 << 20,
	STACK = 0x1f0000,
	RBX = 3,
	RCX = 1,
	RDX = 2,
	RSP = 4,
	ROUNDS = 2000,
	MOST_DISPATCHES = 60,
	ALARM_S = 60,
	STOP_NS = 20000000
};

static void put_code(void)
{
	static const uint8_t round[] = { 0xe8, 0, 0, 0, 0, 0x39, 0xc0, 0xe9, 0, 0, 0, 0 };
	enum { CALL_REL = 1, JMP_REL = 8, RET = 0xc3 };

	memcpy(ram + FIRST, round, sizeof(round));
	put_rel32(ram + FIRST + CALL_REL, FIRST + CALL_REL, LAST);
	put_rel32(ram + FIRST + JMP_REL, FIRST + JMP_REL, SECOND);
	ram[LAST] = RET;
	put_second(SECOND, 0, FIRST);
	put_second(OTHER, 2, FIRST);
}

/* Forgets all that was looked up. */
static void set(struct engine_cpu *cpu, uint64_t rip)
{
	struct engine_state state = { .nmi_pending = false };

	begin_user_long_mode(&state.x86, TABLES);
	state.x86.rip = rip;
	state.x86.rflags = 2;
	state.x86.gpr[RSP] = STACK;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
}

static enum engine_exit run(struct engine_cpu *cpu, uint64_t rip, uint32_t rounds)
{
	struct engine_state state;

	engine_get(cpu, ENGINE_GENERAL, &state);
	state.x86.rip = rip;
	state.x86.gpr[RSP] = STACK;
	state.x86.gpr[RBX] = state.x86.gpr[RDX] = 0;
	state.x86.gpr[RCX] = rounds;
	engine_set(cpu, ENGINE_GENERAL, &state);
	return engine_run(cpu);
}

static bool leads_to(struct engine_cpu *cpu, uint64_t times)
{
	const struct soft_cpu *soft = (const struct soft_cpu *)cpu;
	const uint64_t before = soft->misses + soft->jumps.recovered;
	struct engine_state state;
	uint64_t dispatches;

	if (run(cpu, FIRST, ROUNDS) != ENGINE_EXIT_SHUTDOWN)
		abort();
	dispatches = soft->misses + soft->jumps.recovered - before;
	if (dispatches > MOST_DISPATCHES)
		printf("%lu dispatches\n", dispatches);
	engine_get(cpu, ENGINE_GENERAL, &state);
	return state.x86.gpr[RBX] == times * ROUNDS && dispatches <= MOST_DISPATCHES;
}

/* The large page of SECOND has another frame. */
static void move_second(struct guest guest, uint64_t gpa)
{
	enum { LARGE_PRESENT = 0x87 };
	const uint64_t entry = TABLES + 2 * PAGE + SECOND / LARGE_BYTES * sizeof(uint64_t);
	const uint64_t value = gpa | LARGE_PRESENT;

	memcpy(ram + entry, &value, sizeof(value));
	engine_memory_written(guest.engine, entry, sizeof(value));
	set(guest.cpu, FIRST);
}

static unsigned count_sites(const struct soft_cpu *cpu)
{
	unsigned count = 0;

	for (uint32_t n = 0; n < JUMP_SITES; n++)
		count += cpu->jump_sites[n].sum != 0;
	return count;
}

/* All code is given up, by somebody else; who comes to the dispatcher forgets what led there. */
static void test_given_up(struct guest guest)
{
	struct soft_engine *engine = (struct soft_engine *)guest.engine;
	const struct soft_cpu *cpu = (const struct soft_cpu *)guest.cpu;
	const unsigned before = count_sites(cpu);
	bool closed;

	soft_acquire(&engine->lock);
	closed = soft_close_regions(engine);
	soft_release(&engine->lock);
	expect(closed && before && leads_to(guest.cpu, 2), "code that is given up is made again");
	check_engine(engine);
}

/* Jumps from one page to the next, as many times as there are bytes for them; then a fault. */
static void test_many(struct guest guest)
{
	enum { JUMP_BYTES_EACH = 8, JMP = 0xe9 };
	const uint64_t last = MANY + MANY_BYTES - JUMP_BYTES_EACH;
	uint64_t at = MANY;
	struct engine_state state;

	while (at != last) {
		uint64_t next = at + PAGE;

		/* the next jump of the first page, behind the last page */
		if (next >= MANY + MANY_BYTES)
			next = next - MANY_BYTES + JUMP_BYTES_EACH;
		ram[at] = JMP;
		put_rel32(ram + at + 1, at + 1, next);
		at = next;
	}
	ram[last] = HLT;
	engine_memory_written(guest.engine, MANY, MANY_BYTES);
	for (unsigned n = 0; n < 2; n++) {
		enum engine_exit why = run(guest.cpu, MANY, 0);

		engine_get(guest.cpu, ENGINE_GENERAL, &state);
		expect(why == ENGINE_EXIT_SHUTDOWN && state.x86.rip == last,
		       "more sites than numbers");
	}
	expect(leads_to(guest.cpu, 2) && leads_to(guest.cpu, 2), "who lost theirs go on");
}

static void *stop_soon(void *cpu)
{
	const struct timespec time = { .tv_nsec = STOP_NS };

	nanosleep(&time, NULL);
	engine_stop(cpu, ENGINE_EXIT_STOP);
	return NULL;
}

/* A thousand million rounds without the call, whose return looks at the kick as well. */
static bool stops(struct guest guest)
{
	enum { WITHOUT_END = 1000000000 };
	static const uint8_t nop[] = { 0x0f, 0x1f, 0x44, 0, 0 };
	pthread_t thread;
	enum engine_exit why;

	memcpy(ram + FIRST, nop, sizeof(nop));
	engine_memory_written(guest.engine, FIRST, sizeof(nop));
	if (pthread_create(&thread, NULL, stop_soon, guest.cpu))
		abort();
	why = run(guest.cpu, FIRST, WITHOUT_END);
	pthread_join(thread, NULL);
	return why == ENGINE_EXIT_STOP;
}

static void test(const char *how, unsigned without)
{
	struct guest guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, without);
	const struct soft_engine *soft = (const struct soft_engine *)guest.engine;

	puts(how);
	put_code();
	set(guest.cpu, FIRST);
	expect(leads_to(guest.cpu, 1) && leads_to(guest.cpu, 1), "round and round, with flags");
	expect(!soft->sites == !soft->uses_slots, "sites are given where they are used");
	put_addition(ADDED, 1);
	engine_memory_written(guest.engine, ADDED, ADDITION_BYTES);
	expect(leads_to(guest.cpu, 2) && leads_to(guest.cpu, 2), "to what was written there");
	move_second(guest, OTHER);
	expect(leads_to(guest.cpu, 4) && leads_to(guest.cpu, 4), "to what is mapped there");
	move_second(guest, SECOND);
	expect(leads_to(guest.cpu, 2), "and back");
	if (soft->uses_slots)
		test_given_up(guest);
	test_many(guest);
	expect(stops(guest), "who goes round without an end is stopped");
	check_engine((struct soft_engine *)guest.engine);
	end(guest);
}

int main(void)
{
	alarm(ALARM_S);
	make_ram(RAM_BYTES);
	test("with sites", 0);
	test("without", ENGINE_WITHOUT_SLOTS);
	return failures != 0;
}
