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

int insn_check_stack(struct step *t, uint64_t sp, unsigned bytes, bool write)
{
	if (soft_check_segment(t->cpu, X86_SS, sp, bytes, write, t->fault))
		return -EFAULT;
	return soft_check_alignment(t->cpu, stack_address(t, sp), bytes, t->fault);
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

	if (insn_check_stack(t, sp, bytes, true) ||
	    soft_write(t->cpu, stack_address(t, sp), &value, bytes, 0, t->fault))
		return -EFAULT;
	t->s->gpr[4] = (t->s->gpr[4] & ~mask) | sp;
	return 0;
}

int insn_pop(struct step *t, uint64_t *ret, unsigned bytes)
{
	uint64_t mask = stack_mask(t);
	uint64_t sp = t->s->gpr[4] & mask;

	*ret = 0;
	if (insn_check_stack(t, sp, bytes, false) ||
	    soft_read(t->cpu, stack_address(t, sp), ret, bytes, ACCESS_READ, t->fault))
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

/* SDM Vol. 1 B.1: the condition of the low four bits of an opcode. */
static bool holds(uint64_t flags, unsigned condition)
{
	bool sign_differs = !(flags & FLAG_SF) != !(flags & FLAG_OF);
	const bool even[8] = { flags & FLAG_OF,
			       flags & FLAG_CF,
			       flags & FLAG_ZF,
			       flags & (FLAG_CF | FLAG_ZF),
			       flags & FLAG_SF,
			       flags & FLAG_PF,
			       sign_differs,
			       sign_differs || flags & FLAG_ZF };

	return even[condition >> 1 & 7] != (condition & 1);
}

/* LOOPNE, LOOPE, LOOP, JCXZ; the counter is as wide as an address. */
static bool loop_is_taken(struct step *t)
{
	enum { LOOPE = 0xe1, LOOP = 0xe2, JCXZ = 0xe3 };
	uint8_t opcode = t->i->opcode;
	uint64_t mask = soft_address_mask(t->i->address_bytes);
	bool zero = soft_rflags(t->cpu) & FLAG_ZF;

	if (opcode != JCXZ)
		insn_set_gpr(t, 1, t->s->gpr[1] - 1, t->i->address_bytes);
	if (!(t->s->gpr[1] & mask) != (opcode == JCXZ))
		return false;
	return opcode >= LOOP || zero == (opcode == LOOPE);
}

static int call_near(struct step *t, uint64_t target)
{
	uint64_t before = t->next;

	t->next = target;
	return insn_push(t, before, insn_stack_bytes(t));
}

static int return_near(struct step *t)
{
	enum { RET_POPPING = 0xc2 };

	if (insn_pop(t, &t->next, insn_stack_bytes(t)))
		return -EFAULT;
	insn_move_stack(t, t->i->opcode == RET_POPPING ? t->i->imm : 0);
	return 0;
}

static int leave_frame(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t frame;

	s->gpr[4] = (s->gpr[4] & ~stack_mask(t)) | (s->gpr[5] & stack_mask(t));
	if (insn_pop(t, &frame, insn_stack_bytes(t)))
		return -EFAULT;
	insn_set_gpr(t, 5, frame, insn_stack_bytes(t));
	return 0;
}

static int transfer(struct step *t)
{
	uint64_t target = (t->next + t->i->imm) & target_mask(t);

	switch (t->i->encoding.class) {
	case X86_CLASS_CALL: return call_near(t, target);
	case X86_CLASS_RET: return return_near(t);
	case X86_CLASS_LEAVE: return leave_frame(t);
	case X86_CLASS_LOOP: t->next = loop_is_taken(t) ? target : t->next; return 0;
	case X86_CLASS_JCC:
		t->next = holds(soft_rflags(t->cpu), t->i->opcode & 15) ? target : t->next;
		return 0;
	default: t->next = target; return 0;
	}
}

bool insn_may_go_on(const struct step *t)
{
	if (x86_code_bits(t->s) == 64)
		return soft_canonical(t->next);
	return t->next <= t->s->segment[X86_CS].limit;
}

int insn_near_transfer(struct step *t)
{
	uint64_t counter = t->s->gpr[1];
	uint64_t stack = t->s->gpr[4];
	uint64_t behind = t->next;
	int error = transfer(t);

	/* what is not taken goes on behind itself, and faults there */
	if (!error && t->next != behind && !insn_may_go_on(t))
		error = insn_general_protection(t);
	if (error) {
		t->s->gpr[1] = counter;
		t->s->gpr[4] = stack;
	}
	return error;
}
