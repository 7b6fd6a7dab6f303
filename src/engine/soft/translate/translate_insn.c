/* Which way of translating an instruction takes. */
#include "translate_internal.h"

/* True when it was dealt with. */
static bool one_byte_special(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t op = i->opcode;
	bool long_mode = t->code_bits == 64 && !i->prefix66;
	uint64_t target = (translate_after_insn(t) + i->imm) & t->rip_mask;

	if (op >= 0x70 && op <= 0x7f) {
		translate_side_exit(t, op & 15, target);
		return true;
	}
	if (op >= 0x50 && op <= 0x5f && long_mode) {
		if (op < 0x58)
			translate_push_register(t, i->rm);
		else
			translate_pop_register(t, i->rm);
		return true;
	}
	switch (op) {
	case 0x68: case 0x6a:
		if (long_mode)
			translate_push_constant(t, i->imm);
		else
			translate_system_exit(t);
		return true;
	case 0xe8:
		if (t->code_bits != 64) {
			translate_system_exit(t);
			return true;
		}
		translate_push_constant(t, translate_after_insn(t));
		translate_exit_direct(t, target);
		return true;
	case 0xe9: case 0xeb: translate_exit_direct(t, target); return true;
	case 0xc3:
	case 0xc2:
		if (t->code_bits != 64)
			translate_system_exit(t);
		else
			translate_return_near(t, op == 0xc2 ? (unsigned)i->imm : 0);
		return true;
	case 0xc9:
		if (long_mode)
			translate_leave_frame(t);
		else
			translate_system_exit(t);
		return true;
	case 0xe0: case 0xe1: case 0xe2: case 0xe3:
		if (i->address_bytes == 2)
			translate_system_exit(t);
		else
			translate_counted_jump(t);
		return true;
	case 0xff: return translate_group_ff(t);
	case 0xfa: translate_interrupt_flag(t, false); return true;
	case 0xfb:
		if (!translate_inline_sti(t))
			translate_interrupt_flag(t, true);
		return true;
	case 0x90:
		if (!i->rep || t->engine->cpu_count == 1)
			return false;
		translate_system_exit(t);
		return true;
	case 0x9c:
		if (!translate_inline_pushf(t))
			translate_system_exit(t);
		return true;
	case 0x9d:
		if (!translate_inline_popf(t))
			translate_system_exit(t);
		return true;
	case 0x8c:
		if (!translate_inline_read_segment(t))
			translate_system_exit(t);
		return true;
	case 0x8d: translate_copy_lea(t); return true;
	case 0x06: case 0x07: case 0x0e: case 0x16: case 0x17: case 0x1e: case 0x1f: case 0x27: case 0x2f: case 0x37: case 0x3f:
	case 0x60: case 0x61: case 0x62: case 0x8e: case 0x8f: case 0x9a: case 0xa0: case 0xa1:
	case 0xa2: case 0xa3: case 0xc4: case 0xc5: case 0xc8: case 0xca: case 0xcb: case 0xcc: case 0xcd: case 0xce: case 0xcf:
	case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xe4: case 0xe5: case 0xe6: case 0xe7: case 0xea: case 0xec: case 0xed:
	case 0xee: case 0xef: case 0xf1: case 0xf4: case 0xfc: case 0xfd:
		translate_system_exit(t);
		return true;
	default:
		if (translate_is_string(op) && translate_inline_string(t))
			return true;
		if (translate_is_string(op) || (op >= 0x50 && op <= 0x5f) || (op == 0x63 && t->code_bits != 64)) {
			translate_system_exit(t);
			return true;
		}
		return false;
	}
}

static bool two_byte_special(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t op = i->opcode;

	if (op >= 0x80 && op <= 0x8f) {
		translate_side_exit(t, op & 15, (translate_after_insn(t) + i->imm) & t->rip_mask);
		return true;
	}
	switch (op) {
	case 0x0d: case 0x18: case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1e: case 0x1f:
		return true; /* hints: nothing a guest can see */
	case 0x31: translate_read_time(t); return true;
	case 0xae:
		if (i->mod == 3 && !i->rep)
			return false; /* fences */
		if (i->mod != 3 && (i->reg == 2 || i->reg == 3 || i->reg == 7))
			return false;
		translate_system_exit(t);
		return true;
	case 0xc7:
		if (i->reg == 1 || i->mod == 3)
			return false;
		translate_system_exit(t);
		return true;
	case 0x01:
		if (i->mod == 3 && (i->reg & 7) == 1 && ((i->rm & 7) == 2 || (i->rm & 7) == 3) && translate_inline_smap(t, (i->rm & 7) == 3))
			return true;
		if (i->mod == 3 && (i->reg & 7) == 7 && (i->rm & 7) == 0 && translate_inline_swapgs(t))
			return true;
		translate_system_exit(t);
		return true;
	case 0x00: case 0x02: case 0x03: case 0x05: case 0x06: case 0x07: case 0x08: case 0x09: case 0x0b: case 0x20:
	case 0x21: case 0x22: case 0x23: case 0x30: case 0x32: case 0x33: case 0x34: case 0x35: case 0xa0: case 0xa1: case 0xa2:
	case 0xa8: case 0xa9: case 0xb2: case 0xb4: case 0xb5: case 0xb9: case 0xf7: case 0xff:
		translate_system_exit(t);
		return true;
	default:
		return false;
	}
}

bool soft_uses_fpu(const struct x86_insn *i)
{
	if (i->kind)
		return !(i->map >= 2 && i->opcode >= 0xf0); /* BMI */
	if (i->map == 0)
		return (i->opcode >= 0xd8 && i->opcode <= 0xdf) || i->opcode == 0x9b;
	if (i->map == 1 && i->opcode == 0xae)
		return i->mod != 3 && i->reg != 7;
	if (i->map == 1)
		return (i->opcode >= 0x10 && i->opcode <= 0x17) || (i->opcode >= 0x28 && i->opcode <= 0x2f) ||
		       (i->opcode >= 0x50 && i->opcode <= 0x7f) || (i->opcode == 0xc2) || (i->opcode >= 0xc4 && i->opcode <= 0xc6) ||
		       i->opcode >= 0xd0;
	return i->opcode < 0xf0;
}

/* FNSTENV and FNSAVE: what they store has host addresses in it. */
static bool is_x87_environment(const struct x86_insn *i)
{
	enum { X87_D9 = 0xd9, X87_DD = 0xdd, STORE_ENVIRONMENT = 6 };

	return !i->kind && !i->map && (i->opcode == X87_D9 || i->opcode == X87_DD) && i->mod != 3 &&
	       i->reg == STORE_ENVIRONMENT;
}

void translate_insn(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;

	if ((t->mode & MODE_FPU_OFF && soft_uses_fpu(i)) || (t->mode & MODE_AVX_OFF && i->kind && soft_uses_fpu(i)) || soft_is_scattered(i) ||
	    is_x87_environment(i) ||
	    (!i->kind && i->map == 2 && i->opcode == 0x82)) {
		translate_system_exit(t);
		return;
	}
	if (!x86_insn_has_memory(i) && (i->kind || i->map || i->opcode != 0x9c))
		translate_want_flags(t);
	if (!i->kind && i->map == 0 && one_byte_special(t))
		return;
	if (!i->kind && i->map == 1 && two_byte_special(t))
		return;
	if (x86_insn_has_memory(i))
		translate_copy_memory(t);
	else
		translate_copy_registers(t);
}
