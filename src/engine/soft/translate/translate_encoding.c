/*
 * From a decoded guest instruction to its canonical 64-bit encoding.
 *
 * Invariants (check_host_encoding)
 *  1. The immediate has as many bytes as the guest's decoder read, and as the host will read.
 *  2. A memory operand's size is known and not 0.
 *  3. Only classes that are copied have an encoding; an opcode that does not exist in 64-bit code
 *     never appears.
 */
#include "translate_encoding.h"

#include <assert.h>

#include "lib/check.h"

enum {
	OPCODE_INC_DEC_FIRST = 0x40, /* one byte each outside 64-bit code; a REX prefix in it */
	OPCODE_INC_DEC_LAST = 0x4f,
	OPCODE_DEC_FIRST = 0x48,
	OPCODE_GROUP_1 = 0x80,
	OPCODE_GROUP_1_ALIAS = 0x82, /* of 80, outside 64-bit code */
	OPCODE_GROUP_5 = 0xff,       /* INC /0, DEC /1 */
};

/* Instructions that have other opcodes in 64-bit code; false: there is none. */
static bool rewrite_opcode(struct host_encoding *encoding)
{
	if (encoding->op.map)
		return false;
	if (encoding->op.opcode >= OPCODE_INC_DEC_FIRST &&
	    encoding->op.opcode <= OPCODE_INC_DEC_LAST) {
		encoding->reg = encoding->op.opcode >= OPCODE_DEC_FIRST;
		encoding->op.opcode = OPCODE_GROUP_5;
		encoding->has_modrm = true;
		encoding->opcode_gpr = false;
		return true;
	}
	if (encoding->op.opcode != OPCODE_GROUP_1_ALIAS)
		return false;
	encoding->op.opcode = OPCODE_GROUP_1;
	return true;
}

/* By what the canonical encoding has, not by what the guest's prefixes meant. */
static unsigned immediate_bytes(const struct host_encoding *encoding, unsigned kind)
{
	switch (kind) {
	case X86_IMM_8: return 1;
	case X86_IMM_Z: return encoding->operand_bytes == 2 ? 2 : 4;
	case X86_IMM_V: return encoding->operand_bytes;
	case X86_IMM_NONE: return 0;
	default: assert(false); return 0; /* no class that is copied has another */
	}
}

static unsigned memory_bytes(const struct host_encoding *encoding, const struct x86_insn *insn)
{
	if (!x86_insn_has_memory(insn))
		return 0;
	if (insn->encoding.class == X86_CLASS_BIT_STRING)
		return encoding->operand_bytes;
	if (encoding->op.rex_w)
		return insn->encoding.mem_bytes[1];
	return insn->encoding.mem_bytes[encoding->op.extra66 ? 2 : 0];
}

static void check_host_encoding(const struct x86_insn *insn, const struct host_encoding *encoding)
{
	assert(encoding->immediate_bytes == insn->imm_bytes);
	assert(!x86_insn_has_memory(insn) || encoding->memory_bytes);
	assert(insn->encoding.class == X86_CLASS_DATA ||
	       insn->encoding.class == X86_CLASS_BIT_STRING);
}

bool soft_host_encoding(const struct x86_insn *insn, struct host_encoding *ret)
{
	uint8_t narrow_bytes;

	if (insn->encoding.class != X86_CLASS_DATA && insn->encoding.class != X86_CLASS_BIT_STRING)
		return false;
	*ret = (struct host_encoding){
		.op = { .kind = insn->kind,
			.map = insn->map,
			.pp = insn->pp,
			.opcode = insn->opcode,
			.vvvv = insn->vvvv,
			.rex_w = insn->rex_w,
			.lock = insn->lock,
			.extra66 = !insn->kind && insn->pp >= 2 && insn->canonical66 },
		.reg = insn->reg,
		.rm = insn->rm,
		.has_modrm = insn->has_modrm,
		.opcode_gpr = x86_insn_is(insn, X86_ENC_OPCODE_GPR),
		.immediate = insn->imm,
	};
	if (x86_insn_is(insn, X86_ENC_NOT_64) && !rewrite_opcode(ret))
		return false;
	narrow_bytes = !insn->kind && (ret->op.pp == 1 || ret->op.extra66) ? 2 : 4;
	ret->operand_bytes = ret->op.rex_w ? 8 : narrow_bytes;
	ret->immediate_bytes = (uint8_t)immediate_bytes(ret, insn->encoding.immediate);
	ret->memory_bytes = (uint8_t)memory_bytes(ret, insn);
	if (ret->immediate_bytes != insn->imm_bytes ||
	    (x86_insn_has_memory(insn) && !ret->memory_bytes))
		return false;
	CHECK(check_host_encoding(insn, ret));
	return true;
}
