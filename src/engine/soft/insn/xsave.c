/* Saving and restoring vector state: FXSAVE, XSAVE and their kin, and XCR0, which says of what. */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

int insn_save_area(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct soft_cpu *cpu = t->cpu;
	struct x86_state *s = t->s;
	uint32_t mask = (uint32_t)(s->gpr[0] & s->xcr0);
	bool fx = i->opcode == 0xae && i->reg < 2;
	size_t bytes = fx ? 512 : s->xcr0 & 4 ? 832 : 576;
	uint8_t *area = cpu->save_area;
	uint64_t gva = insn_address(t);
	bool load = i->opcode == 0xae && (i->reg & 1);
	struct fault fault;

	if (!fx && !(s->cr4 & CR4_OSXSAVE))
		return insn_undefined(t);
	if (gva & (fx ? 15 : 63))
		return insn_general_protection(t);
	if (soft_read(cpu, gva, area, bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	if (load) {
		uint64_t *header = (uint64_t *)(void *)(area + 512);

		if (*(uint32_t *)(void *)(area + 24) & ~0xffffu)
			return insn_general_protection(t);
		if (fx) {
			__asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
			return 0;
		}
		if (header[1] & 1ull << 63 ? (header[1] & ~(1ull << 63 | s->xcr0)) || header[0] & ~header[1] : header[1] || header[0] & ~s->xcr0)
			return insn_general_protection(t);
		for (int n = 2; n < 8; n++)
			if (header[n])
				return insn_general_protection(t);
		__asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
		return 0;
	}
	if (soft_write(cpu, gva, area, 1, 0, &fault)) /* the write right comes before the save */
		return *t->fault = fault, -EFAULT;
	if (fx)
		__asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
	else if (i->opcode == 0xc7)
		__asm__ volatile("xsavec64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
	else
		__asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
	return soft_write(cpu, gva, area, bytes, 0, t->fault);
}

int insn_xgetbv(struct step *t)
{
	struct x86_state *s = t->s;

	if (!(s->cr4 & CR4_OSXSAVE))
		return insn_undefined(t);
	if ((uint32_t)s->gpr[1] > 1) /* 0: XCR0; 1: what of it is in use, and all may be */
		return insn_general_protection(t);
	s->gpr[0] = (uint32_t)s->xcr0;
	s->gpr[2] = 0;
	return 0;
}

int insn_xsetbv(struct step *t)
{
	enum { X87 = 1, SSE = 2, AVX = 4 };
	struct x86_state *s = t->s;
	uint64_t xcr0 = s->gpr[2] << 32 | (uint32_t)s->gpr[0];

	if (!(s->cr4 & CR4_OSXSAVE))
		return insn_undefined(t);
	if (s->cpl || (uint32_t)s->gpr[1] || !(xcr0 & X87) || xcr0 & ~(uint64_t)(X87 | SSE | AVX) || (xcr0 & (SSE | AVX)) == AVX)
		return insn_general_protection(t);
	s->xcr0 = xcr0;
	return 0;
}
