/*
 * The stack: PUSH and POP in all their forms, and near calls and returns where the translator has
 * none.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

unsigned insn_stack_bytes(const struct step *t)
{
	if (x86_code_bits(t->s) != 64)
		return t->i->operand_bytes;
	return t->i->prefix66 ? 2 : 8;
}

unsigned insn_stack_address_bytes(const struct step *t)
{
	if (x86_code_bits(t->s) == 64)
		return 8;
	return t->s->segment[X86_SS].attributes & CODE_DB ? 4 : 2;
}

static uint64_t stack_mask(const struct step *t)
{
	return soft_address_mask(insn_stack_address_bytes(t));
}

static uint64_t stack_address(const struct step *t, uint64_t sp)
{
	return soft_linear_address(t->s, X86_SS, sp, insn_stack_address_bytes(t));
}

/* SP as wide as the stack's segment has it. */
void insn_move_stack(struct step *t, uint64_t bytes)
{
	uint64_t mask = stack_mask(t);

	t->s->gpr[4] = (t->s->gpr[4] & ~mask) | ((t->s->gpr[4] + bytes) & mask);
}

int insn_push(struct step *t, uint64_t value, unsigned bytes)
{
	uint64_t mask = stack_mask(t);
	uint64_t sp = (t->s->gpr[4] - bytes) & mask;

	if (soft_write(t->cpu, stack_address(t, sp), &value, bytes, 0, t->fault))
		return -EFAULT;
	t->s->gpr[4] = (t->s->gpr[4] & ~mask) | sp;
	return 0;
}

int insn_pop(struct step *t, uint64_t *ret, unsigned bytes)
{
	uint64_t mask = stack_mask(t);
	uint64_t sp = t->s->gpr[4] & mask;

	*ret = 0;
	if (soft_read(t->cpu, stack_address(t, sp), ret, bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	t->s->gpr[4] = (t->s->gpr[4] & ~mask) | ((sp + bytes) & mask);
	return 0;
}

int insn_push_pop(struct step *t)
{
	struct x86_state *s = t->s;
	unsigned bytes = insn_stack_bytes(t);
	uint64_t v;
	uint64_t sp = s->gpr[4];
	uint8_t op = t->i->opcode;

	switch (op) {
	case 0x60:
		for (int n = 0; n < 8; n++)
			if (insn_push(t, n == 4 ? sp : s->gpr[n], bytes))
				return s->gpr[4] = sp, -EFAULT;
		return 0;
	case 0x61:
		for (int n = 7; n >= 0; n--) {
			if (insn_pop(t, &v, bytes))
				return s->gpr[4] = sp, -EFAULT;
			if (n != 4)
				insn_set_gpr(t, (unsigned)n, v, bytes);
		}
		return 0;
	case 0x68: case 0x6a: return insn_push(t, t->i->imm, bytes);
	case 0x8f:
		if (insn_pop(t, &v, bytes))
			return -EFAULT;
		if (insn_put_rm(t, bytes, v))
			return s->gpr[4] = sp, -EFAULT;
		return 0;
	case 0x06:
	case 0x0e:
	case 0x16:
	case 0x1e: return insn_push(t, s->segment[op >> 3].selector, bytes);
	case 0x07: case 0x17: case 0x1f:
		if (insn_pop(t, &v, bytes))
			return -EFAULT;
		if (insn_load_segment(t, op >> 3, (uint16_t)v))
			return s->gpr[4] = sp, -EFAULT;
		if (op == 0x17)
			soft_set_shadow(t->cpu, PENDING_MOV_SS_SHADOW);
		return 0;
	default:
		if (op < 0x58)
			return insn_push(t, s->gpr[t->i->rm], bytes);
		if (insn_pop(t, &v, bytes))
			return -EFAULT;
		insn_set_gpr(t, t->i->rm, v, bytes);
		return 0;
	}
}

static uint64_t target_mask(const struct step *t)
{
	if (x86_code_bits(t->s) == 64)
		return ~0ull;
	return t->i->operand_bytes == 2 ? 0xffff : 0xffffffff;
}

int insn_near_transfer(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	uint64_t mask = target_mask(t);
	uint64_t v;
	unsigned bytes = insn_stack_bytes(t);

	switch (i->opcode) {
	case 0xe8:
		if (insn_push(t, t->next, bytes))
			return -EFAULT;
		t->next = (t->next + i->imm) & mask;
		return 0;
	case 0xc2: case 0xc3:
		if (insn_pop(t, &v, bytes))
			return -EFAULT;
		insn_move_stack(t, i->opcode == 0xc2 ? i->imm : 0);
		t->next = v;
		return 0;
	case 0xc9:
		v = s->gpr[4];
		s->gpr[4] = (s->gpr[4] & ~stack_mask(t)) | (s->gpr[5] & stack_mask(t));
		if (insn_pop(t, &mask, bytes)) {
			s->gpr[4] = v;
			return -EFAULT;
		}
		insn_set_gpr(t, 5, mask, bytes);
		return 0;
	default: /* E0..E3 with 16-bit addresses */
		if (i->opcode != 0xe3)
			insn_set_gpr(t, 1, s->gpr[1] - 1, 2);
		if (((uint16_t)s->gpr[1] == 0) == (i->opcode == 0xe3) &&
		    (i->opcode >= 0xe2 ||
		     (soft_rflags(t->cpu) & FLAG_ZF ? 1 : 0) == (i->opcode == 0xe1)))
			t->next = (t->next + i->imm) & mask;
		return 0;
	}
}
