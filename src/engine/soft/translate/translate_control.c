/*
 * Leaving a block: jumps, calls, returns, the stack instructions that go with them, and what is
 * left to C.
 */
#include "translate_internal.h"

#include <assert.h>

static struct host_mem jump_key(bool user)
{
	return cpu_mem(offsetof(struct soft_cpu, jump_key) + user * sizeof(uint64_t));
}

/* What it was when something matched, also if a kick has taken it away since. */
static struct host_mem matched_key(bool user)
{
	return cpu_mem(offsetof(struct soft_cpu, made_keys) + user * sizeof(struct made_key) +
		       offsetof(struct made_key, key));
}

/*
 * To the address in r11, where code of user mode finds it again; returns the jump of a miss.
 * soft_jump_index() is what it computes.
 */
static uint8_t *exit_by_hash(struct translation *translation, bool user)
{
	const size_t cache = offsetof(struct soft_cpu, jump_cache);
	struct host_mem entry = {
		.base = R10, .index = NO_REG, .gs = true, .disp = (int32_t)cache
	};
	uint8_t *miss;

	emit_store(out(translation), R11, CPU(state.rip));
	emit_rr(out(translation), OP32(0x69), R10, R11); /* imul */
	emit32(out(translation), JUMP_HASH_FACTOR);
	emit_rr(out(translation), OP32(0xc1), 5, R10); /* shr */
	emit8(out(translation), 32 - JUMP_CACHE_BITS);
	emit_rr(out(translation), OP32(0xc1), 4, R10); /* shl */
	emit8(out(translation), 4);
	emit_rm(out(translation), OP64(0x03), R11, jump_key(user));
	emit_rm(out(translation), OP64(0x3b), R11, entry);
	miss = emit_short_jcc(out(translation), CC_NZ);
	/* RIP again, without waiting for what was just stored: what is made of it is many */
	if (user)
		emit_rm(out(translation), OP64(0x2b), R11, matched_key(user)); /* sub */
	entry.disp = (int32_t)(cache + offsetof(struct jump_entry, host));
	emit_rm(out(translation), OP32(0xff), 4, entry);
	return miss;
}

/*
 * To the dispatcher, which knows no way to state.rip. Where code floats a target is known to be
 * canonical only there; it faults where the jump is (SDM Vol. 2A JMP).
 */
void translate_miss(struct translation *translation)
{
	if (soft_floats(translation->mode)) {
		emit_constant(out(translation), R10, translation->at->rip & PAGE_OFFSET_MASK);
		emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_floating));
	} else {
		emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_miss));
	}
}

/* r11 = that; r10 may hold the address behind a call, which is pushed. */
static void emit_site_target(struct translation *translation, uint64_t target)
{
	if (translation->return_end == out(translation)->out)
		emit_lea(out(translation), R11,
			 mem(R10, (int32_t)(target - translate_after_insn(translation))));
	else
		emit_rip(translation, R11, target);
}

void translate_miss_site(struct translation *translation, uint32_t site)
{
	emit_constant(out(translation), R10, soft_site_name(site, translation->at->rip));
	emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_site));
}

/*
 * To a target known now, of a block that floats; the target does, too. What ends a block misses
 * behind its hot code, so there is one of these in that.
 */
static void exit_by_site(struct translation *translation, uint64_t target)
{
	const uint32_t site = translation->next_site++ % JUMP_SITES;
	const size_t entry = offsetof(struct soft_cpu, jump_sites[site]);
	uint8_t *miss;

	emit_site_target(translation, target);
	emit_load(out(translation), R10, jump_key(true));
	emit_rr(out(translation), OP64(0x01), R11, R10); /* add */
	emit_rm(out(translation), OP64(0x3b), R10,
		cpu_mem(entry + offsetof(struct jump_entry, sum)));
	if (!translation->is_part) {
		translation->missed = emit_jcc(out(translation), CC_NZ);
		translation->missed_site = site;
		emit_jmp_cpu(out(translation), entry + offsetof(struct jump_entry, host));
		return;
	}
	miss = emit_short_jcc(out(translation), CC_NZ);
	emit_jmp_cpu(out(translation), entry + offsetof(struct jump_entry, host));
	set_short_jump(miss, out(translation)->out);
	translate_miss_site(translation, site);
}

/*
 * To a target known now, through the jump cache (it lies in another page). Flags are in flags_word.
 * A block that does not float leads to others that do, which want RIP: a straddler of user code.
 */
void translate_exit_constant(struct translation *translation, uint64_t target)
{
	size_t entry = offsetof(struct soft_cpu, jump_cache) +
		       soft_jump_index(target) * sizeof(struct jump_entry);
	bool target_floats = soft_floats(soft_jump_mode(translation->mode));
	uint8_t *miss;

	if (soft_floats(translation->mode) && translation->engine->uses_slots) {
		exit_by_site(translation, target);
		return;
	}
	if (soft_floats(translation->mode)) {
		emit_rip(translation, R11, target);
		miss = exit_by_hash(translation, translation->mode & MODE_USER);
		set_short_jump(miss, out(translation)->out);
		translate_miss(translation);
		return;
	}
	emit_constant(out(translation), R11, target);
	if (target_floats)
		emit_store(out(translation), R11, CPU(state.rip));
	emit_rm(out(translation), OP64(0x03), R11, jump_key(translation->mode & MODE_USER));
	emit_rm(out(translation), OP64(0x3b), R11,
		cpu_mem(entry + offsetof(struct jump_entry, sum)));
	miss = emit_short_jcc(out(translation), CC_NZ);
	if (target_floats)
		emit_rm(out(translation), OP64(0x2b), R11, matched_key(true)); /* sub */
	emit_jmp_cpu(out(translation), entry + offsetof(struct jump_entry, host));
	set_short_jump(miss, out(translation)->out);
	if (!target_floats) {
		emit_constant(out(translation), R11, target);
		emit_store(out(translation), R11, CPU(state.rip));
	}
	emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_miss));
}

static uint32_t find_slot(const struct translation *translation, uint64_t target, bool in_word)
{
	struct soft_engine *engine = translation->engine;
	uint32_t slot;

	if (!translation->is_draft)
		return soft_jump_slot(engine, target, translation->mode, in_word);
	slot = soft_jump_slot_known(engine, target, translation->mode, in_word);
	if (slot != NO_JUMP_SLOT)
		return slot;
	soft_acquire_code(engine);
	slot = soft_jump_slot(engine, target, translation->mode, in_word);
	soft_release(&engine->lock);
	return slot;
}

bool translate_exit_by_slot(struct translation *translation, uint64_t target, bool in_word)
{
	enum { JMP = 4 };
	struct soft_engine *engine = translation->engine;
	uint32_t slot;

	if (!engine->uses_slots || translation->mode & ~(uint32_t)(MODE_FPU_OFF | MODE_AVX_OFF))
		return false;
	slot = find_slot(translation, target, in_word);
	if (slot == NO_JUMP_SLOT)
		return false;
	if (target > translation->at->rip) {
		emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, slots[slot]));
		return true;
	}
	emit_load(out(translation), R11, CPU(slot_base));
	emit_rm(out(translation), OP32(0xff), JMP,
		mem(R11, (int32_t)(slot * sizeof(*engine->empty_slots))));
	return true;
}

/* To the address in r11, at that level. Flags are in flags_word. */
void translate_exit_indirect(struct translation *translation, bool user)
{
	uint8_t *miss = exit_by_hash(translation, user);

	set_short_jump(miss, out(translation)->out);
	if (soft_floats(translation->mode)) {
		translate_miss(translation);
		return;
	}
	emit_constant(out(translation), R10, translation->at->rip);
	emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_indirect));
}

bool translate_leaves_addresses(const struct translation *translation,
				const struct guest_insn *guest_insn)
{
	if (translation->code_bits != 64 || soft_floats(translation->mode))
		return false;
	switch (guest_insn->insn.encoding.class) {
	case X86_CLASS_JCC:
	case X86_CLASS_JMP:
	case X86_CLASS_CALL:
	case X86_CLASS_LOOP: return !soft_canonical(translate_jump_target(translation, guest_insn));
	default: return false;
	}
}

bool translate_same_page(const struct translation *translation, uint64_t target)
{
	return (translation->cs_base + target) >> 12 == translation->page &&
	       !(translation->mode & BLOCK_ALONE);
}

/* The jump that follows is longer by prefixes that mean nothing, so that its rel32 is aligned. */
void translate_align_rel32(struct translation *translation, unsigned opcode_bytes)
{
	while (((uintptr_t)out(translation)->out + opcode_bytes) & 3)
		emit8(out(translation), CS_SEGMENT);
}

/*
 * A jump to the block's own begin, where no flag is looked at: the poll may change the flags and
 * stands in the loop itself.
 */
bool translate_is_plain_loop(const struct translation *translation, uint64_t target)
{
	return target == translation->insns[0].rip && !translation->insns[0].live_in &&
	       translate_same_page(translation, target);
}

void translate_loop_back(struct translation *translation)
{
	struct cold *cold = translate_new_cold(translation, COLD_POLL);

	cold->target = translation->insns[0].rip;
	emit_rm(out(translation), OP32(0x83), 7, CPU(kick));
	emit8(out(translation), 0);
	set_jump(emit_jcc(out(translation), CC_Z), translation->engine->code_write +
							   translation->block->host_offset +
							   translation->block->direct);
	translate_align_rel32(translation, 1);
	cold->from[0] = emit_jmp(out(translation));
}

static void leave_if_kicked(struct translation *translation, uint64_t target)
{
	struct cold *cold = translate_new_cold(translation, COLD_KICKED);

	cold->target = target;
	emit_rm(out(translation), OP32(0x83), 7, CPU(kick));
	emit8(out(translation), 0);
	translate_or_else(translation, cold, CC_NZ);
}

/*
 * Whether a jump within the page is one of those of which each loop of blocks has one: to where the
 * block begins, which may be behind it in a trace, or in front of that.
 */
static bool leads_back(const struct translation *translation, uint64_t target)
{
	return target <= translation->at->rip || target <= translation->rip;
}

/*
 * A jump that becomes one to the target's block, if that is in this page. Its poll stands here
 * where nobody looks at the host's flags.
 */
void translate_jump_out(struct translation *translation, uint64_t target)
{
	bool within = translate_same_page(translation, target);
	bool polls = leads_back(translation, target) || !within;
	struct cold *cold;

	if (polls && within && translation->word_flags) {
		leave_if_kicked(translation, target);
		polls = false;
	}
	cold = translate_new_cold(translation, polls ? COLD_POLL : COLD_CHAIN);
	cold->target = target;
	translate_align_rel32(translation, 1);
	cold->from[0] = emit_jmp(out(translation));
}

void translate_leave_page(struct translation *translation, uint64_t target)
{
	if (translate_exit_by_slot(translation, target, translation->word_flags))
		return;
	translate_save_flags(translation);
	translate_exit_constant(translation, target);
}

/* An unconditional exit to a known target. */
void translate_exit_direct(struct translation *translation, uint64_t target)
{
	translation->ended = true;
	if (translate_is_plain_loop(translation, target)) {
		translate_loop_back(translation);
		return;
	}
	if (!translate_same_page(translation, target)) {
		translate_leave_page(translation, target);
		return;
	}
	translate_jump_out(translation, target);
}

void translate_side_exit(struct translation *translation, uint8_t cc, uint64_t target)
{
	bool polls = leads_back(translation, target) || !translate_same_page(translation, target);
	struct cold *cold;

	if (translate_is_plain_loop(translation, target)) {
		uint8_t *on = emit_jcc(out(translation), cc ^ 1);

		translate_loop_back(translation);
		translate_end_strip(translation);
		set_jump(on, out(translation)->out);
		return;
	}
	cold = translate_new_cold(translation, polls ? COLD_POLL : COLD_CHAIN);
	cold->target = target;
	translate_align_rel32(translation, 2);
	cold->from[0] = emit_jcc(out(translation), cc);
}

/* C looks at what stands here. */
void translate_align_data(struct translation *translation)
{
	while ((uintptr_t)out(translation)->out & 7)
		emit8(out(translation), 0xcc);
}

static void emit_system(struct translation *translation)
{
	uint8_t *site;

	emit_rip(translation, R11, translation->at->rip);
	emit_store(out(translation), R11, CPU(state.rip));
	site = emit_lea_rip(out(translation), R11);
	emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_system));
	translate_align_data(translation);
	set_jump(site, out(translation)->out);
	memcpy(out(translation)->out, &translation->at->insn, sizeof(translation->at->insn));
	out(translation)->out += sizeof(translation->at->insn);
}

void translate_system_exit(struct translation *translation)
{
	translate_save_flags(translation);
	emit_system(translation);
	translation->ended = true;
}

/* The case that inlined code leaves to C; the flags are in flags_word or dead. */
void translate_leave_for_system(struct translation *translation) { emit_system(translation); }

void translate_or_else(struct translation *translation, struct cold *cold, uint8_t cc)
{
	assert(cold->from_count < sizeof(cold->from) / sizeof(cold->from[0]));
	cold->from[cold->from_count++] = emit_jcc(out(translation), cc);
}

/* ---- stack and control ---- */

static struct cold *push_lookup(struct translation *translation)
{
	translate_leave_flags(translation);
	return emit_lookup(translation, mem(RSP, -8), IN_REGISTERS, 8, false, true);
}

/* The stack's word at an offset from the guest's RSP, with the delta in r11. */
static struct host_mem stack_word(const struct translation *translation, int32_t offset)
{
	return (struct host_mem){ .base = RSP,
				  .index = R11,
				  .disp = translation->stack_bytes + offset };
}

/* Whether the instruction moves RSP, in a group of its, without looking at it. */
static bool moves_on(const struct x86_insn *insn)
{
	switch (insn->encoding.class) {
	case X86_CLASS_PUSH:
	case X86_CLASS_POP: return insn->rm != RSP;
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_CALL:
	case X86_CLASS_RET: return true;
	default: return false;
	}
}

/* Of the same group, behind others that neither fault, nor leave it, nor name RSP. */
static bool stack_goes_on(const struct translation *translation)
{
	const struct guest_insn *last = &translation->insns[translation->group_last];

	if (!translation->grouped || translation->group_base != RSP)
		return false;
	for (const struct guest_insn *next = translation->at + 1; next <= last; next++) {
		if (moves_on(&next->insn))
			return true;
		if (!translate_keeps_still(&next->insn))
			return false;
	}
	return false;
}

/*
 * RSP goes by so many bytes; in a run of such instructions with one lookup, and others between
 * them, none of which can fault, at their end.
 */
static void move_stack(struct translation *translation, int32_t bytes)
{
	translation->stack_bytes += bytes;
	if (stack_goes_on(translation))
		return;
	emit_lea(out(translation), RSP, mem(RSP, translation->stack_bytes));
	translation->stack_bytes = 0;
}

void translate_push_register(struct translation *translation, uint8_t reg)
{
	struct cold *cold = push_lookup(translation);

	if (displaced(reg))
		emit_load(out(translation), R10, slot(reg));
	emit_store(out(translation), displaced(reg) ? R10 : reg, stack_word(translation, -8));
	translate_end_access(translation, cold);
	move_stack(translation, -8);
}

/*
 * The slow path of the push must find the value again: r10 is kept across it unless it holds the
 * address.
 */
void translate_push_r10(struct translation *translation)
{
	struct cold *cold;

	emit_store(out(translation), R10, CPU(temp[2]));
	cold = push_lookup(translation);
	emit_load(out(translation), R10, CPU(temp[2]));
	emit_store(out(translation), R10, pushed);
	translate_end_access(translation, cold);
	emit_lea(out(translation), RSP, mem(RSP, -8));
}

void translate_push_constant(struct translation *translation, uint64_t value)
{
	struct cold *cold = push_lookup(translation);

	if (value == (uint64_t)(int32_t)value) {
		emit_rm(out(translation), OP64(0xc7), 0, stack_word(translation, -8));
		emit32(out(translation), (uint32_t)value);
	} else {
		emit_constant(out(translation), R10, value);
		emit_store(out(translation), R10, stack_word(translation, -8));
	}
	translate_end_access(translation, cold);
	move_stack(translation, -8);
}

/* The address behind a call. */
void translate_push_return(struct translation *translation)
{
	struct cold *cold;

	if (!soft_floats(translation->mode)) {
		translate_push_constant(translation, translate_after_insn(translation));
		return;
	}
	cold = push_lookup(translation);
	emit_rip(translation, R10, translate_after_insn(translation));
	emit_store(out(translation), R10, stack_word(translation, -8));
	translate_end_access(translation, cold);
	move_stack(translation, -8);
	translation->return_end = out(translation)->out;
}

void translate_pop_register(struct translation *translation, uint8_t reg)
{
	struct cold *cold;
	uint8_t to = displaced(reg) || reg == RSP ? R10 : reg;

	translate_leave_flags(translation);
	cold = emit_lookup(translation, mem(RSP, 0), IN_REGISTERS, 8, true, false);
	emit_load(out(translation), to, stack_word(translation, 0));
	translate_end_access(translation, cold);
	move_stack(translation, 8);
	if (reg == RSP)
		emit_mov(out(translation), RSP, R10);
	else if (to == R10)
		emit_store(out(translation), R10, slot(reg));
}

void translate_leave_frame(struct translation *translation)
{
	struct cold *cold;

	translate_leave_flags(translation);
	cold = emit_lookup(translation, mem(RBP, 0), IN_REGISTERS, 8, true, false);
	emit_load(out(translation), R10, (struct host_mem){ .base = RBP, .index = R11 });
	translate_end_access(translation, cold);
	emit_lea(out(translation), RSP, mem(RBP, 8));
	emit_mov(out(translation), RBP, R10);
}

void translate_return_near(struct translation *translation, unsigned extra)
{
	struct cold *cold;

	translate_leave_flags(translation);
	cold = emit_lookup(translation, mem(RSP, 0), IN_REGISTERS, 8, true, false);
	translate_save_flags(translation);
	emit_load(out(translation), R11, stack_word(translation, 0));
	translate_end_access(translation, cold);
	move_stack(translation, (int32_t)(8 + extra));
	translate_exit_indirect(translation, translation->mode & MODE_USER);
	translation->ended = true;
}

static void load_register(struct translation *translation, uint8_t to, uint8_t reg)
{
	if (displaced(reg))
		emit_load(out(translation), to, slot(reg));
	else
		emit_mov(out(translation), to, reg);
}

/* r/m of a jump, call or push into r11. */
static void load_target(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	bool simple = x86_insn_has_memory(insn) && translate_simple_address(translation, insn, 8);
	enum address_place place;
	struct host_mem ea;
	struct cold *cold;

	translate_leave_flags(translation);
	if (!x86_insn_has_memory(insn)) {
		load_register(translation, R11, insn->rm);
		return;
	}
	place = simple ? IN_REGISTERS : emit_linear(translation, insn, 8);
	ea = simple ? mem(insn->base, insn->disp) : translate_placed(place, 8);
	cold = emit_lookup(translation, ea, place, 8, true, false);
	emit_load(out(translation), R11,
		  (struct host_mem){ .base = ea.base, .index = R11, .disp = ea.disp });
	translate_end_access(translation, cold);
}

/*
 * A call whose target, in r10, is not canonical faults before it pushes anything, so C does it. Of
 * user code also what leads to the upper half.
 */
static void leave_odd_target(struct translation *translation)
{
	enum { INC = 0, TEST = 0, SHR = 5, CANONICAL_BITS = 47, UPPER_BITS = 0x1fffe };
	struct cold *cold = translate_new_cold(translation, COLD_SYSTEM);

	emit_rr(out(translation), OP64(0xc1), SHR, R10);
	emit8(out(translation), CANONICAL_BITS);
	if (!(translation->mode & MODE_USER)) { /* none, or all of 17 bits */
		emit_rr(out(translation), OP32(0xff), INC, R10);
		emit_rr(out(translation), OP32(0xf7), TEST, R10);
		emit32(out(translation), UPPER_BITS);
	}
	translate_or_else(translation, cold, CC_NZ);
}

/* A call by a register pushes before the target is anywhere else; one by memory keeps it. */
static void call_indirect(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	bool by_register = !x86_insn_has_memory(insn) && insn->rm != RSP;

	if (by_register) {
		translate_leave_flags(translation);
		load_register(translation, R10, insn->rm);
		leave_odd_target(translation);
		translate_push_return(translation);
		load_register(translation, R11, insn->rm);
		return;
	}
	load_target(translation);
	emit_mov(out(translation), R10, R11);
	leave_odd_target(translation);
	emit_store(out(translation), R11, CPU(temp[2]));
	translate_push_return(translation);
	emit_load(out(translation), R11, CPU(temp[2]));
}

/* Jump, call and push by register or memory; false: not in 64-bit code, or with prefixes. */
bool translate_indirect(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;

	if (translation->code_bits != 64 || insn->prefix66 || insn->address_bytes != 8)
		return false;
	if (insn->encoding.class == X86_CLASS_CALL_INDIRECT) {
		call_indirect(translation);
	} else {
		load_target(translation);
	}
	if (insn->encoding.class == X86_CLASS_PUSH_RM) {
		emit_mov(out(translation), R10, R11);
		translate_push_r10(translation);
		return true;
	}
	translate_exit_indirect(translation, translation->mode & MODE_USER);
	translation->ended = true;
	return true;
}

void translate_counted_jump(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	uint64_t target = (translate_after_insn(translation) + insn->imm) & translation->rip_mask;
	bool wide = insn->address_bytes == 8;
	uint8_t *short_jump;
	uint8_t *skip = NULL;

	/*
	 * JRCXZ: the host's own, over a jump; the LOOPs count with LEA and test by JRCXZ, so that
	 * flags stay.
	 */
	if (insn->opcode != 0xe3)
		emit_rm(out(translation), wide ? OP64(0x8d) : OP32(0x8d), RCX, mem(RCX, -1));
	if (insn->opcode == 0xe0 || insn->opcode == 0xe1)
		skip = emit_jcc(out(translation), insn->opcode == 0xe0 ? CC_Z : CC_NZ);
	if (!wide)
		emit8(out(translation), 0x67);
	emit8(out(translation), 0xe3);
	emit8(out(translation), 0);
	short_jump = out(translation)->out;
	if (insn->opcode == 0xe3) {
		emit8(out(translation), 0xeb);
		emit8(out(translation), 0);
		uint8_t *over = out(translation)->out;

		short_jump[-1] = (uint8_t)(out(translation)->out - short_jump);
		struct cold *cold = translate_new_cold(translation, COLD_POLL);

		cold->target = target;
		translate_align_rel32(translation, 1);
		cold->from[0] = emit_jmp(out(translation));
		over[-1] = (uint8_t)(out(translation)->out - over);
		return;
	}
	struct cold *cold = translate_new_cold(translation, COLD_POLL);

	cold->target = target;
	translate_align_rel32(translation, 1);
	cold->from[0] = emit_jmp(out(translation));
	short_jump[-1] = (uint8_t)(out(translation)->out - short_jump);
	if (skip)
		set_jump(skip, out(translation)->out);
}
