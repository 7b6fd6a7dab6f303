/*
 * A processor's state at the border: what engine_get() and engine_set() show, from and to how
 * this engine keeps it.
 *
 *   architecture                 here
 *   RFLAGS arithmetic flags      soft_cpu.flags_word
 *   RFLAGS.IF                    soft_cpu.interrupt_flag
 *   RFLAGS.TF                    also PENDING_STEP
 *   interrupt shadow             PENDING_SHADOW
 *   DR7                          also PENDING_BREAKPOINTS, soft_cpu.watchpoints
 *   x87, SSE, AVX                the host's registers while the guest is executed, soft_cpu.vector
 *                                otherwise
 *   CR8                          the machine's
 */
#include <errno.h>

#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "soft_internal.h"

enum { XSAVE_MXCSR = 24, XSAVE_HEADER = 512, XSAVE_HEADER_WORDS = 8, VECTOR_COMPONENTS = 7 };

void soft_engine_get(const struct engine_cpu *opaque, unsigned groups, struct engine_state *to)
{
	const struct soft_cpu *cpu = (const struct soft_cpu *)opaque;
	const struct x86_state *from = &cpu->state;

	if (groups & ENGINE_GENERAL) {
		memcpy(to->x86.gpr, from->gpr, sizeof(from->gpr));
		to->x86.rip = from->rip;
		to->x86.rflags = soft_rflags(cpu);
	}
	if (groups & ENGINE_SEGMENTS) {
		memcpy(to->x86.segment, from->segment, sizeof(from->segment));
		to->x86.ldtr = from->ldtr;
		to->x86.tr = from->tr;
		to->x86.gdtr = from->gdtr;
		to->x86.idtr = from->idtr;
		to->x86.cpl = from->cpl;
	}
	if (groups & ENGINE_CONTROL) {
		to->x86.cr0 = from->cr0;
		to->x86.cr2 = from->cr2;
		to->x86.cr3 = from->cr3;
		to->x86.cr4 = from->cr4;
		to->x86.efer = from->efer;
		to->x86.xcr0 = from->xcr0;
		memcpy(to->x86.pae_root, from->pae_root, sizeof(from->pae_root));
	}
	if (groups & ENGINE_MSRS)
		x86_copy_msrs(&to->x86, from);
	if (groups & ENGINE_DEBUG)
		memcpy(to->x86.dr, from->dr, sizeof(from->dr));
	if (groups & ENGINE_VECTOR)
		memcpy(to->vector, cpu->vector, ENGINE_VECTOR_BYTES);
	if (groups & ENGINE_EVENTS) {
		to->x86.interrupt_shadow =
			(uint8_t)((cpu->pending & PENDING_SHADOW) / PENDING_STI_SHADOW);
		to->nmi_pending = __atomic_load_n(&cpu->nmi_pending, __ATOMIC_SEQ_CST);
		to->nmi_blocked = cpu->nmi_blocked;
		to->fault_vector = cpu->fault_vector;
	}
}

/* What XRSTOR would refuse (SDM Vol. 1 13.8.1) would be a fault of ours. */
static bool is_loadable(const uint8_t *area)
{
	uint64_t header[XSAVE_HEADER_WORDS];
	uint32_t mxcsr;

	memcpy(header, area + XSAVE_HEADER, sizeof(header));
	memcpy(&mxcsr, area + XSAVE_MXCSR, sizeof(mxcsr));
	/* an x86-64-v3 processor has all 16 */
	if (header[0] & ~(uint64_t)VECTOR_COMPONENTS || header[1] || mxcsr >> 16)
		return false;
	for (int n = 2; n < XSAVE_HEADER_WORDS; n++)
		if (header[n])
			return false;
	return true;
}

static void set_control(struct soft_cpu *cpu, const struct x86_state *from)
{
	cpu->state.cr0 = from->cr0;
	cpu->state.cr2 = from->cr2;
	cpu->state.cr3 = from->cr3;
	cpu->state.cr4 = from->cr4;
	cpu->state.efer = from->efer;
	cpu->state.xcr0 = from->xcr0;
	memcpy(cpu->state.pae_root, from->pae_root, sizeof(from->pae_root));
}

static void set_segments(struct soft_cpu *cpu, const struct x86_state *from)
{
	memcpy(cpu->state.segment, from->segment, sizeof(from->segment));
	cpu->state.ldtr = from->ldtr;
	cpu->state.tr = from->tr;
	cpu->state.gdtr = from->gdtr;
	cpu->state.idtr = from->idtr;
	cpu->state.cpl = from->cpl;
}

static void set_events(struct soft_cpu *cpu, const struct engine_state *from)
{
	cpu->pending &= ~(uint32_t)(PENDING_STEP_TRAP | PENDING_SINGLE);
	soft_set_shadow(cpu, from->x86.interrupt_shadow * (uint32_t)PENDING_STI_SHADOW);
	cpu->nmi_pending = from->nmi_pending;
	cpu->nmi_blocked = from->nmi_blocked;
	soft_kick(cpu, KICK_EVENT);
}

int soft_engine_set(struct engine_cpu *opaque, unsigned groups, const struct engine_state *from)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	if (groups & ENGINE_VECTOR && !is_loadable(from->vector))
		return -EBADMSG;
	if (groups & ENGINE_GENERAL) {
		memcpy(cpu->state.gpr, from->x86.gpr, sizeof(from->x86.gpr));
		cpu->state.rip = from->x86.rip;
		soft_set_rflags(cpu, from->x86.rflags);
	}
	if (groups & ENGINE_SEGMENTS)
		set_segments(cpu, &from->x86);
	if (groups & ENGINE_CONTROL)
		set_control(cpu, &from->x86);
	if (groups & ENGINE_MSRS)
		x86_copy_msrs(&cpu->state, &from->x86);
	if (groups & ENGINE_DEBUG)
		memcpy(cpu->state.dr, from->x86.dr, sizeof(from->x86.dr));
	if (groups & ENGINE_VECTOR)
		memcpy(cpu->vector, from->vector, ENGINE_VECTOR_BYTES);
	if (groups & ENGINE_EVENTS)
		set_events(cpu, from);
	if (groups & ENGINE_DEBUG)
		soft_debug_changed(cpu);
	if (groups & (ENGINE_SEGMENTS | ENGINE_CONTROL))
		soft_forget(cpu);
	return 0;
}
