/*
 * Writing host instructions. Addresses: [base + index << scale + disp], or gs:[disp] of the running
 * processor.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum {
	RAX,
	RCX,
	RDX,
	RBX,
	RSP,
	RBP,
	RSI,
	RDI,
	R8,
	R9,
	R10,
	R11,
	R12,
	R13,
	R14,
	R15,
	NO_REG = 0xff
};
enum { CC_O, CC_NO, CC_C, CC_NC, CC_Z, CC_NZ, CC_BE, CC_A, CC_S, CC_NS };
enum { CC_L = 12, CC_LE = 14, CC_G };

/* A prefix that means nothing, in 64-bit code. */
enum { CS_SEGMENT = 0x2e };

struct emitter { uint8_t *out; };

struct host_mem { uint8_t base, index, scale_log2; bool gs; int32_t disp; };

struct host_op { uint8_t kind, map, pp, opcode, vvvv; bool rex_w, lock, extra66, force_rex; };

static inline void emit8(struct emitter *emitter, uint8_t b) { *emitter->out++ = b; }
static inline void emit32(struct emitter *emitter, uint32_t value)
{
	memcpy(emitter->out, &value, 4);
	emitter->out += 4;
}
static inline void emit64(struct emitter *emitter, uint64_t value)
{
	memcpy(emitter->out, &value, 8);
	emitter->out += 8;
}

static inline struct host_mem cpu_mem(size_t offset)
{
	return (struct host_mem){
		.base = NO_REG, .index = NO_REG, .gs = true, .disp = (int32_t)offset
	};
}
#define CPU(field) cpu_mem(offsetof(struct soft_cpu, field))
static inline struct host_mem mem(uint8_t base, int32_t disp)
{
	return (struct host_mem){ .base = base, .index = NO_REG, .disp = disp };
}

static inline void emit_prefixes(struct emitter *emitter, struct host_op op, bool gs, uint8_t reg,
				 uint8_t index, uint8_t base)
{
	uint8_t rex_r = reg >> 3 & 1;
	uint8_t x = index != NO_REG ? index >> 3 & 1 : 0;
	uint8_t b = base != NO_REG ? base >> 3 & 1 : 0;
	uint8_t rex = (uint8_t)(op.rex_w << 3 | rex_r << 2 | x << 1 | b);
	static const uint8_t pp_byte[4] = { 0, 0x66, 0xf3, 0xf2 };

	if (gs)
		emit8(emitter, 0x65);
	if (op.kind) {
		emit8(emitter, 0xc4);
		emit8(emitter, (uint8_t)((~(rex << 5) & 0xe0) | op.map));
		emit8(emitter, (uint8_t)(op.rex_w << 7 | (~op.vvvv & 15) << 3 |
					 (op.kind == X86_KIND_VEX256) << 2 | op.pp));
		return;
	}
	if (op.lock)
		emit8(emitter, 0xf0);
	if (op.extra66)
		emit8(emitter, 0x66);
	if (op.pp)
		emit8(emitter, pp_byte[op.pp]);
	if (rex || op.force_rex)
		emit8(emitter, 0x40 | rex);
	if (op.map)
		emit8(emitter, 0x0f);
	if (op.map >= 2)
		emit8(emitter, op.map == 2 ? 0x38 : 0x3a);
}

/* So many bytes, at most 8, of one instruction. */
static inline void emit_nop(struct emitter *emitter, unsigned bytes)
{
	static const uint8_t nops[9][8] = {
		{ 0 },
		{ 0x90 },
		{ 0x66, 0x90 },
		{ 0x0f, 0x1f, 0x00 },
		{ 0x0f, 0x1f, 0x40, 0x00 },
		{ 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
	};

	for (unsigned n = 0; n < bytes; n++)
		emit8(emitter, nops[bytes][n]);
}

static inline void emit_rr(struct emitter *emitter, struct host_op op, uint8_t reg, uint8_t rm)
{
	emit_prefixes(emitter, op, false, reg, NO_REG, rm);
	emit8(emitter, op.opcode);
	emit8(emitter, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

/* rbp and r13 as a base have no form without a displacement. */
static inline unsigned displacement_bytes(struct host_mem address)
{
	if (address.base == NO_REG)
		return 4;
	if (address.disp == 0 && (address.base & 7) != 5)
		return 0;
	return address.disp == (int8_t)address.disp ? 1 : 4;
}

static inline void emit_rm(struct emitter *emitter, struct host_op op, uint8_t reg,
			   struct host_mem address)
{
	uint8_t modrm = (uint8_t)((reg & 7) << 3);
	bool sib = address.index != NO_REG || address.base == NO_REG || (address.base & 7) == 4;
	unsigned disp_bytes = displacement_bytes(address);

	emit_prefixes(emitter, op, address.gs, reg, address.index, address.base);
	emit8(emitter, op.opcode);
	if (address.base != NO_REG && disp_bytes == 4)
		modrm |= 0x80;
	else if (address.base != NO_REG && disp_bytes == 1)
		modrm |= 0x40;
	emit8(emitter, (uint8_t)(modrm | (sib ? 4 : address.base & 7)));
	if (sib)
		emit8(emitter, (uint8_t)(address.scale_log2 << 6 |
					 (address.index == NO_REG ? 4 : address.index & 7) << 3 |
					 (address.base == NO_REG ? 5 : address.base & 7)));
	if (disp_bytes == 1)
		emit8(emitter, (uint8_t)address.disp);
	else if (disp_bytes == 4)
		emit32(emitter, (uint32_t)address.disp);
}

#define OP64(code) ((struct host_op){ .opcode = (code), .rex_w = true })
#define OP32(code) ((struct host_op){ .opcode = (code) })
static inline void emit_load(struct emitter *emitter, uint8_t reg, struct host_mem address)
{
	emit_rm(emitter, OP64(0x8b), reg, address);
}
static inline void emit_store(struct emitter *emitter, uint8_t reg, struct host_mem address)
{
	emit_rm(emitter, OP64(0x89), reg, address);
}
static inline void emit_lea(struct emitter *emitter, uint8_t reg, struct host_mem address)
{
	emit_rm(emitter, OP64(0x8d), reg, address);
}
static inline void emit_mov(struct emitter *emitter, uint8_t to, uint8_t from)
{
	emit_rr(emitter, OP64(0x89), from, to);
}

static inline void emit_constant(struct emitter *emitter, uint8_t reg, uint64_t value)
{
	struct host_op op = { .rex_w = true };

	if (value == (uint32_t)value) {
		op.rex_w = false;
		emit_prefixes(emitter, op, false, 0, NO_REG, reg);
		emit8(emitter, 0xb8 | (reg & 7));
		emit32(emitter, (uint32_t)value);
	} else if (value == (uint64_t)(int32_t)value) {
		op.opcode = 0xc7;
		emit_rr(emitter, op, 0, reg);
		emit32(emitter, (uint32_t)value);
	} else {
		emit_prefixes(emitter, op, false, 0, NO_REG, reg);
		emit8(emitter, 0xb8 | (reg & 7));
		emit64(emitter, value);
	}
}

/*
 * From a table entry to host - guest, where r15 is the read table's base. Of an entry that is not
 * cached, which only speculation gets to, to a secret number.
 */
static inline void emit_unpoison(struct emitter *emitter, uint8_t reg)
{
	emit_rm(emitter, OP64(0x33), reg, mem(R15, TABLE_POISON));
}

/* Jumps with a 32-bit displacement filled in later; both return where it stands. */
static inline uint8_t *emit_jcc(struct emitter *emitter, uint8_t cc)
{
	emit8(emitter, 0x0f);
	emit8(emitter, 0x80 | cc);
	emit32(emitter, 0);
	return emitter->out - 4;
}
static inline uint8_t *emit_jmp(struct emitter *emitter)
{
	emit8(emitter, 0xe9);
	emit32(emitter, 0);
	return emitter->out - 4;
}
static inline void set_jump(uint8_t *rel32, const uint8_t *target)
{
	int32_t rel = (int32_t)(target - (rel32 + 4));

	__atomic_store_n((int32_t *)(void *)rel32, rel, __ATOMIC_RELEASE);
}
/* The same with a displacement of one byte. */
static inline uint8_t *emit_short_jcc(struct emitter *emitter, uint8_t cc)
{
	emit8(emitter, 0x70 | cc);
	emit8(emitter, 0);
	return emitter->out - 1;
}
static inline uint8_t *emit_short_jmp(struct emitter *emitter)
{
	emit8(emitter, 0xeb);
	emit8(emitter, 0);
	return emitter->out - 1;
}
static inline void set_short_jump(uint8_t *rel8, const uint8_t *target)
{
	*rel8 = (uint8_t)(target - (rel8 + 1));
}
static inline void emit_jmp_cpu(struct emitter *emitter, size_t offset)
{
	emit_rm(emitter, OP32(0xff), 4, cpu_mem(offset));
}
/* lea reg, [rip + rel32]; returns where the rel32 stands. */
static inline uint8_t *emit_lea_rip(struct emitter *emitter, uint8_t reg)
{
	emit_prefixes(emitter, OP64(0), false, reg, NO_REG, NO_REG);
	emit8(emitter, 0x8d);
	emit8(emitter, (uint8_t)((reg & 7) << 3 | 5));
	emit32(emitter, 0);
	return emitter->out - 4;
}
static inline void emit_save_flags(struct emitter *emitter, bool r10_free)
{
	if (r10_free)
		emit_mov(emitter, R10, RAX);
	else
		emit_store(emitter, RAX, CPU(temp[3]));
	emit8(emitter, 0x9f);                                        /* lahf */
	emit_rr(emitter, (struct host_op){ .map = 1, .opcode = 0x90 }, 0, RAX); /* seto al */
	emit_rm(emitter, (struct host_op){ .opcode = 0x89, .pp = 1 }, RAX, CPU(flags_word));
	if (r10_free)
		emit_mov(emitter, RAX, R10);
	else
		emit_load(emitter, RAX, CPU(temp[3]));
}
static inline void emit_restore_flags(struct emitter *emitter)
{
	emit_store(emitter, RAX, CPU(temp[3]));
	/* movzx eax, word */
	emit_rm(emitter, (struct host_op){ .opcode = 0xb7, .map = 1 }, RAX, CPU(flags_word));
	emit8(emitter, 0x04); /* add al, 7f: OF */
	emit8(emitter, 0x7f);
	emit8(emitter, 0x9e); /* sahf */
	emit_load(emitter, RAX, CPU(temp[3]));
}
