/*
 * The life of an engine and of its processors: creating them, running them, what is said to them
 * from outside.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/common.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/translate.h"
#include "engine/soft/translate/translate_encoding.h"
#include "lib/check.h"
#include "lib/large_map.h"
#include "soft_internal.h"

void *soft_reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static bool keep_own(void *at, size_t bytes) { return !madvise(at, bytes, MADV_WIPEONFORK); }

void *soft_reserve_own(size_t bytes)
{
	void *at = soft_reserve(bytes);

	if (at && !keep_own(at, bytes)) {
		munmap(at, bytes);
		return NULL;
	}
	return at;
}

#ifdef UMBRA_SPECULATION_UNMENDED
enum { IS_MENDED = false };
#else
enum { IS_MENDED = true };
#endif

/*
 * Never canonical: what is not cached has no canonical address for a guest that does not guess. The
 * low 12 bits are ones, so that those of an entry say whether it is one. The control of the test of
 * speculation is built without the secret: there it is the address itself, and 0xfff.
 */
static int soft_make_poison(struct soft_engine *engine)
{
	uint64_t secret;

	if (getrandom(&secret, sizeof(secret), 0) != sizeof(secret))
		return -EAGAIN;
	secret = (secret & ~(3ull << 62)) | 1ull << 62;
	engine->poison = (IS_MENDED ? secret : 0) | PAGE_OFFSET_MASK;
	return 0;
}

/* munmap() of what may never have come to be. */
static void release(void *at, size_t bytes)
{
	if (at && at != MAP_FAILED)
		munmap(at, bytes);
}

static uint64_t frames_of(const struct soft_engine *engine)
{
	return guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;
}

struct list { void **at; size_t bytes; };

enum { LISTS_LOOKED_UP = 8, LISTS = 21 }; /* the first of them */

/*
 * Everything beside the code whose size the budget or the guest's memory says, one behind the
 * other: what all code needs, then what is used from its begin on.
 */
static void get_lists(struct soft_engine *engine, struct list ret[LISTS])
{
	const struct soft_budget *budget = &engine->budget;
	const struct list lists[LISTS] = {
		{ (void **)&engine->hash, HASH_BUCKETS * sizeof(*engine->hash) },
		{ (void **)&engine->history, HISTORY_ENTRIES * sizeof(*engine->history) },
		{ (void **)&engine->translation, soft_translation_bytes() },
		{ (void **)&engine->scratch, 2 * LARGEST_PART_BYTES },
		{ (void **)&engine->known_places, soft_known_places_bytes() },
		{ (void **)&engine->draft, soft_draft_bytes() },
		{ (void **)&engine->cpu_draft, soft_draft_bytes() },
		{ (void **)&engine->regions, CODE_REGIONS * sizeof(*engine->regions) },
		{ (void **)&engine->blocks,
		  CODE_REGIONS * budget->region_blocks * sizeof(*engine->blocks) },
		{ (void **)&engine->maps,
		  CODE_REGIONS * budget->region_maps * sizeof(*engine->maps) },
		{ (void **)&engine->links,
		  CODE_REGIONS * budget->region_links * sizeof(*engine->links) },
		{ (void **)&engine->kept, CODE_REGIONS * budget->region_kept_bytes },
		{ (void **)&engine->slot_names, JUMP_SLOTS * sizeof(*engine->slot_names) },
		{ (void **)&engine->slot_buckets, SLOT_BUCKETS * sizeof(*engine->slot_buckets) },
		{ (void **)&engine->empty_slots, JUMP_SLOTS * sizeof(*engine->empty_slots) },
		{ (void **)&engine->page_blocks, frames_of(engine) * sizeof(*engine->page_blocks) },
		{ (void **)&engine->frame_flags, frames_of(engine) },
		{ (void **)&engine->frame_writes, frames_of(engine) },
		{ (void **)&engine->frame_holders, frames_of(engine) },
		{ (void **)&engine->table_versions,
		  frames_of(engine) * sizeof(*engine->table_versions) },
		{ (void **)&engine->uses, soft_code_uses_bytes(engine) },
	};

	memcpy(ret, lists, sizeof(lists));
}

static size_t page_end(size_t bytes) { return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

static size_t lists_bytes(const struct list *lists, unsigned count)
{
	size_t sum = 0;

	for (unsigned n = 0; n < count; n++)
		sum += page_end(lists[n].bytes);
	return sum;
}

/*
 * What is looked up lies in large pages where much of it is needed at once; otherwise not, since
 * who is forked pays for each of those that it writes to. What is used from its begin on does not:
 * of one that the host has to find first (5 ms) the first tenth would be used.
 */
static void *take_memory(const struct soft_engine *engine, size_t bytes, size_t looked_up)
{
	return engine->goes_on ? large_map(bytes, looked_up) : soft_reserve(bytes);
}

static void release_memory(const struct soft_engine *engine, void *at, size_t bytes)
{
	if (engine->goes_on)
		large_unmap(at, bytes);
	else
		release(at, bytes);
}

static void release_lists(struct soft_engine *engine)
{
	struct list lists[LISTS];

	get_lists(engine, lists);
	release_memory(engine, *lists[0].at, lists_bytes(lists, LISTS));
}

static void soft_destroy(struct engine *opaque)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;

	assert(!engine->cpu_count);
	release(engine->code_write, engine->budget.code_bytes);
	release(engine->code_run, engine->budget.code_bytes);
	release(engine->notes, sizeof(*engine->notes));
	common_destroy(engine->commons);
	release_lists(engine);
	free(engine);
}

/*
 * The same without a name: a profiler (perf) looks up what is translated as a program runs only
 * where code lies in memory that is nobody's file. The second view is a mapping of its own from the
 * begin, and loses the right to be written before it gets that to be executed.
 */
static int make_nameless_code_cache(struct soft_engine *engine)
{
	const size_t bytes = engine->code_bytes;

	engine->code_write = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				  -1, 0);
	if (engine->code_write == MAP_FAILED)
		return -ENOMEM;
	engine->code_run = mremap(engine->code_write, 0, bytes, MREMAP_MAYMOVE);
	if (engine->code_run == MAP_FAILED ||
	    mprotect(engine->code_run, bytes, PROT_READ | PROT_EXEC))
		return -ENOMEM;
	madvise(engine->code_write, bytes, MADV_DONTFORK);
	return 0;
}

/* The code cache as two views of the same memory: one is written, the other executed. */
static int make_code_cache(struct soft_engine *engine)
{
	const size_t bytes = engine->budget.code_bytes;
	int fd;
	int error = 0;

	engine->code_bytes = bytes;
	if (engine->notes)
		return make_nameless_code_cache(engine);
	fd = memfd_create("umbra-code", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)engine->code_bytes)) {
		error = -errno;
	} else {
		engine->code_write = large_map_file(bytes, PROT_READ | PROT_WRITE, fd);
		engine->code_run = large_map_file(bytes, PROT_READ | PROT_EXEC, fd);
		if (engine->code_write == MAP_FAILED || engine->code_run == MAP_FAILED)
			error = -ENOMEM;
		else
			madvise(engine->code_write, engine->code_bytes, MADV_DONTFORK);
	}
	close(fd);
	return error;
}

static int copy_piece(const struct soft_engine *engine, int code_fd, size_t from, size_t end)
{
	while (from < end) {
		const ssize_t got =
			pwrite(code_fd, engine->code_run + from, end - from, (off_t)from);

		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		from += (size_t)got;
	}
	return 0;
}

/*
 * What is used of the code, from the view that is executed. It is written to the file: through a
 * mapping each page would be missed, and made of zeros first.
 */
static int copy_code(const struct soft_engine *engine, int code_fd)
{
	int error = copy_piece(engine, code_fd, 0,
			       CODE_SLOT_STUBS + engine->slot_count * SLOT_STUB_BYTES);

	for (unsigned n = 0; n < CODE_REGIONS && !error; n++)
		error = copy_piece(engine, code_fd, engine->regions[n].start,
				   engine->regions[n].used);
	return error;
}

/*
 * What was forked has no view of the code that can be written, and must not: it would be the other
 * process's code, too. The other view leads to that until it is replaced by a copy.
 */
static int soft_engine_forked(struct engine *engine, int code_fd)
{
	struct soft_engine *soft = (struct soft_engine *)engine;
	const int in_place = MAP_SHARED | MAP_FIXED;
	int error;

	soft->notes = NULL; /* nobody takes them here */
	soft->code_held = 0; /* by the other one, of its own */
	soft_touch_little(soft);
	if (mmap(soft->code_write, soft->code_bytes, PROT_READ | PROT_WRITE, in_place, code_fd,
		 0) == MAP_FAILED)
		return -errno;
	madvise(soft->code_write, soft->code_bytes, MADV_DONTFORK);
	error = copy_code(soft, code_fd);
	if (error)
		return error;
	if (mmap(soft->code_run, soft->code_bytes, PROT_READ | PROT_EXEC, in_place, code_fd, 0) ==
	    MAP_FAILED)
		return -errno;
	/* the file is another one; a region that is as it was is not copied for that */
	for (unsigned n = 0; n < CODE_REGIONS; n++) {
		struct code_region *region = &soft->regions[n];
		const size_t used = region->used - region->start;

		if (region->touched.code != used)
			region->touched.code = used;
	}
	return 0;
}

/*
 * What caches the guest's page tables is each process's own. Nothing is left of it, so that nobody
 * holds a page table either, and no jump is known. What is only one processor's that forgets
 * itself, while others do something else (soft_engine_prepare_thread()).
 */
static int soft_engine_forked_bare(struct engine *engine)
{
	struct soft_engine *soft = (struct soft_engine *)engine;
	bool mapped = !soft->commons || common_forked(soft->commons);

	soft->is_forked = true;
	for (unsigned n = 0; n < soft->cpu_count && mapped; n++)
		mapped = mmu_map_again(soft->cpus[n]->mmu);
	return mapped ? 0 : -ENOMEM;
}

/* The view that can be written was not inherited. */
static void soft_engine_leave_code(struct engine *engine)
{
	const struct soft_engine *soft = (const struct soft_engine *)engine;

	munmap(soft->code_run, soft->code_bytes);
}

static int make_secrets(struct soft_engine *engine)
{
	if (getrandom(&engine->secret, 8, 0) != 8 || getrandom(&engine->no_key, 8, 0) != 8)
		return -EAGAIN;
	return soft_make_poison(engine);
}

static int make_lists(struct soft_engine *engine)
{
	struct list lists[LISTS];
	uint8_t *at;

	get_lists(engine, lists);
	at = take_memory(engine, lists_bytes(lists, LISTS), lists_bytes(lists, LISTS_LOOKED_UP));
	if (!at)
		return -ENOMEM;
	for (unsigned n = 0; n < LISTS; n++) {
		*lists[n].at = at;
		at += page_end(lists[n].bytes);
	}
	if (!keep_own(engine->frame_holders, frames_of(engine)) ||
	    !keep_own(engine->table_versions, frames_of(engine) * sizeof(*engine->table_versions)))
		return -ENOMEM;
	soft_make_regions(engine);
	return 0;
}

/* Windows that nobody here can write: a guest that does is told so, as of such an overlay. */
static void mark_windows(struct soft_engine *engine)
{
	const struct guest_memory *memory = engine->memory;

	for (uint64_t at = memory->window_read_only; at < memory->window_bytes; at += PAGE_BYTES) {
		uint8_t *page = guest_window_page(memory, (unsigned)(at / PAGE_BYTES));

		engine->frame_flags[soft_frame(engine, page)] |= FRAME_READ_ONLY;
	}
}

static void soft_engine_set_model(struct engine *engine, const struct cpu_model *model,
				  const struct cpu_host *host)
{
	struct soft_engine *soft = (struct soft_engine *)engine;

	soft->model = model;
	soft->clears_buffers = host->leaks_buffers;
	soft->bounds_all = model && !cpu_model_tells_immunity(model);
}

static bool make_commons(struct soft_engine *engine)
{
	if (!engine->budget.common_spaces)
		return true;
	engine->commons = common_create(engine);
	return engine->commons;
}

static bool make_notes(struct soft_engine *engine, const struct engine_options *options)
{
	if (!options->notes_code)
		return true;
	engine->notes = soft_reserve(sizeof(*engine->notes));
	return engine->notes;
}

static struct engine *soft_create(const struct guest_memory *memory,
				  const struct engine_options *options)
{
	struct soft_engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return NULL;
	engine->base.driver = &soft_engine_driver;
	engine->memory = memory;
	engine->ram = memory->ram;
	if (CHECKS_RUN || options->without & ENGINE_WITHOUT_TRUST)
		engine->on_copy = soft_check_copy;
	engine->on_copy_context = engine;
	engine->budget = budget_divide(options);
	engine->goes_on = options->goes_on;
	engine->watches_tables = !(options->without & ENGINE_WITHOUT_TABLES);
	engine->fills_ahead = !(options->without & ENGINE_WITHOUT_BATCHES);
	engine->enters_in_word = !(options->without & ENGINE_WITHOUT_WORDS);
	engine->takes_shortcuts = !(options->without & ENGINE_WITHOUT_SHORTCUTS);
	engine->recalls_pages = !(options->without & ENGINE_WITHOUT_PAGES);
	engine->keeps_victims = !(options->without & ENGINE_WITHOUT_VICTIMS);
	engine->uses_slots = !(options->without & ENGINE_WITHOUT_SLOTS);
	engine->makes_strips = !(options->without & ENGINE_WITHOUT_STRIPS);
	engine->looks_up_tables = !(options->without & ENGINE_WITHOUT_INDEXES);
	engine->drops_dead_flags = !(options->without & ENGINE_WITHOUT_DEAD_FLAGS);
	engine->makes_traces = !(options->without & ENGINE_WITHOUT_TRACES);
	engine->makes_traces_at_once = options->without & ENGINE_WITHOUT_WAITING;
	engine->evicts_by_use = !(options->without & ENGINE_WITHOUT_USES);
	engine->trim.is_left_out = options->without & ENGINE_WITHOUT_TRIMS;
	engine->tables_left_open = options->mmu_tables_left_open;
	if (make_notes(engine, options) && !make_code_cache(engine) && !make_secrets(engine) &&
	    !make_lists(engine) && make_commons(engine)) {
		mark_windows(engine);
		return &engine->base;
	}
	soft_destroy(&engine->base);
	return NULL;
}

/* What a reset processor's XSAVE writes: x87 control word and MXCSR. */
static void reset_vectors(struct soft_cpu *cpu)
{
	const uint16_t control_word = 0x37f;
	const uint32_t mxcsr = 0x1f80;

	memcpy(cpu->vector, &control_word, sizeof(control_word));
	memcpy(cpu->vector + 24, &mxcsr, sizeof(mxcsr));
}

/* What is forked knows none (soft_engine_forked_bare()): their whole pages are not copied. */
static bool keep_jumps_own(struct soft_cpu *cpu)
{
	const uintptr_t whole = ~(uintptr_t)PAGE_OFFSET_MASK;
	const uintptr_t begin = ((uintptr_t)cpu->jump_cache + PAGE_OFFSET_MASK) & whole;
	const uintptr_t end = (uintptr_t)(cpu->jump_sites + JUMP_SITES) & whole;

	return keep_own((void *)begin, end - begin);
}

static struct engine_cpu *soft_cpu_create(struct engine *engine, const struct engine_ops *ops,
					  void *context)
{
	struct soft_engine *soft = (struct soft_engine *)engine;
	struct soft_cpu *cpu =
		soft->cpu_count < MAX_CPUS ? take_memory(soft, sizeof(*cpu), sizeof(*cpu)) : NULL;

	if (!cpu)
		return NULL;
	cpu->base.driver = &soft_engine_driver;
	cpu->self = cpu;
	cpu->poison = soft->poison;
	cpu->engine = soft;
	cpu->ops = ops;
	cpu->ops_context = context;
	reset_vectors(cpu);
	cpu->shares_holder = soft->cpu_count >= HOLDERS - 1;
	cpu->holder = (uint8_t)(1 << (cpu->shares_holder ? HOLDERS - 1 : soft->cpu_count));
	soft_pass_out(cpu);
	if (!keep_jumps_own(cpu) || !mmu_create(cpu)) {
		release_memory(soft, cpu, sizeof(*cpu));
		return NULL;
	}
	if (soft->cpu_count) {
		const struct soft_cpu *first = soft->cpus[0];

		cpu->thunk_memory = first->thunk_memory;
		cpu->thunk_commit = first->thunk_commit;
		cpu->thunk_system = first->thunk_system;
		cpu->thunk_chain = first->thunk_chain;
		cpu->thunk_miss = first->thunk_miss;
		cpu->thunk_indirect = first->thunk_indirect;
		cpu->thunk_floating = first->thunk_floating;
		cpu->thunk_way_out = first->thunk_way_out;
		cpu->thunk_slot = first->thunk_slot;
		cpu->thunk_site = first->thunk_site;
	} else if (!soft->enter) {
		soft_make_thunks(soft, cpu);
		soft_note_thunks(soft);
	}
	soft_make_slots(cpu);
	assert(soft->cpu_count < MAX_CPUS);
	soft->cpus[soft->cpu_count++] = cpu;
	return &cpu->base;
}

/* In any order: the last one takes the number of this one. */
static void soft_cpu_destroy(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;
	struct soft_engine *engine = cpu->engine;

	assert(!cpu->executing && engine->owner != cpu);
	soft_acquire(&engine->lock);
	for (unsigned n = 0; n < engine->cpu_count; n++)
		if (engine->cpus[n] == cpu) {
			engine->cpus[n] = engine->cpus[--engine->cpu_count];
			break;
		}
	soft_release(&engine->lock);
	soft_release_thread(cpu);
	mmu_destroy(cpu->mmu);
	release_memory(engine, cpu, sizeof(*cpu));
}

void check_engine(struct soft_engine *engine)
{
	check_regions(engine);
	check_stubs(engine);
	check_blocks(engine);
	check_links(engine);
	for (unsigned n = 0; n < engine->cpu_count; n++) {
		check_spaces(engine->cpus[n]->mmu, engine->cpus[n]);
		check_jump_cache(engine->cpus[n]);
	}
	check_common(engine);
}

static enum engine_exit soft_engine_run(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;
	void (*enter)(struct soft_cpu *, void *) =
		(void (*)(struct soft_cpu *, void *))cpu->engine->enter;

	cpu->exit = ENGINE_EXIT_NONE;
	soft_load_vectors(cpu);
	soft_enter(cpu);
	soft_start_executing(cpu);
	enter(cpu, soft_dispatch(cpu));
	soft_stop_executing(cpu);
	soft_pass_out(cpu);
	soft_exit(cpu);
	soft_store_vectors(cpu);
	return cpu->exit;
}

void soft_kick(struct soft_cpu *cpu, uint32_t why)
{
	__atomic_fetch_or(&cpu->kick, why, __ATOMIC_SEQ_CST);
	soft_leave_mode(cpu);
}

static void soft_engine_kick(struct engine_cpu *opaque)
{
	soft_kick((struct soft_cpu *)opaque, KICK_EVENT);
}

static bool soft_engine_has_nmi(const struct engine_cpu *opaque)
{
	return __atomic_load_n(&((const struct soft_cpu *)opaque)->nmi_pending, __ATOMIC_SEQ_CST);
}

static void soft_engine_nmi(struct engine_cpu *opaque)
{
	enum { NMIS_MAX = 2 };
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;
	uint32_t pending = __atomic_load_n(&cpu->nmi_pending, __ATOMIC_SEQ_CST);

	/*
	 * one is handled while one waits (SDM Vol. 3A 6.7.1): before the first is taken two can
	 * have come
	 */
	while (pending < NMIS_MAX &&
	       !__atomic_compare_exchange_n(&cpu->nmi_pending, &pending, pending + 1, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	soft_kick(cpu, KICK_EVENT);
}

static void soft_engine_stop(struct engine_cpu *opaque, enum engine_exit why)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	__atomic_store_n(&cpu->stop_asked, why, __ATOMIC_SEQ_CST);
	soft_engine_kick(opaque);
}

static size_t soft_engine_statistics(const struct engine_cpu *opaque, char *text, size_t bytes)
{
	const struct soft_cpu *cpu = (const struct soft_cpu *)opaque;
	const struct soft_engine *engine = cpu->engine;
	size_t code_bytes = soft_code_used(engine);
	size_t used;
	int n = snprintf(text, bytes,
			 "rip %lx\nengine: translations %lu, fills %lu, dispatches %lu, "
			 "chains %lu, system %lu, split locks %lu, KiB %zu\n",
			 cpu->state.rip, cpu->translations, cpu->fills, cpu->misses, cpu->chains,
			 cpu->systems, cpu->split_locks, code_bytes >> 10);

	if (n < 0)
		return 0;
	if ((size_t)n >= bytes - 1)
		return bytes - 1;
	used = (size_t)n + soft_mmu_statistics(cpu, text + n, bytes - (size_t)n);
	if (used < bytes - 1)
		used += soft_jump_statistics(cpu, text + used, bytes - used);
	if (cpu == engine->cpus[0] && used < bytes - 1)
		used += soft_code_statistics(engine, text + used, bytes - used);
	return used;
}

static void soft_engine_set_last_words(struct engine *engine, char *text, size_t bytes)
{
	((struct soft_engine *)engine)->last_words = text;
	((struct soft_engine *)engine)->last_words_bytes = bytes;
}

const struct engine_driver soft_engine_driver = {
	.name = "soft",
	.create = soft_create,
	.destroy = soft_destroy,
	.cpu_create = soft_cpu_create,
	.cpu_destroy = soft_cpu_destroy,
	.prepare_thread = soft_engine_prepare_thread,
	.set_model = soft_engine_set_model,
	.set_last_words = soft_engine_set_last_words,
	.get = soft_engine_get,
	.set = soft_engine_set,
	.call_xmm = soft_engine_call_xmm,
	.run = soft_engine_run,
	.kick = soft_engine_kick,
	.stop = soft_engine_stop,
	.nmi = soft_engine_nmi,
	.has_nmi = soft_engine_has_nmi,
	.statistics = soft_engine_statistics,
	.memory_written = soft_engine_memory_written,
	.trim = soft_engine_trim,
	.flush = soft_engine_flush,
	.place_overlay = soft_engine_place_overlay,
	.take_dirty = soft_engine_take_dirty,
	.find_written = soft_engine_find_written,
	.note_written = soft_engine_note_written,
	.note_use = soft_engine_note_use,
	.find_used = soft_engine_find_used,
	.find_code = soft_engine_find_code,
	.make_code = soft_engine_make_code,
	.know_places = soft_engine_know_places,
	.touch_ahead = soft_engine_touch_ahead,
	.take_code = soft_engine_take_code,
	.list = soft_engine_list,
	.leave_code = soft_engine_leave_code,
	.hold_code = soft_engine_hold_code,
	.release_code = soft_engine_release_code,
	.forked_bare = soft_engine_forked_bare,
	.forked = soft_engine_forked,
};
