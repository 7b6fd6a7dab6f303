/*
 * The stack: PUSH and POP in all their forms, and near calls and returns where the translator has
 * none.
 */
#include <assert.h>
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

unsigned insn_stack_bytes(const struct step *step)
{
	if (x86_code_bits(step->state) != 64)
		return step->insn->operand_bytes;
	return step->insn->prefix66 ? 2 : 8;
}

unsigned insn_stack_address_bytes(const struct step *step)
{
	if (x86_code_bits(step->state) == 64)
		return 8;
	return step->state->segment[X86_SS].attributes & CODE_DB ? 4 : 2;
}

static uint64_t stack_mask(const struct step *step)
{
	return soft_address_mask(insn_stack_address_bytes(step));
}

static uint64_t stack_address(const struct step *step, uint64_t sp)
{
	return soft_linear_address(step->state, X86_SS, sp, insn_stack_address_bytes(step));
}

int insn_check_stack(struct step *step, uint64_t sp, unsigned bytes, bool write)
{
	if (soft_check_segment(step->cpu, X86_SS, sp, bytes, write, step->fault))
		return -EFAULT;
	return soft_check_alignment(step->cpu, stack_address(step, sp), bytes, step->fault);
}

/* SP as wide as the stack's segment has it. */
void insn_move_stack(struct step *step, uint64_t bytes)
{
	uint64_t mask = stack_mask(step);

	step->state->gpr[4] =
		(step->state->gpr[4] & ~mask) | ((step->state->gpr[4] + bytes) & mask);
}

int insn_push(struct step *step, uint64_t value, unsigned bytes)
{
	uint64_t mask = stack_mask(step);
	uint64_t sp = (step->state->gpr[4] - bytes) & mask;

	assert(bytes == 2 || bytes == 4 || bytes == 8);
	if (insn_check_stack(step, sp, bytes, true) ||
	    soft_write(step->cpu, stack_address(step, sp), &value, bytes, 0, step->fault))
		return -EFAULT;
	step->state->gpr[4] = (step->state->gpr[4] & ~mask) | sp;
	return 0;
}

int insn_pop(struct step *step, uint64_t *ret, unsigned bytes)
{
	uint64_t mask = stack_mask(step);
	uint64_t sp = step->state->gpr[4] & mask;

	assert(bytes == 2 || bytes == 4 || bytes == 8);
	*ret = 0;
	if (insn_check_stack(step, sp, bytes, false) ||
	    soft_read(step->cpu, stack_address(step, sp), ret, bytes, ACCESS_READ, step->fault))
		return -EFAULT;
	step->state->gpr[4] = (step->state->gpr[4] & ~mask) | ((sp + bytes) & mask);
	return 0;
}

int insn_push_pop(struct step *step)
{
	struct x86_state *state = step->state;
	unsigned bytes = insn_stack_bytes(step);
	uint64_t value;
	uint64_t sp = state->gpr[4];
	uint8_t op = step->insn->opcode;

	switch (op) {
	case 0x60:
		for (int n = 0; n < 8; n++)
			if (insn_push(step, n == 4 ? sp : state->gpr[n], bytes))
				return state->gpr[4] = sp, -EFAULT;
		return 0;
	case 0x61:
		for (int n = 7; n >= 0; n--) {
			if (insn_pop(step, &value, bytes))
				return state->gpr[4] = sp, -EFAULT;
			if (n != 4)
				insn_set_gpr(step, (unsigned)n, value, bytes);
		}
		return 0;
	case 0x68: case 0x6a: return insn_push(step, step->insn->imm, bytes);
	case 0x8f:
		if (insn_pop(step, &value, bytes))
			return -EFAULT;
		if (insn_put_rm(step, bytes, value))
			return state->gpr[4] = sp, -EFAULT;
		return 0;
	case 0x06:
	case 0x0e:
	case 0x16:
	case 0x1e: return insn_push(step, state->segment[op >> 3].selector, bytes);
	case 0x07: case 0x17: case 0x1f:
		if (insn_pop(step, &value, bytes))
			return -EFAULT;
		if (insn_load_segment(step, op >> 3, (uint16_t)value))
			return state->gpr[4] = sp, -EFAULT;
		if (op == 0x17)
			soft_set_shadow(step->cpu, PENDING_MOV_SS_SHADOW);
		return 0;
	default:
		if (op < 0x58)
			return insn_push(step, state->gpr[step->insn->rm], bytes);
		if (insn_pop(step, &value, bytes))
			return -EFAULT;
		insn_set_gpr(step, step->insn->rm, value, bytes);
		return 0;
	}
}

static uint64_t target_mask(const struct step *step)
{
	if (x86_code_bits(step->state) == 64)
		return ~0ull;
	return step->insn->operand_bytes == 2 ? 0xffff : 0xffffffff;
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
static bool loop_is_taken(struct step *step)
{
	enum { LOOPE = 0xe1, LOOP = 0xe2, JCXZ = 0xe3 };
	uint8_t opcode = step->insn->opcode;
	uint64_t mask = soft_address_mask(step->insn->address_bytes);
	bool zero = soft_rflags(step->cpu) & FLAG_ZF;

	if (opcode != JCXZ)
		insn_set_gpr(step, 1, step->state->gpr[1] - 1, step->insn->address_bytes);
	if (!(step->state->gpr[1] & mask) != (opcode == JCXZ))
		return false;
	return opcode >= LOOP || zero == (opcode == LOOPE);
}

static int call_near(struct step *step, uint64_t target)
{
	uint64_t before = step->next;

	step->next = target;
	return insn_push(step, before, insn_stack_bytes(step));
}

static int return_near(struct step *step)
{
	enum { RET_POPPING = 0xc2 };

	if (insn_pop(step, &step->next, insn_stack_bytes(step)))
		return -EFAULT;
	insn_move_stack(step, step->insn->opcode == RET_POPPING ? step->insn->imm : 0);
	return 0;
}

static int leave_frame(struct step *step)
{
	struct x86_state *state = step->state;
	uint64_t frame;

	state->gpr[4] = (state->gpr[4] & ~stack_mask(step)) | (state->gpr[5] & stack_mask(step));
	if (insn_pop(step, &frame, insn_stack_bytes(step)))
		return -EFAULT;
	insn_set_gpr(step, 5, frame, insn_stack_bytes(step));
	return 0;
}

static int transfer(struct step *step)
{
	uint64_t target = (step->next + step->insn->imm) & target_mask(step);

	switch (step->insn->encoding.class) {
	case X86_CLASS_CALL: return call_near(step, target);
	case X86_CLASS_RET: return return_near(step);
	case X86_CLASS_LEAVE: return leave_frame(step);
	case X86_CLASS_LOOP: step->next = loop_is_taken(step) ? target : step->next; return 0;
	case X86_CLASS_JCC:
		step->next = holds(soft_rflags(step->cpu), step->insn->opcode & 15) ? target
										    : step->next;
		return 0;
	default: step->next = target; return 0;
	}
}

bool insn_may_go_on(const struct step *step)
{
	if (x86_code_bits(step->state) == 64)
		return soft_canonical(step->next);
	return step->next <= step->state->segment[X86_CS].limit;
}

int insn_near_transfer(struct step *step)
{
	uint64_t counter = step->state->gpr[1];
	uint64_t stack = step->state->gpr[4];
	uint64_t behind = step->next;
	int error = transfer(step);

	/* what is not taken goes on behind itself, and faults there */
	if (!error && step->next != behind && !insn_may_go_on(step))
		error = insn_general_protection(step);
	if (error) {
		step->state->gpr[1] = counter;
		step->state->gpr[4] = stack;
	}
	return error;
}
