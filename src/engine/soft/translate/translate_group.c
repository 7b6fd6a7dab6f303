/* Groups: accesses through one base register within one page share one lookup. */
#include <assert.h>

#include "translate_internal.h"

/* How far accesses of a group lie apart, and from their base register's value. */
enum { GROUP_BYTES = 256, GROUP_REACH = 4096 };

/*
 * Instructions that are copied as they are, and whose only general registers are those of their
 * operands.
 */
static bool is_plain(const struct x86_insn *i) { return x86_insn_is(i, X86_ENC_PLAIN) && !i->lock; }

/*
 * Whether the operand is this register, or a byte of it: without REX, 4 to 7 may be the second
 * bytes of 0 to 3.
 */
static bool is_register(const struct x86_insn *i, uint8_t operand, uint8_t reg)
{
	return operand == reg || (!i->rex && (operand & 3) == reg);
}

/* Whether an operand with these attributes is written; one with neither may be. */
static bool may_write(const struct x86_insn *i, uint32_t read, uint32_t write)
{
	return x86_insn_is(i, write) || !x86_insn_is(i, read);
}

/* Whether the instruction changes this register. */
bool translate_changes(const struct x86_insn *i, uint8_t reg)
{
	bool rm_is_register = (x86_insn_is(i, X86_ENC_RM_GPR) && i->mod == 3) ||
			      x86_insn_is(i, X86_ENC_OPCODE_GPR);

	if (x86_insn_is(i, X86_ENC_ACCUMULATOR) && reg == RAX)
		return x86_insn_is(i, X86_ENC_ACCUMULATOR_WRITE);
	if (x86_insn_is(i, X86_ENC_REG_GPR) && is_register(i, i->reg, reg) &&
	    may_write(i, X86_ENC_REG_READ, X86_ENC_REG_WRITE))
		return true;
	if (rm_is_register && is_register(i, i->rm, reg) &&
	    may_write(i, X86_ENC_RM_READ, X86_ENC_RM_WRITE))
		return true;
	return x86_insn_is(i, X86_ENC_VVVV_GPR) && i->vvvv == reg &&
	       may_write(i, X86_ENC_VVVV_READ, X86_ENC_VVVV_WRITE);
}

static unsigned displaced_operands(const struct x86_insn *i)
{
	struct renaming r;

	translate_collect(i, &r, true);
	return r.count;
}

static bool note_access(struct group *g, int32_t at, unsigned bytes, bool read, bool write)
{
	int32_t low = at < g->low || !g->accesses ? at : g->low;
	int32_t high =
		at + (int32_t)bytes > g->high || !g->accesses ? at + (int32_t)bytes : g->high;

	if (high - low > GROUP_BYTES)
		return false;
	g->low = low;
	g->high = high;
	g->read |= read;
	g->write |= write;
	g->accesses++;
	return true;
}

/* ADD and SUB of a constant to the stack pointer. */
static bool moves_stack(const struct x86_insn *i, int32_t *ret_by)
{
	bool adds = i->encoding.operation == X86_OPERATION_ADD;

	if ((!adds && i->encoding.operation != X86_OPERATION_SUB) || !i->imm_bytes ||
	    x86_insn_is(i, X86_ENC_RM8) || !i->rex_w ||
	    !i->has_modrm || i->mod != 3 || i->rm != RSP || (int64_t)i->imm > 128 ||
	    (int64_t)i->imm < -128)
		return false;
	*ret_by = adds ? (int32_t)i->imm : -(int32_t)i->imm;
	return true;
}

static bool join_stack(struct group *g, const struct x86_insn *i)
{
	int32_t by;

	if (i->prefix66)
		return false;
	switch (i->encoding.class) {
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_CALL:
		if (!note_access(g, g->offset - 8, 8, false, true))
			return false;
		g->offset -= 8;
		g->closed = i->encoding.class == X86_CLASS_CALL;
		return true;
	case X86_CLASS_POP:
	case X86_CLASS_RET:
		if (i->imm || (i->encoding.class == X86_CLASS_POP && i->rm == RSP) ||
		    !note_access(g, g->offset, 8, true, false))
			return false;
		g->offset += 8;
		g->closed = i->encoding.class == X86_CLASS_RET;
		return true;
	default:
		if (!moves_stack(i, &by))
			return false;
		g->offset += by;
		return true;
	}
}

/* LEA changes one register and reads no other that is not where it should be. */
static bool joins_lea(const struct group *g, const struct x86_insn *i)
{
	return i->reg != g->base && (i->base >= 16 || !displaced(i->base)) &&
	       (i->index >= 16 || !displaced(i->index));
}

static bool join(struct translation *t, struct group *g, const struct guest_insn *insn)
{
	const struct x86_insn *i = &insn->insn;
	struct host_encoding h;

	/* it is left to C, which ends the block */
	if (translate_is_fpu_off(t, i) || translate_leaves_addresses(t, insn))
		return false;
	if (g->base == RSP && join_stack(g, i))
		return true;
	if (i->encoding.class == X86_CLASS_JCC) /* a side exit needs nothing of ours, a loop does */
		return !translate_is_plain_loop(t, translate_jump_target(t, insn));
	if (i->encoding.class == X86_CLASS_LEA)
		return joins_lea(g, i);
	if (!is_plain(i) || displaced_operands(i) > 1)
		return false;
	if (!x86_insn_has_memory(i))
		return !translate_changes(i, g->base);
	if (i->base != g->base || !soft_host_encoding(i, &h) ||
	    !translate_simple_address(t, i, h.memory_bytes) || i->disp > GROUP_REACH ||
	    i->disp < -GROUP_REACH)
		return false;
	if (!note_access(g, g->offset + i->disp, h.memory_bytes, x86_insn_is(i, X86_ENC_MEM_READ),
			 x86_insn_is(i, X86_ENC_MEM_WRITE)))
		return false;
	g->closed = translate_changes(i, g->base);
	return true;
}

static uint8_t group_base(const struct translation *t, const struct x86_insn *i)
{
	switch (i->encoding.class) {
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_POP: return i->prefix66 ? NO_REG : RSP;
	default: break;
	}
	if (!x86_insn_has_memory(i) || i->base >= 16 || displaced(i->base) || !is_plain(i) ||
	    (t->mode & MODE_AVX_OFF && i->kind))
		return NO_REG;
	return i->base;
}

/* The group that begins with instruction n; one of fewer than two accesses is none. */
struct group translate_find_group(struct translation *t, unsigned n)
{
	struct group g = { .base = group_base(t, &t->insns[n].insn) };
	struct group good = { 0 };

	if (g.base == NO_REG || t->code_bits != 64 || t->mode & (BLOCK_ALONE | MODE_ALIGNED) ||
	    t->cold_count + 3 * MAX_INSNS > MAX_COLD)
		return good;
	while (n + g.insns < t->count && !g.closed) {
		unsigned before = g.accesses;

		if (!join(t, &g, &t->insns[n + g.insns]))
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
	lookup = emit_lookup(t, mem(g->base, g->low), IN_REGISTERS, (unsigned)(g->high - g->low),
			     g->read, g->write);
	c = lookup;
	c->kind = COLD_GROUP;
	c->insns = (uint16_t)g->insns;
	c->host_flags = t->host_flags;
	c->word_flags = t->word_flags;
	t->grouped = true;
	t->group_base = g->base;
	t->group_last = (int)(t->at - t->insns) + (int)g->insns - 1;
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
		t->maps[t->map_count - 1].guest |= MAP_FLAGS_IN_WORD;
}

void translate_cold_group(struct translation *t, struct cold *c)
{
	const struct cold g = *c;

	assert(!t->grouped && !t->stack_bytes);
	translate_sort_out_one(t, c);
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
