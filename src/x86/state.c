/*
 * A processor's state as bytes and back. What is loaded is what this processor's own instructions
 * can make, or is refused.
 */
#include "state.h"

#include "lib/archive.h"

static bool is_canonical(uint64_t gva) { return (uint64_t)((int64_t)(gva << 16) >> 16) == gva; }

static void segment_archive(struct archive *archive, struct x86_segment_state *state)
{
	archive_u16(archive, &state->selector);
	archive_u16(archive, &state->attributes);
	archive_u32(archive, &state->limit);
	archive_u64(archive, &state->base);
}

static void table_archive(struct archive *archive, struct x86_table *table)
{
	archive_u64(archive, &table->base);
	archive_u16(archive, &table->limit);
}

static void control_archive(struct archive *archive, struct x86_state *state)
{
	uint64_t *const registers[] = { &state->cr0, &state->cr2,  &state->cr3, &state->cr4,
					&state->cr8, &state->efer, &state->xcr0 };

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u64(archive, registers[n]);
	archive_u64s(archive, state->dr, 8);
	archive_check(archive, !(state->cr0 >> 32) &&
				       (!(state->cr0 & CR0_PG) || state->cr0 & CR0_PE) &&
				       !(state->cr3 >> X86_PHYSICAL_BITS));
	archive_check(archive, !(state->cr4 & ~(uint64_t)X86_CR4_KNOWN) && state->cr8 < 16);
	archive_check(archive, !(state->efer & ~(uint64_t)X86_EFER_KNOWN) &&
				       (!(state->efer & EFER_LMA) ||
					(state->cr0 & CR0_PG && state->cr4 & CR4_PAE)));
	archive_check(archive, state->xcr0 & 1 && !(state->xcr0 & ~7ull) && (state->xcr0 & 6) != 4);
	archive_check(archive, !(state->dr[6] >> 32) && !(state->dr[7] >> 32));
}

static void msr_archive(struct archive *archive, struct x86_state *state)
{
	uint64_t *const registers[] = { &state->star,           &state->lstar,
					&state->cstar,          &state->sfmask,
					&state->kernel_gs_base, &state->pat,
					&state->tsc_aux,        &state->tsc_offset,
					&state->sysenter_cs,    &state->sysenter_esp,
					&state->sysenter_eip };

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u64(archive, registers[n]);
	archive_check(archive, is_canonical(state->lstar) && is_canonical(state->cstar) &&
				       is_canonical(state->kernel_gs_base));
}

void x86_state_archive_2(struct archive *archive, struct x86_state *state)
{
	archive_u64(archive, &state->tsc_adjust);
	archive_u64s(archive, state->pae_root, X86_PAE_ROOTS);
}

void x86_state_archive(struct archive *archive, struct x86_state *state)
{
	uint8_t interrupt_flag = state->rflags & FLAG_IF ? 1 : 0; /* twice in the format */

	archive_u64s(archive, state->gpr, 16);
	archive_u64(archive, &state->rip);
	archive_u64(archive, &state->rflags);
	archive_u8(archive, &interrupt_flag);
	archive_u8(archive, &state->interrupt_shadow);
	archive_u8(archive, &state->cpl);
	for (int n = 0; n < X86_SEGMENTS; n++)
		segment_archive(archive, &state->segment[n]);
	segment_archive(archive, &state->ldtr);
	segment_archive(archive, &state->tr);
	table_archive(archive, &state->gdtr);
	table_archive(archive, &state->idtr);
	control_archive(archive, state);
	msr_archive(archive, state);
	archive_check(archive, interrupt_flag == (state->rflags & FLAG_IF ? 1 : 0) &&
				       state->interrupt_shadow <= X86_SHADOW_MOV_SS &&
				       state->cpl <= 3 && (state->cpl == 0 || state->cr0 & CR0_PE));
	archive_check(archive, is_canonical(state->segment[X86_FS].base) &&
				       is_canonical(state->segment[X86_GS].base));
}
