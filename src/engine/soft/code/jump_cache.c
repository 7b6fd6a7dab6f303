/* The jump cache of a processor: where an address leads in its current mode, in one comparison. */
#include <assert.h>

#include "code.h"
#include "engine/soft/mmu/mmu.h"

struct jump_entry *soft_jump_entry(struct soft_cpu *cpu, uint64_t rip)
{
	return &cpu->jump_cache[soft_jump_index(rip)];
}

uint64_t soft_jump_key(const struct soft_cpu *cpu, uint32_t mode)
{
	uint64_t x = cpu->engine->secret +
		     (soft_epoch(cpu, mode & MODE_USER) << 16 | (mode & MODE_BITS)) *
			     0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
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

struct block *soft_recall_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode)
{
	const struct jump_entry *entry = soft_jump_entry(cpu, cpu->state.rip);
	struct block *b;

	if (!__atomic_load_n(&entry->sum, __ATOMIC_SEQ_CST) || x86_code_bits(&cpu->state) != 64)
		return NULL;
	b = soft_block_at(cpu->engine, (const void *)entry->host);
	if (b->dead || b->gpa != gpa || b->mode != mode ||
	    (!soft_floats(mode) && b->gva != cpu->state.rip))
		return NULL;
	cpu->jumps.kept++;
	return b;
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

/* From any thread an entry may be taken back meanwhile; nobody but its processor makes one. */
static void set_entry(struct jump_entry *entry, uint64_t sum, uint64_t host, const struct block *b)
{
	entry->sum = 0;
	__atomic_store_n(&entry->host, host, __ATOMIC_SEQ_CST);
	__atomic_store_n(&entry->sum, sum, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/*
	 * since it was found: block_kill() may have been here before; what leads to a dead block
	 * would never end
	 */
	if (b->dead)
		entry->sum = 0;
}

static struct jump_entry *victim(struct soft_cpu *cpu, uint64_t sum)
{
	return &cpu->jump_victims[sum * 0x9e3779b97f4a7c15ull >> (64 - JUMP_VICTIM_BITS)];
}

/* An entry that gives way to another. */
static void keep_victim(struct soft_cpu *cpu, const struct jump_entry *entry)
{
	uint64_t sum = __atomic_load_n(&entry->sum, __ATOMIC_SEQ_CST);

	if (sum && cpu->engine->keeps_victims)
		set_entry(victim(cpu, sum), sum, entry->host,
			  soft_block_at(cpu->engine, (const void *)entry->host));
}

void *soft_recover_jump(struct soft_cpu *cpu, struct jump_entry *entry, uint64_t sum)
{
	struct jump_entry *from = victim(cpu, sum);
	uint64_t host = from->host;
	const struct block *b;

	if (!cpu->engine->keeps_victims || __atomic_load_n(&from->sum, __ATOMIC_SEQ_CST) != sum)
		return NULL;
	from->sum = 0;
	b = soft_block_at(cpu->engine, (const void *)host);
	if (b->dead) /* nobody has searched the victims for it */
		return NULL;
	keep_victim(cpu, entry);
	set_entry(entry, sum, host, b);
	cpu->jumps.recovered++;
	return (void *)host;
}

void soft_remember_jump(struct soft_cpu *cpu, const struct block *b, uint64_t linear,
			const struct page_walk *found)
{
	uint64_t rip = cpu->state.rip;
	struct jump_entry *entry = soft_jump_entry(cpu, rip);
	uint64_t host = (uint64_t)(cpu->engine->code_run + b->host_offset);

	count_jump(cpu, entry, host);
	soft_note_use(cpu->engine, b);
	keep_victim(cpu, entry);
	entry->sum = 0;
	if (note_pages(cpu, b, linear, found))
		set_entry(entry, rip + soft_jump_key(cpu, b->mode), host, b);
}

/*
 * From here on a kick that came before is seen by the first exit, one that comes later clears the
 * key itself.
 */
void soft_enter_mode(struct soft_cpu *cpu, uint32_t mode)
{
	uint64_t kernel = soft_jump_key(cpu, mode & ~(uint32_t)MODE_USER);
	uint64_t user = soft_jump_key(cpu, mode | MODE_USER);

	__atomic_store_n(&cpu->jump_key[0], kernel, __ATOMIC_RELAXED);
	__atomic_store_n(&cpu->jump_key[1], user, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->kick, __ATOMIC_SEQ_CST))
		soft_leave_mode(cpu);
}

void soft_leave_mode(struct soft_cpu *cpu)
{
	for (unsigned user = 0; user < 2; user++)
		__atomic_store_n(&cpu->jump_key[user], cpu->engine->no_key, __ATOMIC_RELAXED);
}

/* Those that lead to [first, first + bytes). */
static void forget_among(struct jump_entry *entries, uint32_t count, uint64_t first, uint64_t bytes)
{
	for (uint32_t n = 0; n < count; n++)
		if (__atomic_load_n(&entries[n].host, __ATOMIC_SEQ_CST) - first < bytes)
			__atomic_store_n(&entries[n].sum, 0, __ATOMIC_SEQ_CST);
}

void soft_forget_block(struct soft_cpu *cpu, const struct block *b)
{
	struct jump_entry *entry = soft_jump_entry(cpu, b->gva);

	if (__atomic_load_n(&entry->host, __ATOMIC_SEQ_CST) ==
	    (uint64_t)(cpu->engine->code_run + b->host_offset))
		__atomic_store_n(&entry->sum, 0, __ATOMIC_SEQ_CST);
}

void soft_forget_code(struct soft_cpu *cpu, uint32_t begin, uint32_t end)
{
	uint64_t first = (uint64_t)(cpu->engine->code_run + begin);

	forget_among(cpu->jump_cache, JUMP_CACHE_ENTRIES, first, end - begin);
	forget_among(cpu->jump_victims, JUMP_VICTIMS, first, end - begin);
}

/* Where an entry leads, if it is one. A victim may lead to a dead block: soft_recover_jump(). */
static const struct block *check_entry(const struct soft_cpu *cpu, const struct jump_entry *entry)
{
	const struct block *b = entry->sum ? soft_block_of(cpu->engine, entry->host) : NULL;

	assert(b || !entry->sum);
	return b;
}

void check_jump_cache(struct soft_cpu *cpu)
{
	for (uint32_t n = 0; n < JUMP_CACHE_ENTRIES; n++) {
		const struct jump_entry *entry = &cpu->jump_cache[n];
		const struct block *b = check_entry(cpu, entry);

		if (b && !soft_floats(b->mode) &&
		    entry->sum == b->gva + soft_jump_key(cpu, b->mode))
			assert(!b->dead);
	}
	for (uint32_t n = 0; n < JUMP_VICTIMS; n++)
		check_entry(cpu, &cpu->jump_victims[n]);
}
