/*
 * The architectural state of one virtual processor, as every engine gets and sets it. Names as in
 * the SDM.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"

struct archive;

enum {
	FLAG_CF = 1, FLAG_PF = 4, FLAG_AF = 0x10, FLAG_ZF = 0x40, FLAG_SF = 0x80, FLAG_TF = 0x100,
	FLAG_IF = 0x200, FLAG_DF = 0x400,
	FLAG_OF = 0x800, FLAG_IOPL = 0x3000, FLAG_NT = 0x4000, FLAG_RF = 0x10000, FLAG_VM = 0x20000,
	FLAG_AC = 0x40000,
	FLAG_ID = 0x200000, FLAGS_ARITHMETIC = 0x8d5,
};
#define CR0_PE 1u
#define CR0_MP 2u
#define CR0_EM 4u
#define CR0_TS 8u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR4_TSD 4u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_MCE 0x40u
#define CR4_PGE 0x80u
#define CR4_PCE 0x100u
#define CR4_UMIP 0x800u
#define CR4_FSGSBASE 0x10000u
#define CR4_PCIDE 0x20000u
#define CR4_OSXSAVE 0x40000u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u
#define EFER_SCE 1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u
#define EFER_AUTOIBRS 0x200000u
/* Virtual processors of one machine. The engine names them in masks of 64 bits. */
enum { X86_MAX_PROCESSORS = 16 };
_Static_assert(X86_MAX_PROCESSORS <= 64, "a mask of processors");
enum { X86_PAE_ROOTS = 4 };
enum { X86_PHYSICAL_BITS = 40 }; /* as leaf 0x80000008 of every model says */
/* What some model lets be set (cpu_model.h has what one does); SDM Vol. 3A 2.5. */
#define X86_CR4_KNOWN                                                                           \
	(0x3cu | CR4_MCE | CR4_PGE | CR4_PCE | 0x600u | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE |    \
	 CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)
#define X86_EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_AUTOIBRS)

enum x86_exception {
	EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6,
	EXC_NM = 7, EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12,
	EXC_GP = 13, EXC_PF = 14, EXC_MF = 16, EXC_AC = 17, EXC_XM = 19,
};

struct x86_segment_state {
	uint16_t selector;
	/* descriptor bits 40..55: type, S, DPL, P, limit 19:16, AVL, L, D, G */
	uint16_t attributes;
	uint32_t limit;      /* in bytes, inclusive */
	uint64_t base;
};

struct x86_table { uint64_t base; uint16_t limit; };

/* What STI and MOV SS hold back for one instruction. */
enum x86_interrupt_shadow { X86_SHADOW_NONE, X86_SHADOW_STI, X86_SHADOW_MOV_SS };

struct x86_state {
	uint64_t gpr[16], rip;
	uint64_t rflags;
	uint8_t interrupt_shadow, cpl; /* enum x86_interrupt_shadow */
	struct x86_segment_state segment[X86_SEGMENTS], ldtr, tr;
	struct x86_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0, dr[8];
	uint64_t pae_root[X86_PAE_ROOTS]; /* what the last load of CR3 found, under PAE paging */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base, pat, tsc_aux, tsc_offset, tsc_adjust;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
};

/* 16, 32 or 64. */
static inline unsigned x86_code_bits(const struct x86_state *state)
{
	enum { CODE_LONG = 0x2000, CODE_DEFAULT_32 = 0x4000 };
	uint16_t attributes = state->segment[X86_CS].attributes;

	if (state->efer & EFER_LMA && attributes & CODE_LONG)
		return 64;
	return attributes & CODE_DEFAULT_32 ? 32 : 16;
}

/* The model-specific registers of the state, those in segment bases and EFER excepted. */
static inline void x86_copy_msrs(struct x86_state *to, const struct x86_state *from)
{
	to->star = from->star;
	to->lstar = from->lstar;
	to->cstar = from->cstar;
	to->sfmask = from->sfmask;
	to->kernel_gs_base = from->kernel_gs_base;
	to->pat = from->pat;
	to->tsc_aux = from->tsc_aux;
	to->tsc_offset = from->tsc_offset;
	to->tsc_adjust = from->tsc_adjust;
	to->sysenter_cs = from->sysenter_cs;
	to->sysenter_esp = from->sysenter_esp;
	to->sysenter_eip = from->sysenter_eip;
}

/*
 * The whole state (lib/archive.h). Loading is refused with -EBADMSG for what no processor can be
 * in.
 */
void x86_state_archive(struct archive *archive, struct x86_state *state);
/* What version 2 of a processor's section has beside it. */
void x86_state_archive_2(struct archive *archive, struct x86_state *state);
