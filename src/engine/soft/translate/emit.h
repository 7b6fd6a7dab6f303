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
enum { CC_O = 0, CC_NO, CC_C, CC_NC, CC_Z, CC_NZ, CC_BE, CC_A, CC_S, CC_NS };

struct emitter { uint8_t *out; };

struct host_mem { uint8_t base, index, scale_log2; bool gs; int32_t disp; };

struct host_op { uint8_t kind, map, pp, opcode, vvvv; bool w, lock, extra66, force_rex; };

static inline void emit8(struct emitter *e, uint8_t b) { *e->out++ = b; }
static inline void emit32(struct emitter *e, uint32_t v) { memcpy(e->out, &v, 4); e->out += 4; }
static inline void emit64(struct emitter *e, uint64_t v) { memcpy(e->out, &v, 8); e->out += 8; }

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

static inline void emit_prefixes(struct emitter *e, struct host_op op, bool gs, uint8_t reg,
				 uint8_t index, uint8_t base)
{
	uint8_t r = reg >> 3 & 1;
	uint8_t x = index != NO_REG ? index >> 3 & 1 : 0;
	uint8_t b = base != NO_REG ? base >> 3 & 1 : 0;
	uint8_t rex = (uint8_t)(op.w << 3 | r << 2 | x << 1 | b);
	static const uint8_t pp_byte[4] = { 0, 0x66, 0xf3, 0xf2 };

	if (gs)
		emit8(e, 0x65);
	if (op.kind) {
		emit8(e, 0xc4);
		emit8(e, (uint8_t)((~(rex << 5) & 0xe0) | op.map));
		emit8(e, (uint8_t)(op.w << 7 | (~op.vvvv & 15) << 3 |
				   (op.kind == X86_KIND_VEX256) << 2 | op.pp));
		return;
	}
	if (op.lock)
		emit8(e, 0xf0);
	if (op.extra66)
		emit8(e, 0x66);
	if (op.pp)
		emit8(e, pp_byte[op.pp]);
	if (rex || op.force_rex)
		emit8(e, 0x40 | rex);
	if (op.map)
		emit8(e, 0x0f);
	if (op.map >= 2)
		emit8(e, op.map == 2 ? 0x38 : 0x3a);
}

/* So many bytes, at most 8, of one instruction. */
static inline void emit_nop(struct emitter *e, unsigned bytes)
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
		emit8(e, nops[bytes][n]);
}

static inline void emit_rr(struct emitter *e, struct host_op op, uint8_t reg, uint8_t rm)
{
	emit_prefixes(e, op, false, reg, NO_REG, rm);
	emit8(e, op.opcode);
	emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

/* rbp and r13 as a base have no form without a displacement. */
static inline unsigned displacement_bytes(struct host_mem m)
{
	if (m.base == NO_REG)
		return 4;
	if (m.disp == 0 && (m.base & 7) != 5)
		return 0;
	return m.disp == (int8_t)m.disp ? 1 : 4;
}

static inline void emit_rm(struct emitter *e, struct host_op op, uint8_t reg, struct host_mem m)
{
	uint8_t modrm = (uint8_t)((reg & 7) << 3);
	bool sib = m.index != NO_REG || m.base == NO_REG || (m.base & 7) == 4;
	unsigned disp_bytes = displacement_bytes(m);

	emit_prefixes(e, op, m.gs, reg, m.index, m.base);
	emit8(e, op.opcode);
	if (m.base != NO_REG && disp_bytes == 4)
		modrm |= 0x80;
	else if (m.base != NO_REG && disp_bytes == 1)
		modrm |= 0x40;
	emit8(e, (uint8_t)(modrm | (sib ? 4 : m.base & 7)));
	if (sib)
		emit8(e, (uint8_t)(m.scale_log2 << 6 | (m.index == NO_REG ? 4 : m.index & 7) << 3 |
				   (m.base == NO_REG ? 5 : m.base & 7)));
	if (disp_bytes == 1)
		emit8(e, (uint8_t)m.disp);
	else if (disp_bytes == 4)
		emit32(e, (uint32_t)m.disp);
}

#define OP64(code) ((struct host_op){ .opcode = (code), .w = true })
#define OP32(code) ((struct host_op){ .opcode = (code) })
static inline void emit_load(struct emitter *e, uint8_t reg, struct host_mem m)
{
	emit_rm(e, OP64(0x8b), reg, m);
}
static inline void emit_store(struct emitter *e, uint8_t reg, struct host_mem m)
{
	emit_rm(e, OP64(0x89), reg, m);
}
static inline void emit_lea(struct emitter *e, uint8_t reg, struct host_mem m)
{
	emit_rm(e, OP64(0x8d), reg, m);
}
static inline void emit_mov(struct emitter *e, uint8_t to, uint8_t from)
{
	emit_rr(e, OP64(0x89), from, to);
}

static inline void emit_constant(struct emitter *e, uint8_t reg, uint64_t value)
{
	struct host_op op = { .w = true };

	if (value == (uint32_t)value) {
		op.w = false;
		emit_prefixes(e, op, false, 0, NO_REG, reg);
		emit8(e, 0xb8 | (reg & 7));
		emit32(e, (uint32_t)value);
	} else if (value == (uint64_t)(int32_t)value) {
		op.opcode = 0xc7;
		emit_rr(e, op, 0, reg);
		emit32(e, (uint32_t)value);
	} else {
		emit_prefixes(e, op, false, 0, NO_REG, reg);
		emit8(e, 0xb8 | (reg & 7));
		emit64(e, value);
	}
}

/*
 * From a table entry to host - guest. Of an entry that is not cached, which only speculation gets
 * to, to a secret number.
 */
static inline void emit_unpoison(struct emitter *e, uint8_t reg)
{
	emit_rm(e, OP64(0x33), reg, CPU(poison));
}

/* Jumps with a 32-bit displacement filled in later; both return where it stands. */
static inline uint8_t *emit_jcc(struct emitter *e, uint8_t cc)
{
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit32(e, 0);
	return e->out - 4;
}
static inline uint8_t *emit_jmp(struct emitter *e)
{
	emit8(e, 0xe9);
	emit32(e, 0);
	return e->out - 4;
}
static inline void set_jump(uint8_t *rel32, const uint8_t *target)
{
	int32_t rel = (int32_t)(target - (rel32 + 4));

	__atomic_store_n((int32_t *)(void *)rel32, rel, __ATOMIC_RELEASE);
}
/* The same with a displacement of one byte. */
static inline uint8_t *emit_short_jcc(struct emitter *e, uint8_t cc)
{
	emit8(e, 0x70 | cc);
	emit8(e, 0);
	return e->out - 1;
}
static inline void set_short_jump(uint8_t *rel8, const uint8_t *target)
{
	*rel8 = (uint8_t)(target - (rel8 + 1));
}
static inline void emit_jmp_cpu(struct emitter *e, size_t offset)
{
	emit_rm(e, OP32(0xff), 4, cpu_mem(offset));
}
/* lea reg, [rip + rel32]; returns where the rel32 stands. */
static inline uint8_t *emit_lea_rip(struct emitter *e, uint8_t reg)
{
	emit_prefixes(e, OP64(0), false, reg, NO_REG, NO_REG);
	emit8(e, 0x8d);
	emit8(e, (uint8_t)((reg & 7) << 3 | 5));
	emit32(e, 0);
	return e->out - 4;
}
static inline void emit_save_flags(struct emitter *e, bool r10_free)
{
	if (r10_free)
		emit_mov(e, R10, RAX);
	else
		emit_store(e, RAX, CPU(temp[3]));
	emit8(e, 0x9f);                                        /* lahf */
	emit_rr(e, (struct host_op){ .map = 1, .opcode = 0x90 }, 0, RAX); /* seto al */
	emit_rm(e, (struct host_op){ .opcode = 0x89, .pp = 1 }, RAX, CPU(flags_word));
	if (r10_free)
		emit_mov(e, RAX, R10);
	else
		emit_load(e, RAX, CPU(temp[3]));
}
static inline void emit_restore_flags(struct emitter *e)
{
	emit_store(e, RAX, CPU(temp[3]));
	/* movzx eax, word */
	emit_rm(e, (struct host_op){ .opcode = 0xb7, .map = 1 }, RAX, CPU(flags_word));
	emit8(e, 0x04); /* add al, 7f: OF */
	emit8(e, 0x7f);
	emit8(e, 0x9e); /* sahf */
	emit_load(e, RAX, CPU(temp[3]));
}
