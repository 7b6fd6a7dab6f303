/* Groups: accesses through one base register within one page share one lookup. */
#include <assert.h>

#include "translate_internal.h"

/* How far accesses of a group lie apart, and from their base register's value. */
enum { GROUP_BYTES = 256, GROUP_REACH = 4096 };

/*
 * Instructions that are copied as they are, and whose only general registers are those of their
 * operands.
 */
static bool is_plain(const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_PLAIN) && !insn->lock;
}

/*
 * Whether the operand is this register, or a byte of it: without REX, 4 to 7 may be the second
 * bytes of 0 to 3.
 */
static bool is_register(const struct x86_insn *insn, uint8_t operand, uint8_t reg)
{
	return operand == reg || (!insn->rex && (operand & 3) == reg);
}

/* Whether an operand with these attributes is written; one with neither may be. */
static bool may_write(const struct x86_insn *insn, uint32_t read, uint32_t write)
{
	return x86_insn_is(insn, write) || !x86_insn_is(insn, read);
}

/* Whether the instruction changes this register. */
bool translate_changes(const struct x86_insn *insn, uint8_t reg)
{
	bool rm_is_register = (x86_insn_is(insn, X86_ENC_RM_GPR) && insn->mod == 3) ||
			      x86_insn_is(insn, X86_ENC_OPCODE_GPR);

	if (x86_insn_is(insn, X86_ENC_ACCUMULATOR) && reg == RAX)
		return x86_insn_is(insn, X86_ENC_ACCUMULATOR_WRITE);
	if (x86_insn_is(insn, X86_ENC_REG_GPR) && is_register(insn, insn->reg, reg) &&
	    may_write(insn, X86_ENC_REG_READ, X86_ENC_REG_WRITE))
		return true;
	if (rm_is_register && is_register(insn, insn->rm, reg) &&
	    may_write(insn, X86_ENC_RM_READ, X86_ENC_RM_WRITE))
		return true;
	return x86_insn_is(insn, X86_ENC_VVVV_GPR) && insn->vvvv == reg &&
	       may_write(insn, X86_ENC_VVVV_READ, X86_ENC_VVVV_WRITE);
}

bool translate_keeps_still(const struct x86_insn *insn)
{
	bool rm_is_register = (x86_insn_is(insn, X86_ENC_RM_GPR) && insn->mod == 3) ||
			      x86_insn_is(insn, X86_ENC_OPCODE_GPR);

	return insn->encoding.class == X86_CLASS_DATA && is_plain(insn) &&
	       !x86_insn_is(insn, X86_ENC_FPU) && !x86_insn_has_memory(insn) &&
	       !(x86_insn_is(insn, X86_ENC_REG_GPR) && is_register(insn, insn->reg, RSP)) &&
	       !(rm_is_register && is_register(insn, insn->rm, RSP)) &&
	       !(x86_insn_is(insn, X86_ENC_VVVV_GPR) && insn->vvvv == RSP);
}

static unsigned displaced_operands(const struct x86_insn *insn)
{
	struct renaming renaming;

	translate_collect(insn, &renaming, true);
	return renaming.count;
}

static bool note_access(struct group *group, int32_t at, unsigned bytes, bool read, bool write)
{
	int32_t low = at < group->low || !group->accesses ? at : group->low;
	int32_t high = at + (int32_t)bytes > group->high || !group->accesses ? at + (int32_t)bytes
									     : group->high;

	if (high - low > GROUP_BYTES)
		return false;
	group->low = low;
	group->high = high;
	group->read |= read;
	group->write |= write;
	group->accesses++;
	return true;
}

/* ADD and SUB of a constant to the stack pointer. */
static bool moves_stack(const struct x86_insn *insn, int32_t *ret_by)
{
	bool adds = insn->encoding.operation == X86_OPERATION_ADD;

	if ((!adds && insn->encoding.operation != X86_OPERATION_SUB) || !insn->imm_bytes ||
	    x86_insn_is(insn, X86_ENC_RM8) || !insn->rex_w ||
	    !insn->has_modrm || insn->mod != 3 || insn->rm != RSP || (int64_t)insn->imm > 128 ||
	    (int64_t)insn->imm < -128)
		return false;
	*ret_by = adds ? (int32_t)insn->imm : -(int32_t)insn->imm;
	return true;
}

static bool join_stack(struct group *group, const struct x86_insn *insn, bool is_followed)
{
	int32_t by;

	if (insn->prefix66)
		return false;
	switch (insn->encoding.class) {
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_CALL:
		if (!note_access(group, group->offset - 8, 8, false, true))
			return false;
		group->offset -= 8;
		group->closed = insn->encoding.class == X86_CLASS_CALL && !is_followed;
		return true;
	case X86_CLASS_POP:
	case X86_CLASS_RET:
		if (insn->imm || (insn->encoding.class == X86_CLASS_POP && insn->rm == RSP) ||
		    !note_access(group, group->offset, 8, true, false))
			return false;
		group->offset += 8;
		group->closed = insn->encoding.class == X86_CLASS_RET;
		return true;
	default:
		if (!moves_stack(insn, &by))
			return false;
		group->offset += by;
		return true;
	}
}

/* LEA changes one register and reads no other that is not where it should be. */
static bool joins_lea(const struct group *group, const struct x86_insn *insn)
{
	return insn->reg != group->base && (insn->base >= 16 || !displaced(insn->base)) &&
	       (insn->index >= 16 || !displaced(insn->index));
}

static bool join(struct translation *translation, struct group *group,
		 const struct guest_insn *insn)
{
	const struct x86_insn *decoded = &insn->insn;
	struct host_encoding encoding;

	/* it is left to C, which ends the block */
	if (translate_is_fpu_off(translation, decoded) ||
	    translate_leaves_addresses(translation, insn))
		return false;
	if (group->base == RSP && join_stack(group, decoded, insn->is_followed))
		return true;
	if (decoded->encoding.class ==
	    X86_CLASS_JCC) /* a side exit needs nothing of ours, a loop does */
		return !translate_is_plain_loop(translation,
						translate_side_target(translation, insn));
	if (decoded->encoding.class == X86_CLASS_JMP)
		return insn->is_followed;
	if (decoded->encoding.class == X86_CLASS_LEA)
		return joins_lea(group, decoded);
	if (!is_plain(decoded) || displaced_operands(decoded) > 1)
		return false;
	if (!x86_insn_has_memory(decoded))
		return !translate_changes(decoded, group->base);
	if (decoded->base != group->base || !soft_host_encoding(decoded, &encoding) ||
	    !translate_simple_address(translation, decoded, encoding.memory_bytes) ||
	    decoded->disp > GROUP_REACH || decoded->disp < -GROUP_REACH)
		return false;
	if (!note_access(group, group->offset + decoded->disp, encoding.memory_bytes,
			 x86_insn_is(decoded, X86_ENC_MEM_READ),
			 x86_insn_is(decoded, X86_ENC_MEM_WRITE)))
		return false;
	group->closed = translate_changes(decoded, group->base);
	return true;
}

static uint8_t group_base(const struct translation *translation,
			  const struct guest_insn *guest_insn)
{
	const struct x86_insn *insn = &guest_insn->insn;

	switch (insn->encoding.class) {
	case X86_CLASS_CALL: return guest_insn->is_followed ? RSP : NO_REG;
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_POP: return insn->prefix66 ? NO_REG : RSP;
	default: break;
	}
	if (!x86_insn_has_memory(insn) || insn->base >= 16 || displaced(insn->base) ||
	    !is_plain(insn) || (translation->mode & MODE_AVX_OFF && insn->kind))
		return NO_REG;
	return insn->base;
}

/* MOVZX of a byte to the register. */
static bool extends_byte(const struct x86_insn *insn, uint8_t reg)
{
	enum { MOVZX_BYTE = 0xb6 };

	return !insn->kind && insn->map == 1 && insn->opcode == MOVZX_BYTE && insn->reg == reg &&
	       insn->operand_bytes >= 4;
}

/* Whether the register is a byte at instruction n, by what the block has done before. */
static bool is_byte(const struct translation *translation, unsigned n, uint8_t reg)
{
	while (n-- > 0) {
		const struct x86_insn *insn = &translation->insns[n].insn;

		if (insn->encoding.class != X86_CLASS_LEA &&
		    (insn->encoding.class != X86_CLASS_DATA || !is_plain(insn)))
			return false;
		if (translate_changes(insn, reg))
			return extends_byte(insn, reg);
	}
	return false;
}

/*
 * A read whose index is a byte: all that it may lead to, if that is not much, is looked up by the
 * base, so that who waits for what is read there does not wait for the lookup as well.
 */
static struct group find_table(struct translation *translation, unsigned n)
{
	enum { TABLE_MOST = 1024 + 32, INDEX_MOST = 0xff };
	const struct x86_insn *insn = &translation->insns[n].insn;
	struct group table = { .base = insn->base, .insns = 1, .accesses = 1, .read = true };
	struct host_encoding encoding;

	if (!translation->engine->looks_up_tables ||
	    insn->encoding.class != X86_CLASS_DATA || !is_plain(insn) ||
	    !x86_insn_has_memory(insn) || !insn->scale_log2 || insn->base >= 16 ||
	    insn->index >= 16 || x86_insn_is(insn, X86_ENC_MEM_WRITE) ||
	    !x86_insn_is(insn, X86_ENC_MEM_READ) || x86_insn_is_masked(insn) ||
	    translate_is_fpu_off(translation, insn) || displaced_operands(insn) ||
	    !soft_host_encoding(insn, &encoding))
		return (struct group){ 0 };
	table.low = insn->disp;
	table.high = insn->disp + (INDEX_MOST << insn->scale_log2) + encoding.memory_bytes;
	table.is_table = true;
	if (insn->disp > GROUP_REACH || insn->disp < -GROUP_REACH ||
	    table.high - table.low > TABLE_MOST ||
	    !translate_indexed_address(translation, insn, encoding.memory_bytes) ||
	    !is_byte(translation, n, insn->index))
		return (struct group){ 0 };
	return table;
}

/* The group that begins with instruction n; one of fewer than two accesses is none. */
struct group translate_find_group(struct translation *translation, unsigned n)
{
	struct group group = { .base = group_base(translation, &translation->insns[n]) };
	struct group good = { 0 };

	if (group.base == NO_REG || translation->code_bits != 64 ||
	    translation->mode & (BLOCK_ALONE | MODE_ALIGNED) ||
	    translation->cold_count + 3 * MAX_INSNS > MAX_COLD)
		return good;
	good = find_table(translation, n);
	if (good.insns)
		return good;
	while (n + group.insns < translation->count && !group.closed) {
		unsigned before = group.accesses;

		if (!join(translation, &group, &translation->insns[n + group.insns]))
			break;
		group.insns++;
		if (group.accesses != before)
			good = group; /* what follows the last access gains nothing */
	}
	return good.accesses >= 2 ? good : (struct group){ 0 };
}

/* One lookup for all; what fails it is done one by one in the cold part. */
struct cold *translate_open_group(struct translation *translation, const struct group *group)
{
	struct cold *cold, *lookup;

	translate_leave_flags(translation);
	lookup = emit_lookup(translation, mem(group->base, group->low), IN_REGISTERS,
			     (unsigned)(group->high - group->low), group->read, group->write);
	cold = lookup;
	cold->kind = COLD_GROUP;
	cold->insns = (uint16_t)group->insns;
	cold->host_flags = translation->host_flags;
	cold->word_flags = translation->word_flags;
	translation->grouped = true;
	translation->in_table = group->is_table;
	translation->group_base = group->base;
	translation->group_last =
		(int)(translation->at - translation->insns) + (int)group->insns - 1;
	return cold;
}

void translate_close_group(struct translation *translation, struct cold *cold)
{
	translation->grouped = translation->in_table = false;
	cold->after = out(translation)->out;
	cold->end_host_flags = translation->host_flags;
	cold->end_word_flags = translation->word_flags;
}

/* Where the flags are behind the instruction. */
void translate_follow_flags(struct translation *translation)
{
	struct guest_insn *guest_insn = translation->at;

	if (!translation->flags_set &&
	    (guest_insn->insn.encoding.flags_written || !guest_insn->live_in)) {
		translation->host_flags = true;
		translation->word_flags = false;
	}
	if (translation->word_flags && !translation->host_flags && !translation->flags_set)
		translation->maps[translation->map_count - 1].guest |= MAP_FLAGS_IN_WORD;
}

void translate_cold_group(struct translation *translation, struct cold *cold)
{
	const struct cold whole = *cold;

	assert(!translation->grouped && !translation->stack_bytes);
	translate_sort_out_one(translation, cold);
	translation->host_flags = whole.host_flags;
	translation->word_flags = whole.word_flags;
	translation->ended = false;
	for (unsigned n = whole.insn; n < whole.insn + whole.insns && !translation->ended; n++) {
		translation->at = &translation->insns[n];
		translate_add_map(translation, translation->at, false);
		translation->flags_set = false;
		translate_insn(translation);
		translate_follow_flags(translation);
	}
	if (translation->ended)
		return;
	if (whole.end_word_flags && !translation->word_flags)
		emit_save_flags(out(translation), true);
	if (whole.end_host_flags && !translation->host_flags)
		emit_restore_flags(out(translation));
	set_jump(emit_jmp(out(translation)), whole.after);
}
