/*
 * Changes of the privilege level in place: SYSCALL of 64-bit user code, SYSRET to it. What is
 * unusual (a trap flag, no SMAP, buffers to be cleared, ...) goes to C, which begins anew: until
 * then nothing has changed that C does not set to the same value.
 */
#include "translate_internal.h"

enum { USER = 3, CODE_64 = 0xa09b, DATA = 0xc093, DPL_3 = USER << 5 };

static struct host_mem segment_field(unsigned segment, size_t offset)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) +
		       segment * sizeof(struct x86_segment_state) + offset);
}

/* A test of bits in a field of 32 bits, and the way to C. */
static void unless(struct translation *t, struct cold *c, struct host_mem field, uint32_t bits,
		   uint8_t cc)
{
	emit_rm(out(t), OP32(0xf7), 0, field);
	emit32(out(t), bits);
	translate_or_else(t, c, cc);
}

static void unless_r10_lacks(struct translation *t, struct cold *c, uint32_t bits)
{
	emit_rr(out(t), OP32(0xf7), 0, R10);
	emit32(out(t), bits);
	translate_or_else(t, c, CC_NZ);
}

static void and_r10(struct translation *t, uint32_t bits)
{
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), bits);
}

/* A flat segment: its selector is r10, cut to 16 bits. */
static void set_flat_segment(struct translation *t, unsigned segment, uint16_t attributes)
{
	emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, R11, R10); /* movzx */
	emit_rr(out(t), OP32(0x81), 1, R11);
	emit32(out(t), (uint32_t)attributes << 16);
	emit_rm(out(t), OP32(0x89), R11,
		segment_field(segment, offsetof(struct x86_segment_state, selector)));
	emit_rm(out(t), OP32(0xc7), 0,
		segment_field(segment, offsetof(struct x86_segment_state, limit)));
	emit32(out(t), ~0u);
	emit_rm(out(t), OP64(0xc7), 0,
		segment_field(segment, offsetof(struct x86_segment_state, base)));
	emit32(out(t), 0);
}

/* 16 bits of STAR to r10: the selectors of a level begin there. */
static void load_star(struct translation *t, size_t byte)
{
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10,
		cpu_mem(offsetof(struct soft_cpu, state.star) + byte));
}

static void set_byte(struct translation *t, struct host_mem at, uint8_t value)
{
	emit_rm(out(t), OP32(0xc6), 0, at);
	emit8(out(t), value);
}

/* soft_select_view(), where no buffers are to be cleared. */
static void enter_level(struct translation *t, uint8_t cpl, unsigned view)
{
	set_byte(t, CPU(state.cpl), cpl);
	set_byte(t, CPU(in_user_view), cpl == USER);
	emit_load(out(t), R15, cpu_mem(offsetof(struct soft_cpu, view_read) + 8 * view));
	emit_load(out(t), R14, cpu_mem(offsetof(struct soft_cpu, view_write) + 8 * view));
	emit_store(out(t), R15, CPU(read_table));
	emit_store(out(t), R14, CPU(write_table));
}

/* RFLAGS becomes r10, which has no bit that is reserved. Uses r11. */
static void take_flags(struct translation *t)
{
	emit_rr(out(t), OP32(0x83), 1, R10);
	emit8(out(t), 2);
	emit_store(out(t), R10, CPU(state.rflags));
	emit_rr(out(t), OP32(0x89), R10, R11);
	emit_rr(out(t), OP32(0xc1), 5, R11); /* shr */
	emit8(out(t), 9);
	emit_rr(out(t), OP32(0x83), 4, R11);
	emit8(out(t), 1);
	emit_rm(out(t), (struct host_op){ .opcode = 0x88, .force_rex = true }, R11,
		CPU(interrupt_flag));
	translate_flags_from_r10(t);
}

bool translate_syscall(struct translation *t)
{
	struct cold *c;

	if (!(t->mode & MODE_USER) || t->code_bits != 64 || t->mode & BLOCK_ALONE)
		return false;
	translate_save_flags(t);
	t->host_flags = false;
	c = translate_new_cold(t, COLD_SYSTEM);
	unless(t, c, CPU(state.efer), EFER_SCE, CC_Z);
	unless(t, c, CPU(state.cr4), CR4_SMAP, CC_Z);
	translate_flags_to_r10(t);
	emit_store(out(t), R10, slot(R11));
	emit_rip(t, RCX, translate_after_insn(t));
	emit_rm(out(t), OP32(0x8b), R11, CPU(state.sfmask));
	emit_rr(out(t), OP32(0xf7), 2, R11); /* not */
	emit_rr(out(t), OP32(0x21), R11, R10);
	unless_r10_lacks(t, c, FLAG_TF | FLAG_AC);
	take_flags(t);
	load_star(t, 4);
	and_r10(t, 0xfffc);
	set_flat_segment(t, X86_CS, CODE_64);
	emit_lea(out(t), R10, mem(R10, 8));
	set_flat_segment(t, X86_SS, DATA);
	enter_level(t, 0, VIEW_KERNEL);
	emit_load(out(t), R11, CPU(state.lstar));
	translate_exit_indirect(t, false);
	t->ended = true;
	return true;
}

bool translate_sysret(struct translation *t)
{
	const uint32_t kept = 0x3c7fd7; /* SDM Vol. 2, SYSRET */
	struct cold *c;

	if (t->mode & (MODE_USER | BLOCK_ALONE) || t->code_bits != 64 || !t->at->insn.rex_w ||
	    t->engine->clears_buffers)
		return false;
	translate_save_flags(t);
	t->host_flags = false;
	c = translate_new_cold(t, COLD_SYSTEM);
	unless(t, c, CPU(state.efer), EFER_SCE, CC_Z);
	emit_mov(out(t), R10, RCX); /* canonical, and of the user's half */
	emit_rr(out(t), OP64(0xc1), 5, R10);
	emit8(out(t), 47);
	translate_or_else(t, c, CC_NZ);
	emit_load(out(t), R10, slot(R11));
	and_r10(t, kept);
	unless_r10_lacks(t, c, FLAG_TF | FLAG_AC);
	/* where an interrupt waits for IF, C looks (0 or 1, both) */
	emit_rr(out(t), OP32(0x89), R10, R11);
	emit_rr(out(t), OP32(0xc1), 5, R11);
	emit8(out(t), 9);
	emit_rm(out(t), OP32(0x85), R11, CPU(interrupt_pending));
	translate_or_else(t, c, CC_NZ);
	take_flags(t);
	load_star(t, 6);
	emit_lea(out(t), R10, mem(R10, 8));
	emit_rr(out(t), OP32(0x83), 1, R10);
	emit8(out(t), USER);
	set_flat_segment(t, X86_SS, DATA | DPL_3);
	load_star(t, 6);
	emit_lea(out(t), R10, mem(R10, 16));
	emit_rr(out(t), OP32(0x83), 1, R10);
	emit8(out(t), USER);
	set_flat_segment(t, X86_CS, CODE_64 | DPL_3);
	enter_level(t, USER, VIEW_USER);
	emit_mov(out(t), R11, RCX);
	translate_exit_indirect(t, true);
	t->ended = true;
	return true;
}
