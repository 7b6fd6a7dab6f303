/* The dispatcher: what is pending first, then the block at state.rip. */
#include "code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/emit.h"
#include "lib/check.h"

uint32_t soft_mode(struct soft_cpu *cpu)
{
	const struct x86_state *state = &cpu->state;
	unsigned bits = x86_code_bits(state);
	uint32_t mode = bits == 64 ? 0 : MODE_16_BIT;
	bool flat = true;

	if (bits == 32)
		mode = MODE_32_BIT;
	if (bits != 64)
		for (int n = X86_ES; n <= X86_DS; n++)
			flat &= state->segment[n].base == 0;
	mode |= state->cpl == 3 ? MODE_USER : 0;
	mode |= state->cr0 & (CR0_TS | CR0_EM) ? MODE_FPU_OFF : 0;
	mode |= state->cr4 & CR4_OSXSAVE && (state->xcr0 & 6) == 6 ? 0 : MODE_AVX_OFF;
	mode |= flat ? 0 : MODE_NOT_FLAT;
	mode |= bits == 64 ? 0 : soft_limited_segments(state);
	mode |= soft_checks_alignment(state) ? MODE_ALIGNED : 0;
	return mode;
}

static bool has_interrupt_shadow(const struct soft_cpu *cpu)
{
	return cpu->pending & PENDING_SHADOW;
}

static void take_nmi(struct soft_cpu *cpu)
{
	/* the next is taken after IRET */
	__atomic_fetch_sub(&cpu->nmi_pending, 1, __ATOMIC_SEQ_CST);
	cpu->nmi_blocked = true;
	cpu->interrupt_pending = 1;
	soft_deliver_interrupt(cpu, EXC_NMI);
}

static void take_interrupt(struct soft_cpu *cpu)
{
	bool has_nmi = cpu->nmi_pending && !cpu->nmi_blocked;
	int vector;

	if (has_nmi && !has_interrupt_shadow(cpu)) {
		take_nmi(cpu);
		return;
	}
	/* no flag says when: behind the instruction in the shadow the dispatcher looks again */
	if (has_nmi)
		soft_kick(cpu, KICK_EVENT);
	if (!cpu->interrupt_flag || has_interrupt_shadow(cpu)) {
		cpu->interrupt_pending = 1;
		return;
	}
	soft_outside(cpu);
	vector = cpu->ops->interrupt(cpu->ops_context);
	soft_inside(cpu);
	cpu->interrupt_pending = 0;
	if (vector < 0)
		return;
	cpu->interrupt_pending = 1; /* there may be more */
	soft_deliver_interrupt(cpu, (uint8_t)vector);
}

/* Nothing is to be looked at before the guest goes on. */
static bool is_quiet(const struct soft_cpu *cpu)
{
	return !(cpu->pending | cpu->kick | (cpu->interrupt_pending & cpu->interrupt_flag));
}

/*
 * Where a block begins at state.rip, as who comes from C gets there: by r11, which each thunk keeps
 * in a place of its own.
 */
static void *enter_at(struct soft_cpu *cpu, void *host)
{
	cpu->temp[1] = cpu->way_scratch[1] = cpu->signal_scratch[1] = cpu->state.rip;
	return host;
}

/*
 * As soft_dispatch(), for the usual case that nothing is pending, and the jump cache knows the way
 * or the page and the block are known; NULL if not so.
 */
static void *dispatch_quickly(struct soft_cpu *cpu)
{
	const struct x86_state *state = &cpu->state;
	struct jump_entry *entry = soft_jump_entry(cpu, state->rip);
	uint32_t mode;
	uint64_t sum, key;
	void *host;

	if (!is_quiet(cpu))
		return NULL;
	mode = soft_mode(cpu);
	key = soft_jump_key(cpu, mode);
	sum = state->rip + key;
	host = entry->sum == sum ? (void *)entry->host : soft_recover_jump(cpu, entry, sum);
	if (!host)
		host = soft_find_known_jump(cpu, entry, key, mode);
	if (!host)
		return NULL;
	soft_select_view(cpu);
	soft_enter_mode(cpu, mode);
	return enter_at(cpu, host);
}

void *soft_go_on(struct soft_cpu *cpu)
{
	void *host = dispatch_quickly(cpu);

	return host ? host : soft_dispatch(cpu);
}

/*
 * Whether the processor is to leave; its own reason, a halt say, is not lost where somebody else
 * asks at the same time.
 */
static bool take_stop(struct soft_cpu *cpu)
{
	uint32_t why = cpu->stop;

	cpu->stop = ENGINE_EXIT_NONE;
	cpu->pending &= ~(uint32_t)PENDING_STOP;
	if (!why && __atomic_load_n(&cpu->stop_asked, __ATOMIC_SEQ_CST))
		why = __atomic_exchange_n(&cpu->stop_asked, ENGINE_EXIT_NONE, __ATOMIC_SEQ_CST);
	if (why)
		cpu->exit = (enum engine_exit)why;
	return why;
}

/* Nothing that was found before is used from here on; others look at that (mmu/common.c). */
static void pass(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->misses, cpu->misses + 1, __ATOMIC_RELEASE);
	soft_pass(cpu);
}

/*
 * What the instruction before has left, and what other threads want. False: the processor is to
 * leave.
 */
static bool take_pending(struct soft_cpu *cpu)
{
	uint32_t kick;

	if (cpu->pending & PENDING_ALONE)
		soft_end_alone(cpu);
	/* watchpoints wait for the next instruction, the step is lost */
	if (cpu->pending & PENDING_MOV_SS_SHADOW)
		cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP;
	else if (soft_debug_trap(cpu))
		soft_deliver_interrupt(cpu, EXC_DB);
	kick = __atomic_exchange_n(&cpu->kick, 0, __ATOMIC_SEQ_CST);
	if (kick & KICK_FLUSH)
		soft_take_flushes(cpu);
	if (kick & KICK_PASS) /* it came behind the look */
		pass(cpu);
	if (cpu->pending & PENDING_WANT_ALONE) {
		cpu->pending &= ~(uint32_t)PENDING_WANT_ALONE;
		soft_begin_alone(cpu);
		cpu->engine->counts.accesses_alone++;
	} else if (__atomic_load_n(&cpu->engine->owner, __ATOMIC_SEQ_CST)) {
		soft_park(cpu);
	}
	if (take_stop(cpu))
		return false;
	if (kick & KICK_EVENT ||
	    (cpu->interrupt_pending && cpu->interrupt_flag && !has_interrupt_shadow(cpu)))
		take_interrupt(cpu);
	return true;
}

/* Where state.rip leads, the mode of its block, and the key of jumps when that was looked up. */
struct destination {
	uint64_t linear, key;
	struct page_walk found;
	uint32_t mode;
	bool is_recalled;
};

/* Behind MOV SS Intel's processors look at no breakpoint; AMD's do. */
static bool breakpoints_are_held(const struct soft_cpu *cpu)
{
	const struct cpu_model *model = cpu->engine->model;

	return cpu->pending & PENDING_MOV_SS_SHADOW && !(model && model->vendor == CPU_AMD);
}

static bool ends_within_limit(const struct soft_cpu *cpu, const struct block *b)
{
	const struct x86_state *state = &cpu->state;

	return x86_code_bits(state) == 64 ||
	       state->rip + b->guest_bytes - 1 <= state->segment[X86_CS].limit;
}

/*
 * The same code may lie in a segment with another limit, where the block was made: then one
 * instruction after the other.
 */
static struct block *find_within_limit(struct soft_cpu *cpu, struct destination *to,
				       struct fault *fault)
{
	struct block *b = soft_find_block(cpu, to->found.gpa, to->mode, fault);

	if (!b || ends_within_limit(cpu, b))
		return b;
	to->mode |= BLOCK_ALONE;
	to->key = soft_jump_key(cpu, to->mode);
	b = soft_find_block(cpu, to->found.gpa, to->mode, fault);
	if (!b || ends_within_limit(cpu, b))
		return b;
	soft_fail(fault, EXC_GP, true, 0);
	return NULL;
}

/* NULL: *fault is to be delivered. */
static struct block *find_destination(struct soft_cpu *cpu, struct destination *to,
				      struct fault *fault)
{
	const uint32_t alone = PENDING_SINGLE | PENDING_SHADOW | PENDING_STEP | PENDING_BREAKPOINTS;
	const struct x86_state *state = &cpu->state;

	to->mode = soft_mode(cpu) | (cpu->pending & alone ? BLOCK_ALONE : 0);
	if (cpu->pending & PENDING_CHECKED && cpu->checked_rip == state->rip)
		to->mode = (to->mode & ~(uint32_t)MODE_CHECKS) | BLOCK_CHECKED;
	to->key = soft_jump_key(cpu, to->mode);
	if (x86_code_bits(state) != 64 && state->rip > state->segment[X86_CS].limit) {
		soft_fail(fault, EXC_GP, true, 0);
		return NULL;
	}
	to->linear = x86_code_bits(state) == 64
			     ? state->rip
			     : (uint32_t)(state->segment[X86_CS].base + state->rip);
	if (cpu->pending & PENDING_BREAKPOINTS && !breakpoints_are_held(cpu) &&
	    soft_hits_breakpoint(cpu, to->linear)) {
		soft_fail(fault, EXC_DB, false, 0);
		return NULL;
	}
	to->is_recalled = !(to->mode & BLOCK_ALONE) &&
			  soft_recall_page(cpu, to->linear, to->mode, &to->found.gpa);
	if (!to->is_recalled &&
	    soft_walk_pages(cpu, to->linear, ACCESS_EXEC, &to->found, fault))
		return NULL;
	return find_within_limit(cpu, to, fault);
}

/*
 * What needs all processors standing still is done where one is alone (exclusive.c), or where there
 * is only one.
 */
static void check_now_and_then(const struct soft_cpu *cpu)
{
	enum { CHECK_EVERY_DISPATCHES = 1 << 16 };

	check_root(cpu);
	if (cpu->engine->cpu_count > 1 || cpu->misses % CHECK_EVERY_DISPATCHES)
		return;
	soft_acquire(&cpu->engine->lock); /* who makes code ahead does not stand still */
	check_engine(cpu->engine);
	soft_release(&cpu->engine->lock);
}

/* remembers: the jump cache knows the way from now on. */
static void *dispatch(struct soft_cpu *cpu, bool remembers)
{
	struct destination to;
	struct fault fault;
	struct block *b;

	pass(cpu);
	CHECK(check_now_and_then(cpu));
	if (__atomic_load_n(&cpu->kick, __ATOMIC_RELAXED) & KICK_EVENT)
		soft_note_kicked(cpu);
	/* a delivery may lead to the next one, without end: what others want is seen each time */
	for (;;) {
		if (!take_pending(cpu))
			return cpu->engine->leave;
		soft_select_view(cpu);
		b = find_destination(cpu, &to, &fault);
		if (!b)
			soft_deliver_fault(cpu, &fault);
		else if (soft_jump_key(cpu, to.mode) == to.key)
			break; /* else a flush came while it was made: RIP leads elsewhere */
	}
	if (to.mode & BLOCK_ALONE) {
		soft_set_pending(cpu, PENDING_STEP_TRAP, cpu->pending & PENDING_STEP);
		cpu->shadow = cpu->pending & PENDING_SHADOW;
		cpu->shadow_rip = cpu->state.rip;
		cpu->pending &= ~(uint32_t)(PENDING_SINGLE | PENDING_SHADOW | PENDING_CHECKED);
		/* the block leaves through the jump cache: come back here */
		soft_leave_mode(cpu);
	} else {
		/* there the limit is looked at each time */
		if (remembers && !(to.mode & MODE_LIMITED))
			soft_remember_jump(cpu, b, to.linear, to.is_recalled ? NULL : &to.found);
		soft_enter_mode(cpu, to.mode);
	}
	return enter_at(cpu, cpu->engine->code_run + b->host_offset);
}

void *soft_dispatch(struct soft_cpu *cpu) { return dispatch(cpu, true); }

/* The 64-bit instruction at this address, which has just been executed; false: it is gone. */
static bool decode_at(struct soft_cpu *cpu, uint64_t rip, struct x86_insn *ret)
{
	size_t left = PAGE_BYTES - rip % PAGE_BYTES;
	size_t bytes = left < X86_INSN_MAX_BYTES ? left : X86_INSN_MAX_BYTES;
	uint8_t raw[X86_INSN_MAX_BYTES];
	struct fault unused;

	if (soft_read(cpu, rip, raw, bytes, ACCESS_EXEC, &unused))
		return false;
	if (!x86_decode(raw, bytes, 64, ret))
		return true;
	/* one that straddles two pages */
	return bytes < sizeof(raw) &&
	       !soft_read(cpu, rip + bytes, raw + bytes, sizeof(raw) - bytes, ACCESS_EXEC,
			  &unused) &&
	       !x86_decode(raw, sizeof(raw), 64, ret);
}

/*
 * Takes back what the jump, call or return at from has done before it went to state.rip; false: it
 * is none, or went on behind itself.
 */
static bool undo_jump(struct soft_cpu *cpu, uint64_t from)
{
	enum { RET_POPPING = 0xc2, JCXZ = 0xe3 };
	struct x86_state *state = &cpu->state;
	struct x86_insn insn;

	if (!decode_at(cpu, from, &insn))
		return false;
	switch (insn.encoding.class) {
	case X86_CLASS_JMP_INDIRECT: return true;
	case X86_CLASS_RET:
		state->gpr[4] -= sizeof(uint64_t) + (insn.opcode == RET_POPPING ? insn.imm : 0);
		return true;
	default: break;
	}
	if (from + insn.length + insn.imm != state->rip)
		return false;
	switch (insn.encoding.class) {
	case X86_CLASS_JMP:
	case X86_CLASS_JCC: return true;
	case X86_CLASS_CALL: state->gpr[4] += sizeof(uint64_t); return true;
	case X86_CLASS_LOOP: state->gpr[1] += insn.opcode != JCXZ; return true;
	default: return false;
	}
}

void *soft_indirect_miss(struct soft_cpu *cpu, uint64_t from)
{
	struct fault fault;

	if (x86_code_bits(&cpu->state) != 64 || soft_canonical(cpu->state.rip) ||
	    !undo_jump(cpu, from))
		return soft_go_on(cpu);
	cpu->state.rip = from;
	soft_fail(&fault, EXC_GP, true, 0);
	return soft_raise(cpu, &fault);
}

void *soft_floating_miss(struct soft_cpu *cpu, uint64_t name)
{
	return soft_indirect_miss(cpu, cpu->code_page + (name & PAGE_OFFSET_MASK));
}

/* Whether a jump from the one may become one to the other, which begins at rip. */
static bool may_chain(const struct block *from, const struct block *b, uint64_t rip)
{
	return !(b->mode & (BLOCK_ALONE | BLOCK_STRADDLES | MODE_LIMITED)) &&
	       (soft_floats(b->mode) ? !((b->gpa ^ rip) & PAGE_OFFSET_MASK) : b->gva == rip) &&
	       from->gpa / PAGE_BYTES == b->gpa / PAGE_BYTES &&
	       soft_key_mode(from) == soft_key_mode(b);
}

/*
 * The block that a jump of the other one within its page leads to, of 64-bit code; NULL: there is
 * none. Rights are those of the page, which are looked at where it is entered.
 */
static struct block *find_in_page(struct soft_cpu *cpu, const struct block *from)
{
	const uint64_t page = from->gpa & ~(uint64_t)PAGE_OFFSET_MASK;
	struct block *b = soft_look_up_block(cpu, page | (cpu->state.rip & PAGE_OFFSET_MASK),
					     from->mode);

	if (!b || b->mode & BLOCK_STRADDLES)
		return NULL;
	soft_note_use(cpu->engine, b);
	return b;
}

/*
 * Where a jump within the page goes on. A link leads there from now on: that the jump cache knows
 * the way as well would cost another its place.
 */
static void *go_on_in_page(struct soft_cpu *cpu, const struct block *from)
{
	const uint32_t other = MODE_32_BIT | MODE_16_BIT | BLOCK_ALONE | BLOCK_STRADDLES |
			       BLOCK_CHECKED;
	const struct block *b;

	if (!is_quiet(cpu) || from->mode & other || from->dead)
		return soft_go_on(cpu);
	b = find_in_page(cpu, from);
	return b ? enter_at(cpu, cpu->engine->code_run + b->host_offset) : dispatch(cpu, false);
}

void *soft_chain(struct soft_cpu *cpu, struct block *from, bool in_word, const uint8_t *home,
		 const uint8_t *link)
{
	struct soft_engine *engine = cpu->engine;
	const uint32_t at = (uint32_t)(link - engine->code_run);
	/* of a cold part that is another one */
	const uint32_t of_block = soft_region_of(engine, from->host_offset);
	const uint32_t of_link = soft_region_of(engine, at);
	uint32_t before = engine->regions[of_block].times_reused;
	uint32_t link_before = engine->regions[of_link].times_reused;
	uint64_t target = cpu->state.rip;
	void *entry;
	struct block *b;

	cpu->chains++;
	entry = go_on_in_page(cpu, from);
	b = soft_block_at(engine, entry);
	if (!b)
		return entry;
	soft_acquire(&engine->lock);
	if (!soft_code_is_held(engine) && engine->regions[of_block].times_reused == before &&
	    engine->regions[of_link].times_reused == link_before && !from->dead && !b->dead &&
	    may_chain(from, b, target))
		soft_link(engine, from, at, (uint32_t)(home - engine->code_run),
			  b->host_offset + (in_word ? soft_entry_in_word(b) : b->direct));
	soft_release(&engine->lock);
	return entry;
}

void *soft_raise(struct soft_cpu *cpu, const struct fault *fault)
{
	cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP;
	cpu->watch_hits = 0;
	soft_deliver_fault(cpu, fault);
	return cpu->engine->takes_shortcuts ? soft_go_on(cpu) : soft_dispatch(cpu);
}
