/*
 * How often the host is asked for a page of the code cache, by counts: a guest of BLOCKS blocks
 * that runs once. With pages that are touched ahead (code/touch.c) each is asked for once, and
 * without, which is the control, once more for the view that is executed. What is used of code and
 * of its lists lies in what was asked for. Of an engine that goes on a guest's own thread asks for
 * none of those that somebody else has touched. Large pages are those of the code and its lists
 * alone, also where these begin in the middle of one, as code does that perf sees.
 */
#include <sys/resource.h>

#include "bare_guest.h"
#include "lib/touch.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	BLOCK_GUEST_BYTES = 8,
	BLOCKS = 32768,
	STACK = 0x1f0000
};

static bool touches = true;

void __real_soft_touch_ahead(struct soft_engine *engine);
void __wrap_soft_touch_ahead(struct soft_engine *engine);
void __wrap_soft_touch_ahead(struct soft_engine *engine)
{
	if (touches)
		__real_soft_touch_ahead(engine);
}

static size_t asked_bytes;

void __real_touch_to_write(void *at, size_t bytes);
void __wrap_touch_to_write(void *at, size_t bytes);
void __wrap_touch_to_write(void *at, size_t bytes)
{
	asked_bytes += bytes;
	__real_touch_to_write(at, bytes);
}

static const struct soft_engine *touched_engine;

/* It begins in what is touched. */
static bool is_in(const void *at, const void *list, size_t bytes)
{
	return (uintptr_t)at - (uintptr_t)list < bytes;
}

static bool is_engines(const void *at)
{
	const struct soft_engine *engine = touched_engine;
	const struct soft_budget *budget = &engine->budget;

	return is_in(at, engine->code_write, engine->code_bytes) ||
	       is_in(at, engine->blocks, CODE_REGIONS * budget->region_blocks *
						 sizeof(*engine->blocks)) ||
	       is_in(at, engine->maps,
		     CODE_REGIONS * budget->region_maps * sizeof(*engine->maps)) ||
	       is_in(at, engine->links,
		     CODE_REGIONS * budget->region_links * sizeof(*engine->links)) ||
	       is_in(at, engine->kept, CODE_REGIONS * budget->region_kept_bytes) ||
	       is_in(at, engine->hash,
		     (uintptr_t)(engine->history + HISTORY_ENTRIES) - (uintptr_t)engine->hash);
}

bool __real_touch_large(void *at);
bool __wrap_touch_large(void *at);
bool __wrap_touch_large(void *at)
{
	bool is_there;

	expect(is_engines(at), "a large page begins where something is touched");
	is_there = is_engines(at) && __real_touch_large(at);
	asked_bytes += is_there ? TOUCH_LARGE_BYTES : 0;
	return is_there;
}

/* Bytes of code and of the lists that say what is in it; *ret_pages: pages of the code. */
static size_t used_bytes(const struct soft_engine *engine, size_t *ret_pages)
{
	const size_t code = soft_code_used(engine);
	size_t bytes = code;

	for (unsigned n = 0; n < CODE_REGIONS; n++) {
		const struct code_region *region = &engine->regions[n];

		bytes += region->blocks * sizeof(*engine->blocks) +
			 region->maps * sizeof(*engine->maps) +
			 region->links * sizeof(*engine->links) + region->kept;
	}
	*ret_pages = code / PAGE_BYTES;
	return bytes;
}

/* Each block: jmp to the next. */
static void make_code(void)
{
	static const uint8_t block[BLOCK_GUEST_BYTES] = { 0xeb, BLOCK_GUEST_BYTES - 2 };

	for (unsigned n = 0; n < BLOCKS; n++)
		memcpy(ram + CODE + n * BLOCK_GUEST_BYTES, block, sizeof(block));
	ram[CODE + BLOCKS * BLOCK_GUEST_BYTES] = HLT;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* Faults of a run; *ret_pages: how many pages of code there are then. */
static long run_in(struct guest guest, size_t *ret_pages)
{
	struct engine_state state = { .nmi_pending = false };
	size_t used;
	long before;
	long taken;

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.rip = CODE;
	state.x86.rflags = 2;
	state.x86.gpr[4] = STACK;
	engine_set(guest.cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	asked_bytes = 0;
	touched_engine = (const struct soft_engine *)guest.engine;
	before = faults();
	if (engine_run(guest.cpu) != ENGINE_EXIT_HALT)
		abort();
	taken = faults() - before;
	used = used_bytes((const struct soft_engine *)guest.engine, ret_pages);
	expect(!touches || asked_bytes >= used, "what is used was asked for");
	end(guest);
	return taken;
}

static long run(size_t *ret_pages)
{
	return run_in(begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0), ret_pages);
}

/* `end`: of the code so many bytes were touched before. */
static long run_going_on(size_t end)
{
	const struct engine_options options = { .overhead_bytes = ENGINE_DEFAULT_OVERHEAD_BYTES,
						.cpus = 1, .goes_on = true };
	struct guest guest = begin_with(&options);
	size_t pages;

	touched_engine = (const struct soft_engine *)guest.engine;
	engine_touch_ahead(guest.engine, 0, end);
	return run_in(guest, &pages);
}

/* In memory without a name, which begins where the host likes: each time elsewhere. */
static void run_with_notes(void)
{
	enum { APART_BYTES = TOUCH_LARGE_BYTES / 4 };
	const struct engine_options options = { .overhead_bytes = ENGINE_DEFAULT_OVERHEAD_BYTES,
						.cpus = 1, .notes_code = true };
	size_t pages;

	for (unsigned n = 0; n < TOUCH_LARGE_BYTES / APART_BYTES; n++) {
		run_in(begin_with(&options), &pages);
		expect(mmap(NULL, APART_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
			       MAP_FAILED,
		       "others have memory as well");
	}
}

int main(void)
{
	enum { LEAST_PAGES = 256 };
	size_t pages;
	long with, without, going_on, ahead;

	make_ram(RAM_BYTES);
	make_code();
	run(&pages); /* what the process itself touches first */
	with = run(&pages);
	going_on = run_going_on(0);
	ahead = run_going_on(pages * PAGE_BYTES);
	run_with_notes();
	touches = false;
	without = run(&pages);
	printf("faults for %zu pages of code: %ld, and %ld without\n", pages, with, without);
	expect(pages >= LEAST_PAGES, "there is code enough");
	expect(with + (long)pages / 2 < without || without < (long)pages / 2,
	       "each page is asked for once, or the host has large ones");
	printf("of a guest that goes on: %ld, and %ld once they were touched\n", going_on, ahead);
	expect(ahead + (long)pages / 2 < going_on || going_on < (long)pages / 2,
	       "those that were touched are there, or the host has large ones");
	return failures != 0;
}
