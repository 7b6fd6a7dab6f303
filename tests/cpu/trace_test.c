/*
 * Traces (translate/translate_trace.c): blocks that go on where a jump leads do what the guest's
 * code says, and only hot ones are made.
 *
 *   code, of one page, at level 3
 *     0x000  xor eax, eax; xor edx, edx; mov ecx, ROUNDS; jmp 0x100
 *     0x100  mov [rdi], sil; jmp 0x140
 *     0x140  add eax, ecx; call 0x200; dec ecx; jnz 0x100; jmp 0x300
 *     0x200  inc edx; ret
 *     0x300  xor ebx, ebx; jmp 0x280
 *     0x280  div ebx             a fault, in a block that began elsewhere
 *
 * So each way to follow is there: jumps forwards and back, a call, a conditional jump back. [rdi]
 * is data; or the page of the code: the byte that makes `inc edx` a `dec edx`, which the trace
 * itself depends on. In the end nobody handles the fault, and RIP says where it was.
 */
#include "bare_guest.h"

#include <pthread.h>
#include <unistd.h>

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	STACK = 0x1f0000,
	DATA = 0x200000,
	LOOP = 0x100,
	ADD = 0x140,
	LEAF = 0x200,
	DIVIDE = 0x280,
	END = 0x300,
	PLAIN = 0x800,
	ROUNDS = 10,
	HOT_ROUNDS = 1 << 20,
	INC = 0xc2, /* ModRM */
	DEC = 0xca,
	FLAGS_NONE = 2,
	KICKED_EVERY_US = 100,
	ASKED_AFTER_US = 20000,
	ALARM_S = 30
};

static void put(unsigned at, const uint8_t *bytes, size_t count)
{
	memcpy(ram + CODE + at, bytes, count);
}

static void put_jump(unsigned at, uint8_t opcode, unsigned target)
{
	const int32_t by = (int32_t)(target - (at + 5));

	ram[CODE + at] = opcode;
	memcpy(ram + CODE + at + 1, &by, sizeof(by));
}

static void make_code(uint32_t rounds)
{
	enum { JMP = 0xe9, CALL = 0xe8 };
	uint8_t begin[] = { 0x31, 0xc0, 0x31, 0xd2, 0xb9, 0, 0, 0, 0 };
	static const uint8_t add[] = { 0x01, 0xc8 };
	static const uint8_t count[] = { 0xff, 0xc9, 0x0f, 0x85 };
	static const uint8_t store[] = { 0x40, 0x88, 0x37 };
	static const uint8_t leaf[] = { 0xff, INC, 0xc3 };
	static const uint8_t end[] = { 0x31, 0xdb };
	static const uint8_t divide[] = { 0xf7, 0xf3 };
	const unsigned behind = ADD + sizeof(add) + 5;
	const int32_t by = (int32_t)(LOOP - (behind + sizeof(count) + 4));

	memset(ram + CODE, 0xf4, PAGE);
	memcpy(begin + 5, &rounds, sizeof(rounds));
	put(0, begin, sizeof(begin));
	put_jump(sizeof(begin), JMP, LOOP);
	put(ADD, add, sizeof(add));
	put_jump(ADD + sizeof(add), CALL, LEAF);
	put(behind, count, sizeof(count));
	memcpy(ram + CODE + behind + sizeof(count), &by, sizeof(by));
	put_jump(behind + sizeof(count) + 4, JMP, END);
	put(LOOP, store, sizeof(store));
	put_jump(LOOP + sizeof(store), JMP, ADD);
	put(LEAF, leaf, sizeof(leaf));
	put(END, end, sizeof(end));
	put_jump(END + sizeof(end), JMP, DIVIDE);
	put(DIVIDE, divide, sizeof(divide));
}

/* Until the division; what is in EAX and EDX then. */
static bool run(struct engine_cpu *cpu, uint64_t rdi, uint8_t sil, uint32_t *eax, uint32_t *edx)
{
	struct engine_state state = { .nmi_pending = false };

	begin_user_long_mode(&state.x86, TABLES);
	state.x86.rip = CODE;
	state.x86.rflags = FLAGS_NONE;
	state.x86.gpr[4] = STACK;
	state.x86.gpr[6] = sil;
	state.x86.gpr[7] = rdi;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(cpu) != ENGINE_EXIT_SHUTDOWN)
		abort();
	engine_get(cpu, ENGINE_GENERAL, &state);
	*eax = (uint32_t)state.x86.gpr[0];
	*edx = (uint32_t)state.x86.gpr[2];
	return state.x86.rip == CODE + DIVIDE;
}

static unsigned count_traces(const struct soft_engine *engine)
{
	const uint64_t frame = soft_frame(engine, ram + CODE);
	unsigned count = 0;

	for (uint32_t n = engine->page_blocks[frame]; n; n = engine->blocks[n - 1].next_in_page)
		count += engine->blocks[n - 1].form == BLOCK_TRACE && !engine->blocks[n - 1].dead;
	return count;
}

static void test_code(unsigned without)
{
	const uint32_t sum = ROUNDS * (ROUNDS + 1) / 2;
	const bool makes = without & ENGINE_WITHOUT_WAITING;
	struct guest guest;
	struct soft_engine *engine;
	uint32_t eax, edx;
	bool good;

	make_code(ROUNDS);
	guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, without);
	engine = (struct soft_engine *)guest.engine;
	good = run(guest.cpu, DATA, 1, &eax, &edx);
	expect(good && eax == sum && edx == ROUNDS && ram[DATA] == 1, "what the code says");
	expect(!count_traces(engine) == !makes, "traces are made where nobody waits");
	engine_memory_written(guest.engine, CODE + PLAIN, 1);
	expect(!count_traces(engine), "a write anywhere in the page takes them back");
	good = run(guest.cpu, CODE + LEAF + 1, DEC, &eax, &edx);
	expect(good && eax == sum && edx == (uint32_t)-ROUNDS,
	       "what a trace writes to where it leads is executed");
	good = run(guest.cpu, DATA, 1, &eax, &edx);
	expect(good && edx == (uint32_t)-ROUNDS, "and stays");
	end(guest);
}

/* A followed call of what goes on in another page at once, by the place of its own jump. */
static void test_leaving_leaf(void)
{
	static const uint8_t endbr[] = { 0xf3, 0x0f, 0x1e, 0xfa };
	static const uint8_t elsewhere[] = { 0xff, INC, 0xc3 };
	struct guest guest;
	uint32_t eax, edx;
	bool good;

	make_code(ROUNDS);
	put(LEAF, endbr, sizeof(endbr));
	put_jump(LEAF + sizeof(endbr), 0xe9, PAGE + PLAIN);
	memset(ram + CODE + PAGE, 0xf4, PAGE);
	put(PAGE + PLAIN, elsewhere, sizeof(elsewhere));
	guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, ENGINE_WITHOUT_WAITING);
	good = run(guest.cpu, DATA, 1, &eax, &edx);
	expect(good && edx == ROUNDS, "a leaf that jumps to another page arrives there");
	end(guest);
}

/* ---- which are hot */

static void *kick(void *context)
{
	const struct guest *guest = context;
	const struct soft_engine *engine = (const struct soft_engine *)guest->engine;

	while (!__atomic_load_n(&engine->counts.traces, __ATOMIC_RELAXED)) {
		engine_kick(guest->cpu);
		usleep(KICKED_EVERY_US);
	}
	return NULL;
}

static void test_hot(void)
{
	const uint32_t sum = (uint32_t)((uint64_t)HOT_ROUNDS * (HOT_ROUNDS + 1) / 2);
	struct guest guest;
	const struct soft_engine *engine;
	uint32_t eax, edx;
	pthread_t thread;
	bool good = true;

	make_code(HOT_ROUNDS);
	guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, 0);
	engine = (const struct soft_engine *)guest.engine;
	good &= run(guest.cpu, DATA, 1, &eax, &edx) && eax == sum && edx == HOT_ROUNDS;
	expect(good && !engine->counts.traces, "who is never kicked has none");
	if (pthread_create(&thread, NULL, kick, &guest))
		abort();
	alarm(ALARM_S);
	for (unsigned n = 0; n < ROUNDS || !engine->counts.traces; n++)
		good &= run(guest.cpu, DATA, 1, &eax, &edx) && eax == sum && edx == HOT_ROUNDS;
	pthread_join(thread, NULL);
	expect(good && engine->counts.traces, "where a processor is kicked one is made");
	end(guest);
}

/* ---- which look whether somebody asks for something */

static void *stop(void *context)
{
	const struct guest *guest = context;

	usleep(ASKED_AFTER_US);
	engine_stop(guest->cpu, ENGINE_EXIT_STOP);
	return NULL;
}

/*
 *     0x140  setc al; jmp 0x100
 *     0x100  inc ecx; NOPs as far as 0x140
 *
 * The way back is followed, and the way on is forwards. Flags are looked at where it begins.
 */
static void test_stop(void)
{
	enum { NOP = 0x90 };
	static const uint8_t begin_bytes[] = { 0x0f, 0x92, 0xc0 };
	static const uint8_t count[] = { 0xff, 0xc1 };
	static const uint8_t nop[] = { 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0 };
	struct engine_state state = { .nmi_pending = false };
	struct guest guest;
	pthread_t thread;

	memset(ram + CODE + LOOP, NOP, ADD - LOOP);
	for (unsigned at = LOOP + sizeof(count); at + sizeof(nop) <= ADD; at += sizeof(nop))
		put(at, nop, sizeof(nop));
	put(LOOP, count, sizeof(count));
	put(ADD, begin_bytes, sizeof(begin_bytes));
	put_jump(ADD + sizeof(begin_bytes), 0xe9, LOOP);
	guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, ENGINE_WITHOUT_WAITING);
	begin_user_long_mode(&state.x86, TABLES);
	state.x86.rip = CODE + ADD;
	state.x86.rflags = FLAGS_NONE;
	engine_set(guest.cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (pthread_create(&thread, NULL, stop, &guest))
		abort();
	alarm(ALARM_S);
	expect(engine_run(guest.cpu) == ENGINE_EXIT_STOP, "what goes round in one trace stops");
	pthread_join(thread, NULL);
	end(guest);
}

int main(void)
{
	make_ram(RAM_BYTES);
	test_code(ENGINE_WITHOUT_WAITING);
	test_code(ENGINE_WITHOUT_WAITING | ENGINE_WITHOUT_STRIPS | ENGINE_WITHOUT_WORDS);
	test_code(ENGINE_WITHOUT_WAITING | ENGINE_WITHOUT_DEAD_FLAGS | ENGINE_WITHOUT_TRUST);
	test_code(0);
	test_leaving_leaf();
	test_hot();
	test_stop();
	return failures != 0;
}
