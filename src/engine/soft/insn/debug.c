/*
 * Debug registers (SDM Vol. 3B chapter 17). While a breakpoint is enabled every instruction is a
 * block of its own, entered by the dispatcher; pages with a watched byte are never cached, so that
 * every access to them comes to C.
 *
 * Left out: accesses that the processor makes by itself (page tables, stacks of exceptions,
 * descriptor tables).
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum {
	TYPE_EXECUTE = 0,
	TYPE_WRITE = 1,
	TYPE_IO = 2,
	TYPE_ACCESS = 3,
	DR7_GD = 0x2000,
	DR6_BD = 0x2000,
	DR6_BREAKPOINTS = 15,
	DR6_BS = 0x4000,
	CR4_DE = 8
};

static bool enabled(const struct x86_state *state, int n) { return state->dr[7] >> 2 * n & 3; }
static unsigned type(const struct x86_state *state, int n)
{
	return state->dr[7] >> (16 + 4 * n) & 3;
}
static unsigned length(const struct x86_state *state, int n)
{
	return (const unsigned[]){ 1, 2, 8, 4 }[state->dr[7] >> (18 + 4 * n) & 3];
}

/* After a change of DR0..DR3 or DR7. */
void soft_debug_changed(struct soft_cpu *cpu)
{
	const struct x86_state *state = &cpu->state;

	cpu->pending &= ~(uint32_t)PENDING_BREAKPOINTS;
	cpu->watchpoints = false;
	for (int n = 0; n < 4; n++)
		if (enabled(state, n)) {
			cpu->pending |= PENDING_BREAKPOINTS;
			cpu->watchpoints |= type(state, n) != TYPE_EXECUTE;
		}
	soft_forget_own(cpu);
}

static int numbered(struct soft_cpu *cpu, unsigned number, struct fault *fault)
{
	struct x86_state *state = &cpu->state;

	if ((number == 4 || number == 5) && state->cr4 & CR4_DE)
		return soft_fail(fault, EXC_UD, false, 0);
	if (state->dr[7] & DR7_GD) {
		state->dr[7] &= ~(uint64_t)DR7_GD;
		state->dr[6] |= DR6_BD;
		return soft_fail(fault, EXC_DB, false, 0);
	}
	return number == 4 || number == 5 ? (int)number + 2 : (int)number;
}

int soft_read_dr(struct soft_cpu *cpu, unsigned number, uint64_t *ret, struct fault *fault)
{
	int n = numbered(cpu, number, fault);

	if (n >= 0)
		*ret = cpu->state.dr[n];
	return n < 0 ? n : 0;
}

/* Reserved bits read as they always do. */
static uint64_t value_to_keep(unsigned number, uint64_t value)
{
	switch (number) {
	case 6: return (value & 0xe00f) | 0xffff0ff0;
	case 7: return (value & 0xffff2bff) | 0x400;
	default: return value;
	}
}

int soft_write_dr(struct soft_cpu *cpu, unsigned number, uint64_t value, struct fault *fault)
{
	struct x86_state *state = &cpu->state;
	int n = numbered(cpu, number, fault);

	if (n < 0)
		return n;
	if (n >= 6 && value >> 32)
		return soft_fail(fault, EXC_GP, true, 0);
	state->dr[n & 7] = value_to_keep((unsigned)n, value);
	if (n != 6 && (cpu->pending & PENDING_BREAKPOINTS || n == 7))
		soft_debug_changed(cpu);
	return 0;
}

/*
 * Of the breakpoints' bits only those of this exception are set; the others in DR6 stay until they
 * are cleared by software.
 */
static void set_dr6(struct x86_state *state, uint64_t bits)
{
	state->dr[6] = (state->dr[6] & ~(uint64_t)DR6_BREAKPOINTS) | bits;
}

/* Whether an execution breakpoint is due at linear. RF holds it back for one instruction. */
bool soft_hits_breakpoint(struct soft_cpu *cpu, uint64_t linear)
{
	struct x86_state *state = &cpu->state;
	uint64_t hits = 0;

	if (state->rflags & FLAG_RF) {
		state->rflags &= ~(uint64_t)FLAG_RF;
		return false;
	}
	for (int n = 0; n < 4; n++)
		if (enabled(state, n) && type(state, n) == TYPE_EXECUTE && state->dr[n] == linear)
			hits |= 1u << n;
	if (!hits)
		return false;
	/* what waits behind MOV SS comes with it: another #DB would find the first one's stack */
	cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP;
	set_dr6(state, hits | cpu->watch_hits);
	cpu->watch_hits = 0;
	return true;
}

static bool overlaps(const struct x86_state *state, int n, uint64_t gva, size_t bytes)
{
	uint64_t first = state->dr[n] & ~(uint64_t)(length(state, n) - 1);

	return gva < first + length(state, n) && first < gva + bytes;
}

/* Whether [gva, gva + bytes) is in a page that has to stay uncached. */
bool soft_is_watched_page(const struct soft_cpu *cpu, uint64_t gva)
{
	if (cpu->watchpoints)
		for (int n = 0; n < 4; n++)
			if (enabled(&cpu->state, n) && type(&cpu->state, n) != TYPE_EXECUTE &&
			    cpu->state.dr[n] >> 12 == gva >> 12)
				return true;
	return false;
}

/* An access of the running instruction: its trap comes after it. */
void soft_watch(struct soft_cpu *cpu, uint64_t gva, size_t bytes, bool write)
{
	const struct x86_state *state = &cpu->state;

	for (int n = 0; n < 4; n++)
		if (enabled(state, n) &&
		    (type(state, n) == TYPE_ACCESS || (write && type(state, n) == TYPE_WRITE)) &&
		    overlaps(state, n, gva, bytes))
			cpu->watch_hits |= (uint8_t)(1u << n);
}

void soft_watch_port(struct soft_cpu *cpu, uint16_t port, unsigned bytes)
{
	const struct x86_state *state = &cpu->state;

	if (!cpu->watchpoints || !(state->cr4 & CR4_DE))
		return;
	for (int n = 0; n < 4; n++)
		if (enabled(state, n) && type(state, n) == TYPE_IO &&
		    overlaps(state, n, port, bytes))
			cpu->watch_hits |= (uint8_t)(1u << n);
}

/* What is due after an instruction: the single step and the watchpoints that it met. True: #DB. */
bool soft_debug_trap(struct soft_cpu *cpu)
{
	struct x86_state *state = &cpu->state;
	bool step = cpu->pending & PENDING_STEP_TRAP;
	bool due = step || cpu->watch_hits;

	if (due)
		set_dr6(state, cpu->watch_hits | (step ? DR6_BS : 0u));
	cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP;
	cpu->watch_hits = 0;
	return due;
}

/* What waits behind MOV SS comes with the exception of ICEBP, which is no step. */
void soft_debug_merge(struct soft_cpu *cpu)
{
	cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP;
	if (cpu->watch_hits)
		set_dr6(&cpu->state, cpu->watch_hits);
	cpu->watch_hits = 0;
}
