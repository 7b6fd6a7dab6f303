/*
 * The guest's paging as a TLB: walks of its tables, and the linear tables that translated code looks up.
 *
 * A view is a pair of tables (read, write) for one privilege: user, kernel, kernel with EFLAGS.AC (or without SMAP). Entries
 * are filled after a successful walk and go away as the SDM has it: INVLPG, CR3, CR4, PGE; nothing non-present is ever cached.
 * The journal lists what was filled, global entries apart, so that a flush costs what the fills did.
 *
 * Not here yet: tables of several address spaces side by side; every CR3 write drops the non-global entries.
 */
#include <errno.h>

#include "engine/soft/soft_internal.h"

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

/* Aligned operands in one access each: another processor may look. */
static void copy(void *to, const void *from, size_t bytes)
{
	if (!(((uintptr_t)to | (uintptr_t)from) & (bytes - 1)) && bytes <= 8 && !(bytes & (bytes - 1))) {
		switch (bytes) {
		case 1: __atomic_store_n((uint8_t *)to, __atomic_load_n((const uint8_t *)from, __ATOMIC_RELAXED), __ATOMIC_RELEASE); return;
		case 2: __atomic_store_n((uint16_t *)to, __atomic_load_n((const uint16_t *)from, __ATOMIC_RELAXED), __ATOMIC_RELEASE); return;
		case 4: __atomic_store_n((uint32_t *)to, __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED), __ATOMIC_RELEASE); return;
		default: __atomic_store_n((uint64_t *)to, __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED), __ATOMIC_RELEASE); return;
		}
	}
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static int page_fault(struct soft_cpu *cpu, struct fault *fault, uint64_t gva, unsigned access, bool present, bool reserved)
{
	bool user = cpu->state.cpl == 3 && !(access & ACCESS_SYSTEM);
	bool nx = cpu->state.efer & EFER_NXE || cpu->state.cr4 & CR4_SMEP;

	*fault = (struct fault){ .vector = EXC_PF, .has_code = true, .address = gva,
				 .code = present | (access & ACCESS_WRITE ? 2u : 0) | user << 2 | reserved << 3 |
					 (access & ACCESS_EXEC && nx ? 16u : 0) };
	return -EFAULT;
}

static int check_rights(struct soft_cpu *cpu, uint64_t gva, unsigned access, unsigned rights, struct fault *fault)
{
	const struct x86_state *s = &cpu->state;
	bool user = s->cpl == 3 && !(access & ACCESS_SYSTEM);
	bool bad = false;

	if (user && !(rights & RIGHT_USER))
		bad = true;
	if (access & ACCESS_WRITE && !(rights & RIGHT_WRITE) && (user || s->cr0 & CR0_WP))
		bad = true;
	if (access & ACCESS_EXEC && (!(rights & RIGHT_EXEC) || (!user && rights & RIGHT_USER && s->cr4 & CR4_SMEP)))
		bad = true;
	if (!user && !(access & ACCESS_EXEC) && rights & RIGHT_USER && s->cr4 & CR4_SMAP &&
	    (!(s->rflags & FLAG_AC) || access & ACCESS_SYSTEM))
		bad = true;
	return bad ? page_fault(cpu, fault, gva, access, true, false) : 0;
}

/* Four-level walk; sets A in every entry used, and D in the leaf for writes. */
int soft_walk(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint64_t *ret_gpa, unsigned *ret_rights, struct fault *fault)
{
	const struct x86_state *s = &cpu->state;
	uint64_t table = s->cr3 & PTE_ADDRESS, entry = 0, *pte[4], entries[4];
	unsigned rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC;
	int level;

	if (!(s->cr0 & CR0_PG)) {
		*ret_gpa = gva & 0xffffffffu;
		*ret_rights = RIGHT_WRITE | RIGHT_USER | RIGHT_EXEC | RIGHT_GLOBAL;
		if (s->cr4 & CR4_SMAP || s->cr4 & CR4_SMEP)
			*ret_rights &= s->cpl == 3 ? ~0u : ~(unsigned)RIGHT_USER;
		return 0;
	}
	if (!soft_canonical(gva)) {
		*fault = (struct fault){ .vector = EXC_GP, .has_code = true };
		return -EFAULT;
	}
	for (level = 3;; level--) {
		pte[level] = (uint64_t *)(void *)soft_hva(cpu->engine, table + (gva >> (12 + 9 * level) & 511) * 8);
		if (!pte[level])
			return page_fault(cpu, fault, gva, access, false, false);
		entry = entries[level] = __atomic_load_n(pte[level], __ATOMIC_RELAXED);
		if (!(entry & PTE_P))
			return page_fault(cpu, fault, gva, access, false, false);
		if (entry & PTE_NX && !(s->efer & EFER_NXE))
			return page_fault(cpu, fault, gva, access, true, true);
		if (level == 3 && entry & PTE_PS)
			return page_fault(cpu, fault, gva, access, true, true);
		rights &= (entry & PTE_W ? ~0u : ~(unsigned)RIGHT_WRITE) & (entry & PTE_U ? ~0u : ~(unsigned)RIGHT_USER) &
			  (entry & PTE_NX ? ~(unsigned)RIGHT_EXEC : ~0u);
		if (level == 0 || (level < 3 && entry & PTE_PS))
			break;
		table = entry & PTE_ADDRESS;
	}
	if (check_rights(cpu, gva, access, rights, fault))
		return -EFAULT;
	for (int l = 3; l >= level; l--) {
		uint64_t set = PTE_A | (l == level && access & ACCESS_WRITE ? PTE_D : 0);

		if ((entries[l] & set) == set || cpu->engine->frame_flags[soft_frame(cpu->engine, (uint8_t *)pte[l])] & FRAME_READ_ONLY)
			continue;
		/* another processor may have changed the entry since: then nothing of this walk holds */
		if (!__atomic_compare_exchange_n(pte[l], &entries[l], entries[l] | set, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return soft_walk(cpu, gva, access, ret_gpa, ret_rights, fault);
		soft_mark_dirty(cpu->engine, (uint8_t *)pte[l]);
		entries[l] |= set;
	}
	entry = entries[level];
	uint64_t mask = (1ull << (12 + 9 * level)) - 1;

	*ret_gpa = (entry & PTE_ADDRESS & ~mask) | (gva & mask);
	*ret_rights = rights | (entry & PTE_G && s->cr4 & CR4_PGE ? RIGHT_GLOBAL : 0) | (level ? RIGHT_LARGE : 0);
	return 0;
}

void soft_select_view(struct soft_cpu *cpu)
{
	const struct x86_state *s = &cpu->state;
	int view = s->cpl == 3 ? VIEW_USER : s->cr4 & CR4_SMAP && !(s->rflags & FLAG_AC) ? VIEW_KERNEL : VIEW_KERNEL_AC;

	cpu->read_table = cpu->view_read[view];
	cpu->write_table = cpu->view_write[view];
}

static uint64_t index_of(uint64_t gva) { return gva << 16 >> 28; }
static uint64_t *entry_at(uint64_t table, uint64_t index) { return (uint64_t *)(table - TABLE_BIAS + index * 8); }

static void clear_entry(struct soft_cpu *cpu, uint64_t packed)
{
	*entry_at(cpu->view_read[packed & 3], packed >> 2) = 0;
	*entry_at(cpu->view_write[packed & 3], packed >> 2) = 0;
}

static void flush_journal(struct soft_cpu *cpu, int global)
{
	for (uint32_t n = 0; n < cpu->journal_used[global]; n++)
		clear_entry(cpu, cpu->journal[global][n]);
	cpu->journal_used[global] = 0;
}

void soft_flush(struct soft_cpu *cpu, bool global)
{
	flush_journal(cpu, 0);
	if (global) {
		flush_journal(cpu, 1);
		memset(cpu->large_filter, 0, sizeof(cpu->large_filter));
	}
	soft_flush_jumps(cpu, global);
}

static unsigned filter_bit(uint64_t number) { return (unsigned)((number * 0x9e3779b97f4a7c15ull) >> 52); }

void soft_flush_page(struct soft_cpu *cpu, uint64_t gva)
{
	unsigned bit = filter_bit(gva >> 21);

	for (unsigned view = 0; view < VIEWS; view++)
		clear_entry(cpu, index_of(gva) << 2 | view);
	if (cpu->large_filter[bit >> 6] >> (bit & 63) & 1)
		soft_flush(cpu, true);
	bit = filter_bit(gva >> 12);
	if (cpu->code_filter[bit >> 6] >> (bit & 63) & 1)
		soft_flush_jumps(cpu, true);
}

/* No write entry leads to this frame any more: every write to it comes to soft_memory(). */
void soft_revoke_writes(struct soft_cpu *cpu, uint64_t frame)
{
	for (int global = 0; global < 2; global++)
		for (uint32_t n = 0; n < cpu->journal_used[global]; n++) {
			uint64_t packed = cpu->journal[global][n], gva = (uint64_t)((int64_t)(packed >> 2 << 28) >> 16);
			uint64_t *e = entry_at(cpu->view_write[packed & 3], packed >> 2);

			if (*e && soft_frame(cpu->engine, (uint8_t *)(*e - 1 + gva)) == frame)
				*e = 0;
		}
}

static void insert(struct soft_cpu *cpu, uint64_t gva, uint8_t *hva, bool writable, unsigned rights)
{
	int view = cpu->read_table == cpu->view_read[0] ? 0 : cpu->read_table == cpu->view_read[1] ? 1 : 2;
	bool global = rights & RIGHT_GLOBAL;
	uint64_t page = gva & ~4095ull, value = ((uint64_t)hva - page) | 1, index = index_of(gva);

	if (cpu->journal_used[global] == JOURNAL_ENTRIES)
		flush_journal(cpu, global);
	cpu->journal[global][cpu->journal_used[global]++] = index << 2 | (unsigned)view;
	if (rights & RIGHT_LARGE) {
		unsigned bit = filter_bit(gva >> 21);

		cpu->large_filter[bit >> 6] |= 1ull << (bit & 63);
	}
	*entry_at(cpu->view_read[view], index) = value;
	if (writable)
		*entry_at(cpu->view_write[view], index) = value;
	cpu->fills++;
}

/* Translates and, for RAM, caches. *ret_hva is NULL for anything else than RAM. */
int soft_fill(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint8_t **ret_hva, uint64_t *ret_gpa, struct fault *fault)
{
	struct soft_engine *e = cpu->engine;
	unsigned rights;
	uint8_t *hva;

	if (soft_walk(cpu, gva, access, ret_gpa, &rights, fault))
		return -EFAULT;
	hva = soft_hva(e, *ret_gpa);
	*ret_hva = hva;
	if (hva && access & ACCESS_WRITE && e->frame_flags[soft_frame(e, hva)] & FRAME_READ_ONLY)
		return soft_fail(fault, EXC_GP, true, 0);
	if (hva && access & ACCESS_WRITE)
		soft_mark_dirty(e, hva);
	if (hva && !(access & (ACCESS_EXEC | ACCESS_SYSTEM)) && !soft_is_watched_page(cpu, gva)) {
		uint64_t frame = soft_frame(e, hva);
		bool write = access & ACCESS_WRITE;

		if (write && (e->frame_flags[frame] & (FRAME_WRITTEN | FRAME_CODE)) != FRAME_WRITTEN)
			write = !(__atomic_fetch_or(&e->frame_flags[frame], FRAME_WRITTEN, __ATOMIC_SEQ_CST) & FRAME_CODE);
		insert(cpu, gva, hva - (gva & 4095), write, rights);
	}
	return 0;
}

static int pieces(struct soft_cpu *cpu, uint64_t gva, uint8_t *buffer, size_t bytes, unsigned access, struct fault *fault)
{
	if (cpu->watchpoints && !(access & (ACCESS_EXEC | ACCESS_SYSTEM)))
		soft_watch(cpu, gva, bytes, access & ACCESS_WRITE);
	for (size_t done = 0; done < bytes;) {
		size_t left = PAGE_BYTES - ((gva + done) & 4095), n = bytes - done < left ? bytes - done : left;
		uint64_t gpa;
		unsigned rights;
		uint8_t *hva;

		if (soft_walk(cpu, gva + done, access, &gpa, &rights, fault))
			return -EFAULT;
		hva = soft_hva(cpu->engine, gpa);
		if (hva ? access & ACCESS_WRITE && cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] & FRAME_READ_ONLY : access & ACCESS_EXEC)
			return soft_fail(fault, EXC_GP, true, 0);
		if (!hva) {
			soft_outside(cpu);
			if (access & ACCESS_WRITE)
				cpu->ops->mmio_write(cpu->ops_context, gpa, buffer + done, n);
			else
				cpu->ops->mmio_read(cpu->ops_context, gpa, buffer + done, n);
			soft_inside(cpu);
		} else if (access & ACCESS_WRITE) {
			copy(hva, buffer + done, n);
			soft_mark_dirty(cpu->engine, hva);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			if (cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] & FRAME_CODE)
				soft_invalidate(cpu->engine, gpa, n);
		} else {
			copy(buffer + done, hva, n);
		}
		done += n;
	}
	return 0;
}

int soft_read(struct soft_cpu *cpu, uint64_t gva, void *to, size_t bytes, unsigned access, struct fault *fault)
{
	return pieces(cpu, gva, to, bytes, access, fault);
}

int soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes, unsigned access, struct fault *fault)
{
	uint64_t last = gva + bytes - 1, gpa;
	unsigned rights;

	if (last >> 12 != gva >> 12 && soft_walk(cpu, last, access | ACCESS_WRITE, &gpa, &rights, fault))
		return -EFAULT;
	return pieces(cpu, gva, (uint8_t *)(uintptr_t)from, bytes, access | ACCESS_WRITE, fault);
}

static bool hits_own_block(struct soft_cpu *cpu, struct memory_site *site, uint64_t gpa)
{
	struct block *b = soft_block_of(cpu->engine, (uint64_t)site);

	return b && !(b->mode & BLOCK_ALONE) && gpa + site->bytes > b->gpa && gpa < b->gpa + b->guest_bytes;
}

static void *raise_at(struct soft_cpu *cpu, struct memory_site *site, const struct fault *fault)
{
	bool in_word;

	soft_guest_pc(cpu->engine, (uint64_t)site, &cpu->state.rip, &in_word);
	return soft_raise(cpu, fault);
}

/* The slow path of a lookup: fill and go on, or let the access happen on the bounce buffer (pages crossed, MMIO, code pages). */
void *soft_memory(struct soft_cpu *cpu, uint64_t gva, struct memory_site *site)
{
	unsigned access = site->write ? ACCESS_WRITE : ACCESS_READ;
	struct fault fault;
	uint64_t gpa, gpa2;
	uint8_t *hva, *place;

	cpu->bounce_site = NULL; /* an access that faulted on the bounce buffer leaves it behind */
	if (cpu->state.code_bits != 64)
		gva = (uint32_t)gva;
	if (!soft_canonical(gva)) {
		fault = (struct fault){ .vector = site->stack ? EXC_SS : EXC_GP, .has_code = true };
		return raise_at(cpu, site, &fault);
	}
	if (soft_fill(cpu, gva, access, &hva, &gpa, &fault))
		return raise_at(cpu, site, &fault);
	if (cpu->watchpoints)
		soft_watch(cpu, gva, site->bytes, site->write);
	if ((gva & 4095) + site->bytes > 4096) {
		if (soft_fill(cpu, (gva | 4095) + 1, access, &place, &gpa2, &fault))
			return raise_at(cpu, site, &fault);
	} else if (hva && !(site->write && cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] & FRAME_CODE)) {
		cpu->temp[1] = (uint64_t)hva - gva + 1;
		return (uint8_t *)site + site->bounce;
	}
	if (site->write && hva && cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] & FRAME_CODE && hits_own_block(cpu, site, gpa)) {
		bool in_word;

		/* the block would change under its own feet: this instruction alone, then the new code */
		soft_guest_pc(cpu->engine, (uint64_t)site, &cpu->state.rip, &in_word);
		cpu->single_once = true;
		return soft_dispatch(cpu);
	}
	if (site->locked && cpu->engine->cpu_count > 1 && !cpu->alone) {
		bool in_word;

		soft_guest_pc(cpu->engine, (uint64_t)site, &cpu->state.rip, &in_word);
		cpu->single_once = cpu->want_alone = true;
		return soft_dispatch(cpu);
	}
	place = cpu->bounce + (gva & 63);
	if (site->read && soft_read(cpu, gva, place, site->bytes, 0, &fault))
		return raise_at(cpu, site, &fault);
	cpu->bounce_gva = gva;
	cpu->bounce_site = site;
	cpu->temp[1] = (uint64_t)place - gva + 1;
	return (uint8_t *)site + site->bounce;
}

void *soft_commit(struct soft_cpu *cpu)
{
	struct fault fault;

	/* direct: the access already went to guest memory */
	if (cpu->bounce_site) {
		struct memory_site *site = cpu->bounce_site;

		cpu->bounce_site = NULL;
		soft_write(cpu, cpu->bounce_gva, cpu->bounce + (cpu->bounce_gva & 63), site->bytes, 0, &fault);
	}
	return (void *)cpu->temp[1];
}
