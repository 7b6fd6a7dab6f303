/* The features of a processor by name: which CPUID bit announces each, and what it takes to have
 * it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode.h"

enum cpu_vendor { CPU_INTEL, CPU_AMD, CPU_VENDORS };

/* Numbers are in saved machines: new ones come at the end. Names as Linux prints them in
 * /proc/cpuinfo. */
enum cpu_feature {
	CPU_FPU,
	CPU_DE,
	CPU_PSE,
	CPU_TSC,
	CPU_MSR,
	CPU_PAE,
	CPU_CX8,
	CPU_APIC,
	CPU_SEP,
	CPU_MTRR,
	CPU_PGE,
	CPU_CMOV,
	CPU_PAT,
	CPU_PSE36,
	CPU_CLFLUSH,
	CPU_MMX,
	CPU_FXSR,
	CPU_SSE,
	CPU_SSE2,
	CPU_HT,
	CPU_SSE3,
	CPU_PCLMULQDQ,
	CPU_SSSE3,
	CPU_FMA,
	CPU_CX16,
	CPU_PCID,
	CPU_SSE4_1,
	CPU_SSE4_2,
	CPU_X2APIC,
	CPU_MOVBE,
	CPU_POPCNT,
	CPU_TSC_DEADLINE,
	CPU_AES,
	CPU_XSAVE,
	CPU_AVX,
	CPU_F16C,
	CPU_RDRAND,
	CPU_HYPERVISOR,
	CPU_FSGSBASE,
	CPU_BMI1,
	CPU_AVX2,
	CPU_SMEP,
	CPU_BMI2,
	CPU_ERMS,
	CPU_INVPCID,
	CPU_RDSEED,
	CPU_ADX,
	CPU_SMAP,
	CPU_CLFLUSHOPT,
	CPU_SHA,
	CPU_UMIP,
	CPU_FSRM,
	CPU_MD_CLEAR,
	CPU_SPEC_CTRL,
	CPU_ARCH_CAPABILITIES,
	CPU_XSAVEOPT,
	CPU_XSAVEC,
	CPU_XGETBV1,
	CPU_SYSCALL,
	CPU_NX,
	CPU_MMXEXT,
	CPU_PDPE1GB,
	CPU_RDTSCP,
	CPU_LM,
	CPU_LAHF,
	CPU_CMP_LEGACY,
	CPU_LZCNT,
	CPU_3DNOWPREFETCH,
	CPU_TOPOEXT,
	CPU_CONSTANT_TSC,
	CPU_ARAT,
	CPU_LFENCE_RDTSC,
	CPU_AUTOIBRS,
	CPU_SRSO_NO,
	CPU_RDCL_NO,
	CPU_IBRS_ALL,
	CPU_SKIP_L1DFL,
	CPU_MDS_NO,
	CPU_PSCHANGE_MC_NO,
	CPU_TAA_NO,
	CPU_SBDR_SSDP_NO,
	CPU_FBSDP_NO,
	CPU_PSDP_NO,
	CPU_BHI_NO,
	CPU_PBRSB_NO,
	CPU_GDS_NO,
	CPU_RFDS_NO,
	CPU_ITS_NO,
	CPU_MCE,
	CPU_MCA,
	CPU_TSC_ADJUST,
	CPU_FEATURES,
};

enum { CPU_FEATURE_WORDS = 2, CPU_LEAF_ARCH_CAPABILITIES = 0x10a };
_Static_assert(CPU_FEATURES <= 64 * CPU_FEATURE_WORDS, "a bit for each");

struct cpu_features {
	uint64_t word[CPU_FEATURE_WORDS];
};

enum {
	CPU_BY_HOST =
		1, /* only a host that has it executes it; else the engine does so on any host */
	CPU_FIXED = 2, /* every 64-bit guest needs it, or the host executes its encoding anyhow:
			  cannot be taken away */
	CPU_SPECULATION =
		4, /* says that an attack by speculation is dealt with: docs/speculation.md */
	CPU_INTEL_ONLY = 8,
	CPU_AMD_ONLY = 16,
};

/* leaf CPU_LEAF_ARCH_CAPABILITIES is the MSR: reg 0 its low half, reg 1 its high half. */
struct cpu_feature_info {
	const char *name;
	uint32_t leaf;
	uint8_t subleaf, reg, bit; /* reg: 0 EAX, 1 EBX, 2 ECX, 3 EDX */
	uint8_t flags;
	enum cpu_feature needs[2]; /* CPU_FPU: none */
};

extern const struct cpu_feature_info cpu_feature_info[CPU_FEATURES];

static inline bool cpu_has(const struct cpu_features *set, enum cpu_feature feature)
{
	return set->word[feature / 64] >> feature % 64 & 1;
}
static inline void cpu_add(struct cpu_features *set, enum cpu_feature feature)
{
	set->word[feature / 64] |= 1ull << feature % 64;
}
static inline void cpu_remove(struct cpu_features *set, enum cpu_feature feature)
{
	set->word[feature / 64] &= ~(1ull << feature % 64);
}
/* The feature of this name (bytes long); CPU_FEATURES: none. */
enum cpu_feature cpu_feature_find(const char *name, size_t bytes);
/* The feature that f needs and that the set lacks; CPU_FEATURES: none. */
enum cpu_feature cpu_feature_missing(const struct cpu_features *set, enum cpu_feature feature);
/* The feature without which this instruction is #UD; CPU_FPU: every processor has it, or a control
 * register decides (CR4.OSXSAVE). */
enum cpu_feature cpu_feature_of(const struct x86_insn *insn);
