/*
 * How often the host is asked for a page of the code cache, by counts: a guest of BLOCKS blocks
 * that runs once. With pages that are touched ahead (code/touch.c) each is asked for once, and
 * without, which is the control, once more for the view that is executed. What is used of code and
 * of its lists lies in what was asked for. Of an engine that goes on a guest's own thread asks for
 * none of those that somebody else has touched.
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

bool __real_touch_large(void *at);
bool __wrap_touch_large(void *at);
bool __wrap_touch_large(void *at)
{
	const bool is_there = __real_touch_large(at);

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

	engine_touch_ahead(guest.engine, 0, end);
	return run_in(guest, &pages);
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
