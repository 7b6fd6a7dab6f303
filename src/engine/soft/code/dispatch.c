/* The dispatcher: what is pending first, then the block at state.rip. */
#include "code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/emit.h"

uint32_t soft_mode(struct soft_cpu *cpu)
{
	const struct x86_state *s = &cpu->state;
	uint32_t mode = s->code_bits == 64 ? 0 : s->code_bits == 32 ? 1 : 2;
	bool flat = true;

	if (s->code_bits != 64)
		for (int n = X86_ES; n <= X86_DS; n++)
			flat &= s->segment[n].base == 0;
	mode |= s->cpl == 3 ? MODE_USER : 0;
	mode |= s->cr0 & (CR0_TS | CR0_EM) ? MODE_FPU_OFF : 0;
	mode |= s->cr4 & CR4_OSXSAVE && (s->xcr0 & 6) == 6 ? 0 : MODE_AVX_OFF;
	mode |= flat ? 0 : MODE_NOT_FLAT;
	return mode;
}

static bool take_interrupt(struct soft_cpu *cpu)
{
	int vector;

	if (cpu->nmi_pending && !cpu->nmi_blocked && !cpu->state.interrupt_shadow) {
		__atomic_store_n(&cpu->nmi_pending, 0, __ATOMIC_SEQ_CST);
		cpu->nmi_blocked = true;
		cpu->interrupt_pending = 1;
		return soft_deliver(cpu, EXC_NMI, false, false, 0) == 0;
	}
	if (!cpu->state.interrupt_flag || cpu->state.interrupt_shadow) {
		cpu->interrupt_pending = 1;
		return false;
	}
	soft_outside(cpu);
	vector = cpu->ops->interrupt(cpu->ops_context);
	soft_inside(cpu);
	cpu->interrupt_pending = 0;
	if (vector < 0)
		return false;
	cpu->interrupt_pending = 1; /* there may be more */
	return soft_deliver(cpu, (unsigned)vector, false, false, 0) == 0;
}

/* As soft_dispatch(), for the usual case that nothing is pending and the jump cache knows the way; NULL if not so. */
static void *dispatch_quickly(struct soft_cpu *cpu)
{
	const struct x86_state *s = &cpu->state;
	struct jump_entry *j = soft_jump_entry(cpu, s->rip);
	uint32_t mode;

	if (cpu->stop || cpu->stop_asked || cpu->trap_after || cpu->breakpoints || cpu->single_once || cpu->want_alone || cpu->alone ||
	    s->interrupt_shadow || s->rflags & FLAG_TF || cpu->kick || (cpu->interrupt_pending && s->interrupt_flag))
		return NULL;
	mode = soft_mode(cpu);
	if (j->sum != s->rip + soft_jump_key(cpu, mode))
		return NULL;
	soft_select_view(cpu);
	soft_enter_mode(cpu, mode);
	return (void *)j->host;
}

/* After a system instruction. */
void *soft_go_on(struct soft_cpu *cpu)
{
	void *host = dispatch_quickly(cpu);

	return host ? host : soft_dispatch(cpu);
}

/* Whether the processor is to leave; its own reason, a halt say, is not lost where somebody else asks at the same time. */
static bool take_stop(struct soft_cpu *cpu)
{
	uint32_t why = cpu->stop;

	cpu->stop = ENGINE_EXIT_NONE;
	if (!why && __atomic_load_n(&cpu->stop_asked, __ATOMIC_SEQ_CST))
		why = __atomic_exchange_n(&cpu->stop_asked, ENGINE_EXIT_NONE, __ATOMIC_SEQ_CST);
	if (why)
		cpu->exit = (enum engine_exit)why;
	return why;
}

/* The host code to go on with at state.rip: pending events first. */
void *soft_dispatch(struct soft_cpu *cpu)
{
	struct soft_engine *e = cpu->engine;
	struct fault fault;
	struct block *b;
	uint32_t mode;
	uint64_t gpa, linear;
	unsigned rights;
	uint32_t kick;
	bool alone = false;

	cpu->misses++;
	if (cpu->alone)
		soft_end_alone(cpu);
	if (cpu->state.interrupt_shadow == SHADOW_MOV_SS)
		cpu->trap_after = false;
	if ((cpu->trap_after || cpu->watch_hits) && soft_debug_trap(cpu))
		soft_deliver(cpu, EXC_DB, false, false, 0);
	kick = __atomic_exchange_n(&cpu->kick, 0, __ATOMIC_SEQ_CST);
	if (kick & KICK_FLUSH)
		soft_take_flushes(cpu);
	if (cpu->want_alone) {
		cpu->want_alone = false;
		soft_begin_alone(cpu);
	} else if (__atomic_load_n(&e->owner, __ATOMIC_SEQ_CST)) {
		soft_park(cpu);
	}
	if (take_stop(cpu))
		return e->leave;
	if (kick & KICK_EVENT || (cpu->interrupt_pending && cpu->state.interrupt_flag && !cpu->state.interrupt_shadow))
		take_interrupt(cpu);
	for (;;) {
		if (take_stop(cpu))
			return e->leave;
		soft_select_view(cpu);
		alone = cpu->single_once || cpu->state.interrupt_shadow || cpu->state.rflags & FLAG_TF || cpu->breakpoints;
		mode = soft_mode(cpu) | (alone ? BLOCK_ALONE : 0);
		linear = cpu->state.code_bits == 64 ? cpu->state.rip : (uint32_t)(cpu->state.segment[X86_CS].base + cpu->state.rip);
		if (cpu->breakpoints && cpu->state.interrupt_shadow != SHADOW_MOV_SS && soft_hits_breakpoint(cpu, linear)) {
			soft_deliver(cpu, EXC_DB, false, false, 0);
			continue;
		}
		if (soft_walk(cpu, linear, ACCESS_EXEC, &gpa, &rights, &fault)) {
			soft_deliver(cpu, fault.vector, false, fault.has_code, (cpu->state.cr2 = fault.vector == EXC_PF ? fault.address : cpu->state.cr2, fault.code));
			continue;
		}
		b = soft_find_block(cpu, gpa, mode, &fault);
		if (b)
			break;
		if (fault.vector == EXC_PF)
			cpu->state.cr2 = fault.address;
		soft_deliver(cpu, fault.vector, false, fault.has_code, fault.code);
	}
	if (alone) {
		cpu->trap_after = cpu->state.rflags & FLAG_TF;
		cpu->single_once = false;
		cpu->state.interrupt_shadow = 0;
		cpu->jump_key = cpu->engine->no_key; /* the block leaves through the jump cache: come back here */
	} else {
		soft_enter_mode(cpu, mode);
		soft_remember_jump(cpu, b, linear, soft_jump_key(cpu, mode), rights);
	}
	return e->code_run + b->host_offset;
}

void *soft_chain(struct soft_cpu *cpu, uint64_t unused, uint8_t *link)
{
	struct soft_engine *e = cpu->engine;
	uint64_t before = e->generation;
	bool word = cpu->temp[2] & 1;
	uint64_t target = cpu->state.rip;
	void *entry;
	struct block *b;

	(void)unused;
	cpu->chains++;
	entry = soft_go_on(cpu);
	b = soft_block_at(e, entry);
	if (!b || b->mode & (BLOCK_ALONE | BLOCK_STRADDLES) || b->gva != target)
		return entry;
	soft_acquire(&e->lock);
	if (!b->dead && e->generation == before)
		set_jump(e->code_write + (link - e->code_run), e->code_write + (word ? b->host_offset : b->direct_offset));
	soft_release(&e->lock);
	return entry;
}

void *soft_raise(struct soft_cpu *cpu, const struct fault *fault)
{
	cpu->trap_after = false;
	cpu->watch_hits = 0;
	if (fault->vector == EXC_PF)
		cpu->state.cr2 = fault->address;
	soft_deliver(cpu, fault->vector, false, fault->has_code, fault->code);
	return soft_dispatch(cpu);
}
