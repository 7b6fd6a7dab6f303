/*
 * Leaving a block: jumps, calls, returns, the stack instructions that go with them, and what is
 * left to C.
 */
#include "translate_internal.h"

static struct host_mem jump_key(bool user)
{
	return cpu_mem(offsetof(struct soft_cpu, jump_key) + user * sizeof(uint64_t));
}

/* To the address in r11; returns the jump of a miss. soft_jump_index() is what it computes. */
static uint8_t *exit_by_hash(struct translation *t, bool user)
{
	const size_t cache = offsetof(struct soft_cpu, jump_cache);
	struct host_mem entry = {
		.base = R10, .index = NO_REG, .gs = true, .disp = (int32_t)cache
	};
	uint8_t *miss;

	emit_store(out(t), R11, CPU(state.rip));
	emit_rr(out(t), OP32(0x69), R10, R11); /* imul */
	emit32(out(t), JUMP_HASH_FACTOR);
	emit_rr(out(t), OP32(0xc1), 5, R10); /* shr */
	emit8(out(t), 32 - JUMP_CACHE_BITS);
	emit_rr(out(t), OP32(0xc1), 4, R10); /* shl */
	emit8(out(t), 4);
	emit_rm(out(t), OP64(0x03), R11, jump_key(user));
	emit_rm(out(t), OP64(0x3b), R11, entry);
	miss = emit_short_jcc(out(t), CC_NZ);
	entry.disp = (int32_t)(cache + offsetof(struct jump_entry, host));
	emit_rm(out(t), OP32(0xff), 4, entry);
	return miss;
}

/*
 * To the dispatcher, which knows no way to state.rip. Where code floats a target is known to be
 * canonical only there; it faults where the jump is (SDM Vol. 2A JMP).
 */
void translate_miss(struct translation *t)
{
	if (soft_floats(t->mode)) {
		emit_constant(out(t), R10, t->at->rip & PAGE_OFFSET_MASK);
		emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_floating));
	} else {
		emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_miss));
	}
}

/*
 * To a target known now, through the jump cache (it lies in another page). Flags are in flags_word.
 * A block that does not float leads to others that do, which look at RIP: a straddler of user code.
 */
void translate_exit_constant(struct translation *t, uint64_t target)
{
	size_t entry = offsetof(struct soft_cpu, jump_cache) +
		       soft_jump_index(target) * sizeof(struct jump_entry);
	bool target_floats = soft_floats(soft_jump_mode(t->mode));
	uint8_t *miss;

	if (soft_floats(t->mode)) {
		emit_rip(t, R11, target);
		miss = exit_by_hash(t, t->mode & MODE_USER);
		set_short_jump(miss, out(t)->out);
		translate_miss(t);
		return;
	}
	emit_constant(out(t), R11, target);
	if (target_floats)
		emit_store(out(t), R11, CPU(state.rip));
	emit_rm(out(t), OP64(0x03), R11, jump_key(t->mode & MODE_USER));
	emit_rm(out(t), OP64(0x3b), R11, cpu_mem(entry + offsetof(struct jump_entry, sum)));
	miss = emit_short_jcc(out(t), CC_NZ);
	emit_jmp_cpu(out(t), entry + offsetof(struct jump_entry, host));
	set_short_jump(miss, out(t)->out);
	if (!target_floats) {
		emit_constant(out(t), R11, target);
		emit_store(out(t), R11, CPU(state.rip));
	}
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_miss));
}

/* To the address in r11, at that level. Flags are in flags_word. */
void translate_exit_indirect(struct translation *t, bool user)
{
	uint8_t *miss = exit_by_hash(t, user);

	set_short_jump(miss, out(t)->out);
	if (soft_floats(t->mode)) {
		translate_miss(t);
		return;
	}
	emit_constant(out(t), R10, t->at->rip);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_indirect));
}

bool translate_leaves_addresses(const struct translation *t, const struct guest_insn *g)
{
	if (t->code_bits != 64 || soft_floats(t->mode))
		return false;
	switch (g->insn.encoding.class) {
	case X86_CLASS_JCC:
	case X86_CLASS_JMP:
	case X86_CLASS_CALL:
	case X86_CLASS_LOOP: return !soft_canonical(translate_jump_target(t, g));
	default: return false;
	}
}

bool translate_same_page(const struct translation *t, uint64_t target)
{
	return (t->cs_base + target) >> 12 == t->page && !(t->mode & BLOCK_ALONE);
}

/* The jump that follows is longer by prefixes that mean nothing, so that its rel32 is aligned. */
void translate_align_rel32(struct translation *t, unsigned opcode_bytes)
{
	enum { CS_SEGMENT = 0x2e };

	while (((uintptr_t)out(t)->out + opcode_bytes) & 3)
		emit8(out(t), CS_SEGMENT);
}

/*
 * A jump to the block's own begin, where no flag is looked at: the poll may change the flags and
 * stands in the loop itself.
 */
bool translate_is_plain_loop(const struct translation *t, uint64_t target)
{
	return target == t->insns[0].rip && !t->insns[0].live_in && translate_same_page(t, target);
}

void translate_loop_back(struct translation *t)
{
	struct cold *c = translate_new_cold(t, COLD_POLL);

	c->target = t->insns[0].rip;
	emit_rm(out(t), OP32(0x83), 7, CPU(kick));
	emit8(out(t), 0);
	set_jump(emit_jcc(out(t), CC_Z),
		 t->engine->code_write + t->block->host_offset + t->block->direct);
	translate_align_rel32(t, 1);
	c->from[0] = emit_jmp(out(t));
}

/* A jump that becomes one to the target's block, if that is in this page. */
void translate_jump_out(struct translation *t, uint64_t target)
{
	bool polls = target <= t->at->rip || !translate_same_page(t, target);
	struct cold *c = translate_new_cold(t, polls ? COLD_POLL : COLD_CHAIN);

	c->target = target;
	translate_align_rel32(t, 1);
	c->from[0] = emit_jmp(out(t));
}

/* An unconditional exit to a known target. */
void translate_exit_direct(struct translation *t, uint64_t target)
{
	t->ended = true;
	if (translate_is_plain_loop(t, target)) {
		translate_loop_back(t);
		return;
	}
	if (!translate_same_page(t, target)) {
		translate_save_flags(t);
		translate_exit_constant(t, target);
		return;
	}
	translate_jump_out(t, target);
}

void translate_side_exit(struct translation *t, uint8_t cc, uint64_t target)
{
	struct cold *c;

	if (translate_is_plain_loop(t, target)) {
		uint8_t *on = emit_jcc(out(t), cc ^ 1);
		bool in_strips = !t->grouped && !t->has_strip && translate_strip(t, cc);

		t->has_strip |= in_strips;
		if (!in_strips)
			translate_loop_back(t);
		set_jump(on, out(t)->out);
		return;
	}
	c = translate_new_cold(
		t, target > t->at->rip && translate_same_page(t, target) ? COLD_CHAIN : COLD_POLL);
	c->target = target;
	translate_align_rel32(t, 2);
	c->from[0] = emit_jcc(out(t), cc);
}

/* C looks at what stands here. */
void translate_align_data(struct translation *t)
{
	while ((uintptr_t)out(t)->out & 7)
		emit8(out(t), 0xcc);
}

static void emit_system(struct translation *t)
{
	uint8_t *site;

	emit_rip(t, R11, t->at->rip);
	emit_store(out(t), R11, CPU(state.rip));
	site = emit_lea_rip(out(t), R11);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_system));
	translate_align_data(t);
	set_jump(site, out(t)->out);
	memcpy(out(t)->out, &t->at->insn, sizeof(t->at->insn));
	out(t)->out += sizeof(t->at->insn);
}

void translate_system_exit(struct translation *t)
{
	translate_save_flags(t);
	emit_system(t);
	t->ended = true;
}

/* The case that inlined code leaves to C; the flags are in flags_word or dead. */
void translate_leave_for_system(struct translation *t) { emit_system(t); }

void translate_or_else(struct translation *t, struct cold *c, uint8_t cc)
{
	c->from[c->from_count++] = emit_jcc(out(t), cc);
}

/* ---- stack and control ---- */

static struct cold *push_lookup(struct translation *t)
{
	translate_leave_flags(t);
	return emit_lookup(t, mem(RSP, -8), IN_REGISTERS, 8, false, true);
}

/* The stack's word at an offset from the guest's RSP, with the delta in r11. */
static struct host_mem stack_word(const struct translation *t, int32_t offset)
{
	return (struct host_mem){ .base = RSP, .index = R11, .disp = t->stack_bytes + offset };
}

/* Whether the next instruction is of the same group and moves RSP, too, without looking at it. */
static bool stack_goes_on(const struct translation *t)
{
	const struct x86_insn *next = &t->at[1].insn;

	if (!t->grouped || t->group_base != RSP || t->at - t->insns >= t->group_last)
		return false;
	switch (next->encoding.class) {
	case X86_CLASS_PUSH:
	case X86_CLASS_POP: return next->rm != RSP;
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_CALL:
	case X86_CLASS_RET: return true;
	default: return false;
	}
}

/*
 * RSP goes by so many bytes; in a run of such instructions with one lookup, none of which can
 * fault, at their end.
 */
static void move_stack(struct translation *t, int32_t bytes)
{
	t->stack_bytes += bytes;
	if (stack_goes_on(t))
		return;
	emit_lea(out(t), RSP, mem(RSP, t->stack_bytes));
	t->stack_bytes = 0;
}

void translate_push_register(struct translation *t, uint8_t reg)
{
	struct cold *c = push_lookup(t);

	if (displaced(reg))
		emit_load(out(t), R10, slot(reg));
	emit_store(out(t), displaced(reg) ? R10 : reg, stack_word(t, -8));
	translate_end_access(t, c);
	move_stack(t, -8);
}

void translate_push_constant(struct translation *t, uint64_t value)
{
	struct cold *c = push_lookup(t);

	if (value == (uint64_t)(int32_t)value) {
		emit_rm(out(t), OP64(0xc7), 0, stack_word(t, -8));
		emit32(out(t), (uint32_t)value);
	} else {
		emit_constant(out(t), R10, value);
		emit_store(out(t), R10, stack_word(t, -8));
	}
	translate_end_access(t, c);
	move_stack(t, -8);
}

/* The address behind a call. */
void translate_push_return(struct translation *t)
{
	struct cold *c;

	if (!soft_floats(t->mode)) {
		translate_push_constant(t, translate_after_insn(t));
		return;
	}
	c = push_lookup(t);
	emit_rip(t, R10, translate_after_insn(t));
	emit_store(out(t), R10, stack_word(t, -8));
	translate_end_access(t, c);
	move_stack(t, -8);
}

void translate_pop_register(struct translation *t, uint8_t reg)
{
	struct cold *c;
	uint8_t to = displaced(reg) || reg == RSP ? R10 : reg;

	translate_leave_flags(t);
	c = emit_lookup(t, mem(RSP, 0), IN_REGISTERS, 8, true, false);
	emit_load(out(t), to, stack_word(t, 0));
	translate_end_access(t, c);
	move_stack(t, 8);
	if (reg == RSP)
		emit_mov(out(t), RSP, R10);
	else if (to == R10)
		emit_store(out(t), R10, slot(reg));
}

void translate_leave_frame(struct translation *t)
{
	struct cold *c;

	translate_leave_flags(t);
	c = emit_lookup(t, mem(RBP, 0), IN_REGISTERS, 8, true, false);
	emit_load(out(t), R10, (struct host_mem){ .base = RBP, .index = R11 });
	translate_end_access(t, c);
	emit_lea(out(t), RSP, mem(RBP, 8));
	emit_mov(out(t), RBP, R10);
}

void translate_return_near(struct translation *t, unsigned extra)
{
	struct cold *c;

	translate_leave_flags(t);
	c = emit_lookup(t, mem(RSP, 0), IN_REGISTERS, 8, true, false);
	translate_save_flags(t);
	emit_load(out(t), R11, stack_word(t, 0));
	translate_end_access(t, c);
	move_stack(t, (int32_t)(8 + extra));
	translate_exit_indirect(t, t->mode & MODE_USER);
	t->ended = true;
}

/* r/m of a jump, call or push into r11. */
static void load_target(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	bool simple = x86_insn_has_memory(i) && translate_simple_address(t, i, 8);
	enum address_place place;
	struct cold *c;

	translate_leave_flags(t);
	if (!x86_insn_has_memory(i)) {
		if (displaced(i->rm))
			emit_load(out(t), R11, slot(i->rm));
		else
			emit_mov(out(t), R11, i->rm);
		return;
	}
	place = simple ? IN_REGISTERS : emit_linear(t, i, 8);
	c = emit_lookup(t, simple ? mem(i->base, i->disp) : mem(R10, 0), place, 8, true, false);
	emit_load(out(t), R11,
		  (struct host_mem){ .base = simple ? i->base : R10,
				     .index = R11,
				     .disp = simple ? i->disp : 0 });
	translate_end_access(t, c);
}

/* Jump, call and push by register or memory; false: not in 64-bit code, or with prefixes. */
bool translate_indirect(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct cold *c;

	if (t->code_bits != 64 || i->prefix66 || i->address_bytes != 8)
		return false;
	load_target(t);
	if (i->encoding.class == X86_CLASS_PUSH_RM) {
		emit_mov(out(t), R10, R11);
		/*
		 * the slow path of the push must find the value again: r10 is kept across it unless
		 * it holds the address
		 */
		emit_store(out(t), R10, CPU(temp[2]));
		c = push_lookup(t);
		emit_load(out(t), R10, CPU(temp[2]));
		emit_store(out(t), R10, pushed);
		translate_end_access(t, c);
		emit_lea(out(t), RSP, mem(RSP, -8));
		return true;
	}
	if (i->encoding.class == X86_CLASS_CALL_INDIRECT) {
		emit_store(out(t), R11, CPU(temp[2]));
		translate_push_return(t);
		emit_load(out(t), R11, CPU(temp[2]));
	}
	translate_exit_indirect(t, t->mode & MODE_USER);
	t->ended = true;
	return true;
}

void translate_counted_jump(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint64_t target = (translate_after_insn(t) + i->imm) & t->rip_mask;
	bool wide = i->address_bytes == 8;
	uint8_t *short_jump;
	uint8_t *skip = NULL;

	/*
	 * JRCXZ: the host's own, over a jump; the LOOPs count with LEA and test by JRCXZ, so that
	 * flags stay.
	 */
	if (i->opcode != 0xe3)
		emit_rm(out(t), wide ? OP64(0x8d) : OP32(0x8d), RCX, mem(RCX, -1));
	if (i->opcode == 0xe0 || i->opcode == 0xe1)
		skip = emit_jcc(out(t), i->opcode == 0xe0 ? CC_Z : CC_NZ);
	if (!wide)
		emit8(out(t), 0x67);
	emit8(out(t), 0xe3);
	emit8(out(t), 0);
	short_jump = out(t)->out;
	if (i->opcode == 0xe3) {
		emit8(out(t), 0xeb);
		emit8(out(t), 0);
		uint8_t *over = out(t)->out;

		short_jump[-1] = (uint8_t)(out(t)->out - short_jump);
		struct cold *c = translate_new_cold(t, COLD_POLL);

		c->target = target;
		translate_align_rel32(t, 1);
		c->from[0] = emit_jmp(out(t));
		over[-1] = (uint8_t)(out(t)->out - over);
		return;
	}
	struct cold *c = translate_new_cold(t, COLD_POLL);

	c->target = target;
	translate_align_rel32(t, 1);
	c->from[0] = emit_jmp(out(t));
	short_jump[-1] = (uint8_t)(out(t)->out - short_jump);
	if (skip)
		set_jump(skip, out(t)->out);
}
