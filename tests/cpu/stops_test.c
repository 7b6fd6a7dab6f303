/*
 * A processor that is asked to stop does so, whatever it executes: the worst guests that are known,
 * on one processor and on four, each asked while it is in the middle. Counted is what it has done
 * between being asked and having stopped; a second would be a million times as much.
 *
 *   string      one instruction over 256 GiB: it ends in the middle
 *   delivery    a fault whose handler faults, without an end: no instruction is ever executed
 *   counting    what goes round, and counts how often: a bounded number of rounds more
 *
 * Nor does one hold up others: while it delivers without an end it passes by what was closed of the
 * code cache.
 *
 * With --measure N the time, as well: of N times each, in microseconds, the half, 99 of 100, all.
 */
#include "engine/soft/code/code.h"
#include "memory/memory.h"
#include "no_devices.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
	RAM_BYTES = 8 << 20,
	PAGE = 1 << 12,
	TABLES = 0x10000, /* two levels, then a folder of pages of 2 MiB */
	FOLDER = TABLES + 2 * PAGE,
	WINDOW = TABLES + 3 * PAGE, /* the same 2 MiB everywhere: half a TiB */
	IDT = 0x20000,
	GDT = 0x21000,
	TSS = 0x22000,
	COUNTERS = 0x30000, /* a cache line for each processor */
	LINE = 64,
	CODE = 0x100000,
	STACK = 0x1f0000,
	DELIVERS = 6, /* of the guests */
	PASS_LOOKS = 10000, /* of SPARE_US: half a minute */
	LARGE_BYTES = 2 << 20,
	PRESENT = 3,
	LARGE = 0x83,
	ENTRIES = 512,
	CPUS = 4,
	ALARM_S = 100,
	MOST_ROUNDS = 200000, /* some milliseconds of the fastest */
	SPARE_US = 3000,
	RAX = 0,
	RCX,
	RDX,
	RBX,
	RSP,
	RSI = 6,
	RDI
};
#define STRING_COUNT (1ull << 38)
#define WINDOW_GVA (1ull << 39)

static uint8_t *ram;
static struct guest_memory memory;
static int failures;
static unsigned measures;

static void expect(bool holds, const char *what, unsigned cpus)
{
	printf("%s: %s, %u at once\n", holds ? "ok" : "FAIL", what, cpus);
	failures += !holds;
}

enum kind { STRING, DELIVERY, COUNTING };
/* RBX: its counter; RSI, RDI: in the window; RCX: STRING_COUNT. */
struct guest { const char *what; enum kind kind; uint8_t code[40]; };

static const struct guest guests[] = {
	{ "REP STOSB", STRING, { 0xf3, 0xaa, 0xf4 } },
	{ "REP MOVSB", STRING, { 0xf3, 0xa4, 0xf4 } },
	{ "REP MOVSQ backwards", STRING, { 0xfd, 0xf3, 0x48, 0xa5, 0xf4 } },
	{ "REPE SCASB", STRING, { 0xf3, 0xae, 0xf4 } },
	{ "REPE CMPSB", STRING, { 0xf3, 0xa6, 0xf4 } },
	{ "REP LODSB", STRING, { 0xf3, 0xac, 0xf4 } },
	{ "a fault in the handler of faults", DELIVERY, { 0x0f, 0x0b } },
	{ "a jump to itself behind CLI", DELIVERY, { 0xfa, 0xeb, 0xfe } },
	{ "a loop", COUNTING, { 0x48, 0xff, 0x03, 0xeb, 0xfb } },
	{ "code that changes itself", COUNTING,
	  { 0xff, 0x05, 0x05, 0, 0, 0,       /* inc dword [rip + 5]: of the next but one */
	    0x48, 0xff, 0x03,                /* inc qword [rbx] */
	    0xeb, 0x05,                      /* jmp over it */
	    0xb8, 0, 0, 0, 0,                /* mov eax, what changes */
	    0xeb, 0xee } },
	{ "calls and returns", COUNTING,
	  { 0x48, 0xff, 0x03, 0xe8, 0x02, 0, 0, 0, 0xeb, 0xf6, 0xc3 } },
	{ "flushes of everything", COUNTING,
	  { 0x48, 0xff, 0x03, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0xeb, 0xf5 } },
	{ "tables that grow", COUNTING,
	  { 0x48, 0xff, 0x03, 0x88, 0x07,             /* inc qword [rbx]; mov [rdi], al */
	    0x48, 0x81, 0xc7, 0, 0, 0x20, 0,          /* add rdi, 2 MiB */
	    0x48, 0x0f, 0xba, 0xf7, 38, 0xeb, 0xed } }, /* btr rdi, 38; jmp */
	{ "locked accesses across two pages", COUNTING,
	  { 0x48, 0xff, 0x03, 0xf0, 0xff, 0x87, 0xfe, 0x0f, 0, 0, 0xeb, 0xf4 } },
	{ "an inner loop by LOOP", COUNTING,
	  { 0x48, 0xff, 0x03, 0x6a, 0x40, 0x59, 0xe2, 0xfe, 0xeb, 0xf6 } },
	{ "single steps without a handler", DELIVERY,
	  { 0x9c, 0x80, 0x4c, 0x24, 1, 1, 0x9d, 0x90 } },
};

static void put64(uint64_t gpa, uint64_t value) { memcpy(ram + gpa, &value, 8); }

/*
 * The first 2 MiB at their place; the window. The handlers of faults lie where nothing is, and have
 * a stack of their own: so a fault is delivered, and faults, for ever.
 */
static void make_tables(void)
{
	enum { GATE = 0x8e01, SELECTOR = 8, VECTORS = 32, IST1 = 36 };
	const uint64_t handler = 0x40000000;

	memset(ram, 0, CODE);
	put64(TABLES, (TABLES + PAGE) | PRESENT);
	put64(TABLES + WINDOW_GVA / (1ull << 39) * 8, (TABLES + 4 * PAGE) | PRESENT);
	put64(TABLES + PAGE, FOLDER | PRESENT);
	put64(FOLDER, LARGE);
	for (unsigned n = 0; n < ENTRIES; n++) {
		put64(TABLES + 4 * PAGE + n * 8, WINDOW | PRESENT);
		put64(WINDOW + n * 8, LARGE_BYTES | LARGE);
	}
	for (unsigned n = 0; n < VECTORS; n++) {
		put64(IDT + n * 16, (handler & 0xffff) | SELECTOR << 16 | (uint64_t)GATE << 32 |
					    (handler >> 16 & 0xffff) << 48);
		put64(IDT + n * 16 + 8, handler >> 32);
	}
	put64(GDT + SELECTOR, 0x00af9b000000ffff);
	put64(TSS + IST1, STACK);
}

struct cpu {
	struct engine_cpu *engine;
	pthread_t thread;
	enum engine_exit why;
	uint64_t *counter;
	struct timespec stopped;
};

static void begin(struct cpu *cpu, unsigned number)
{
	struct engine_state state = { .nmi_pending = false };
	struct x86_state *x86 = &state.x86;

	begin_flat_long_mode(x86, TABLES);
	x86->rip = CODE;
	x86->rflags = 2;
	x86->gpr[RSP] = STACK - number * PAGE;
	x86->gpr[RBX] = COUNTERS + number * LINE;
	x86->gpr[RCX] = STRING_COUNT;
	x86->gpr[RSI] = x86->gpr[RDI] = WINDOW_GVA + (1ull << 38);
	x86->idtr = (struct x86_table){ .base = IDT, .limit = PAGE - 1 };
	x86->gdtr = (struct x86_table){ .base = GDT, .limit = 0x17 };
	x86->tr = (struct x86_segment_state){ .selector = 24, .attributes = 0x8b,
					      .base = TSS, .limit = 0x67 };
	cpu->counter = (uint64_t *)(void *)(ram + COUNTERS + number * LINE);
	*cpu->counter = 0;
	engine_set(cpu->engine, ENGINE_ALL & ~ENGINE_VECTOR, &state);
}

static void *run(void *opaque)
{
	struct cpu *cpu = opaque;

	if (engine_prepare_thread(cpu->engine))
		abort();
	cpu->why = engine_run(cpu->engine);
	clock_gettime(CLOCK_MONOTONIC, &cpu->stopped);
	return NULL;
}

static uint64_t count_of(const struct cpu *cpu)
{
	return __atomic_load_n(cpu->counter, __ATOMIC_SEQ_CST);
}

/* Until all are in the middle. */
static void wait_for_begin(const struct guest *guest, const struct cpu *cpus, unsigned count)
{
	const struct timespec pause = { .tv_nsec = SPARE_US * 1000 };

	for (unsigned n = 0; n < count; n++)
		while (guest->kind == COUNTING && !count_of(&cpus[n]))
			sched_yield();
	nanosleep(&pause, NULL);
}

static double us_between(const struct timespec *from, const struct timespec *to)
{
	return (double)(to->tv_sec - from->tv_sec) * 1e6 +
	       (double)(to->tv_nsec - from->tv_nsec) / 1e3;
}

static bool is_in_time(const struct guest *guest, const struct cpu *cpu, uint64_t asked_at)
{
	struct engine_state state;

	engine_get(cpu->engine, ENGINE_GENERAL, &state);
	if (cpu->why != ENGINE_EXIT_STOP)
		return false;
	if (guest->kind == STRING)
		return state.x86.gpr[RCX] > 0;
	return guest->kind == DELIVERY || count_of(cpu) - asked_at < MOST_ROUNDS;
}

/* Of a guest that does not count: some of its instruction is done. */
static bool has_begun(const struct guest *guest, const struct cpu *cpu)
{
	struct engine_state state;

	engine_get(cpu->engine, ENGINE_GENERAL, &state);
	return guest->kind != STRING || state.x86.gpr[RCX] < STRING_COUNT;
}

/* *ret_us: from being asked until the last one has stopped. */
static bool stop_once(const struct guest *guest, struct cpu *cpus, unsigned count, double *ret_us)
{
	uint64_t asked_at[CPUS];
	struct timespec asked;
	bool good = true;

	for (unsigned n = 0; n < count; n++)
		if (pthread_create(&cpus[n].thread, NULL, run, &cpus[n]))
			abort();
	wait_for_begin(guest, cpus, count);
	clock_gettime(CLOCK_MONOTONIC, &asked);
	for (unsigned n = 0; n < count; n++) {
		engine_stop(cpus[n].engine, ENGINE_EXIT_STOP);
		asked_at[n] = count_of(&cpus[n]);
	}
	*ret_us = 0;
	for (unsigned n = 0; n < count; n++) {
		pthread_join(cpus[n].thread, NULL);
		good &= is_in_time(guest, &cpus[n], asked_at[n]);
		if (us_between(&asked, &cpus[n].stopped) > *ret_us)
			*ret_us = us_between(&asked, &cpus[n].stopped);
	}
	return good;
}

static int compare(const void *a, const void *b)
{
	const double *left = a;
	const double *right = b;

	return (*left > *right) - (*left < *right);
}

static void show(const char *what, unsigned count, double *us)
{
	qsort(us, measures, sizeof(*us), compare);
	printf("%-34s %u: %8.0f %8.0f %8.0f\n", what, count, us[measures / 2],
	       us[measures * 99 / 100], us[measures - 1]);
}

static void test(const struct guest *guest, unsigned count)
{
	const struct engine_options options = { .overhead_bytes = ENGINE_DEFAULT_OVERHEAD_BYTES,
						.cpus = count };
	double *us = calloc(measures, sizeof(*us));
	struct engine *engine;
	struct cpu cpus[CPUS];
	bool good = true;

	make_tables();
	memset(ram + LARGE_BYTES, 0, LARGE_BYTES);
	memset(ram + CODE, 0x90, PAGE);
	memcpy(ram + CODE, guest->code, sizeof(guest->code));
	engine = engine_create(&memory, &options);
	for (unsigned n = 0; n < count; n++)
		cpus[n].engine = engine ? engine_cpu_create(engine, &ops, NULL) : NULL;
	if (!us || !cpus[count - 1].engine)
		abort();
	for (unsigned n = 0; n < measures;) {
		bool has_all = true;

		for (unsigned k = 0; k < count; k++)
			begin(&cpus[k], k);
		good &= stop_once(guest, cpus, count, &us[n]);
		for (unsigned k = 0; k < count; k++)
			has_all &= has_begun(guest, &cpus[k]);
		n += has_all; /* a host that is busy: once more */
	}
	expect(good, guest->what, count);
	if (measures > 1)
		show(guest->what, count, us);
	for (unsigned n = 0; n < count; n++)
		engine_cpu_destroy(cpus[n].engine);
	engine_destroy(engine);
	free(us);
}

/* What was closed of the code cache is used again once everybody has passed by. */
static void test_pass(void)
{
	const struct engine_options options = { .overhead_bytes = ENGINE_DEFAULT_OVERHEAD_BYTES,
						.cpus = 1 };
	const struct timespec pause = { .tv_nsec = SPARE_US * 1000 };
	struct engine *engine;
	const struct soft_cpu *soft;
	struct cpu cpu;
	uint64_t pass, misses;

	make_tables();
	memcpy(ram + CODE, guests[DELIVERS].code, sizeof(guests[DELIVERS].code));
	engine = engine_create(&memory, &options);
	cpu.engine = engine ? engine_cpu_create(engine, &ops, NULL) : NULL;
	if (!cpu.engine)
		abort();
	begin(&cpu, 0);
	if (pthread_create(&cpu.thread, NULL, run, &cpu))
		abort();
	soft = (const struct soft_cpu *)cpu.engine;
	while (soft_is_out(soft))
		sched_yield();
	nanosleep(&pause, NULL); /* it delivers */
	misses = __atomic_load_n(&soft->misses, __ATOMIC_SEQ_CST);
	pass = __atomic_add_fetch(&((struct soft_engine *)engine)->pass, 1, __ATOMIC_SEQ_CST);
	soft_kick((struct soft_cpu *)cpu.engine, KICK_PASS);
	for (unsigned n = 0;
	     n < PASS_LOOKS && __atomic_load_n(&soft->passed, __ATOMIC_SEQ_CST) < pass; n++)
		nanosleep(&pause, NULL);
	expect(__atomic_load_n(&soft->passed, __ATOMIC_SEQ_CST) == pass,
	       "who delivers without an end passes by", 1);
	expect(__atomic_load_n(&soft->misses, __ATOMIC_SEQ_CST) > misses,
	       "and has left what it had found", 1);
	engine_stop(cpu.engine, ENGINE_EXIT_STOP);
	pthread_join(cpu.thread, NULL);
	engine_cpu_destroy(cpu.engine);
	engine_destroy(engine);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	measures = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1;
	alarm(measures > 1 ? 0 : ALARM_S);
	ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED || !measures)
		return 2;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	for (unsigned n = 0; n < sizeof(guests) / sizeof(*guests); n++) {
		test(&guests[n], 1);
		test(&guests[n], CPUS);
	}
	test_pass();
	return failures != 0;
}
