/*
 * Saving and restoring vector state (SDM Vol. 1 chapter 13): FXSAVE, XSAVE and their kin, and XCR0,
 * which says of what. The host's own instruction works on cpu->save_area, a copy of the guest's
 * bytes, after what would fault there has been refused:
 *
 *   0 x87   24 MXCSR   32 ST0 to ST7   160 XMM0 to XMM15
 *   512 header (XSTATE_BV, XCOMP_BV, 6 reserved)   576 upper YMM
 *
 * The compacted form has the same layout, as AVX is the first and last component behind the header.
 * XSAVEOPT is executed as XSAVE beside the area, of which what is in its initial state is then left
 * as it was: the host's own would take every guest's area for the same, since all are at one
 * address.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum { X87 = 1, SSE = 2, AVX = 4 };
enum {
	MXCSR_AT = 24,
	MXCSR_BYTES = 8,
	STACK_AT = 32,
	XMM_AT = 160,
	HIGH_XMM_AT = 288,
	HEADER_AT = 512,
	YMM_AT = 576,
	HIGH_YMM_AT = 704
};
enum { FX_BYTES = 416, AREA_BYTES = 832, HEADER_WORDS = 8, MXCSR_KNOWN = 0xffff };
enum { FXSAVE = 0, FXRSTOR = 1, XSAVE = 4, XRSTOR = 5, XSAVEOPT = 6, XSAVEC = 8 /* 0F C7 /4 */ };
#define COMPACTED (1ull << 63)

/* The bytes of an area that the instruction may touch. */
static size_t area_bytes(unsigned operation, uint64_t components)
{
	if (operation == FXSAVE || operation == FXRSTOR)
		return FX_BYTES;
	return components & AVX ? AREA_BYTES : YMM_AT;
}

static uint64_t *header_of(uint8_t *area) { return (uint64_t *)(void *)(area + HEADER_AT); }

static bool mxcsr_is_good(const uint8_t *area)
{
	uint32_t mxcsr;

	memcpy(&mxcsr, area + MXCSR_AT, sizeof(mxcsr));
	return !(mxcsr & ~(uint32_t)MXCSR_KNOWN);
}

/* SDM Vol. 1 13.8: what XRSTOR refuses. MXCSR counts only where it is loaded. */
static bool is_restorable(const struct x86_state *state, uint8_t *area, uint64_t mask)
{
	const uint64_t *header = header_of(area);
	bool compacted = header[1] & COMPACTED;
	bool mxcsr;
	uint64_t there = compacted ? header[1] & ~COMPACTED : state->xcr0;

	if (there & ~state->xcr0 || header[0] & ~there || header[2] || (!compacted && header[1]))
		return false;
	for (unsigned n = 3; compacted && n < HEADER_WORDS; n++)
		if (header[n])
			return false;
	mxcsr = compacted ? mask & header[0] & SSE : mask & (SSE | AVX);
	return !mxcsr || mxcsr_is_good(area);
}

/*
 * Outside 64-bit code there are eight XMM and YMM registers: the others are neither written nor
 * loaded.
 */
static void keep_high_registers(uint8_t *to, const uint8_t *from, bool ymm)
{
	memcpy(to + HIGH_XMM_AT, from + HIGH_XMM_AT, FX_BYTES - HIGH_XMM_AT);
	if (ymm)
		memcpy(to + HIGH_YMM_AT, from + HIGH_YMM_AT, AREA_BYTES - HIGH_YMM_AT);
}

static void host_xsave(uint8_t *area, uint64_t mask, bool wide)
{
	if (wide)
		__asm__ volatile("xsave64 (%0)"
				 :
				 : "r"(area), "a"((uint32_t)mask), "d"(0)
				 : "memory");
	else
		__asm__ volatile("xsave (%0)"
				 :
				 : "r"(area), "a"((uint32_t)mask), "d"(0)
				 : "memory");
}

static void host_xsavec(uint8_t *area, uint64_t mask, bool wide)
{
	if (wide)
		__asm__ volatile("xsavec64 (%0)"
				 :
				 : "r"(area), "a"((uint32_t)mask), "d"(0)
				 : "memory");
	else
		__asm__ volatile("xsavec (%0)"
				 :
				 : "r"(area), "a"((uint32_t)mask), "d"(0)
				 : "memory");
}

static void host_xrstor(const uint8_t *area, uint64_t mask, bool wide)
{
	if (wide)
		__asm__ volatile("xrstor64 (%0)"
				 :
				 : "r"(area), "a"((uint32_t)mask), "d"(0)
				 : "memory");
	else
		__asm__ volatile("xrstor (%0)"
				 :
				 : "r"(area), "a"((uint32_t)mask), "d"(0)
				 : "memory");
}

static void host_fxsave(uint8_t *area, bool wide)
{
	if (wide)
		__asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
	else
		__asm__ volatile("fxsave (%0)" : : "r"(area) : "memory");
}

static void host_fxrstor(const uint8_t *area, bool wide)
{
	if (wide)
		__asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
	else
		__asm__ volatile("fxrstor (%0)" : : "r"(area) : "memory");
}

/*
 * As XSAVE, but a component in its initial state leaves the area's bytes as they were. legacy: so
 * do the registers that 32-bit code does not have.
 */
static void save_optimized(struct soft_cpu *cpu, uint8_t *area, uint64_t mask, bool wide,
			   bool legacy)
{
	uint8_t *fresh = cpu->other_area;
	uint64_t used;

	memset(fresh, 0, AREA_BYTES);
	host_xsave(fresh, mask, wide);
	used = header_of(fresh)[0] & mask;
	header_of(area)[0] = (header_of(area)[0] & ~mask) | used;
	if (used & X87) {
		memcpy(area, fresh, MXCSR_AT);
		memcpy(area + STACK_AT, fresh + STACK_AT, XMM_AT - STACK_AT);
	}
	if (mask & (SSE | AVX))
		memcpy(area + MXCSR_AT, fresh + MXCSR_AT, MXCSR_BYTES);
	if (used & SSE)
		memcpy(area + XMM_AT, fresh + XMM_AT, (legacy ? HIGH_XMM_AT : FX_BYTES) - XMM_AT);
	if (used & AVX)
		memcpy(area + YMM_AT, fresh + YMM_AT,
		       (legacy ? HIGH_YMM_AT : AREA_BYTES) - YMM_AT);
}

static int save(struct step *step, unsigned operation, uint64_t mask)
{
	struct soft_cpu *cpu = step->cpu;
	size_t bytes = area_bytes(operation, mask);
	uint64_t gva = insn_address(step);
	uint8_t *area = cpu->save_area;
	bool wide = step->insn->rex_w;
	bool legacy = x86_code_bits(step->state) != 64;

	/* what is not saved stays; where it cannot be written, that is the fault */
	if (soft_check_write(cpu, gva, bytes, 0, step->fault) ||
	    soft_read(cpu, gva, area, bytes, ACCESS_READ, step->fault))
		return -EFAULT;
	if (legacy)
		memcpy(cpu->other_area, area, AREA_BYTES);
	switch (operation) {
	case FXSAVE: host_fxsave(area, wide); break;
	case XSAVEC: host_xsavec(area, mask, wide); break;
	default: host_xsave(area, mask, wide); break;
	case XSAVEOPT:
		save_optimized(cpu, area, mask, wide, legacy);
		legacy = false;
		break;
	}
	if (operation == FXSAVE || mask & X87)
		insn_clear_x87_pointers(area);
	if (legacy)
		keep_high_registers(area, cpu->other_area, bytes == AREA_BYTES);
	return soft_write(cpu, gva, area, bytes, 0, step->fault);
}

/*
 * The state that 32-bit code cannot load, from the registers into the area; what that initializes
 * is then loaded from there.
 */
static void add_high_registers(struct soft_cpu *cpu, uint8_t *area, uint64_t mask)
{
	static const uint32_t initial_mxcsr = 0x1f80;
	uint64_t *header = header_of(area);
	uint64_t absent = mask & ~header[0];

	memset(cpu->other_area, 0, AREA_BYTES);
	host_xsave(cpu->other_area, X87 | SSE | AVX, true);
	if (absent & SSE)
		memset(area + XMM_AT, 0, HIGH_XMM_AT - XMM_AT);
	if (absent & SSE && header[1] & COMPACTED)
		memcpy(area + MXCSR_AT, &initial_mxcsr, sizeof(initial_mxcsr));
	if (absent & AVX)
		memset(area + YMM_AT, 0, HIGH_YMM_AT - YMM_AT);
	header[0] |= mask & (SSE | AVX);
	if (header[1] & COMPACTED)
		header[1] |= mask & (SSE | AVX);
	keep_high_registers(area, cpu->other_area, true);
}

static int restore(struct step *step, unsigned operation, uint64_t mask)
{
	struct soft_cpu *cpu = step->cpu;
	uint64_t gva = insn_address(step);
	uint64_t *header = header_of(cpu->save_area);
	uint8_t *area = cpu->save_area;
	bool legacy = x86_code_bits(step->state) != 64;

	if (operation == FXRSTOR) {
		if (soft_read(cpu, gva, area, FX_BYTES, ACCESS_READ, step->fault))
			return -EFAULT;
		if (!mxcsr_is_good(area))
			return insn_general_protection(step);
		if (legacy) {
			host_fxsave(cpu->other_area, true);
			keep_high_registers(area, cpu->other_area, false);
		}
		host_fxrstor(area, step->insn->rex_w);
		return 0;
	}
	if (soft_read(cpu, gva, area, YMM_AT, ACCESS_READ, step->fault))
		return -EFAULT;
	if (!is_restorable(step->state, area, mask))
		return insn_general_protection(step);
	if (mask & header[0] & AVX && soft_read(cpu, gva + YMM_AT, area + YMM_AT,
						AREA_BYTES - YMM_AT, ACCESS_READ, step->fault))
		return -EFAULT;
	/* ignored by the standard form, perhaps not by every host */
	memset(header + 3, 0, (HEADER_WORDS - 3) * sizeof(*header));
	if (legacy)
		add_high_registers(cpu, area, mask);
	host_xrstor(area, mask, step->insn->rex_w);
	return 0;
}

int insn_save_area(struct step *step)
{
	enum { GROUP_C7 = 0xc7, FX_ALIGNMENT = 16, X_ALIGNMENT = 64 };
	unsigned operation = step->insn->opcode == GROUP_C7 ? XSAVEC : step->insn->reg;
	bool fx = operation == FXSAVE || operation == FXRSTOR;
	uint64_t mask =
		(step->state->gpr[2] << 32 | (uint32_t)step->state->gpr[0]) & step->state->xcr0;

	if (!fx && !(step->state->cr4 & CR4_OSXSAVE))
		return insn_undefined(step);
	if (insn_address(step) & ((fx ? FX_ALIGNMENT : X_ALIGNMENT) - 1))
		return insn_general_protection(step);
	return operation == FXRSTOR || operation == XRSTOR ? restore(step, operation, mask)
							   : save(step, operation, mask);
}

int insn_xgetbv(struct step *step)
{
	struct x86_state *state = step->state;

	if (!(state->cr4 & CR4_OSXSAVE))
		return insn_undefined(step);
	/* 0: XCR0; 1: what of it is in use, and all may be */
	if ((uint32_t)state->gpr[1] > (insn_model_has(step, CPU_XGETBV1) ? 1 : 0))
		return insn_general_protection(step);
	state->gpr[0] = (uint32_t)state->xcr0;
	state->gpr[2] = 0;
	return 0;
}

int insn_xsetbv(struct step *step)
{
	struct x86_state *state = step->state;
	uint64_t xcr0 = state->gpr[2] << 32 | (uint32_t)state->gpr[0];

	if (!(state->cr4 & CR4_OSXSAVE))
		return insn_undefined(step);
	if (state->cpl || (uint32_t)state->gpr[1] || !(xcr0 & X87) ||
	    xcr0 & ~(uint64_t)(insn_model_has(step, CPU_AVX) ? X87 | SSE | AVX : X87 | SSE) ||
	    (xcr0 & (SSE | AVX)) == AVX)
		return insn_general_protection(step);
	state->xcr0 = xcr0;
	return 0;
}
