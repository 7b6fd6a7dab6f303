/* The walk of the guest's page tables: rights, accessed and dirty flags, and the page fault when there is no way (SDM Vol. 3A 4.5). */
#include <errno.h>

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
