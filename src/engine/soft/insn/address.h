/*
 * Linear addresses of memory operands, for 16-, 32- and 64-bit code (SDM Vol. 1 3.7.5, 3.3.7): the
 * offset is cut to the address size, the segment's base is added (in 64-bit code only that of FS
 * and GS), and outside 64-bit code the sum is cut to 32 bits. Every operand of what C executes
 * comes from here: modrm forms, moffs, XLAT, strings, gathers, and the stack.
 */
#pragma once

#include "x86/state.h"

static inline uint64_t soft_address_mask(unsigned address_bytes)
{
	return address_bytes >= 8 ? ~0ull : (1ull << 8 * address_bytes) - 1;
}

static inline uint64_t soft_linear_address(const struct x86_state *state, unsigned segment,
					   uint64_t offset, unsigned address_bytes)
{
	uint64_t linear = offset & soft_address_mask(address_bytes);

	if (x86_code_bits(state) == 64)
		return segment >= X86_FS ? linear + state->segment[segment].base : linear;
	return (uint32_t)(linear + state->segment[segment].base);
}

/* Of the modrm or moffs operand, not cut yet; state.rip is the instruction's own. */
static inline uint64_t soft_operand_offset(const struct x86_state *state,
					   const struct x86_insn *insn)
{
	uint64_t offset = (uint64_t)(int64_t)insn->disp;

	if (!insn->has_modrm)
		offset = insn->imm; /* moffs */
	else if (insn->base == X86_RIP)
		offset += state->rip + insn->length;
	else if (insn->base < 16)
		offset += state->gpr[insn->base];
	if (insn->has_modrm && insn->index < 16)
		offset += state->gpr[insn->index] << insn->scale_log2;
	return offset;
}

static inline uint64_t soft_operand_address(const struct x86_state *state,
					    const struct x86_insn *insn)
{
	return soft_linear_address(state, insn->segment, soft_operand_offset(state, insn),
				   insn->address_bytes);
}
