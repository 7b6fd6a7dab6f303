/*
 * Operands of the instructions that are left to C: addresses, registers and memory of a ModRM byte.
 */
#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

uint64_t insn_address(const struct step *t)
{
	return soft_operand_address(t->s, t->i);
}

int insn_get_rm(struct step *t, unsigned bytes, uint64_t *ret)
{
	*ret = 0;
	if (x86_insn_has_memory(t->i))
		return soft_read(t->cpu, insn_address(t), ret, bytes, ACCESS_READ, t->fault);
	*ret = bytes == 8 ? t->s->gpr[t->i->rm] : t->s->gpr[t->i->rm] & ((1ull << 8 * bytes) - 1);
	return 0;
}

void insn_set_gpr(struct step *t, unsigned reg, uint64_t value, unsigned bytes)
{
	uint64_t *r = &t->s->gpr[reg];

	switch (bytes) {
	case 8: *r = value; return;
	case 4: *r = (uint32_t)value; return;
	case 2: *r = (*r & ~0xffffull) | (value & 0xffff); return;
	default: *r = (*r & ~0xffull) | (value & 0xff); return;
	}
}

int insn_put_rm(struct step *t, unsigned bytes, uint64_t value)
{
	if (x86_insn_has_memory(t->i))
		return soft_write(t->cpu, insn_address(t), &value, bytes, 0, t->fault);
	insn_set_gpr(t, t->i->rm, value, bytes);
	return 0;
}
