/* What is in an address space, and how it goes: see space.h. */
#include "space.h"

#include <assert.h>

#include "common.h"
#include "engine/soft/code/code.h"
#include "page_table.h"

enum { HUGE_SHIFT = 30, HUGE_SHADOWS = 512, TABLES_AT_ONCE = 64 };

static struct soft_engine *engine_of(const struct mmu *mmu) { return mmu->engine; }

/* ---- entries ---- */

static uint64_t *read_entry(struct mmu *mmu, const struct shadow *shadow, unsigned page)
{
	struct table_pair *pair = space_pair(&mmu->spaces[shadow->space], shadow->view);

	return table_entry(pair->read, shadow_gva(shadow, page));
}

static uint64_t *write_entry(struct mmu *mmu, const struct shadow *shadow, unsigned page)
{
	struct table_pair *pair = space_pair(&mmu->spaces[shadow->space], shadow->view);

	return table_entry(pair->write, shadow_gva(shadow, page));
}

/* Others may look it up meanwhile. */
static void set_entry(uint64_t *at, uint64_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
}

/* Where an entry that is not 0 leads for this address. */
static const uint8_t *entry_hva(const struct soft_engine *engine, uint64_t entry, uint64_t gva)
{
	return (const uint8_t *)((entry ^ engine->poison) + gva);
}

static uint64_t entry_frame(const struct soft_engine *engine, uint64_t entry, uint64_t gva)
{
	return soft_frame(engine, entry_hva(engine, entry, gva));
}

/* Pages of one word. */
static void drop_word(struct mmu *mmu, struct shadow *shadow, unsigned word, uint64_t which)
{
	for (uint64_t left = shadow->view == VIEW_CODE ? 0 : which; left; left &= left - 1) {
		unsigned page = word * 64 + (unsigned)__builtin_ctzll(left);

		set_entry(read_entry(mmu, shadow, page), 0);
		if (shadow_has(shadow->written, page))
			set_entry(write_entry(mmu, shadow, page), 0);
	}
	shadow->cached[word] &= ~which;
	shadow->written[word] &= ~which;
}

static void drop_pages(struct mmu *mmu, struct shadow *shadow)
{
	uint64_t dropped = 0;

	for (unsigned word = 0; word < SHADOW_WORDS; word++) {
		dropped |= shadow->cached[word];
		drop_word(mmu, shadow, word, shadow->cached[word]);
	}
	if (dropped && shadow->view == VIEW_CODE)
		space_forget_jumps(mmu, &mmu->spaces[shadow->space]);
}

static void drop_one(struct mmu *mmu, struct shadow *shadow, unsigned page)
{
	if (!shadow_has(shadow->cached, page))
		return;
	drop_word(mmu, shadow, page / 64, 1ull << page % 64);
	if (shadow->view == VIEW_CODE)
		space_forget_jumps(mmu, &mmu->spaces[shadow->space]);
}

static bool is_empty(const struct shadow *shadow)
{
	uint64_t bits = 0;

	for (unsigned word = 0; word < SHADOW_WORDS; word++)
		bits |= shadow->cached[word];
	return !bits;
}

void space_forget_jumps(struct mmu *mmu, struct address_space *space)
{
	space->epoch = ++mmu->epochs;
	if (space == mmu->spaces)
		soft_empty_slots(mmu->cpu);
	soft_leave_mode(mmu->cpu);
}

/* ---- which page tables a shadow page came through ---- */

/* Of a table that has been written: whether it was elsewhere than at the one entry that counts. */
static bool has_same_entry(const struct mmu *mmu, const struct shadow *shadow, unsigned n)
{
	const uint8_t *table = engine_of(mmu)->ram + (uint64_t)shadow->frames[n] * PAGE_BYTES;

	if (shadow->places[n] == SHADOW_NO_ENTRY ||
	    !page_table_is_watched(engine_of(mmu), shadow->frames[n]))
		return false;
	return page_table_entry(table + shadow->places[n], shadow->entry_bytes) ==
	       shadow->entries[n];
}

static bool is_stale(const struct mmu *mmu, const struct shadow *shadow)
{
	for (unsigned n = 0; n < shadow->levels; n++)
		if (page_table_has_changed(engine_of(mmu), shadow->frames[n],
					   shadow->versions[n]) &&
		    !has_same_entry(mmu, shadow, n))
			return true;
	return false;
}

/*
 * A way of the same tables through other entries is another one, but for a D that a write has set
 * since: it is taken over, so that the guest's taking it away is seen.
 */
static bool is_way_of(const struct mmu *mmu, struct shadow *shadow, const struct page_walk *found)
{
	const uint64_t dirty = 0x40;

	if (shadow->levels != found->levels - found->level)
		return false;
	for (unsigned n = 0; n < shadow->levels; n++) {
		uint64_t entry = found->entry[found->level + n];

		if (shadow->frames[n] != soft_frame(engine_of(mmu), found->at[found->level + n]))
			return false;
		if (shadow->places[n] == SHADOW_NO_ENTRY)
			continue;
		if ((shadow->entries[n] | (entry & dirty)) != entry)
			return false;
		shadow->entries[n] = entry;
	}
	return true;
}

/* False: the tables have changed meanwhile. */
static bool take_way(struct mmu *mmu, struct shadow *shadow, const struct page_walk *found)
{
	struct soft_engine *engine = engine_of(mmu);

	drop_pages(mmu, shadow);
	shadow->levels = (uint8_t)(found->levels - found->level);
	shadow->entry_bytes = (uint8_t)found->entry_bytes;
	for (unsigned n = 0; n < shadow->levels; n++) {
		const uint8_t *at = found->at[found->level + n];
		uint64_t frame = soft_frame(engine, at);

		shadow->frames[n] = (uint32_t)frame;
		shadow->versions[n] = page_table_note(engine, frame);
		shadow->entries[n] = found->entry[found->level + n];
		shadow->places[n] = found->level + n ? (uint16_t)((uintptr_t)at & PAGE_OFFSET_MASK)
						     : SHADOW_NO_ENTRY;
	}
	mmu->spaces[shadow->space].has_changes |= is_stale(mmu, shadow);
	return soft_walk_holds(found);
}

/* ---- shadow pages of a space ---- */

/* For one that has none any more: whatever it takes. */
static struct shadow *take_shadow(struct mmu *mmu, struct shadow_key key)
{
	uint32_t *list = &mmu->spaces[key.space].shadows[key.global];
	struct shadow *shadow;

	while (!(shadow = shadow_take(&mmu->pool, key)))
		if (!mmu_evict(mmu)) {
			space_drop(mmu, &mmu->spaces[0]);
			space_drop(mmu, mmu->current);
		}
	shadow->next_in_space = *list;
	*list = (uint32_t)(shadow - mmu->pool.shadows) + 1;
	return shadow;
}

/* Nobody else has anything: the current space and the kernel's begin anew. */
static void give_everything_back(struct mmu *mmu)
{
	space_drop(mmu, &mmu->spaces[0]);
	space_drop(mmu, mmu->current);
	table_give_back(&mmu->tables, &mmu->spaces[0].pairs[0]);
	for (unsigned n = 0; n < SPACE_PAIRS; n++)
		table_give_back(&mmu->tables, &mmu->current->pairs[n]);
	mmu->count->spaces_given_back++;
}

static bool open_tables(struct mmu *mmu, struct table_pair *pair, uint64_t gva)
{
	while (!table_open(&mmu->tables, pair, gva))
		if (!mmu_evict(mmu)) {
			give_everything_back(mmu);
			return table_open(&mmu->tables, pair, gva);
		}
	return true;
}

static struct shadow_key key_of(const struct address_space *space, unsigned view, uint64_t gva,
				bool global)
{
	return (struct shadow_key){ .number = shadow_number(gva),
				    .space = space->number,
				    .view = (uint8_t)view,
				    .global = global };
}

static struct shadow *shadow_at(struct mmu *mmu, const struct address_space *space, unsigned view,
				uint64_t gva, bool global)
{
	if (!space->shadows[global])
		return NULL;
	return shadow_find(&mmu->pool, key_of(space, view, gva, global));
}

/* NULL: the host is short of memory. */
static struct shadow *shadow_for(struct mmu *mmu, struct address_space *space, unsigned view,
				 uint64_t gva, bool global)
{
	struct shadow *shadow = shadow_at(mmu, space, view, gva, global);

	if (shadow)
		return shadow;
	if (view != VIEW_CODE && !open_tables(mmu, space_pair(space, view), gva))
		return NULL;
	return take_shadow(mmu, key_of(space, view, gva, global));
}

void space_note_miss(struct space_place at, uint64_t gva)
{
	struct table_pair *pair = space_pair(at.space, at.view);

	while (!table_note_miss(&at.set->tables, pair, gva))
		if (!mmu_evict(at.set))
			give_everything_back(at.set);
}

bool space_has(struct space_place at, uint64_t gva, bool writable)
{
	const struct shadow *shadow = NULL;

	for (int global = 0; global < 2 && !shadow; global++)
		shadow = shadow_at(at.set, at.space, at.view, gva, global);
	return shadow && shadow_has(writable ? shadow->written : shadow->cached, shadow_page(gva));
}

unsigned space_cached_group(struct space_place at, uint64_t gva)
{
	unsigned first = shadow_page(gva) & ~(SPACE_GROUP_PAGES - 1u);
	uint64_t bits = 0;

	for (int global = 0; global < 2; global++) {
		const struct shadow *shadow = shadow_at(at.set, at.space, at.view, gva, global);

		bits |= shadow ? shadow->cached[first / 64] >> first % 64 : 0;
	}
	return bits & ((1u << SPACE_GROUP_PAGES) - 1);
}

/* The shadow page for a translation, which is noted in it. NULL: it is not cached. */
static struct shadow *prepare(struct mmu *mmu, unsigned view, struct address_space *space,
			      uint64_t gva, const struct page_walk *found)
{
	bool global = found->rights & RIGHT_GLOBAL;
	struct shadow *shadow = shadow_for(mmu, space, view, gva, global);
	struct shadow *other = shadow_at(mmu, space, view, gva, !global);

	if (!shadow)
		return NULL;
	if (other)
		drop_one(mmu, other, shadow_page(gva));
	if (!global && !is_way_of(mmu, shadow, found) && !take_way(mmu, shadow, found))
		return NULL;
	shadow_set(shadow->cached, shadow_page(gva));
	if (found->rights & RIGHT_LARGE) {
		shadow->large = true;
		if (found->page_bytes > 1u << SHADOW_SHIFT)
			space->huge |= 1ull << shadow->number / HUGE_SHADOWS % 64;
	}
	return shadow;
}

static bool leads_to(struct mmu *mmu, uint32_t place, uint64_t frame)
{
	const struct shadow *shadow = &mmu->pool.shadows[(place - 1) / SHADOW_PAGES];
	unsigned page = (place - 1) % SHADOW_PAGES;

	return shadow_has(shadow->written, page) &&
	       entry_frame(engine_of(mmu), *write_entry(mmu, shadow, page),
			   shadow_gva(shadow, page)) == frame;
}

static void note_writer(struct mmu *mmu, uint64_t frame, uint32_t place)
{
	struct writers *writers = &mmu->writers[frame];

	/* as in table_note_miss() */
	__atomic_fetch_or(&writers->slot[0], 0, __ATOMIC_RELAXED);
	if (writers_add(writers, place))
		return;
	for (unsigned n = 0; n < WRITERS_SLOTS; n++)
		if (!leads_to(mmu, writers->slot[n], frame))
			writers->slot[n] = 0;
	if (!writers_add(writers, place))
		writers->slot[WRITERS_SLOTS - 1] = WRITERS_MANY;
}

/*
 * In a common space others may have flushed since the walk: what it found may be over. And what the
 * frame was told to be may have been taken back.
 */
static bool is_late(const struct space_place *at, const struct page_walk *found)
{
	bool late = !at->set->cpu && found->flushes != at->space->flushes;

	at->set->count->late_entries += late;
	return late;
}

void space_insert(struct space_place at, uint64_t gva, uint8_t *hva, bool writable,
		  const struct page_walk *found)
{
	struct mmu *mmu = at.set;
	struct soft_engine *engine = engine_of(mmu);
	struct shadow *shadow =
		is_late(&at, found) ? NULL : prepare(mmu, at.view, at.space, gva, found);
	uint64_t base = gva & ~(uint64_t)PAGE_OFFSET_MASK;
	uint64_t value = ((uint64_t)hva - base) ^ engine->poison;
	unsigned page = shadow_page(gva);

	assert(at.view < VIEWS);
	/* docs/speculation.md: nothing there to forward */
	assert(at.view != VIEW_USER || found->rights & RIGHT_USER);
	if (!shadow)
		return;
	if (writable && !mmu->cpu) {
		page_table_hold(engine, soft_frame(engine, hva), HOLDER_COMMON, mmu->count);
		soft_mark_dirty(engine, hva);
	}
	set_entry(read_entry(mmu, shadow, page), value);
	if (writable) {
		shadow_set(shadow->written, page);
		set_entry(write_entry(mmu, shadow, page), value);
		note_writer(mmu, soft_frame(engine, hva), writers_place(&mmu->pool, shadow, page));
	} else if (shadow_has(shadow->written, page)) {
		/* it may have led elsewhere */
		set_entry(write_entry(mmu, shadow, page), 0);
		shadow->written[page / 64] &= ~(1ull << page % 64);
	}
}

bool space_note_jump(struct mmu *mmu, uint64_t linear, bool user, const struct page_walk *found)
{
	struct address_space *space = user ? mmu->current : &mmu->spaces[0];

	return prepare(mmu, VIEW_CODE, space, linear, found);
}

/* ---- write entries ---- */

static void revoke(struct mmu *mmu, struct shadow *shadow, unsigned page)
{
	set_entry(write_entry(mmu, shadow, page), 0);
	shadow->written[page / 64] &= ~(1ull << page % 64);
}

static void revoke_everywhere(struct mmu *mmu, uint64_t frame)
{
	for (uint32_t n = 0; n < mmu->pool.ever; n++)
		for (unsigned page = 0; page < SHADOW_PAGES; page++)
			if (leads_to(mmu, n * SHADOW_PAGES + page + 1, frame))
				revoke(mmu, &mmu->pool.shadows[n], page);
	mmu->count->writers_looked_for++;
}

void space_revoke_writes(struct mmu *mmu, uint64_t frame)
{
	struct writers *writers = &mmu->writers[frame];

	if (writers->slot[WRITERS_SLOTS - 1] == WRITERS_MANY)
		revoke_everywhere(mmu, frame);
	for (unsigned n = 0; n < WRITERS_SLOTS; n++) {
		uint32_t place = writers->slot[n];

		if (place && place != WRITERS_MANY && leads_to(mmu, place, frame))
			revoke(mmu, &mmu->pool.shadows[(place - 1) / SHADOW_PAGES],
			       (place - 1) % SHADOW_PAGES);
		writers->slot[n] = 0;
	}
}

/* ---- flushes ---- */

/* The page in one view; of a shadow page that has parts of larger ones everything. */
static void drop_in_view(struct mmu *mmu, struct address_space *space, unsigned view, uint64_t gva,
			 bool global)
{
	struct shadow *shadow = shadow_at(mmu, space, view, gva, global);

	if (!shadow)
		return;
	if (shadow->large)
		drop_pages(mmu, shadow);
	else
		drop_one(mmu, shadow, shadow_page(gva));
}

/* Parts of pages of more than 2 MiB: all shadow pages of that GiB that may have some. */
static void drop_huge(struct mmu *mmu, struct address_space *space, uint64_t gva, bool global)
{
	uint64_t huge = shadow_number(gva) / HUGE_SHADOWS;

	if (!(space->huge >> huge % 64 & 1))
		return;
	for (uint32_t n = space->shadows[global]; n; n = mmu->pool.shadows[n - 1].next_in_space) {
		struct shadow *shadow = &mmu->pool.shadows[n - 1];

		if (shadow->large && shadow->number / HUGE_SHADOWS == huge)
			drop_pages(mmu, shadow);
	}
}

static void drop_page(struct mmu *mmu, struct address_space *space, uint64_t gva, bool global)
{
	if (!space->shadows[global])
		return;
	drop_huge(mmu, space, gva, global);
	if (space->number) {
		drop_in_view(mmu, space, VIEW_USER, gva, global);
		drop_in_view(mmu, space, VIEW_KERNEL_AC, gva, global);
	} else {
		drop_in_view(mmu, space, VIEW_KERNEL, gva, global);
	}
	drop_in_view(mmu, space, VIEW_CODE, gva, global);
}

void space_drop_page(struct mmu *mmu, struct address_space *space, uint64_t gva)
{
	drop_page(mmu, space, gva, false);
	drop_page(mmu, space, gva, true);
}

void space_drop_global_page(struct mmu *mmu, struct address_space *space, uint64_t gva)
{
	drop_page(mmu, space, gva, true);
}

/*
 * Of one list, shadow pages that are stale, or every one; those that are empty are given back.
 */
static void drop_in_list(struct mmu *mmu, struct address_space *space, bool global,
			 bool only_stale)
{
	uint32_t *link = &space->shadows[global];

	while (*link) {
		struct shadow *shadow = &mmu->pool.shadows[*link - 1];

		if (!only_stale || is_stale(mmu, shadow)) {
			drop_pages(mmu, shadow);
			mmu->count->shadows_dropped++;
		} else {
			mmu->count->shadows_kept++;
		}
		if (is_empty(shadow)) {
			*link = shadow->next_in_space;
			shadow_release(&mmu->pool, shadow);
		} else {
			link = &shadow->next_in_space;
		}
	}
}

void space_drop_globals(struct mmu *mmu, struct address_space *space)
{
	drop_in_list(mmu, space, true, false);
}

void space_drop_locals(struct mmu *mmu, struct address_space *space)
{
	drop_in_list(mmu, space, false, false);
}

void space_drop(struct mmu *mmu, struct address_space *space)
{
	space_drop_locals(mmu, space);
	space_drop_globals(mmu, space);
	space->huge = 0;
}

/* ---- page tables that may be written ---- */

struct open_tables { unsigned count; uint32_t frames[TABLES_AT_ONCE]; };

static void add_open_table(struct open_tables *open, uint32_t frame)
{
	for (unsigned n = open->count; n-- > 0;)
		if (open->frames[n] == frame)
			return;
	if (open->count < TABLES_AT_ONCE)
		open->frames[open->count++] = frame;
}

static void find_open_tables(const struct mmu *mmu, const struct address_space *space,
			     const struct soft_cpu *cpu, struct open_tables *open)
{
	open->count = 0;
	for (uint32_t n = space->shadows[0]; n; n = mmu->pool.shadows[n - 1].next_in_space) {
		const struct shadow *shadow = &mmu->pool.shadows[n - 1];

		for (unsigned level = 0; level < shadow->levels; level++)
			if (page_table_is_held_here(cpu, shadow->frames[level]))
				add_open_table(open, shadow->frames[level]);
	}
}

/*
 * Finding what leads to a page table costs something, and its next write as well: not before there
 * are some.
 */
static void close_tables(struct mmu *mmu, const struct address_space *space, struct soft_cpu *cpu)
{
	struct open_tables open;

	find_open_tables(mmu, space, cpu, &open);
	if (open.count <= engine_of(mmu)->tables_left_open)
		return;
	for (unsigned n = 0; n < open.count; n++) {
		space_revoke_writes(cpu->mmu, open.frames[n]);
		common_close_table(cpu, open.frames[n]);
		page_table_let_go(cpu->engine, open.frames[n], cpu->holder);
	}
	mmu->count->tables_closed += open.count;
}

void space_sync(struct mmu *mmu, struct address_space *space, struct soft_cpu *cpu)
{
	struct soft_engine *engine = engine_of(mmu);
	uint64_t changes = __atomic_load_n(&engine->table_changes, __ATOMIC_SEQ_CST);

	mmu->count->syncs++;
	if (!engine->watches_tables) {
		space_drop_locals(mmu, space);
		return;
	}
	if (!space->has_changes && space->synced_at == changes)
		return;
	mmu->count->syncs_looked++;
	space->has_changes = false;
	close_tables(mmu, space, cpu);
	drop_in_list(mmu, space, false, true);
	space->synced_at = changes;
}

/* ---- invariants ---- */

static void check_entry(struct mmu *mmu, const struct shadow *shadow, unsigned page)
{
	const struct soft_engine *engine = engine_of(mmu);
	uint64_t read = *read_entry(mmu, shadow, page);
	uint64_t write = shadow_has(shadow->written, page) ? *write_entry(mmu, shadow, page) : 0;
	uint64_t offset =
		(uint64_t)(entry_hva(engine, read, shadow_gva(shadow, page)) - engine->ram);

	assert(read && !(offset % PAGE_BYTES) && offset / PAGE_BYTES < mmu->frames);
	if (write) {
		uint8_t flags = engine->frame_flags[offset / PAGE_BYTES];

		assert(write == read);
		assert(flags & FRAME_WRITTEN && !(flags & FRAME_CODE));
		assert(engine->frame_holders[offset / PAGE_BYTES] & mmu->holder);
		assert(writers_know(&mmu->writers[offset / PAGE_BYTES],
				    writers_place(&mmu->pool, shadow, page)));
	}
}

/* Invariant 4: what may be used is what the guest's tables say now. */
static void check_against_tables(struct mmu *mmu, const struct soft_cpu *cpu,
				 const struct shadow *shadow, unsigned page)
{
	const struct soft_engine *engine = engine_of(mmu);
	const struct address_space *space = &mmu->spaces[shadow->space];
	uint64_t gva = shadow_gva(shadow, page);
	struct page_walk now;
	bool found = soft_look_up(cpu, space->root, gva, &now);

	assert(found && now.rights & RIGHT_ACCESSED);
	assert(shadow->view != VIEW_USER || now.rights & RIGHT_USER);
	assert(shadow->view != VIEW_CODE || now.rights & RIGHT_EXEC);
	if (shadow->view == VIEW_CODE)
		return;
	assert(entry_hva(engine, *read_entry(mmu, shadow, page), gva) ==
	       soft_hva(engine, now.gpa & ~(uint64_t)PAGE_OFFSET_MASK));
	if (shadow_has(shadow->written, page))
		assert(now.rights & RIGHT_DIRTY && (now.rights & RIGHT_WRITE ||
						    (shadow->view != VIEW_USER &&
						     !(cpu->state.cr0 & CR0_WP))));
}

static void check_shadow(struct mmu *mmu, const struct soft_cpu *cpu, const struct shadow *shadow)
{
	const struct address_space *space = &mmu->spaces[shadow->space];
	bool is_fresh = engine_of(mmu)->watches_tables && !shadow->global && shadow->space &&
			(mmu->cpu || space_same_mode(&space->mode, &cpu->mmu->mode)) &&
			!is_stale(mmu, shadow);

	for (unsigned word = 0; word < SHADOW_WORDS; word++) {
		assert(!(shadow->written[word] & ~shadow->cached[word]));
		for (uint64_t left = shadow->cached[word]; left; left &= left - 1) {
			unsigned page = word * 64 + (unsigned)__builtin_ctzll(left);

			if (shadow->view != VIEW_CODE)
				check_entry(mmu, shadow, page);
			if (is_fresh)
				check_against_tables(mmu, cpu, shadow, page);
		}
	}
}

static void check_list(struct mmu *mmu, const struct soft_cpu *cpu, unsigned space, bool global)
{
	for (uint32_t at = mmu->spaces[space].shadows[global]; at;
	     at = mmu->pool.shadows[at - 1].next_in_space) {
		const struct shadow *shadow = &mmu->pool.shadows[at - 1];

		assert(shadow->space == space && shadow->global == global);
		check_shadow(mmu, cpu, shadow);
	}
}

void check_spaces(struct mmu *mmu, const struct soft_cpu *cpu)
{
	check_table_store(&mmu->tables);
	for (unsigned n = 0; n <= mmu->spaces_made; n++) {
		check_list(mmu, cpu, n, false);
		check_list(mmu, cpu, n, true);
		for (unsigned pair = 0; pair < SPACE_PAIRS; pair++)
			if (mmu->spaces[n].pairs[pair].read)
				check_table_pair(&mmu->spaces[n].pairs[pair], mmu->engine->poison);
	}
}
