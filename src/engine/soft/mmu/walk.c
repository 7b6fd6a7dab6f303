/*
 * Walks of the guest's page tables (SDM Vol. 3A chapter 4): rights, reserved bits, accessed and
 * dirty flags, and the page fault when there is no way. Three kinds of tables:
 *
 *   long mode   four levels of 8-byte entries; pages of 4 KiB, 2 MiB, 1 GiB
 *   PAE         four entries of 1 GiB each, two levels of 8-byte entries; pages of 4 KiB, 2 MiB
 *   32-bit      two levels of 4-byte entries; pages of 4 KiB, and of 4 MiB where CR4.PSE is on,
 *               below 1 TiB (PSE-36)
 *
 * The four entries of PAE are those that the last load of CR3 found (SDM Vol. 3A 4.4.1): what
 * memory holds since then does not count.
 */
#include <errno.h>

#include "common.h"
#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull
#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))

enum { LEVELS_LONG = WALK_LEVELS, LEVELS_PAE = 3, LEVELS_32 = 2, LARGE_32_BITS = 22 };

struct tables { unsigned levels, index_bits; uint64_t reserved; };

/*
 * The level counts are constants where these are called, so that each kind has a walk of its own.
 */
static inline struct tables tables_long(const struct x86_state *state)
{
	return (struct tables){
		LEVELS_LONG, 9, BITS(51, X86_PHYSICAL_BITS) | (state->efer & EFER_NXE ? 0 : PTE_NX)
	};
}

static inline struct tables tables_pae(const struct x86_state *state)
{
	return (struct tables){
		LEVELS_PAE, 9, BITS(62, X86_PHYSICAL_BITS) | (state->efer & EFER_NXE ? 0 : PTE_NX)
	};
}

static inline struct tables tables_32(void) { return (struct tables){ LEVELS_32, 10, 0 }; }

static int page_fault(struct soft_cpu *cpu, struct fault *fault, uint64_t gva, unsigned access,
		      bool present, bool reserved)
{
	const struct x86_state *state = &cpu->state;
	bool user = state->cpl == 3 && !(access & ACCESS_SYSTEM);
	bool fetches_are_told =
		(state->efer & EFER_NXE && state->cr4 & CR4_PAE) || state->cr4 & CR4_SMEP;

	*fault = (struct fault){ .vector = EXC_PF,
				 .has_code = true,
				 .address = gva,
				 .code = present | (access & ACCESS_WRITE ? 2u : 0) | user << 2 |
					 reserved << 3 |
					 (access & ACCESS_EXEC && fetches_are_told ? 16u : 0) };
	return -EFAULT;
}

static int check_rights(struct soft_cpu *cpu, uint64_t gva, unsigned access, unsigned rights,
			struct fault *fault)
{
	const struct x86_state *state = &cpu->state;
	bool user = state->cpl == 3 && !(access & ACCESS_SYSTEM);
	bool bad = false;

	if (user && !(rights & RIGHT_USER))
		bad = true;
	if (access & ACCESS_WRITE && !(rights & RIGHT_WRITE) && (user || state->cr0 & CR0_WP))
		bad = true;
	if (access & ACCESS_EXEC &&
	    (!(rights & RIGHT_EXEC) || (!user && rights & RIGHT_USER && state->cr4 & CR4_SMEP)))
		bad = true;
	if (!user && !(access & ACCESS_EXEC) && rights & RIGHT_USER && state->cr4 & CR4_SMAP &&
	    (!(state->rflags & FLAG_AC) || access & ACCESS_SYSTEM))
		bad = true;
	return bad ? page_fault(cpu, fault, gva, access, true, false) : 0;
}

static inline bool is_leaf(const struct x86_state *state, const struct tables *tables,
			   unsigned level, uint64_t entry)
{
	if (level == 0)
		return true;
	if (tables->levels == LEVELS_32)
		return entry & PTE_PS && state->cr4 & CR4_PSE;
	return entry & PTE_PS && level < LEVELS_PAE - (tables->levels == LEVELS_PAE);
}

/* Bits of a present entry that must be clear; where one is not, a page fault says so. */
static inline uint64_t reserved_bits(const struct tables *tables, unsigned level, bool leaf)
{
	if (tables->levels == LEVELS_32)
		return leaf && level ? BITS(21, 21) : 0;
	if (tables->levels == LEVELS_PAE && level == 2)
		return BITS(63, X86_PHYSICAL_BITS) | BITS(8, 5) | BITS(2, 1);
	if (level == 3)
		return tables->reserved | PTE_PS;
	return tables->reserved | (leaf && level == 2 ? BITS(29, 13) : 0) |
	       (leaf && level == 1 ? BITS(20, 13) : 0);
}

static inline uint64_t entry_read(const struct tables *tables, const uint8_t *at)
{
	if (tables->levels == LEVELS_32)
		return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED);
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* False: another processor has changed the entry since it was read. */
static inline bool entry_set(const struct tables *tables, uint8_t *at, uint64_t *entry,
			     uint64_t set)
{
	uint32_t narrow = (uint32_t)*entry;

	if (tables->levels == LEVELS_32)
		return __atomic_compare_exchange_n((uint32_t *)(void *)at, &narrow,
						   narrow | (uint32_t)set, false, __ATOMIC_SEQ_CST,
						   __ATOMIC_SEQ_CST);
	return __atomic_compare_exchange_n((uint64_t *)(void *)at, entry, *entry | set, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline unsigned rights_of(const struct tables *tables, unsigned level, uint64_t entry)
{
	unsigned rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC;

	if (tables->levels == LEVELS_PAE && level == 2)
		return rights;
	rights &= entry & PTE_W ? ~0u : ~(unsigned)RIGHT_WRITE;
	rights &= entry & PTE_U ? ~0u : ~(unsigned)RIGHT_USER;
	return entry & PTE_NX ? rights & ~(unsigned)RIGHT_EXEC : rights;
}

static inline uint64_t root_table(const struct tables *tables, uint64_t cr3)
{
	switch (tables->levels) {
	case LEVELS_PAE: return cr3 & BITS(31, 5);
	case LEVELS_32: return cr3 & BITS(31, 12);
	default: return cr3 & PTE_ADDRESS;
	}
}

/* What is at the end of a way down, or why there is none. */
enum walk_end { WAY_FOUND, WAY_ABSENT, WAY_RESERVED };

static inline enum walk_end descend(const struct soft_cpu *cpu, const struct tables *tables,
				    uint64_t cr3, uint64_t gva, struct page_walk *page_walk)
{
	const struct x86_state *state = &cpu->state;
	uint64_t table = root_table(tables, cr3);
	unsigned entry_bytes = tables->levels == LEVELS_32 ? 4 : 8;
	unsigned level = tables->levels;
	bool leaf = false;

	page_walk->flushes = common_flushes(cpu);
	page_walk->rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC;
	page_walk->entry_bytes = entry_bytes;
	page_walk->levels = level - (level == LEVELS_PAE); /* those that CR3 named are no table's */
	while (!leaf) {
		uint64_t index = gva >> (12 + tables->index_bits * --level) &
				 ((1u << tables->index_bits) - 1);
		uint64_t entry;

		if (tables->levels == LEVELS_PAE && level == LEVELS_PAE - 1) {
			entry = state->pae_root[index % X86_PAE_ROOTS];
		} else {
			page_walk->at[level] = soft_hva(cpu->engine, table + index * entry_bytes);
			if (!page_walk->at[level])
				return WAY_ABSENT;
			entry = entry_read(tables, page_walk->at[level]);
		}
		page_walk->entry[level] = entry;
		if (!(entry & PTE_P))
			return WAY_ABSENT;
		leaf = is_leaf(state, tables, level, entry);
		if (entry & reserved_bits(tables, level, leaf))
			return WAY_RESERVED;
		page_walk->upper_rights = page_walk->rights;
		page_walk->rights &= rights_of(tables, level, entry);
		table = entry & PTE_ADDRESS;
	}
	page_walk->level = level;
	return WAY_FOUND;
}

/* What any write of memory leads to; the engine's lock is not held. */
static inline void entry_written(struct soft_cpu *cpu, const struct tables *tables, unsigned level,
				 const struct page_walk *page_walk)
{
	const uint8_t *at = page_walk->at[level];
	uint64_t table = root_table(tables, cpu->state.cr3);

	soft_mark_dirty(cpu->engine, at);
	if (!(cpu->engine->frame_flags[soft_frame(cpu->engine, at)] & FRAME_CODE))
		return;
	if (level + 1 < tables->levels)
		table = page_walk->entry[level + 1] & PTE_ADDRESS;
	soft_invalidate(cpu->engine, table + ((uintptr_t)at & PAGE_OFFSET_MASK),
			page_walk->entry_bytes);
}

/*
 * A in every entry of the path, and D in the leaf for writes. False: one has changed since, then
 * nothing of the path holds.
 */
static inline bool mark_used(struct soft_cpu *cpu, const struct tables *tables, unsigned access,
			     struct page_walk *page_walk)
{
	for (unsigned level = tables->levels; level-- > page_walk->level;) {
		uint64_t set =
			PTE_A | (level == page_walk->level && access & ACCESS_WRITE ? PTE_D : 0);

		if ((page_walk->entry[level] & set) == set ||
		    (tables->levels == LEVELS_PAE && level == 2))
			continue;
		if (cpu->engine->frame_flags[soft_frame(cpu->engine, page_walk->at[level])] &
		    FRAME_READ_ONLY)
			continue;
		if (!entry_set(tables, page_walk->at[level], &page_walk->entry[level], set))
			return false;
		page_walk->entry[level] |= set;
		entry_written(cpu, tables, level, page_walk);
	}
	return true;
}

static inline uint64_t page_address(const struct tables *tables, unsigned level, uint64_t entry,
				    uint64_t gva)
{
	uint64_t offset = BITS(11 + tables->index_bits * level, 0);

	if (tables->levels == LEVELS_32 && level)
		return (entry & BITS(31, LARGE_32_BITS)) | (entry & BITS(20, 13)) << (32 - 13) |
		       (gva & offset);
	return (entry & PTE_ADDRESS & ~offset) | (gva & offset);
}

static void walk_nothing(const struct x86_state *state, uint64_t gva, struct page_walk *ret)
{
	ret->levels = ret->level = 0;
	ret->flushes = 0; /* no common space without paging */
	ret->page_bytes = PAGE_BYTES;
	ret->gpa = gva;
	ret->rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC | RIGHT_GLOBAL;
	if (state->cr4 & (CR4_SMAP | CR4_SMEP))
		ret->rights &= state->cpl == 3 ? ~0u : ~(unsigned)RIGHT_USER;
}

/* Of a way that was found: where it leads. */
static inline void finish(const struct soft_cpu *cpu, const struct tables *tables, uint64_t gva,
			  struct page_walk *page_walk)
{
	uint64_t leaf = page_walk->entry[page_walk->level];

	page_walk->gpa = page_address(tables, page_walk->level, leaf, gva);
	page_walk->page_bytes = (uint64_t)PAGE_BYTES << tables->index_bits * page_walk->level;
	page_walk->rights |= page_walk->level ? RIGHT_LARGE : 0;
	page_walk->rights |= leaf & PTE_G && cpu->state.cr4 & CR4_PGE ? RIGHT_GLOBAL : 0;
}

static inline int walk(struct soft_cpu *cpu, struct tables tables, uint64_t gva, unsigned access,
		       struct page_walk *page_walk, struct fault *fault)
{
	do {
		enum walk_end way = descend(cpu, &tables, cpu->state.cr3, gva, page_walk);

		if (way != WAY_FOUND)
			return page_fault(cpu, fault, gva, access, way == WAY_RESERVED,
					  way == WAY_RESERVED);
		if (check_rights(cpu, gva, access, page_walk->rights, fault))
			return -EFAULT;
	} while (!mark_used(cpu, &tables, access, page_walk));
	finish(cpu, &tables, gva, page_walk);
	return 0;
}

static int walk_pages(struct soft_cpu *cpu, uint64_t gva, unsigned access, struct page_walk *ret,
		      struct fault *fault)
{
	const struct x86_state *state = &cpu->state;

	if (state->efer & EFER_LMA) {
		if (!soft_canonical(gva))
			return soft_fail(fault, EXC_GP, true, 0);
		return walk(cpu, tables_long(state), gva, access, ret, fault);
	}
	gva = (uint32_t)gva;
	if (!(state->cr0 & CR0_PG)) {
		walk_nothing(state, gva, ret);
		return 0;
	}
	if (state->cr4 & CR4_PAE)
		return walk(cpu, tables_pae(state), gva, access, ret, fault);
	return walk(cpu, tables_32(), gva, access, ret, fault);
}

/* The tables of the way, but those that the processor has itself, and where it leads. */
static void note_use(const struct soft_cpu *cpu, const struct page_walk *way)
{
	const uint8_t *page = soft_hva(cpu->engine, way->gpa);

	for (unsigned level = way->level; level < way->levels; level++)
		if (way->levels != LEVELS_PAE || level != 2)
			soft_mark_used(cpu->engine, way->at[level]);
	if (page)
		soft_mark_used(cpu->engine, page);
}

int soft_walk_pages(struct soft_cpu *cpu, uint64_t gva, unsigned access,
			   struct page_walk *ret, struct fault *fault)
{
	const int error = walk_pages(cpu, gva, access, ret, fault);

	if (!error && soft_notes_use(cpu->engine))
		note_use(cpu, ret);
	return error;
}

int soft_walk(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint64_t *ret_gpa,
	      unsigned *ret_rights, struct fault *fault)
{
	struct page_walk found;

	if (soft_walk_pages(cpu, gva, access, &found, fault))
		return -EFAULT;
	*ret_gpa = found.gpa;
	*ret_rights = found.rights;
	return 0;
}

static inline bool look_up(const struct soft_cpu *cpu, struct tables tables, uint64_t cr3,
			   uint64_t gva, struct page_walk *page_walk)
{
	uint64_t used = PTE_A;

	if (descend(cpu, &tables, cr3, gva, page_walk) != WAY_FOUND)
		return false;
	finish(cpu, &tables, gva, page_walk);
	for (unsigned level = page_walk->level; level < page_walk->levels; level++)
		used &= page_walk->entry[level];
	page_walk->rights |= used ? RIGHT_ACCESSED : 0;
	page_walk->rights |= page_walk->entry[page_walk->level] & PTE_D ? RIGHT_DIRTY : 0;
	return true;
}

bool soft_look_up(const struct soft_cpu *cpu, uint64_t cr3, uint64_t gva, struct page_walk *ret)
{
	const struct x86_state *state = &cpu->state;

	if (state->efer & EFER_LMA)
		return soft_canonical(gva) && look_up(cpu, tables_long(state), cr3, gva, ret);
	gva = (uint32_t)gva;
	if (!(state->cr0 & CR0_PG)) {
		walk_nothing(state, gva, ret);
		return true;
	}
	if (state->cr4 & CR4_PAE)
		return look_up(cpu, tables_pae(state), cr3, gva, ret);
	return look_up(cpu, tables_32(), cr3, gva, ret);
}

bool soft_look_beside(const struct soft_cpu *cpu, const struct page_walk *found, uint64_t gva,
		      struct page_walk *ret)
{
	const struct x86_state *state = &cpu->state;
	const struct tables tables =
		state->efer & EFER_LMA ? tables_long(state) : tables_pae(state);
	uint64_t used = PTE_A;
	uint8_t *at;
	uint64_t entry;

	if (!found->levels || found->level || found->entry_bytes != sizeof(entry))
		return false;
	at = (uint8_t *)((uint64_t)found->at[0] & ~(uint64_t)PAGE_OFFSET_MASK) +
	     (gva / PAGE_BYTES & ((1u << tables.index_bits) - 1)) * sizeof(entry);
	entry = entry_read(&tables, at);
	for (unsigned level = 1; level < found->levels; level++)
		used &= found->entry[level];
	if (!used)
		return false;
	if ((entry & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || entry & reserved_bits(&tables, 0, true))
		return false;
	*ret = *found;
	ret->at[0] = at;
	ret->entry[0] = entry;
	ret->rights = found->upper_rights & rights_of(&tables, 0, entry);
	ret->rights |= RIGHT_ACCESSED | (entry & PTE_D ? RIGHT_DIRTY : 0);
	finish(cpu, &tables, gva, ret);
	return true;
}

bool soft_walk_holds(const struct page_walk *page_walk)
{
	const struct tables kind = { .levels = page_walk->entry_bytes == 4 ? LEVELS_32
									   : LEVELS_LONG };

	for (unsigned level = page_walk->level; level < page_walk->levels; level++) {
		uint64_t was = page_walk->entry[level];
		uint64_t now = entry_read(&kind, page_walk->at[level]);

		if ((now & ~(PTE_A | PTE_D)) != (was & ~(PTE_A | PTE_D)) ||
		    was & ~now & (PTE_A | PTE_D))
			return false;
	}
	return true;
}

bool soft_load_pae_roots(struct soft_cpu *cpu, uint64_t cr3)
{
	const struct tables pae = { .levels = LEVELS_PAE };
	const uint8_t *roots = soft_hva(cpu->engine, cr3 & BITS(31, 5));
	uint64_t entries[X86_PAE_ROOTS];

	if (!roots)
		return false;
	for (unsigned n = 0; n < X86_PAE_ROOTS; n++) {
		entries[n] = entry_read(&pae, roots + n * sizeof(uint64_t));
		if (entries[n] & PTE_P && entries[n] & reserved_bits(&pae, 2, false))
			return false;
	}
	memcpy(cpu->state.pae_root, entries, sizeof(entries));
	return true;
}
