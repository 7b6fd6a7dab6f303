/* Groups: accesses through one base register within one page share one lookup. */
#include "translate_internal.h"

enum { GROUP_BYTES = 256 };

/* Instructions that are copied as they are, and whose only general registers are those of their operands. */
static bool is_plain(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->lock || i->encoding.attributes & X86_ENC_VSIB || translate_bit_string(i))
		return false;
	if (i->kind)
		return !(i->map == 1 && (op == 0xae || op == 0xf7)) &&
		       !(i->map == 2 && (op == 0x2c || op == 0x2d || op == 0x2e || op == 0x2f || op == 0x8c || op == 0x8e)) &&
		       !(i->map == 2 && op == 0xf6) && /* MULX: a destination in vvvv */
		       !(i->map == 3 && op >= 0x60 && op <= 0x63); /* string compares: RAX, RCX, RDX */
	if (i->map == 0)
		return (op < 0x40 && (op & 7) < 6) || op == 0x63 || op == 0x69 || op == 0x6b || op == 0x80 || op == 0x81 || op == 0x83 || op == 0x84 || op == 0x85 ||
		       (op >= 0x88 && op <= 0x8b) || op == 0xa8 || op == 0xa9 || (op >= 0xb0 && op <= 0xc1) || op == 0xc6 || op == 0xc7 || (op >= 0xd0 && op <= 0xd3) ||
		       ((op == 0xf6 || op == 0xf7) && i->reg < 4) || (op == 0xfe && i->reg < 2) || (op == 0xff && i->reg < 2);
	if (i->map == 1)
		return (op >= 0x10 && op <= 0x17) || (op >= 0x28 && op <= 0x2f) || (op >= 0x40 && op <= 0x76) || (op >= 0x7e && op <= 0x7f) ||
		       (op >= 0x90 && op <= 0x9f) ||
		       op == 0xaf || op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf || op == 0xc2 || (op >= 0xc4 && op <= 0xc6) || (op >= 0xd0 && op <= 0xf6) ||
		       (op >= 0xf8 && op <= 0xfe);
	return false;
}

/* Whether an operand of the instruction is this register, other than as base of its memory operand. */
static bool names(const struct x86_insn *i, uint8_t reg)
{
	uint16_t a = i->encoding.attributes;

	if (!i->kind && i->map == 0 && reg == RAX && (i->opcode < 0x40 ? (i->opcode & 7) >= 4 : (i->opcode & 0xfe) == 0xa8))
		return true;
	if (i->has_modrm && a & X86_ENC_REG_GPR && ((i->reg & 15) == reg || (!i->rex && (i->reg & 3) == reg)))
		return true;
	if (((a & X86_ENC_RM_GPR && i->has_modrm && i->mod == 3) || a & X86_ENC_OPCODE_GPR) && (i->rm == reg || (!i->rex && (i->rm & 3) == reg)))
		return true;
	return a & X86_ENC_VVVV_GPR && i->vvvv == reg;
}

static unsigned displaced_operands(const struct x86_insn *i)
{
	struct renaming r;

	translate_collect(i, &r, true);
	return r.count;
}

static bool note_access(struct group *g, int32_t at, unsigned bytes, bool write)
{
	int32_t low = at < g->low || !g->accesses ? at : g->low, high = at + (int32_t)bytes > g->high || !g->accesses ? at + (int32_t)bytes : g->high;

	if (high - low > GROUP_BYTES)
		return false;
	g->low = low;
	g->high = high;
	g->write |= write;
	g->accesses++;
	return true;
}

/* ADD and SUB of a constant to the stack pointer. */
static bool moves_stack(const struct x86_insn *i, int32_t *ret_by)
{
	if (i->kind || i->map || !i->rex_w || i->mod != 3 || i->rm != RSP || (i->opcode != 0x81 && i->opcode != 0x83) || (i->reg != 0 && i->reg != 5) ||
	    (int64_t)i->imm > 128 || (int64_t)i->imm < -128)
		return false;
	*ret_by = i->reg ? -(int32_t)i->imm : (int32_t)i->imm;
	return true;
}

static bool join_stack(struct group *g, const struct x86_insn *i)
{
	uint8_t op = i->opcode;
	int32_t by;

	if (i->kind || i->map || i->prefix66)
		return false;
	if ((op >= 0x50 && op < 0x58) || op == 0x68 || op == 0x6a || op == 0xe8) {
		if (!note_access(g, g->offset - 8, 8, true))
			return false;
		g->offset -= 8;
		g->closed = op == 0xe8;
		return true;
	}
	if ((op >= 0x58 && op < 0x60 && i->rm != RSP) || op == 0xc3) {
		if (!note_access(g, g->offset, 8, false))
			return false;
		g->offset += 8;
		g->closed = op == 0xc3;
		return true;
	}
	if (moves_stack(i, &by)) {
		g->offset += by;
		return true;
	}
	return false;
}

static bool join(struct translation *t, struct group *g, const struct x86_insn *i)
{
	if (t->mode & MODE_FPU_OFF && soft_uses_fpu(i))
		return false;
	if (g->base == RSP && join_stack(g, i))
		return true;
	if (!i->kind && ((i->map == 0 && i->opcode >= 0x70 && i->opcode <= 0x7f) || (i->map == 1 && i->opcode >= 0x80 && i->opcode <= 0x8f)))
		return true; /* a side exit needs nothing of ours */
	if (!i->kind && i->map == 0 && i->opcode == 0x8d)
		return i->reg != g->base && (i->base >= 16 || !displaced(i->base)) && (i->index >= 16 || !displaced(i->index));
	if (!is_plain(i) || displaced_operands(i) > 1)
		return false;
	if (!x86_insn_has_memory(i))
		return !names(i, g->base);
	if (i->base != g->base || !i->mem_bytes || !translate_simple_address(t, i, i->mem_bytes) || i->disp > 4096 || i->disp < -4096)
		return false;
	if (!note_access(g, g->offset + i->disp, i->mem_bytes, i->encoding.attributes & X86_ENC_MEM_WRITE))
		return false;
	g->closed = names(i, g->base);
	return true;
}

static uint8_t group_base(const struct translation *t, const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (!i->kind && !i->map && !i->prefix66 && ((op >= 0x50 && op < 0x60) || op == 0x68 || op == 0x6a))
		return RSP;
	return x86_insn_has_memory(i) && i->base < 16 && !displaced(i->base) && is_plain(i) && !(t->mode & MODE_AVX_OFF && i->kind) ? i->base : NO_REG;
}

/* The group that begins with instruction n; one of fewer than two accesses is none. */
struct group translate_find_group(struct translation *t, unsigned n)
{
	struct group g = { .base = group_base(t, &t->insns[n].insn) }, good = { 0 };

	if (g.base == NO_REG || t->code_bits != 64 || t->mode & BLOCK_ALONE || t->cold_count + 3 * MAX_INSNS > MAX_COLD)
		return good;
	while (n + g.insns < t->count && !g.closed) {
		unsigned before = g.accesses;

		if (!join(t, &g, &t->insns[n + g.insns].insn))
			break;
		g.insns++;
		if (g.accesses != before)
			good = g; /* what follows the last access gains nothing */
	}
	return good.accesses >= 2 ? good : (struct group){ 0 };
}

/* One lookup for all; what fails it is done one by one in the cold part. */
struct cold *translate_open_group(struct translation *t, const struct group *g)
{
	struct cold *c, *lookup;

	translate_leave_flags(t);
	lookup = emit_lookup(t, mem(g->base, g->low), false, (unsigned)(g->high - g->low), true, g->write);
	c = lookup;
	c->kind = COLD_GROUP;
	c->insns = (uint16_t)g->insns;
	c->host_flags = t->host_flags;
	c->word_flags = t->word_flags;
	c->from[0] = c->crossing;
	t->grouped = true;
	return c;
}

void translate_close_group(struct translation *t, struct cold *c)
{
	t->grouped = false;
	c->after = out(t)->out;
	c->end_host_flags = t->host_flags;
	c->end_word_flags = t->word_flags;
}

/* Where the flags are behind the instruction. */
void translate_follow_flags(struct translation *t)
{
	struct guest_insn *g = t->at;

	if (!t->flags_set && (g->insn.encoding.flags_written || !g->live_in)) {
		t->host_flags = true;
		t->word_flags = false;
	}
	if (t->word_flags && !t->host_flags && !t->flags_set)
		t->engine->maps[t->engine->map_count - 1].length |= MAP_FLAGS_IN_WORD;
}

/* The group's instructions one by one, with a lookup each. */
static void cold_group(struct translation *t, struct cold *c)
{
	const struct cold g = *c;

	t->host_flags = g.host_flags;
	t->word_flags = g.word_flags;
	t->ended = false;
	for (unsigned n = g.insn; n < g.insn + g.insns && !t->ended; n++) {
		t->at = &t->insns[n];
		translate_add_map(t, t->at, false);
		t->flags_set = false;
		translate_insn(t);
		translate_follow_flags(t);
	}
	if (t->ended)
		return;
	if (g.end_word_flags && !t->word_flags)
		emit_save_flags(out(t), true);
	if (g.end_host_flags && !t->host_flags)
		emit_restore_flags(out(t));
	set_jump(emit_jmp(out(t)), g.after);
}

void translate_cold_part(struct translation *t)
{
	for (unsigned n = 0; n < t->cold_count; n++) {
		struct cold *c = &t->cold[n];

		t->at = &t->insns[c->insn];
		translate_add_map(t, t->at, c->flags_in_word);
		for (int k = 0; k < 8; k++)
			if (c->from[k])
				set_jump(c->from[k], out(t)->out);
		if (c->kind == COLD_MEMORY)
			translate_cold_memory(t, c);
		else if (c->kind == COLD_SYSTEM)
			translate_leave_for_system(t);
		else if (c->kind == COLD_GROUP)
			cold_group(t, c);
		else
			translate_cold_chain(t, c);
	}
}
