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
static void unless(struct translation *translation, struct cold *cold, struct host_mem field,
		   uint32_t bits, uint8_t cc)
{
	emit_rm(out(translation), OP32(0xf7), 0, field);
	emit32(out(translation), bits);
	translate_or_else(translation, cold, cc);
}

static void unless_r10_lacks(struct translation *translation, struct cold *cold, uint32_t bits)
{
	emit_rr(out(translation), OP32(0xf7), 0, R10);
	emit32(out(translation), bits);
	translate_or_else(translation, cold, CC_NZ);
}

static void and_r10(struct translation *translation, uint32_t bits)
{
	emit_rr(out(translation), OP32(0x81), 4, R10);
	emit32(out(translation), bits);
}

/* A flat segment: its selector is r10, cut to 16 bits. */
static void set_flat_segment(struct translation *translation, unsigned segment, uint16_t attributes)
{
	emit_rr(out(translation), (struct host_op){ .map = 1, .opcode = 0xb7 }, R11,
		R10); /* movzx */
	emit_rr(out(translation), OP32(0x81), 1, R11);
	emit32(out(translation), (uint32_t)attributes << 16);
	emit_rm(out(translation), OP32(0x89), R11,
		segment_field(segment, offsetof(struct x86_segment_state, selector)));
	emit_rm(out(translation), OP32(0xc7), 0,
		segment_field(segment, offsetof(struct x86_segment_state, limit)));
	emit32(out(translation), ~0u);
	emit_rm(out(translation), OP64(0xc7), 0,
		segment_field(segment, offsetof(struct x86_segment_state, base)));
	emit32(out(translation), 0);
}

/* 16 bits of STAR to r10: the selectors of a level begin there. */
static void load_star(struct translation *translation, size_t byte)
{
	emit_rm(out(translation), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10,
		cpu_mem(offsetof(struct soft_cpu, state.star) + byte));
}

static void set_byte(struct translation *translation, struct host_mem at, uint8_t value)
{
	emit_rm(out(translation), OP32(0xc6), 0, at);
	emit8(out(translation), value);
}

void translate_enter_view(struct translation *translation, unsigned view)
{
	emit_load(out(translation), R15, cpu_mem(offsetof(struct soft_cpu, view_read) + 8 * view));
	emit_load(out(translation), R14, cpu_mem(offsetof(struct soft_cpu, view_write) + 8 * view));
	emit_store(out(translation), R15, CPU(read_table));
	emit_store(out(translation), R14, CPU(write_table));
}

/* soft_select_view(), where no buffers are to be cleared. */
static void enter_level(struct translation *translation, uint8_t cpl, unsigned view)
{
	set_byte(translation, CPU(state.cpl), cpl);
	set_byte(translation, CPU(in_user_view), cpl == USER);
	translate_enter_view(translation, view);
}

/* RFLAGS becomes r10, which has no bit that is reserved. Uses r11. */
static void take_flags(struct translation *translation)
{
	emit_rr(out(translation), OP32(0x83), 1, R10);
	emit8(out(translation), 2);
	emit_store(out(translation), R10, CPU(state.rflags));
	emit_rr(out(translation), OP32(0x89), R10, R11);
	emit_rr(out(translation), OP32(0xc1), 5, R11); /* shr */
	emit8(out(translation), 9);
	emit_rr(out(translation), OP32(0x83), 4, R11);
	emit8(out(translation), 1);
	emit_rm(out(translation), (struct host_op){ .opcode = 0x88, .force_rex = true }, R11,
		CPU(interrupt_flag));
	translate_flags_from_r10(translation);
}

bool translate_syscall(struct translation *translation)
{
	struct cold *cold;

	if (!(translation->mode & MODE_USER) || translation->code_bits != 64 ||
	    translation->mode & BLOCK_ALONE)
		return false;
	translate_save_flags(translation);
	translation->host_flags = false;
	cold = translate_new_cold(translation, COLD_SYSTEM);
	unless(translation, cold, CPU(state.efer), EFER_SCE, CC_Z);
	unless(translation, cold, CPU(state.cr4), CR4_SMAP, CC_Z);
	translate_flags_to_r10(translation);
	emit_store(out(translation), R10, slot(R11));
	emit_rip(translation, RCX, translate_after_insn(translation));
	emit_rm(out(translation), OP32(0x8b), R11, CPU(state.sfmask));
	emit_rr(out(translation), OP32(0xf7), 2, R11); /* not */
	emit_rr(out(translation), OP32(0x21), R11, R10);
	unless_r10_lacks(translation, cold, FLAG_TF | FLAG_AC);
	take_flags(translation);
	load_star(translation, 4);
	and_r10(translation, 0xfffc);
	set_flat_segment(translation, X86_CS, CODE_64);
	emit_lea(out(translation), R10, mem(R10, 8));
	set_flat_segment(translation, X86_SS, DATA);
	enter_level(translation, 0, VIEW_KERNEL);
	emit_load(out(translation), R11, CPU(state.lstar));
	translate_exit_indirect(translation, false);
	translation->ended = true;
	return true;
}

bool translate_sysret(struct translation *translation)
{
	const uint32_t kept = 0x3c7fd7; /* SDM Vol. 2, SYSRET */
	struct cold *cold;

	if (translation->mode & (MODE_USER | BLOCK_ALONE) || translation->code_bits != 64 ||
	    !translation->at->insn.rex_w || translation->engine->clears_buffers)
		return false;
	translate_save_flags(translation);
	translation->host_flags = false;
	cold = translate_new_cold(translation, COLD_SYSTEM);
	unless(translation, cold, CPU(state.efer), EFER_SCE, CC_Z);
	emit_mov(out(translation), R10, RCX); /* canonical, and of the user's half */
	emit_rr(out(translation), OP64(0xc1), 5, R10);
	emit8(out(translation), 47);
	translate_or_else(translation, cold, CC_NZ);
	emit_load(out(translation), R10, slot(R11));
	and_r10(translation, kept);
	unless_r10_lacks(translation, cold, FLAG_TF | FLAG_AC);
	/* where an interrupt waits for IF, C looks (0 or 1, both) */
	emit_rr(out(translation), OP32(0x89), R10, R11);
	emit_rr(out(translation), OP32(0xc1), 5, R11);
	emit8(out(translation), 9);
	emit_rm(out(translation), OP32(0x85), R11, CPU(interrupt_pending));
	translate_or_else(translation, cold, CC_NZ);
	take_flags(translation);
	load_star(translation, 6);
	emit_lea(out(translation), R10, mem(R10, 8));
	emit_rr(out(translation), OP32(0x83), 1, R10);
	emit8(out(translation), USER);
	set_flat_segment(translation, X86_SS, DATA | DPL_3);
	load_star(translation, 6);
	emit_lea(out(translation), R10, mem(R10, 16));
	emit_rr(out(translation), OP32(0x83), 1, R10);
	emit8(out(translation), USER);
	set_flat_segment(translation, X86_CS, CODE_64 | DPL_3);
	enter_level(translation, USER, VIEW_USER);
	emit_mov(out(translation), R11, RCX);
	translate_exit_indirect(translation, true);
	translation->ended = true;
	return true;
}
