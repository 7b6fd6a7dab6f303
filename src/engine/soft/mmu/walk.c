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

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "mmu.h"

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
static inline struct tables tables_long(const struct x86_state *s)
{
	return (struct tables){ LEVELS_LONG, 9,
				BITS(51, X86_PHYSICAL_BITS) | (s->efer & EFER_NXE ? 0 : PTE_NX) };
}

static inline struct tables tables_pae(const struct x86_state *s)
{
	return (struct tables){ LEVELS_PAE, 9,
				BITS(62, X86_PHYSICAL_BITS) | (s->efer & EFER_NXE ? 0 : PTE_NX) };
}

static inline struct tables tables_32(void) { return (struct tables){ LEVELS_32, 10, 0 }; }

static int page_fault(struct soft_cpu *cpu, struct fault *fault, uint64_t gva, unsigned access,
		      bool present, bool reserved)
{
	const struct x86_state *s = &cpu->state;
	bool user = s->cpl == 3 && !(access & ACCESS_SYSTEM);
	bool fetches_are_told = (s->efer & EFER_NXE && s->cr4 & CR4_PAE) || s->cr4 & CR4_SMEP;

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
	const struct x86_state *s = &cpu->state;
	bool user = s->cpl == 3 && !(access & ACCESS_SYSTEM);
	bool bad = false;

	if (user && !(rights & RIGHT_USER))
		bad = true;
	if (access & ACCESS_WRITE && !(rights & RIGHT_WRITE) && (user || s->cr0 & CR0_WP))
		bad = true;
	if (access & ACCESS_EXEC &&
	    (!(rights & RIGHT_EXEC) || (!user && rights & RIGHT_USER && s->cr4 & CR4_SMEP)))
		bad = true;
	if (!user && !(access & ACCESS_EXEC) && rights & RIGHT_USER && s->cr4 & CR4_SMAP &&
	    (!(s->rflags & FLAG_AC) || access & ACCESS_SYSTEM))
		bad = true;
	return bad ? page_fault(cpu, fault, gva, access, true, false) : 0;
}

static inline bool is_leaf(const struct x86_state *s, const struct tables *t, unsigned level,
			   uint64_t entry)
{
	if (level == 0)
		return true;
	if (t->levels == LEVELS_32)
		return entry & PTE_PS && s->cr4 & CR4_PSE;
	return entry & PTE_PS && level < LEVELS_PAE - (t->levels == LEVELS_PAE);
}

/* Bits of a present entry that must be clear; where one is not, a page fault says so. */
static inline uint64_t reserved_bits(const struct tables *t, unsigned level, bool leaf)
{
	if (t->levels == LEVELS_32)
		return leaf && level ? BITS(21, 21) : 0;
	if (t->levels == LEVELS_PAE && level == 2)
		return BITS(63, X86_PHYSICAL_BITS) | BITS(8, 5) | BITS(2, 1);
	if (level == 3)
		return t->reserved | PTE_PS;
	return t->reserved | (leaf && level == 2 ? BITS(29, 13) : 0) |
	       (leaf && level == 1 ? BITS(20, 13) : 0);
}

static inline uint64_t entry_read(const struct tables *t, const uint8_t *at)
{
	if (t->levels == LEVELS_32)
		return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED);
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* False: another processor has changed the entry since it was read. */
static inline bool entry_set(const struct tables *t, uint8_t *at, uint64_t *entry, uint64_t set)
{
	uint32_t narrow = (uint32_t)*entry;

	if (t->levels == LEVELS_32)
		return __atomic_compare_exchange_n((uint32_t *)(void *)at, &narrow,
						   narrow | (uint32_t)set, false, __ATOMIC_SEQ_CST,
						   __ATOMIC_SEQ_CST);
	return __atomic_compare_exchange_n((uint64_t *)(void *)at, entry, *entry | set, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline unsigned rights_of(const struct tables *t, unsigned level, uint64_t entry)
{
	unsigned rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC;

	if (t->levels == LEVELS_PAE && level == 2)
		return rights;
	rights &= entry & PTE_W ? ~0u : ~(unsigned)RIGHT_WRITE;
	rights &= entry & PTE_U ? ~0u : ~(unsigned)RIGHT_USER;
	return entry & PTE_NX ? rights & ~(unsigned)RIGHT_EXEC : rights;
}

static inline uint64_t root_table(const struct tables *t, uint64_t cr3)
{
	switch (t->levels) {
	case LEVELS_PAE: return cr3 & BITS(31, 5);
	case LEVELS_32: return cr3 & BITS(31, 12);
	default: return cr3 & PTE_ADDRESS;
	}
}

/* What is at the end of a way down, or why there is none. */
enum walk_end { WAY_FOUND, WAY_ABSENT, WAY_RESERVED };

static inline enum walk_end descend(const struct soft_cpu *cpu, const struct tables *t,
				    uint64_t cr3, uint64_t gva, struct page_walk *p)
{
	const struct x86_state *s = &cpu->state;
	uint64_t table = root_table(t, cr3);
	unsigned entry_bytes = t->levels == LEVELS_32 ? 4 : 8;
	unsigned level = t->levels;
	bool leaf = false;

	p->rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC;
	p->entry_bytes = entry_bytes;
	p->levels = level - (level == LEVELS_PAE); /* those that CR3 named are no table's */
	while (!leaf) {
		uint64_t index =
			gva >> (12 + t->index_bits * --level) & ((1u << t->index_bits) - 1);
		uint64_t entry;

		if (t->levels == LEVELS_PAE && level == LEVELS_PAE - 1) {
			entry = s->pae_root[index % X86_PAE_ROOTS];
		} else {
			p->at[level] = soft_hva(cpu->engine, table + index * entry_bytes);
			if (!p->at[level])
				return WAY_ABSENT;
			entry = entry_read(t, p->at[level]);
		}
		p->entry[level] = entry;
		if (!(entry & PTE_P))
			return WAY_ABSENT;
		leaf = is_leaf(s, t, level, entry);
		if (entry & reserved_bits(t, level, leaf))
			return WAY_RESERVED;
		p->upper_rights = p->rights;
		p->rights &= rights_of(t, level, entry);
		table = entry & PTE_ADDRESS;
	}
	p->level = level;
	return WAY_FOUND;
}

/* What any write of memory leads to; the engine's lock is not held. */
static inline void entry_written(struct soft_cpu *cpu, const struct tables *t, unsigned level,
				 const struct page_walk *p)
{
	const uint8_t *at = p->at[level];
	uint64_t table = root_table(t, cpu->state.cr3);

	soft_mark_dirty(cpu->engine, at);
	if (!(cpu->engine->frame_flags[soft_frame(cpu->engine, at)] & FRAME_CODE))
		return;
	if (level + 1 < t->levels)
		table = p->entry[level + 1] & PTE_ADDRESS;
	soft_invalidate(cpu->engine, table + ((uintptr_t)at & PAGE_OFFSET_MASK), p->entry_bytes);
}

/*
 * A in every entry of the path, and D in the leaf for writes. False: one has changed since, then
 * nothing of the path holds.
 */
static inline bool mark_used(struct soft_cpu *cpu, const struct tables *t, unsigned access,
			     struct page_walk *p)
{
	for (unsigned level = t->levels; level-- > p->level;) {
		uint64_t set = PTE_A | (level == p->level && access & ACCESS_WRITE ? PTE_D : 0);

		if ((p->entry[level] & set) == set || (t->levels == LEVELS_PAE && level == 2))
			continue;
		if (cpu->engine->frame_flags[soft_frame(cpu->engine, p->at[level])] &
		    FRAME_READ_ONLY)
			continue;
		if (!entry_set(t, p->at[level], &p->entry[level], set))
			return false;
		p->entry[level] |= set;
		entry_written(cpu, t, level, p);
	}
	return true;
}

static inline uint64_t page_address(const struct tables *t, unsigned level, uint64_t entry,
				    uint64_t gva)
{
	uint64_t offset = BITS(11 + t->index_bits * level, 0);

	if (t->levels == LEVELS_32 && level)
		return (entry & BITS(31, LARGE_32_BITS)) | (entry & BITS(20, 13)) << (32 - 13) |
		       (gva & offset);
	return (entry & PTE_ADDRESS & ~offset) | (gva & offset);
}

static void walk_nothing(const struct x86_state *s, uint64_t gva, struct page_walk *ret)
{
	ret->levels = ret->level = 0;
	ret->page_bytes = PAGE_BYTES;
	ret->gpa = gva;
	ret->rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC | RIGHT_GLOBAL;
	if (s->cr4 & (CR4_SMAP | CR4_SMEP))
		ret->rights &= s->cpl == 3 ? ~0u : ~(unsigned)RIGHT_USER;
}

/* Of a way that was found: where it leads. */
static inline void finish(const struct soft_cpu *cpu, const struct tables *t, uint64_t gva,
			  struct page_walk *p)
{
	uint64_t leaf = p->entry[p->level];

	p->gpa = page_address(t, p->level, leaf, gva);
	p->page_bytes = (uint64_t)PAGE_BYTES << t->index_bits * p->level;
	p->rights |= p->level ? RIGHT_LARGE : 0;
	p->rights |= leaf & PTE_G && cpu->state.cr4 & CR4_PGE ? RIGHT_GLOBAL : 0;
}

static inline int walk(struct soft_cpu *cpu, struct tables t, uint64_t gva, unsigned access,
		       struct page_walk *p, struct fault *fault)
{
	do {
		enum walk_end way = descend(cpu, &t, cpu->state.cr3, gva, p);

		if (way != WAY_FOUND)
			return page_fault(cpu, fault, gva, access, way == WAY_RESERVED,
					  way == WAY_RESERVED);
		if (check_rights(cpu, gva, access, p->rights, fault))
			return -EFAULT;
	} while (!mark_used(cpu, &t, access, p));
	finish(cpu, &t, gva, p);
	return 0;
}

int soft_walk_pages(struct soft_cpu *cpu, uint64_t gva, unsigned access,
			   struct page_walk *ret, struct fault *fault)
{
	const struct x86_state *s = &cpu->state;

	if (s->efer & EFER_LMA) {
		if (!soft_canonical(gva))
			return soft_fail(fault, EXC_GP, true, 0);
		return walk(cpu, tables_long(s), gva, access, ret, fault);
	}
	gva = (uint32_t)gva;
	if (!(s->cr0 & CR0_PG)) {
		walk_nothing(s, gva, ret);
		return 0;
	}
	if (s->cr4 & CR4_PAE)
		return walk(cpu, tables_pae(s), gva, access, ret, fault);
	return walk(cpu, tables_32(), gva, access, ret, fault);
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

static inline bool look_up(const struct soft_cpu *cpu, struct tables t, uint64_t cr3, uint64_t gva,
			   struct page_walk *p)
{
	uint64_t used = PTE_A;

	if (descend(cpu, &t, cr3, gva, p) != WAY_FOUND)
		return false;
	finish(cpu, &t, gva, p);
	for (unsigned level = p->level; level < p->levels; level++)
		used &= p->entry[level];
	p->rights |= used ? RIGHT_ACCESSED : 0;
	p->rights |= p->entry[p->level] & PTE_D ? RIGHT_DIRTY : 0;
	return true;
}

bool soft_look_up(const struct soft_cpu *cpu, uint64_t cr3, uint64_t gva, struct page_walk *ret)
{
	const struct x86_state *s = &cpu->state;

	if (s->efer & EFER_LMA)
		return soft_canonical(gva) && look_up(cpu, tables_long(s), cr3, gva, ret);
	gva = (uint32_t)gva;
	if (!(s->cr0 & CR0_PG)) {
		walk_nothing(s, gva, ret);
		return true;
	}
	if (s->cr4 & CR4_PAE)
		return look_up(cpu, tables_pae(s), cr3, gva, ret);
	return look_up(cpu, tables_32(), cr3, gva, ret);
}

bool soft_look_beside(const struct soft_cpu *cpu, const struct page_walk *found, uint64_t gva,
		      struct page_walk *ret)
{
	const struct x86_state *s = &cpu->state;
	const struct tables t = s->efer & EFER_LMA ? tables_long(s) : tables_pae(s);
	uint64_t used = PTE_A;
	uint8_t *at;
	uint64_t entry;

	if (!found->levels || found->level || found->entry_bytes != sizeof(entry))
		return false;
	at = (uint8_t *)((uint64_t)found->at[0] & ~(uint64_t)PAGE_OFFSET_MASK) +
	     (gva / PAGE_BYTES & ((1u << t.index_bits) - 1)) * sizeof(entry);
	entry = entry_read(&t, at);
	for (unsigned level = 1; level < found->levels; level++)
		used &= found->entry[level];
	if (!used)
		return false;
	if ((entry & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || entry & reserved_bits(&t, 0, true))
		return false;
	*ret = *found;
	ret->at[0] = at;
	ret->entry[0] = entry;
	ret->rights = found->upper_rights & rights_of(&t, 0, entry);
	ret->rights |= RIGHT_ACCESSED | (entry & PTE_D ? RIGHT_DIRTY : 0);
	finish(cpu, &t, gva, ret);
	return true;
}

bool soft_walk_holds(const struct page_walk *t)
{
	const struct tables kind = { .levels = t->entry_bytes == 4 ? LEVELS_32 : LEVELS_LONG };

	for (unsigned level = t->level; level < t->levels; level++)
		if ((entry_read(&kind, t->at[level]) ^ t->entry[level]) & ~(PTE_A | PTE_D))
			return false;
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
