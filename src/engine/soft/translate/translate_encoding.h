/*
 * The canonical 64-bit encoding of a guest's data instruction, whatever mode it came from and
 * however it was written. Made in one place, from the instruction table's row alone: what is looked
 * up, the prefixes that are emitted, the width of the immediate, and the registers all come from
 * here, so that the host cannot read another instruction than was decoded.
 */
#pragma once

#include "emit.h"

struct host_encoding {
	struct host_op op;       /* prefixes, map, opcode; op.vvvv is the guest's */
	uint8_t reg, rm;         /* guest registers or opcode bits; renamed when it is emitted */
	bool has_modrm;
	bool opcode_gpr;         /* rm is in the low bits of the opcode */
	uint8_t operand_bytes;   /* of an operand whose size prefixes choose */
	uint8_t memory_bytes;    /* that a memory operand reaches */
	uint8_t immediate_bytes;
	uint64_t immediate;
};

/*
 * A copy as it was emitted: what validators look at. host[0..bytes) is the instruction, one access
 * without what surrounds it.
 */
struct emitted_copy {
	const struct x86_insn *insn;
	const uint8_t *host;
	unsigned bytes;
	/* from the operand's first byte; 0: it has no guest memory operand */
	unsigned looked_up_bytes;
	unsigned r10_ahead;       /* how far r10, if it holds the address, is behind that byte */
	bool writable;            /* they were looked up for writing */
	bool in_strip;            /* the lookup was in front of a loop (translate_strip.c) */
	unsigned code_bits;
};

/* What is wrong with a copy, in words; or NULL. */
const char *soft_copy_error(const struct emitted_copy *copy);
/*
 * What soft_engine.on_copy is in builds with checks and with ENGINE_WITHOUT_TRUST; context: the
 * engine. One that is wrong ends the process with 70, and the engine's last words say why.
 */
void soft_check_copy(void *engine, const struct emitted_copy *copy);

/*
 * Copies of data instructions only. False: there is none, or what the decoder read has other
 * widths; the instruction is C's.
 */
bool soft_host_encoding(const struct x86_insn *insn, struct host_encoding *ret);
