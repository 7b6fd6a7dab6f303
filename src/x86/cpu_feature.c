/*
 * Features as data, and the instructions that each brings. A feature that is in neither table
 * cannot be offered: its instructions do not decode (tools/gen-decode-table.c), so that what no
 * model shows does not execute either.
 */
#include "cpu_feature.h"

#include <string.h>

#define EDX1(n) .leaf = 1, .reg = 3, .bit = n
#define ECX1(n) .leaf = 1, .reg = 2, .bit = n
#define EBX7(n) .leaf = 7, .reg = 1, .bit = n
#define EDX7(n) .leaf = 7, .reg = 3, .bit = n
#define ECX8(n) .leaf = 0x80000001, .reg = 2, .bit = n
#define EDX8(n) .leaf = 0x80000001, .reg = 3, .bit = n
#define EAX21(n) .leaf = 0x80000021, .reg = 0, .bit = n
#define CAPABILITY(n) .leaf = CPU_LEAF_ARCH_CAPABILITIES, .reg = (n) / 32, .bit = (n) % 32, \
	.flags = CPU_SPECULATION | CPU_INTEL_ONLY, .needs = { CPU_ARCH_CAPABILITIES }
#define FIXED .flags = CPU_FIXED
#define FIXED_BY_HOST .flags = CPU_FIXED | CPU_BY_HOST
#define BY_HOST .flags = CPU_BY_HOST

const struct cpu_feature_info cpu_feature_info[CPU_FEATURES] = {
	[CPU_FPU] = { "fpu", EDX1(0), FIXED },
	[CPU_DE] = { "de", EDX1(2), FIXED },
	[CPU_PSE] = { "pse", EDX1(3), FIXED },
	[CPU_TSC] = { "tsc", EDX1(4), FIXED },
	[CPU_MSR] = { "msr", EDX1(5), FIXED },
	[CPU_PAE] = { "pae", EDX1(6), FIXED },
	[CPU_CX8] = { "cx8", EDX1(8), FIXED },
	[CPU_APIC] = { "apic", EDX1(9), FIXED },
	[CPU_SEP] = { "sep", EDX1(11), FIXED },
	[CPU_MTRR] = { "mtrr", EDX1(12), FIXED },
	[CPU_PGE] = { "pge", EDX1(13), FIXED },
	[CPU_CMOV] = { "cmov", EDX1(15), FIXED },
	[CPU_PAT] = { "pat", EDX1(16), FIXED },
	[CPU_PSE36] = { "pse36", EDX1(17), FIXED },
	[CPU_CLFLUSH] = { "clflush", EDX1(19), FIXED },
	[CPU_MMX] = { "mmx", EDX1(23), FIXED },
	[CPU_FXSR] = { "fxsr", EDX1(24), FIXED },
	[CPU_SSE] = { "sse", EDX1(25), FIXED },
	[CPU_SSE2] = { "sse2", EDX1(26), FIXED },
	[CPU_HT] = { "ht", EDX1(28), FIXED }, /* shown where there are several processors */
	[CPU_SSE3] = { "pni", ECX1(0), BY_HOST },
	[CPU_PCLMULQDQ] = { "pclmulqdq", ECX1(1), BY_HOST },
	[CPU_SSSE3] = { "ssse3", ECX1(9), BY_HOST, .needs = { CPU_SSE3 } },
	[CPU_FMA] = { "fma", ECX1(12), BY_HOST, .needs = { CPU_AVX } },
	[CPU_CX16] = { "cx16", ECX1(13), FIXED_BY_HOST },
	[CPU_PCID] = { "pcid", ECX1(17) },
	[CPU_SSE4_1] = { "sse4_1", ECX1(19), BY_HOST, .needs = { CPU_SSSE3 } },
	[CPU_SSE4_2] = { "sse4_2", ECX1(20), BY_HOST, .needs = { CPU_SSE4_1 } },
	[CPU_X2APIC] = { "x2apic", ECX1(21) },
	[CPU_MOVBE] = { "movbe", ECX1(22), BY_HOST },
	[CPU_POPCNT] = { "popcnt", ECX1(23), BY_HOST },
	[CPU_TSC_DEADLINE] = { "tsc_deadline_timer", ECX1(24) },
	[CPU_AES] = { "aes", ECX1(25), BY_HOST },
	[CPU_XSAVE] = { "xsave", ECX1(26), BY_HOST },
	[CPU_AVX] = { "avx", ECX1(28), BY_HOST, .needs = { CPU_XSAVE, CPU_SSE4_2 } },
	[CPU_F16C] = { "f16c", ECX1(29), BY_HOST, .needs = { CPU_AVX } },
	[CPU_RDRAND] = { "rdrand", ECX1(30), BY_HOST },
	[CPU_HYPERVISOR] = { "hypervisor", ECX1(31) },
	[CPU_FSGSBASE] = { "fsgsbase", EBX7(0) },
	[CPU_BMI1] = { "bmi1", EBX7(3), FIXED_BY_HOST }, /* a hidden TZCNT would have to be BSF */
	[CPU_AVX2] = { "avx2", EBX7(5), BY_HOST, .needs = { CPU_AVX } },
	[CPU_SMEP] = { "smep", EBX7(7) },
	[CPU_BMI2] = { "bmi2", EBX7(8), BY_HOST },
	[CPU_ERMS] = { "erms", EBX7(9) },
	[CPU_INVPCID] = { "invpcid", EBX7(10) },
	[CPU_RDSEED] = { "rdseed", EBX7(18), BY_HOST },
	[CPU_ADX] = { "adx", EBX7(19), BY_HOST },
	[CPU_SMAP] = { "smap", EBX7(20) },
	[CPU_CLFLUSHOPT] = { "clflushopt", EBX7(23), BY_HOST },
	[CPU_SHA] = { "sha_ni", EBX7(29), BY_HOST },
	[CPU_UMIP] = { "umip", .leaf = 7, .reg = 2, .bit = 2 },
	/*
	 * A Linux that has it without ERMS copies short moves by a loop for long ones, and writes
	 * beyond their end.
	 */
	[CPU_FSRM] = { "fsrm", EDX7(4), .needs = { CPU_ERMS } },
	[CPU_MD_CLEAR] = { "md_clear", EDX7(10), .flags = CPU_INTEL_ONLY | CPU_BY_HOST },
	[CPU_SPEC_CTRL] = { "spec_ctrl", EDX7(26), .flags = CPU_INTEL_ONLY | CPU_SPECULATION },
	[CPU_ARCH_CAPABILITIES] = { "arch_capabilities", EDX7(29),
				    .flags = CPU_INTEL_ONLY | CPU_SPECULATION },
	[CPU_XSAVEOPT] = { "xsaveopt", .leaf = 0xd, .subleaf = 1, .bit = 0,
			   .needs = { CPU_XSAVE } },
	[CPU_XSAVEC] = { "xsavec", .leaf = 0xd, .subleaf = 1, .bit = 1, BY_HOST,
			 .needs = { CPU_XSAVE } },
	[CPU_XGETBV1] = { "xgetbv1", .leaf = 0xd, .subleaf = 1, .bit = 2, BY_HOST,
			  .needs = { CPU_XSAVE } },
	[CPU_SYSCALL] = { "syscall", EDX8(11), FIXED },
	[CPU_NX] = { "nx", EDX8(20), FIXED },
	[CPU_MMXEXT] = { "mmxext", EDX8(22), .flags = CPU_AMD_ONLY },
	[CPU_PDPE1GB] = { "pdpe1gb", EDX8(26) },
	[CPU_RDTSCP] = { "rdtscp", EDX8(27) },
	[CPU_LM] = { "lm", EDX8(29), FIXED },
	[CPU_LAHF] = { "lahf_lm", ECX8(0), FIXED_BY_HOST },
	[CPU_CMP_LEGACY] = { "cmp_legacy", ECX8(1),
			     .flags = CPU_AMD_ONLY |
				      CPU_FIXED }, /* shown where there are several processors */
	[CPU_LZCNT] = { "abm", ECX8(5), FIXED_BY_HOST }, /* a hidden LZCNT would have to be BSR */
	[CPU_3DNOWPREFETCH] = { "3dnowprefetch", ECX8(8), FIXED },
	[CPU_TOPOEXT] = { "topoext", ECX8(22), .flags = CPU_AMD_ONLY },
	[CPU_CONSTANT_TSC] = { "constant_tsc", .leaf = 0x80000007, .reg = 3, .bit = 8 },
	[CPU_ARAT] = { "arat", .leaf = 6, .reg = 0, .bit = 2 },
	[CPU_LFENCE_RDTSC] = { "lfence_rdtsc", EAX21(2), .flags = CPU_AMD_ONLY },
	[CPU_AUTOIBRS] = { "autoibrs", EAX21(8), .flags = CPU_AMD_ONLY | CPU_SPECULATION },
	[CPU_SRSO_NO] = { "srso_no", EAX21(29), .flags = CPU_AMD_ONLY | CPU_SPECULATION },
	[CPU_RDCL_NO] = { "rdcl_no", CAPABILITY(0) },
	[CPU_IBRS_ALL] = { "ibrs_all", CAPABILITY(1) },
	[CPU_SKIP_L1DFL] = { "skip_l1dfl_vmentry", CAPABILITY(3) },
	[CPU_MDS_NO] = { "mds_no", CAPABILITY(5) },
	[CPU_PSCHANGE_MC_NO] = { "pschange_mc_no", CAPABILITY(6) },
	[CPU_TAA_NO] = { "taa_no", CAPABILITY(8) },
	[CPU_SBDR_SSDP_NO] = { "sbdr_ssdp_no", CAPABILITY(13) },
	[CPU_FBSDP_NO] = { "fbsdp_no", CAPABILITY(14) },
	[CPU_PSDP_NO] = { "psdp_no", CAPABILITY(15) },
	[CPU_BHI_NO] = { "bhi_no", CAPABILITY(20) },
	[CPU_PBRSB_NO] = { "pbrsb_no", CAPABILITY(24) },
	[CPU_GDS_NO] = { "gds_no", CAPABILITY(26) },
	[CPU_RFDS_NO] = { "rfds_no", CAPABILITY(27) },
	[CPU_ITS_NO] = { "its_no", CAPABILITY(62) },
	/* Machine checks with no bank: there is nothing that could report one. */
	[CPU_MCE] = { "mce", EDX1(7) },
	[CPU_MCA] = { "mca", EDX1(14), .needs = { CPU_MCE } },
	[CPU_TSC_ADJUST] = { "tsc_adjust", EBX7(1) },
};

enum cpu_feature cpu_feature_find(const char *name, size_t bytes)
{
	unsigned feature = 0;

	while (feature < CPU_FEATURES && (strlen(cpu_feature_info[feature].name) != bytes ||
					  memcmp(cpu_feature_info[feature].name, name, bytes)))
		feature++;
	return (enum cpu_feature)feature;
}

enum cpu_feature cpu_feature_missing(const struct cpu_features *set, enum cpu_feature feature)
{
	for (unsigned n = 0; n < 2; n++)
		if (!cpu_has(set, cpu_feature_info[feature].needs[n]))
			return cpu_feature_info[feature].needs[n];
	return CPU_FEATURES;
}

/* ---- instructions ---- */

enum { PP_NONE = 1, PP_66 = 2, PP_F3 = 4, PP_F2 = 8, PP_ANY = 15 };
enum { FORM_MEMORY = 1, FORM_REGISTER = 2, FORM_ANY = 3, REG_ANY = 0xff };

struct instruction_row {
	uint8_t map, first, last, prefixes, reg, forms;
	enum cpu_feature feature;
};

#define INSTRUCTION(map_, first_, last_, prefixes_, reg_, forms_, feature_) \
	{ \
		.map = (map_), .first = (first_), .last = (last_), .prefixes = (prefixes_), \
		.reg = (reg_), .forms = (forms_), .feature = (feature_) \
	}

/* Without VEX. reg is modrm.reg where it is part of the opcode. */
static const struct instruction_row plain_rows[] = {
	INSTRUCTION(0, 0xdb, 0xdb, PP_ANY, 1, FORM_MEMORY, CPU_SSE3), /* FISTTP */
	INSTRUCTION(0, 0xdd, 0xdd, PP_ANY, 1, FORM_MEMORY, CPU_SSE3),
	INSTRUCTION(0, 0xdf, 0xdf, PP_ANY, 1, FORM_MEMORY, CPU_SSE3),
	INSTRUCTION(1, 0x12, 0x12, PP_F3 | PP_F2, REG_ANY, FORM_ANY, CPU_SSE3),
	INSTRUCTION(1, 0x16, 0x16, PP_F3, REG_ANY, FORM_ANY, CPU_SSE3),
	INSTRUCTION(1, 0x7c, 0x7d, PP_66 | PP_F2, REG_ANY, FORM_ANY, CPU_SSE3),
	INSTRUCTION(1, 0xd0, 0xd0, PP_66 | PP_F2, REG_ANY, FORM_ANY, CPU_SSE3),
	INSTRUCTION(1, 0xf0, 0xf0, PP_F2, REG_ANY, FORM_MEMORY, CPU_SSE3),
	INSTRUCTION(1, 0xb8, 0xb8, PP_F3, REG_ANY, FORM_ANY, CPU_POPCNT),
	INSTRUCTION(1, 0xae, 0xae, PP_NONE, 4, FORM_MEMORY, CPU_XSAVE),
	INSTRUCTION(1, 0xae, 0xae, PP_NONE, 5, FORM_MEMORY, CPU_XSAVE),
	INSTRUCTION(1, 0xae, 0xae, PP_NONE, 6, FORM_MEMORY, CPU_XSAVEOPT),
	INSTRUCTION(1, 0xae, 0xae, PP_66, 7, FORM_MEMORY, CPU_CLFLUSHOPT),
	INSTRUCTION(1, 0xae, 0xae, PP_F3, REG_ANY, FORM_REGISTER, CPU_FSGSBASE),
	INSTRUCTION(1, 0xc7, 0xc7, PP_ANY, 4, FORM_MEMORY, CPU_XSAVEC),
	INSTRUCTION(1, 0xc7, 0xc7, PP_NONE | PP_66, 6, FORM_REGISTER, CPU_RDRAND),
	INSTRUCTION(1, 0xc7, 0xc7, PP_NONE | PP_66, 7, FORM_REGISTER, CPU_RDSEED),
	INSTRUCTION(2, 0x00, 0x0b, PP_ANY, REG_ANY, FORM_ANY, CPU_SSSE3),
	INSTRUCTION(2, 0x1c, 0x1e, PP_ANY, REG_ANY, FORM_ANY, CPU_SSSE3),
	INSTRUCTION(2, 0x10, 0x17, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_1),
	INSTRUCTION(2, 0x20, 0x36, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_1),
	INSTRUCTION(2, 0x37, 0x37, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_2),
	INSTRUCTION(2, 0x38, 0x41, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_1),
	INSTRUCTION(2, 0x82, 0x82, PP_ANY, REG_ANY, FORM_ANY, CPU_INVPCID),
	INSTRUCTION(2, 0xc8, 0xcd, PP_ANY, REG_ANY, FORM_ANY, CPU_SHA),
	INSTRUCTION(2, 0xdb, 0xdf, PP_ANY, REG_ANY, FORM_ANY, CPU_AES),
	INSTRUCTION(2, 0xf0, 0xf1, PP_F2, REG_ANY, FORM_ANY, CPU_SSE4_2), /* CRC32 */
	INSTRUCTION(2, 0xf0, 0xf1, PP_NONE | PP_66, REG_ANY, FORM_MEMORY, CPU_MOVBE),
	INSTRUCTION(2, 0xf6, 0xf6, PP_66 | PP_F3, REG_ANY, FORM_ANY, CPU_ADX),
	INSTRUCTION(3, 0x08, 0x0e, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_1),
	INSTRUCTION(3, 0x0f, 0x0f, PP_ANY, REG_ANY, FORM_ANY, CPU_SSSE3),
	INSTRUCTION(3, 0x14, 0x42, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_1),
	INSTRUCTION(3, 0x44, 0x44, PP_ANY, REG_ANY, FORM_ANY, CPU_PCLMULQDQ),
	INSTRUCTION(3, 0x60, 0x63, PP_ANY, REG_ANY, FORM_ANY, CPU_SSE4_2),
	INSTRUCTION(3, 0xcc, 0xcc, PP_ANY, REG_ANY, FORM_ANY, CPU_SHA),
	INSTRUCTION(3, 0xdf, 0xdf, PP_ANY, REG_ANY, FORM_ANY, CPU_AES),
};

/* With VEX, beside what is AVX, or AVX2 where 256-bit integers are meant (avx_class()). */
static const struct instruction_row vex_rows[] = {
	INSTRUCTION(2, 0x13, 0x13, PP_ANY, REG_ANY, FORM_ANY, CPU_F16C),
	INSTRUCTION(2, 0x16, 0x16, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(2, 0x36, 0x36, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(2, 0x45, 0x47, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(2, 0x58, 0x5a, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(2, 0x78, 0x79, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(2, 0x18, 0x19, PP_ANY, REG_ANY, FORM_REGISTER, CPU_AVX2),
	INSTRUCTION(2, 0x8c, 0x93, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(2, 0x96, 0xbf, PP_ANY, REG_ANY, FORM_ANY, CPU_FMA),
	INSTRUCTION(2, 0xdb, 0xdf, PP_ANY, REG_ANY, FORM_ANY, CPU_AES),
	INSTRUCTION(2, 0xf2, 0xf3, PP_ANY, REG_ANY, FORM_ANY, CPU_BMI1),
	INSTRUCTION(2, 0xf7, 0xf7, PP_NONE, REG_ANY, FORM_ANY, CPU_BMI1),
	INSTRUCTION(2, 0xf5, 0xf7, PP_ANY, REG_ANY, FORM_ANY, CPU_BMI2),
	INSTRUCTION(3, 0x00, 0x02, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(3, 0x1d, 0x1d, PP_ANY, REG_ANY, FORM_ANY, CPU_F16C),
	INSTRUCTION(3, 0x38, 0x39, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(3, 0x44, 0x44, PP_ANY, REG_ANY, FORM_ANY, CPU_PCLMULQDQ),
	INSTRUCTION(3, 0x46, 0x46, PP_ANY, REG_ANY, FORM_ANY, CPU_AVX2),
	INSTRUCTION(3, 0xdf, 0xdf, PP_ANY, REG_ANY, FORM_ANY, CPU_AES),
	INSTRUCTION(3, 0xf0, 0xf0, PP_ANY, REG_ANY, FORM_ANY, CPU_BMI2),
};

static bool row_is(const struct instruction_row *row, const struct x86_insn *insn)
{
	bool memory = x86_insn_has_memory(insn);

	return row->map == insn->map && insn->opcode >= row->first && insn->opcode <= row->last &&
	       row->prefixes >> insn->pp & 1 &&
	       (row->reg == REG_ANY || row->reg == (insn->reg & 7)) &&
	       row->forms & (memory ? FORM_MEMORY : FORM_REGISTER);
}

/* 256 bits of integers in the maps of SSE2 to SSE4.1 are AVX2. */
static enum cpu_feature avx_class(const struct x86_insn *insn)
{
	uint8_t op = insn->opcode;

	if (insn->kind != X86_KIND_VEX256)
		return CPU_AVX;
	if (insn->map == 1)
		return (op >= 0x60 && op <= 0x6d) || (op >= 0x70 && op <= 0x76) ||
				       (op >= 0xd1 && op != 0xd6 && op != 0xe6 && op != 0xe7 &&
					op != 0xf0)
			       ? CPU_AVX2
			       : CPU_AVX;
	if (insn->map == 2)
		return op <= 0x0b || (op >= 0x1c && op <= 0x1e) || (op >= 0x20 && op <= 0x25) ||
				       (op >= 0x28 && op <= 0x2b) || (op >= 0x30 && op <= 0x40)
			       ? CPU_AVX2
			       : CPU_AVX;
	return op == 0x0e || op == 0x0f || op == 0x42 || op == 0x4c ? CPU_AVX2 : CPU_AVX;
}

static enum cpu_feature of_two_bytes_01(const struct x86_insn *insn)
{
	unsigned code = 0xc0 | (insn->reg & 7) << 3 | (insn->rm & 7);

	if (x86_insn_has_memory(insn))
		return CPU_FPU;
	switch (code) {
	case 0xca: case 0xcb: return CPU_SMAP;
	case 0xd0: case 0xd1: return CPU_XSAVE;
	case 0xf9: return CPU_RDTSCP;
	default: return CPU_FPU;
	}
}

enum cpu_feature cpu_feature_of(const struct x86_insn *insn)
{
	const struct instruction_row *rows = insn->kind ? vex_rows : plain_rows;
	size_t count = insn->kind ? sizeof(vex_rows) / sizeof(vex_rows[0])
				  : sizeof(plain_rows) / sizeof(plain_rows[0]);

	if (!insn->kind && insn->map == 0 && (insn->opcode & 0xf8) != 0xd8)
		return CPU_FPU;
	if (!insn->kind && insn->map == 1 && insn->opcode == 0x01)
		return of_two_bytes_01(insn);
	for (size_t n = 0; n < count; n++)
		if (row_is(&rows[n], insn))
			return rows[n].feature;
	return insn->kind ? avx_class(insn) : CPU_FPU;
}
