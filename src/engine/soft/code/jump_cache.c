/*
 * The jump cache of a processor: where an address leads in its current mode, in one comparison.
 *
 * Its processor alone makes entries and moves them, so that nothing of it needs a lock or a fence:
 * what leads to a region that somebody closes it takes out itself, before it says that it has
 * passed (soft_forget_closed()). Others only take entries out, for a region that is looked at
 * (eviction.c): one may outlive that.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/mmu/mmu.h"

struct jump_entry *soft_jump_entry(struct soft_cpu *cpu, uint64_t rip)
{
	return &cpu->jump_cache[soft_jump_index(rip)];
}

/* What a key is of; never 0. */
static uint64_t meaning_of_key(const struct soft_cpu *cpu, uint32_t mode)
{
	return (soft_epoch(cpu, mode & MODE_USER) << 16 | (mode & MODE_BITS)) + 1;
}

static uint64_t make_key(const struct soft_cpu *cpu, uint64_t meaning)
{
	uint64_t x = cpu->engine->secret + meaning * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t soft_jump_key(const struct soft_cpu *cpu, uint32_t mode)
{
	const struct made_key *made = &cpu->made_keys[!!(mode & MODE_USER)];
	const uint64_t meaning = meaning_of_key(cpu, mode);

	return made->meaning == meaning ? made->key : make_key(cpu, meaning);
}

/* ---- pages of code ---- */

static uint64_t page_sum(const struct soft_cpu *cpu, uint64_t linear, uint32_t mode)
{
	return (linear & ~(uint64_t)PAGE_OFFSET_MASK) + soft_jump_key(cpu, mode);
}

static uint64_t known_page_index(uint64_t linear) { return linear / PAGE_BYTES % KNOWN_PAGES; }

bool soft_recall_page(struct soft_cpu *cpu, uint64_t linear, uint32_t mode, uint64_t *ret_gpa)
{
	const struct known_page *page = &cpu->known_pages[known_page_index(linear)];

	if (!cpu->engine->recalls_pages || page->sum != page_sum(cpu, linear, mode))
		return false;
	*ret_gpa = page->gpa | (linear & PAGE_OFFSET_MASK);
	cpu->jumps.recalled++;
	return true;
}

static void remember_page(struct soft_cpu *cpu, uint64_t linear, uint32_t mode, uint64_t gpa)
{
	cpu->known_pages[known_page_index(linear)] =
		(struct known_page){ .sum = page_sum(cpu, linear, mode),
				     .gpa = gpa & ~(uint64_t)PAGE_OFFSET_MASK };
}

/* ---- jumps ---- */

/* False: the guest's tables have changed under the walk. found: NULL if that is a known page. */
static bool note_pages(struct soft_cpu *cpu, const struct block *b, uint64_t linear,
		       const struct page_walk *found)
{
	bool user = b->mode & MODE_USER;
	const uint64_t key = soft_jump_key(cpu, b->mode);
	uint64_t second = (linear | PAGE_OFFSET_MASK) + 1;
	struct page_walk behind;
	struct fault unused;

	if (b->mode & BLOCK_STRADDLES &&
	    (soft_walk_pages(cpu, second, ACCESS_EXEC, &behind, &unused) ||
	     !soft_note_jump(cpu, second, user, &behind)))
		return false;
	if (found && !soft_note_jump(cpu, linear, user, found))
		return false;
	/* noting one may forget others, and with them the other page, or the known one */
	if (soft_jump_key(cpu, b->mode) != key)
		return false;
	if (found)
		remember_page(cpu, linear, b->mode, found->gpa);
	return true;
}

static void count_jump(struct soft_cpu *cpu, const struct jump_entry *entry, uint64_t host)
{
	if (!entry->host)
		cpu->jumps.first++;
	else if (entry->host == host)
		cpu->jumps.stale++;
	else
		cpu->jumps.displaced++;
}

/* From any thread it may be taken back meanwhile: never is a new sum beside an old host. */
static void set_entry(struct jump_entry *entry, uint64_t sum, uint64_t host)
{
	__atomic_store_n(&entry->sum, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&entry->host, host, __ATOMIC_RELEASE);
	__atomic_store_n(&entry->sum, sum, __ATOMIC_RELEASE);
}

static uint64_t sum_of(const struct jump_entry *entry)
{
	return __atomic_load_n(&entry->sum, __ATOMIC_RELAXED);
}

static struct jump_entry *victim(struct soft_cpu *cpu, uint64_t sum)
{
	return &cpu->jump_victims[sum * 0x9e3779b97f4a7c15ull >> (64 - JUMP_VICTIM_BITS)];
}

/* An entry that gives way to another. */
static void keep_victim(struct soft_cpu *cpu, const struct jump_entry *entry)
{
	uint64_t sum = sum_of(entry);

	if (sum && cpu->engine->keeps_victims)
		set_entry(victim(cpu, sum), sum, entry->host);
}

void *soft_recover_jump(struct soft_cpu *cpu, struct jump_entry *entry, uint64_t sum)
{
	struct jump_entry *from = victim(cpu, sum);
	uint64_t host = from->host;

	if (!cpu->engine->keeps_victims || sum_of(from) != sum)
		return NULL;
	__atomic_store_n(&from->sum, 0, __ATOMIC_RELAXED);
	keep_victim(cpu, entry);
	set_entry(entry, sum, host);
	cpu->jumps.recovered++;
	return (void *)host;
}

/* To this block, in place of what is there; sum: 0, so long as it may not be found. */
static void make_entry(struct soft_cpu *cpu, struct jump_entry *entry, uint64_t sum,
		       const struct block *b)
{
	const uint64_t host = (uint64_t)(cpu->engine->code_run + b->host_offset);

	count_jump(cpu, entry, host);
	soft_note_use(cpu->engine, b);
	keep_victim(cpu, entry);
	set_entry(entry, sum, host);
}

void *soft_find_known_jump(struct soft_cpu *cpu, struct jump_entry *entry, uint64_t key,
			   uint32_t mode)
{
	const uint64_t rip = cpu->state.rip;
	const struct block *b;
	uint64_t gpa;

	if (mode & (MODE_32_BIT | MODE_16_BIT) || !soft_recall_page(cpu, rip, mode, &gpa))
		return NULL;
	b = soft_look_up_block(cpu, gpa, mode);
	if (!b || b->mode & BLOCK_STRADDLES)
		return NULL;
	make_entry(cpu, entry, rip + key, b);
	return (void *)entry->host;
}

void soft_remember_jump(struct soft_cpu *cpu, const struct block *b, uint64_t linear,
			const struct page_walk *found)
{
	const uint64_t rip = cpu->state.rip;
	struct jump_entry *entry = soft_jump_entry(cpu, rip);

	make_entry(cpu, entry, 0, b);
	if (note_pages(cpu, b, linear, found))
		__atomic_store_n(&entry->sum, rip + soft_jump_key(cpu, b->mode), __ATOMIC_RELEASE);
}

static uint64_t refresh_key(struct soft_cpu *cpu, uint32_t mode)
{
	struct made_key *made = &cpu->made_keys[!!(mode & MODE_USER)];
	const uint64_t meaning = meaning_of_key(cpu, mode);

	if (made->meaning != meaning)
		*made = (struct made_key){ .meaning = meaning, .key = make_key(cpu, meaning) };
	return made->key;
}

/*
 * From here on a kick that came before is seen by the first exit, one that comes later clears the
 * key itself.
 */
void soft_enter_mode(struct soft_cpu *cpu, uint32_t mode)
{
	uint64_t kernel = refresh_key(cpu, mode & ~(uint32_t)MODE_USER);
	uint64_t user = refresh_key(cpu, mode | MODE_USER);

	/* who kicks takes them away afterwards */
	if (__atomic_load_n(&cpu->jump_key[0], __ATOMIC_RELAXED) == kernel &&
	    __atomic_load_n(&cpu->jump_key[1], __ATOMIC_RELAXED) == user &&
	    __atomic_load_n(&cpu->slot_base, __ATOMIC_RELAXED) == cpu->slots)
		return;
	__atomic_store_n(&cpu->slot_base, cpu->slots, __ATOMIC_RELAXED);
	__atomic_store_n(&cpu->jump_key[0], kernel, __ATOMIC_RELAXED);
	__atomic_store_n(&cpu->jump_key[1], user, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->kick, __ATOMIC_SEQ_CST))
		soft_leave_mode(cpu);
}

void soft_leave_mode(struct soft_cpu *cpu)
{
	for (unsigned user = 0; user < 2; user++)
		__atomic_store_n(&cpu->jump_key[user], cpu->engine->no_key, __ATOMIC_RELAXED);
	__atomic_store_n(&cpu->slot_base, cpu->engine->empty_slots, __ATOMIC_RELAXED);
}

/* Those that lead to [first, first + bytes). */
static void forget_among(struct jump_entry *entries, uint32_t count, uint64_t first, uint64_t bytes)
{
	for (uint32_t n = 0; n < count; n++)
		if (__atomic_load_n(&entries[n].host, __ATOMIC_RELAXED) - first < bytes)
			__atomic_store_n(&entries[n].sum, 0, __ATOMIC_RELAXED);
}

void soft_forget_code(struct soft_cpu *cpu, uint32_t begin, uint32_t end)
{
	uint64_t first = (uint64_t)(cpu->engine->code_run + begin);

	forget_among(cpu->jump_cache, JUMP_CACHE_ENTRIES, first, end - begin);
	forget_among(cpu->jump_victims, JUMP_VICTIMS, first, end - begin);
	forget_among(cpu->jump_sites, JUMP_SITES, first, end - begin);
	soft_empty_slots_to(cpu, first, end - begin);
}

static void check_entries(const struct soft_cpu *cpu, const struct jump_entry *entries,
			  uint32_t count)
{
	for (uint32_t n = 0; n < count; n++) {
		const uint64_t offset = entries[n].host - (uint64_t)cpu->engine->code_run;
		const struct code_region *region;

		if (!entries[n].sum)
			continue;
		region = &cpu->engine->regions[soft_region_of(cpu->engine, (uint32_t)offset)];
		/* of who is out it may hold other code by now */
		assert(region->closed_at > cpu->forgotten ||
		       (!region->closed && soft_block_of(cpu->engine, entries[n].host)));
	}
}

/* Invariant 8. */
static void check_keys(const struct soft_cpu *cpu)
{
	for (unsigned user = 0; user < 2; user++) {
		const uint64_t key = __atomic_load_n(&cpu->jump_key[user], __ATOMIC_RELAXED);

		assert(!key || key == cpu->engine->no_key || key == cpu->made_keys[user].key);
	}
}

void check_jump_cache(const struct soft_cpu *cpu)
{
	check_keys(cpu);
	check_entries(cpu, cpu->jump_cache, JUMP_CACHE_ENTRIES);
	check_entries(cpu, cpu->jump_victims, JUMP_VICTIMS);
	check_entries(cpu, cpu->jump_sites, JUMP_SITES);
	check_jump_slots(cpu);
}
