/*
 * A processor's state as bytes and back. What is loaded is what this processor's own instructions
 * can make, or is refused.
 */
#include "state.h"

#include "lib/archive.h"

static bool is_canonical(uint64_t gva) { return (uint64_t)((int64_t)(gva << 16) >> 16) == gva; }

static void segment_archive(struct archive *a, struct x86_segment_state *s)
{
	archive_u16(a, &s->selector);
	archive_u16(a, &s->attributes);
	archive_u32(a, &s->limit);
	archive_u64(a, &s->base);
}

static void table_archive(struct archive *a, struct x86_table *t)
{
	archive_u64(a, &t->base);
	archive_u16(a, &t->limit);
}

static void control_archive(struct archive *a, struct x86_state *s)
{
	uint64_t *const registers[] = { &s->cr0, &s->cr2,  &s->cr3, &s->cr4,
					&s->cr8, &s->efer, &s->xcr0 };

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u64(a, registers[n]);
	archive_u64s(a, s->dr, 8);
	archive_check(a, !(s->cr0 >> 32) && (!(s->cr0 & CR0_PG) || s->cr0 & CR0_PE) &&
				 !(s->cr3 >> X86_PHYSICAL_BITS));
	archive_check(a, !(s->cr4 & ~(uint64_t)X86_CR4_KNOWN) && s->cr8 < 16);
	archive_check(a, !(s->efer & ~(uint64_t)X86_EFER_KNOWN) &&
				 (!(s->efer & EFER_LMA) || (s->cr0 & CR0_PG && s->cr4 & CR4_PAE)));
	archive_check(a, s->xcr0 & 1 && !(s->xcr0 & ~7ull) && (s->xcr0 & 6) != 4);
	archive_check(a, !(s->dr[6] >> 32) && !(s->dr[7] >> 32));
}

static void msr_archive(struct archive *a, struct x86_state *s)
{
	uint64_t *const registers[] = { &s->star,         &s->lstar,          &s->cstar,
					&s->sfmask,       &s->kernel_gs_base, &s->pat,
					&s->tsc_aux,      &s->tsc_offset,     &s->sysenter_cs,
					&s->sysenter_esp, &s->sysenter_eip };

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u64(a, registers[n]);
	archive_check(a, is_canonical(s->lstar) && is_canonical(s->cstar) &&
				 is_canonical(s->kernel_gs_base));
}

void x86_state_archive_2(struct archive *a, struct x86_state *s)
{
	archive_u64(a, &s->tsc_adjust);
	archive_u64s(a, s->pae_root, X86_PAE_ROOTS);
}

void x86_state_archive(struct archive *a, struct x86_state *s)
{
	uint8_t interrupt_flag = s->rflags & FLAG_IF ? 1 : 0; /* twice in the format */

	archive_u64s(a, s->gpr, 16);
	archive_u64(a, &s->rip);
	archive_u64(a, &s->rflags);
	archive_u8(a, &interrupt_flag);
	archive_u8(a, &s->interrupt_shadow);
	archive_u8(a, &s->cpl);
	for (int n = 0; n < X86_SEGMENTS; n++)
		segment_archive(a, &s->segment[n]);
	segment_archive(a, &s->ldtr);
	segment_archive(a, &s->tr);
	table_archive(a, &s->gdtr);
	table_archive(a, &s->idtr);
	control_archive(a, s);
	msr_archive(a, s);
	archive_check(a, interrupt_flag == (s->rflags & FLAG_IF ? 1 : 0) &&
				 s->interrupt_shadow <= X86_SHADOW_MOV_SS && s->cpl <= 3 &&
				 (s->cpl == 0 || s->cr0 & CR0_PE));
	archive_check(a, is_canonical(s->segment[X86_FS].base) &&
				 is_canonical(s->segment[X86_GS].base));
}
