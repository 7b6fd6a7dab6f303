/*
 * Code that is made ahead (code/ahead.c): what one engine says of a run of a guest another one
 * makes before that guest runs there, so that its processor makes none, nor cold parts; places that
 * lie change nothing of what a guest does, also where they are made while it runs; what may be
 * written meanwhile is left out.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "bare_guest.h"
#include "engine/soft/translate/translate.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	BLOCKS = 600,
	BLOCK_GUEST_BYTES = 64,
	INSNS_BYTES = 24,
	DATA = 0x300000,
	STACK = 0x1f0000,
	LIES = 20000
};

/*
 * Each block adds 1 to a word of its own, and to RAX if that was 0, which is a block of its page
 * that a link leads to; then it jumps to the next one.
 */
static void make_block(uint8_t *at, uint32_t data)
{
	static const uint8_t code[] = {
		0xff, 0x04, 0x25, 0, 0, 0, 0,             /* inc dword [data] */
		0x83, 0x3c, 0x25, 0, 0, 0, 0, 1,          /* cmp dword [data], 1 */
		0x75, 0x05,                               /* jne over */
		0x48, 0xff, 0xc0,                         /* inc rax */
		0xeb, 0x00,                               /* jmp over */
		0xeb, BLOCK_GUEST_BYTES - INSNS_BYTES,    /* over: jmp to the next */
	};

	_Static_assert(sizeof(code) == INSNS_BYTES, "the last one jumps over the rest");
	memcpy(at, code, sizeof(code));
	memcpy(at + 3, &data, sizeof(data));
	memcpy(at + 10, &data, sizeof(data));
}

static void make_code(void)
{
	for (uint32_t n = 0; n < BLOCKS; n++)
		make_block(ram + CODE + n * BLOCK_GUEST_BYTES, DATA + n * PAGE % (1 << 19));
	ram[CODE + BLOCKS * BLOCK_GUEST_BYTES] = HLT;
}

/* RAX afterwards. */
static uint64_t run(struct guest guest)
{
	struct engine_state state;

	memset(ram + DATA, 0, RAM_BYTES - DATA);
	run_flat(guest, CODE, STACK);
	engine_get(guest.cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	return state.x86.gpr[0];
}

static struct guest begin_anew(void) { return begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0); }

static uint64_t translations(struct guest guest)
{
	return ((const struct soft_cpu *)guest.cpu)->translations;
}

static uint64_t chains(struct guest guest)
{
	return ((const struct soft_cpu *)guest.cpu)->chains;
}

static uint64_t parts(struct guest guest)
{
	return ((const struct soft_engine *)guest.engine)->counts.parts;
}

static struct engine_place place[ENGINE_PLACES_MOST];

static unsigned find_places(uint64_t *ret_rax)
{
	static uint64_t dirty[RAM_BYTES / PAGE];
	const struct guest guest = begin_anew();
	unsigned count;

	*ret_rax = run(guest);
	engine_note_use(guest.engine, true);
	engine_take_dirty(guest.engine, dirty);
	run(guest);
	engine_note_use(guest.engine, false);
	count = engine_find_code(guest.engine, place);
	end(guest);
	return count;
}

static void test_made(unsigned count, uint64_t rax)
{
	const struct guest guest = begin_anew();
	uint64_t parts_before;

	engine_know_places(guest.engine, (const uint8_t *)place, count);
	for (unsigned n = 0; n < count; n++)
		engine_make_code(guest.engine, &place[n]);
	parts_before = parts(guest);
	expect(parts_before, "cold parts are made ahead");
	expect(run(guest) == rax, "the guest does with it what it did");
	printf("made by its processor: %lu, and %lu parts of %lu; %lu links\n", translations(guest),
	       parts(guest) - parts_before, parts(guest), chains(guest));
	expect(!translations(guest) && parts(guest) == parts_before && !chains(guest),
	       "its processor makes none itself, and no links");
	for (unsigned n = 0; n < count; n++)
		engine_make_code(guest.engine, &place[n]);
	expect(run(guest) == rax && parts(guest) == parts_before,
	       "what is there is not made again");
	engine_know_places(guest.engine, NULL, 0);
	end(guest);
}

/* ---- places that lie ---- */

static uint64_t seed = 7;

static uint64_t draw(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 16;
}

/* One in four is no lie but for what it says of ways out. */
static struct engine_place lie(unsigned count)
{
	struct engine_place ret = place[draw() % count];

	ret.ways = draw() << 32 | draw();
	switch (draw() % 4) {
	case 0: break;
	case 1: ret.offset = (uint16_t)draw(); break;
	case 2:
		ret.offset = draw() % PAGE;
		ret.gva = draw() % RAM_BYTES / PAGE * PAGE + ret.offset;
		ret.mode = (uint16_t)draw();
		break;
	default:
		ret.gfn = (uint32_t)draw();
		if (draw() % 4)
			ret.gfn %= RAM_BYTES / PAGE;
	}
	return ret;
}

static struct engine_place known[LIES];

struct liar { struct engine *engine; unsigned count; atomic_bool is_enough; };

static void *make_lies(void *context)
{
	struct liar *liar = context;

	for (unsigned n = 0; n < LIES; n++)
		known[n] = lie(liar->count);
	engine_know_places(liar->engine, (const uint8_t *)known, LIES);
	for (unsigned n = 0; n < LIES || !liar->is_enough; n++) {
		const struct engine_place wanted = lie(liar->count);

		known[n % LIES] = wanted;
		engine_make_code(liar->engine, &wanted);
	}
	engine_know_places(liar->engine, NULL, 0);
	return NULL;
}

static void test_lies(unsigned count, uint64_t rax)
{
	enum { RUNS = 50 };
	const struct guest guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, 0);
	struct liar liar = { .engine = guest.engine, .count = count };
	pthread_t thread;
	unsigned right = 0;

	if (pthread_create(&thread, NULL, make_lies, &liar))
		abort();
	for (unsigned n = 0; n < RUNS; n++)
		right += run(guest) == rax;
	liar.is_enough = true;
	pthread_join(thread, NULL);
	expect(right == RUNS, "what lies changes nothing");
	end(guest);
}

/* The guest has written there, and may do so again without being seen. */
static void test_writable(void)
{
	const struct guest guest = begin_anew();
	const struct engine_place of_data = { .gva = DATA, .gfn = DATA / PAGE };
	size_t used;

	run(guest);
	used = soft_code_used((const struct soft_engine *)guest.engine);
	engine_make_code(guest.engine, &of_data);
	expect(soft_code_used((const struct soft_engine *)guest.engine) == used,
	       "of what may be written nothing is made");
	end(guest);
}

/* What a draft was made from is compared once its page is protected. */
static void test_changed(void)
{
	const struct guest guest = begin_anew();
	struct soft_engine *engine = (struct soft_engine *)guest.engine;
	const struct code_place place = { .rip = CODE, .gpa = CODE };
	uint8_t *byte = &ram[CODE + INSNS_BYTES - 1];
	struct block *made, *taken;

	soft_begin_draft(engine, engine->draft);
	expect(soft_make_draft(engine, engine->draft, &place), "a draft is made");
	ram[CODE] ^= 1;
	made = soft_take_draft(engine, engine->draft);
	ram[CODE] ^= 1;
	expect(!made, "of bytes that have changed meanwhile nothing is taken");
	*byte ^= 1; /* of another block */
	taken = soft_take_draft(engine, engine->draft);
	*byte ^= 1;
	expect(taken && taken->gva == CODE, "of others that does not matter");
	end(guest);
}

/* An overlay that was there when somebody began, and is no more: no byte of it is read. */
static void test_overlay(void)
{
	enum { WHERE = 1 << 28 };
	const struct guest guest = begin_anew();
	struct soft_engine *engine = (struct soft_engine *)guest.engine;
	const struct code_place place = { .rip = WHERE, .gpa = WHERE };

	engine_place_overlay(guest.engine, &memory, 0, WHERE, false);
	expect(soft_hva(engine, WHERE), "an overlay is where there is no RAM");
	soft_begin_draft(engine, engine->draft);
	engine_place_overlay(guest.engine, &memory, 0, GUEST_NOWHERE, false);
	expect(!soft_make_draft(engine, engine->draft, &place), "of none no draft is made");
	end(guest);
}

int main(void)
{
	uint64_t rax = 0;
	unsigned count;

	make_ram(RAM_BYTES);
	make_code();
	count = find_places(&rax);
	printf("%u places\n", count);
	expect(rax && count >= 2 * BLOCKS, "what was come to is told, and what links lead to");
	test_made(count, rax);
	test_lies(count, rax);
	test_writable();
	test_changed();
	test_overlay();
	return failures != 0;
}
