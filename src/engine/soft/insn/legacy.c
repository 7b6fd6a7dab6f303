/*
 * What only 16- and 32-bit code has, or what is too rare to translate: decimal arithmetic, BOUND,
 * INTO, ARPL, ENTER, far pointers, SALC. Flags that the manuals call undefined are left as AMD's
 * and Intel's processors compute them: from the result.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

enum { AL = 0xff, LOW_NIBBLE = 0x0f };

static void set_flags(struct step *step, uint64_t flags)
{
	soft_set_rflags(step->cpu, (soft_rflags(step->cpu) & ~(uint64_t)FLAGS_ARITHMETIC) | flags);
}

/* SF, ZF and PF of a byte. */
static uint64_t flags_of(uint8_t value)
{
	return (value & 0x80 ? FLAG_SF : 0) | (value ? 0 : FLAG_ZF) |
	       (__builtin_parity(value) ? 0 : FLAG_PF);
}

static void set_al(struct step *step, uint8_t value) { insn_set_gpr(step, 0, value, 1); }

static void set_ax(struct step *step, uint8_t high, uint8_t low)
{
	insn_set_gpr(step, 0, (uint64_t)high << 8 | low, 2);
}

/* DAA, DAS */
int insn_decimal_adjust(struct step *step, bool subtract)
{
	uint8_t old = (uint8_t)step->state->gpr[0];
	uint8_t al = old;
	uint64_t before = soft_rflags(step->cpu);
	uint64_t after = 0;

	if ((old & LOW_NIBBLE) > 9 || before & FLAG_AF) {
		al = subtract ? (uint8_t)(al - 6) : (uint8_t)(al + 6);
		after |= FLAG_AF;
		if (subtract && old < 6)
			after |= FLAG_CF;
	}
	if (old > 0x99 || before & FLAG_CF) {
		al = subtract ? (uint8_t)(al - 0x60) : (uint8_t)(al + 0x60);
		after |= FLAG_CF;
	}
	set_al(step, al);
	set_flags(step, after | flags_of(al));
	return 0;
}

/* AAA, AAS */
int insn_ascii_adjust(struct step *step, bool subtract)
{
	uint16_t ax = (uint16_t)step->state->gpr[0];
	uint64_t after = 0;

	if ((ax & LOW_NIBBLE) > 9 || soft_rflags(step->cpu) & FLAG_AF) {
		ax = subtract ? (uint16_t)(ax - 0x106) : (uint16_t)(ax + 0x106);
		after = FLAG_AF | FLAG_CF;
	}
	ax &= 0xff0f;
	set_ax(step, (uint8_t)(ax >> 8), (uint8_t)ax);
	set_flags(step, after | flags_of((uint8_t)ax));
	return 0;
}

int insn_aam(struct step *step)
{
	uint8_t base = (uint8_t)step->insn->imm;
	uint8_t al = (uint8_t)step->state->gpr[0];

	if (!base)
		return soft_fail(step->fault, EXC_DE, false, 0);
	set_ax(step, al / base, al % base);
	set_flags(step, flags_of(al % base));
	return 0;
}

int insn_aad(struct step *step)
{
	uint8_t al = (uint8_t)(step->state->gpr[0] +
			       (step->state->gpr[0] >> 8 & AL) * (uint8_t)step->insn->imm);

	set_ax(step, 0, al);
	set_flags(step, flags_of(al));
	return 0;
}

int insn_salc(struct step *step)
{
	set_al(step, soft_rflags(step->cpu) & FLAG_CF ? 0xff : 0);
	return 0;
}

int insn_into(struct step *step)
{
	return soft_rflags(step->cpu) & FLAG_OF ? insn_software_interrupt(step, EXC_OF) : 0;
}

static int64_t sign_extend(uint64_t value, unsigned bytes)
{
	return bytes == 2 ? (int16_t)value : (int32_t)value;
}

int insn_bound(struct step *step)
{
	unsigned bytes = step->insn->operand_bytes;
	uint64_t gva = insn_address(step);
	uint64_t low = 0;
	uint64_t high = 0;
	int64_t index = sign_extend(step->state->gpr[step->insn->reg], bytes);

	if (!x86_insn_has_memory(step->insn))
		return insn_undefined(step);
	if (soft_read(step->cpu, gva, &low, bytes, ACCESS_READ, step->fault) ||
	    soft_read(step->cpu, gva + bytes, &high, bytes, ACCESS_READ, step->fault))
		return -EFAULT;
	if (index < sign_extend(low, bytes) || index > sign_extend(high, bytes))
		return soft_fail(step->fault, EXC_BR, false, 0);
	return 0;
}

int insn_arpl(struct step *step)
{
	uint64_t selector;
	uint64_t least = step->state->gpr[step->insn->reg] & 3;

	if (insn_is_real(step->state))
		return insn_undefined(step);
	if (insn_get_rm(step, 2, &selector))
		return -EFAULT;
	if ((selector & 3) >= least) {
		insn_set_zero_flag(step, false);
		return 0;
	}
	if (insn_put_rm(step, 2, (selector & ~3ull) | least))
		return -EFAULT;
	insn_set_zero_flag(step, true);
	return 0;
}

/* LDS, LES, LSS, LFS, LGS: the operand is an offset and a selector. */
int insn_load_far_pointer(struct step *step, unsigned segment)
{
	unsigned bytes;
	uint64_t offset;
	uint16_t selector;

	if (insn_get_far_pointer(step, &offset, &selector, &bytes))
		return -EFAULT;
	if (insn_load_segment(step, segment, selector))
		return -EFAULT;
	insn_set_gpr(step, step->insn->reg, offset, bytes);
	return 0;
}

/* The frame pointers of the outer procedures, and the new one (SDM Vol. 2, ENTER). */
static int push_frames(struct step *step, unsigned level, uint64_t frame, unsigned bytes)
{
	struct x86_state *state = step->state;
	unsigned address_bytes = insn_stack_address_bytes(step);
	uint64_t outer = state->gpr[5];

	for (unsigned n = 1; n < level; n++) {
		uint64_t value = 0;

		outer -= bytes;
		if (insn_check_stack(step, outer & soft_address_mask(address_bytes), bytes,
				     false) ||
		    soft_read(step->cpu, soft_linear_address(state, X86_SS, outer, address_bytes),
			      &value, bytes, ACCESS_READ, step->fault) ||
		    insn_push(step, value, bytes))
			return -EFAULT;
	}
	return level ? insn_push(step, frame, bytes) : 0;
}

int insn_enter(struct step *step)
{
	enum { LEVELS = 32 };
	struct x86_state *state = step->state;
	unsigned bytes = insn_stack_bytes(step);
	unsigned level = step->insn->imm2 % LEVELS;
	uint64_t old = state->gpr[4];
	uint64_t frame, top;

	if (insn_push(step, state->gpr[5], bytes))
		return -EFAULT;
	frame = state->gpr[4];
	if (push_frames(step, level, frame, bytes)) {
		state->gpr[4] = old;
		return -EFAULT;
	}
	insn_move_stack(step, -(step->insn->imm & 0xffff));
	top = state->gpr[4] & soft_address_mask(insn_stack_address_bytes(step));
	/* a last write to the new top must be possible */
	if (insn_check_stack(step, top, bytes, true) ||
	    soft_check_write(
		    step->cpu,
		    soft_linear_address(state, X86_SS, top, insn_stack_address_bytes(step)), bytes,
		    0, step->fault)) {
		state->gpr[4] = old;
		return -EFAULT;
	}
	insn_set_gpr(step, 5, frame, bytes);
	return 0;
}
