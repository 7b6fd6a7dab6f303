/*
 * One x86 instruction, taken apart. Table-driven (decode_internal.h); 16-, 32- and 64-bit code; no
 * allocation, no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode_internal.h"

enum { X86_INSN_MAX_BYTES = 15, X86_NO_REGISTER = 0xff, X86_RIP = 0x10 };
enum x86_segment { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGMENTS };

struct x86_insn {
	struct x86_encoding encoding;
	uint8_t length;
	uint8_t kind, map, pp, opcode; /* pp: 0 none, 1 66, 2 F3, 3 F2, as the table sees it */
	uint8_t mod, reg, rm;          /* extended by REX or VEX; mod 3 = register form */
	uint8_t base, index, scale_log2; /* memory form; X86_NO_REGISTER, or X86_RIP as base */
	uint8_t vvvv;
	uint8_t segment;      /* of the memory operand, defaults applied */
	uint8_t operand_bytes; /* 2, 4, 8 */
	uint8_t address_bytes; /* 2, 4, 8 */
	uint8_t mem_bytes;     /* accessed by the memory operand; 0 when the table does not say */
	bool lock, rep, repne, rex, rex_w, prefix66, has_modrm, segment_override;
	/*
	 * its canonical 64-bit encoding has a 66 prefix: what the table, the immediate and a copy
	 * go by
	 */
	bool canonical66;
	int32_t disp;
	uint64_t imm; /* sign-extended where the instruction does so */
	uint8_t imm_bytes;
	uint8_t imm2; /* ENTER's second */
};

static inline bool x86_insn_has_memory(const struct x86_insn *insn)
{
	return insn->has_modrm && insn->mod != 3;
}

/* XCHG with memory is locked without the prefix. */
static inline bool x86_insn_is_locked(const struct x86_insn *insn)
{
	return insn->lock || insn->encoding.operation == X86_OPERATION_EXCHANGE;
}

/* VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ: only the enabled elements are accessed. */
static inline bool x86_insn_is_masked(const struct x86_insn *insn)
{
	return insn->encoding.operation == X86_OPERATION_MASKED;
}

/*
 * Decodes the instruction at bytes[0..available) for code of code_bits (16, 32, 64).
 * Returns 0; -EAGAIN when more bytes are needed (available < 15); -EINVAL when it is not an
 * instruction (#UD). On -EINVAL ret_insn->length is not meaningful. A 16th byte would be #GP:
 * reported as -E2BIG.
 */
int x86_decode(const uint8_t *bytes, size_t available, unsigned code_bits,
	       struct x86_insn *ret_insn);

static inline bool x86_insn_is(const struct x86_insn *insn, uint32_t attribute)
{
	return insn->encoding.attributes & attribute;
}

/*
 * Those of encoding.flags_written that may stay as they were (X86_CF ...): by the operands (a shift
 * by zero), or on some processors, where the manuals call them undefined (SDM Vol. 1 appendix A).
 */
uint8_t x86_flags_kept(const struct x86_insn *insn);
