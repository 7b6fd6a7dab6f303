/*
 * Models as data, and how one becomes the CPUID leaves of a machine.
 *
 * A released model never changes: a correction is the next version, and both stay. What a model is
 * made of has its reasons in docs/cpu-models.md. The hypervisor's leaves, from 0x40000000 on, are
 * those of hv/feature.c. Left out on purpose: nested virtualization, performance counters, machine
 * checks, sensors, power states.
 */
#include "cpu_model.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/archive.h"
#include "lib/speculation.h"
#include "state.h"

enum {
	LEAF_MAX = 0xd,
	EXTENDED_MAX_INTEL = 0x80000008,
	EXTENDED_MAX_AMD = 0x80000021,
	XSAVE_AVX_BYTES = 832,
	XSAVE_SSE_BYTES = 576,
	AVX_BYTES = 256,
	LINEAR_BITS = 48,
	OSXSAVE_BIT = 27,
	LINE_BYTES_8 = 8,
	XCR0_KNOWN = 7,
	APIC_ID_BITS = 4,
};

/* family, model, stepping as leaf 1 has them. */
#define SIGNATURE(family, model, stepping) \
	(((family) > 15 ? (uint32_t)((family)-15) << 20 | 15 << 8 : (family) << 8) | \
	 ((model) >> 4) << 16 | ((model)&15) << 4 | (stepping))

struct model_data {
	const char *name, *summary; /* the name without its version */
	unsigned version;
	enum cpu_vendor vendor;
	uint32_t signature;
	const char *brand;
	const enum cpu_feature *features; /* beside the fixed ones; ends with CPU_FEATURES */
};

/* What the engine does itself, and what every x86-64-v3 processor of either vendor since Haswell
 * and Zen does. */
#define EVERY_HOST \
	CPU_SSE3, CPU_PCLMULQDQ, CPU_SSSE3, CPU_FMA, CPU_CX16, CPU_PCID, CPU_SSE4_1, CPU_SSE4_2, \
		CPU_X2APIC, CPU_MOVBE, CPU_POPCNT, CPU_TSC_DEADLINE, CPU_AES, CPU_XSAVE, CPU_AVX, \
		CPU_F16C, CPU_RDRAND, CPU_HYPERVISOR, CPU_FSGSBASE, CPU_BMI1, CPU_AVX2, CPU_SMEP, \
		CPU_BMI2, CPU_ERMS, CPU_INVPCID, CPU_SMAP, CPU_UMIP, CPU_FSRM, CPU_XSAVEOPT, \
		CPU_PDPE1GB, CPU_RDTSCP, CPU_LAHF, CPU_LZCNT, CPU_CONSTANT_TSC, CPU_ARAT
/* Of what is said about speculation only what is true of translated code: docs/speculation.md. */
#define AMD_OWN CPU_MMXEXT, CPU_TOPOEXT, CPU_CMP_LEGACY, CPU_LFENCE_RDTSC, CPU_SRSO_NO
#define INTEL_OWN \
	CPU_ARCH_CAPABILITIES, CPU_RDCL_NO, CPU_SKIP_L1DFL, CPU_MDS_NO, CPU_PSCHANGE_MC_NO, \
		CPU_TAA_NO, CPU_SBDR_SSDP_NO, CPU_FBSDP_NO, CPU_PSDP_NO, CPU_PBRSB_NO, CPU_GDS_NO, \
		CPU_RFDS_NO

static const enum cpu_feature amd_features[] = { EVERY_HOST, AMD_OWN, CPU_FEATURES };
static const enum cpu_feature intel_features[] = { EVERY_HOST, INTEL_OWN, CPU_FEATURES };

/* The first is the default. Of one name the newest comes first. */
static const struct model_data models[] = {
	{ .name = "umbra-amd",
	  .version = 1,
	  .summary = "x86-64-v3 as an AMD family 1Ah",
	  .vendor = CPU_AMD,
	  .signature = SIGNATURE(0x1a, 2, 1),
	  .brand = "Umbra Virtual Processor (AMD type, version 1)",
	  .features = amd_features },
	{ .name = "umbra-intel",
	  .version = 1,
	  .summary = "x86-64-v3 as an Intel family 6",
	  .vendor = CPU_INTEL,
	  .signature = SIGNATURE(6, 0x6a, 6),
	  .brand = "Umbra Virtual Processor (Intel type, version 1)",
	  .features = intel_features },
};
enum { MODELS = sizeof(models) / sizeof(models[0]) };

static const char host_summary[] = "what this host has and the engine can do";
static const char *const vendor_names[CPU_VENDORS] = {
	[CPU_INTEL] = "GenuineIntel", [CPU_AMD] = "AuthenticAMD"
};

/* One cache: level, kind (1 data, 2 instructions, 3 both), ways, sets, whether all processors share
 * it. 64 bytes a line. */
struct cache {
	uint8_t level, kind, ways;
	uint32_t sets;
	bool shared;
};
static const struct cache caches[4] = {
	{ .level = 1, .kind = 1, .ways = 8, .sets = 64, .shared = false },
	{ .level = 1, .kind = 2, .ways = 8, .sets = 64, .shared = false },
	{ .level = 2, .kind = 3, .ways = 8, .sets = 2048, .shared = false },
	{ .level = 3, .kind = 3, .ways = 16, .sets = 32768, .shared = true },
};
enum { CACHE_LINE_BYTES = 64 };

const char *cpu_model_name(unsigned n, const char **ret_summary)
{
	static const char host[] = "host";

	if (n > MODELS)
		return NULL;
	*ret_summary = n < MODELS ? models[n].summary : host_summary;
	return n < MODELS ? models[n].name : host;
}

/* ---- leaves ---- */

static void put_leaf(struct cpu_model *model, uint32_t leaf, uint32_t subleaf, uint32_t eax,
		     uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	assert(model->leaf_count < CPU_LEAF_ROWS);
	model->leaf[model->leaf_count++] =
		(struct cpu_leaf){ leaf, subleaf, { eax, ebx, ecx, edx } };
}

/* The bits of the features that this leaf announces. */
static void put_features(struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
			 const uint32_t beside[4])
{
	uint32_t registers[4] = { beside[0], beside[1], beside[2], beside[3] };

	for (unsigned feature = 0; feature < CPU_FEATURES; feature++) {
		const struct cpu_feature_info *info = &cpu_feature_info[feature];

		if (info->leaf == leaf && info->subleaf == subleaf &&
		    cpu_has(&model->features, (enum cpu_feature)feature))
			registers[info->reg] |= 1u << info->bit;
	}
	put_leaf(model, leaf, subleaf, registers[0], registers[1], registers[2], registers[3]);
}

static void put_caches(struct cpu_model *model, uint32_t leaf, unsigned cpus,
		       const struct cpu_host *own)
{
	for (unsigned n = 0; n < 4; n++) {
		const struct cache *cache = &caches[n];
		unsigned sharing = cache->shared ? cpus : 1;
		uint32_t cores = leaf == 4 ? (cpus - 1) << 26 : 0;

		if (own && own->cache[n][0] & 31)
			put_leaf(model, leaf, n,
				 (own->cache[n][0] & 0x3fff) |
					 ((own->cache[n][0] >> 5 & 7) == 3 ? cpus - 1 : 0) << 14 |
					 cores,
				 own->cache[n][1], own->cache[n][2], own->cache[n][3]);
		else if (!own)
			put_leaf(model, leaf, n,
				 cache->kind | cache->level << 5 | 1 << 8 | (sharing - 1) << 14 |
					 cores,
				 (CACHE_LINE_BYTES - 1) | (uint32_t)(cache->ways - 1) << 22,
				 cache->sets - 1, 0);
	}
}

/* The same for who asks in AMD's older way. */
static void put_legacy_caches(struct cpu_model *model, const struct cpu_host *own)
{
	enum {
		EIGHT_WAYS = 8 << 16,
		LINE = CACHE_LINE_BYTES,
		TLBS_1 = 0xff48ff40,
		TLBS_2 = 0x48004000,
		TLBS_4K = 0x68004200
	};

	if (own) {
		for (uint32_t n = 0; n < 2; n++)
			put_leaf(model, 0x80000005 + n, 0, own->legacy_cache[n][0],
				 own->legacy_cache[n][1], own->legacy_cache[n][2],
				 own->legacy_cache[n][3]);
		return;
	}
	put_leaf(model, 0x80000005, 0, TLBS_1, TLBS_1, 32u << 24 | EIGHT_WAYS | 1 << 8 | LINE,
		 32u << 24 | EIGHT_WAYS | 1 << 8 | LINE);
	put_leaf(model, 0x80000006, 0, TLBS_2, TLBS_4K, 1024u << 16 | 6 << 12 | 1 << 8 | LINE,
		 64u << 18 | 8 << 12 | 1 << 8 | LINE);
}

static void put_basic(struct cpu_model *model, const uint32_t vendor[3], unsigned cpus,
		      const struct cpu_host *own)
{
	bool amd = model->vendor == CPU_AMD;
	bool compact = cpu_has(&model->features, CPU_XSAVEC);
	bool avx = cpu_has(&model->features, CPU_AVX);
	uint32_t area = avx ? XSAVE_AVX_BYTES : XSAVE_SSE_BYTES;

	put_leaf(model, 0, 0, LEAF_MAX, vendor[0], vendor[1], vendor[2]);
	put_features(model, 1, 0,
		     (const uint32_t[4]){ model->signature, LINE_BYTES_8 << 8 | cpus << 16, 0, 0 });
	if (!amd) {
		put_leaf(model, 2, 0, 0x00feff01, 0xf0, 0,
			 0); /* leaf 4 tells; prefetches 64 bytes */
		put_caches(model, 4, cpus, own);
	}
	put_features(model, 6, 0, (const uint32_t[4]){ 0 });
	put_features(model, 7, 0, (const uint32_t[4]){ 0 });
	put_leaf(model, 0xb, 0, 0, 1, 1 << 8, 0);
	put_leaf(model, 0xb, 1, 32 - (uint32_t)__builtin_clz(cpus), cpus, 2 << 8 | 1, 0);
	if (!cpu_has(&model->features, CPU_XSAVE))
		return;
	put_leaf(model, 0xd, 0, avx ? XCR0_KNOWN : 3, area, area, 0);
	put_features(model, 0xd, 1, (const uint32_t[4]){ 0, compact ? area : 0, 0, 0 });
	if (avx)
		put_leaf(model, 0xd, 2, AVX_BYTES, XSAVE_SSE_BYTES, 0, 0);
}

/* Bits of leaf 1 that AMD repeats. */
enum { AMD_REPEATED = 0x0183f3ff };

static void put_extended(struct cpu_model *model, const uint32_t vendor[3],
			 const uint32_t brand[12], unsigned cpus, const struct cpu_host *own)
{
	bool amd = model->vendor == CPU_AMD;
	uint32_t repeated = 0;

	for (unsigned n = 0; n < model->leaf_count; n++)
		if (model->leaf[n].leaf == 1)
			repeated = model->leaf[n].value[3] & AMD_REPEATED;
	put_leaf(model, 0x80000000, 0, amd ? EXTENDED_MAX_AMD : EXTENDED_MAX_INTEL,
		 amd ? vendor[0] : 0, amd ? vendor[1] : 0, amd ? vendor[2] : 0);
	put_features(model, 0x80000001, 0,
		     (const uint32_t[4]){ amd ? model->signature : 0, 0, 0, amd ? repeated : 0 });
	for (uint32_t n = 0; n < 3; n++)
		put_leaf(model, 0x80000002 + n, 0, brand[4 * n], brand[4 * n + 1], brand[4 * n + 2],
			 brand[4 * n + 3]);
	if (amd)
		put_legacy_caches(model, own);
	else
		put_leaf(model, 0x80000006, 0, 0, 0, 1024u << 16 | 6 << 12 | CACHE_LINE_BYTES, 0);
	put_features(model, 0x80000007, 0, (const uint32_t[4]){ 0 });
	put_leaf(model, 0x80000008, 0, X86_PHYSICAL_BITS | LINEAR_BITS << 8, 0,
		 amd ? (cpus - 1) | APIC_ID_BITS << 12 : 0, 0);
	if (!amd)
		return;
	put_leaf(model, 0x8000001a, 0, 1 << 2, 0, 0, 0); /* 256-bit operations are whole */
	put_caches(model, 0x8000001d, cpus, own);
	put_leaf(model, 0x8000001e, 0, 0, 0, 0, 0);
	put_features(model, 0x80000021, 0, (const uint32_t[4]){ 0 });
}

static void make_index(struct cpu_model *model)
{
	memset(model->first, 0, sizeof(model->first));
	for (unsigned n = model->leaf_count; n-- > 0;)
		model->first[model->leaf[n].leaf >> 31][model->leaf[n].leaf & 0x3f] =
			(uint8_t)(n + 1);
}

static void make_valid_bits(struct cpu_model *model)
{
	static const struct {
		enum cpu_feature feature;
		uint64_t cr4, efer;
	} bits[] = {
		{ CPU_UMIP, CR4_UMIP, 0 },	    { CPU_FSGSBASE, CR4_FSGSBASE, 0 },
		{ CPU_PCID, CR4_PCIDE, 0 },	    { CPU_XSAVE, CR4_OSXSAVE, 0 },
		{ CPU_SMEP, CR4_SMEP, 0 },	    { CPU_SMAP, CR4_SMAP, 0 },
		{ CPU_AUTOIBRS, 0, EFER_AUTOIBRS }, { CPU_MCE, CR4_MCE, 0 },
	};

	model->cr4_valid = X86_CR4_KNOWN;
	model->efer_valid = X86_EFER_KNOWN;
	for (unsigned n = 0; n < sizeof(bits) / sizeof(bits[0]); n++)
		if (!cpu_has(&model->features, bits[n].feature)) {
			model->cr4_valid &= ~bits[n].cr4;
			model->efer_valid &= ~bits[n].efer;
		}
}

/* own: the host, for the model `host`; NULL for all others. */
static void make_leaves(struct cpu_model *model, const char *brand, unsigned cpus,
			const struct cpu_host *own)
{
	uint32_t vendor[3];
	uint32_t brand_words[12] = { 0 };

	memcpy(&vendor[0], vendor_names[model->vendor], 4);
	memcpy(&vendor[1], vendor_names[model->vendor] + 4, 4);
	memcpy(&vendor[2], vendor_names[model->vendor] + 8, 4);
	/* the order in EBX, EDX, ECX */
	uint32_t registers[3] = { vendor[0], vendor[2], vendor[1] };

	if (own)
		memcpy(brand_words, own->brand, sizeof(brand_words));
	else
		memcpy(brand_words, brand, strlen(brand));
	model->leaf_count = 0;
	if (cpus < 2) {
		cpu_remove(&model->features, CPU_HT);
		cpu_remove(&model->features, CPU_CMP_LEGACY);
	}
	put_basic(model, registers, cpus, own);
	put_extended(model, registers, brand_words, cpus, own);
	make_index(model);
	make_valid_bits(model);
}

static const struct cpu_leaf *find_leaf(const struct cpu_model *model, uint32_t leaf,
					uint32_t subleaf)
{
	uint32_t index = leaf & 0x7fffffff;
	uint64_t bound = speculation_bound(index, sizeof(model->first[0]));
	unsigned n = index < sizeof(model->first[0]) ? model->first[leaf >> 31][bound] : 0;

	if (!n)
		return NULL;
	for (const struct cpu_leaf *row = &model->leaf[n - 1];
	     row < &model->leaf[model->leaf_count] && row->leaf == leaf; row++)
		if (row->subleaf == subleaf)
			return row;
	return NULL;
}

static bool has_subleaves(uint32_t leaf)
{
	return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d;
}

void cpu_model_leaf(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
		    uint32_t apic_id, uint64_t cr4, uint64_t xcr0, uint32_t registers[4])
{
	const struct cpu_leaf *row;

	/* Intel answers a leaf that is not there like its last one, AMD with zeros. */
	if (model->vendor == CPU_INTEL &&
	    (leaf >> 31 ? leaf > EXTENDED_MAX_INTEL : leaf > LEAF_MAX))
		leaf = LEAF_MAX;
	row = find_leaf(model, leaf, has_subleaves(leaf) ? subleaf : 0);
	for (unsigned n = 0; n < 4; n++)
		registers[n] = row ? row->value[n] : 0;
	switch (leaf) {
	case 1:
		registers[1] |= apic_id << 24;
		registers[2] |= cr4 & CR4_OSXSAVE ? 1u << OSXSAVE_BIT : 0;
		return;
	case 0xb:
		registers[2] |= row ? 0 : subleaf & 0xff;
		registers[3] = apic_id;
		return;
	case 0xd:
		if (row && !subleaf)
			registers[1] = xcr0 & 4 ? XSAVE_AVX_BYTES : XSAVE_SSE_BYTES;
		return;
	case 0x8000001e:
		registers[0] = apic_id;
		registers[1] = apic_id;
		return;
	default: return;
	}
}

/* ---- registers ---- */

enum register_kind { REGISTER_FIXED, REGISTER_IGNORED, REGISTER_STORED, REGISTER_WRITE_ONLY };
enum { STORED_MISC_ENABLE, STORED_SPEC_CTRL, STORED_HWCR, STORED_DEBUGCTL, STORED_MCG_STATUS };
enum { BOTH = CPU_VENDORS };

/* One register: of whom, with which feature (CPU_FPU: all), what it says, and what a write does:
 * #GP, nothing, or keeps the bits of `mask`. */
struct register_row {
	uint32_t msr, last; /* last 0: one register */
	unsigned vendor;
	enum cpu_feature feature;
	enum register_kind kind;
	uint64_t value, mask;
	uint8_t stored;
};

enum {
	MSR_PLATFORM_ID = 0x17,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_MICROCODE = 0x8b,
	MSR_PLATFORM_INFO = 0xce,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_DEBUGCTL = 0x1d9,
};
#define MSR_K7_EVENT_SELECT 0xc0010000u
#define MSR_SYSCFG 0xc0010010u
#define MSR_NB_CFG 0xc001001fu
#define MSR_HWCR 0xc0010015u
#define MSR_DE_CFG 0xc0011029u
enum {
	MISC_FAST_STRINGS = 1,
	MISC_BTS_UNAVAILABLE = 1 << 11,
	MISC_PEBS_UNAVAILABLE = 1 << 12,
	MISC_LIMIT_CPUID = 1 << 22,
	/* thermal control, speed steps, MONITOR, task priority messages: kept */
	MISC_WITHOUT_EFFECT = 1 << 3 | 1 << 16 | 1 << 18 | 1 << 23
};
enum {
	HWCR_SMM_LOCK = 1,
	HWCR_TSC_IS_CONSTANT = 1 << 24,
	DE_CFG_LFENCE_SERIALIZES = 2,
	SPEC_CTRL_IBRS = 1,
	DEBUGCTL_LBR_BTF = 3,
	MCG_STATUS_BITS = 7
};

static const struct register_row registers[] = {
	{ .msr = MSR_PLATFORM_ID, .vendor = CPU_INTEL, .feature = CPU_FPU,
	  .kind = REGISTER_FIXED },
	{ .msr = MSR_SPEC_CTRL, .vendor = CPU_INTEL, .feature = CPU_SPEC_CTRL,
	  .kind = REGISTER_STORED, .mask = SPEC_CTRL_IBRS, .stored = STORED_SPEC_CTRL },
	{ .msr = MSR_PRED_CMD, .vendor = CPU_INTEL, .feature = CPU_SPEC_CTRL,
	  .kind = REGISTER_WRITE_ONLY, .mask = 1 },
	/* a revision in which everything known is mended; a write of Intel's asks for it */
	{ .msr = MSR_MICROCODE, .vendor = CPU_INTEL, .feature = CPU_FPU, .kind = REGISTER_IGNORED,
	  .value = 0xd000404ull << 32 },
	{ .msr = MSR_MICROCODE, .vendor = CPU_AMD, .feature = CPU_FPU, .kind = REGISTER_FIXED,
	  .value = 0x0b002151 },
	{ .msr = MSR_PLATFORM_INFO, .vendor = CPU_INTEL, .feature = CPU_FPU,
	  .kind = REGISTER_FIXED },
	{ .msr = MSR_ARCH_CAPABILITIES, .vendor = CPU_INTEL, .feature = CPU_ARCH_CAPABILITIES,
	  .kind = REGISTER_FIXED },
	/* no bank, no MCG_CTL */
	{ .msr = MSR_MCG_CAP, .vendor = BOTH, .feature = CPU_MCA, .kind = REGISTER_FIXED },
	{ .msr = MSR_MCG_STATUS, .vendor = BOTH, .feature = CPU_MCA, .kind = REGISTER_STORED,
	  .mask = MCG_STATUS_BITS, .stored = STORED_MCG_STATUS },
	{ .msr = MSR_MISC_ENABLE, .vendor = CPU_INTEL, .feature = CPU_FPU,
	  .kind = REGISTER_STORED,
	  .value = MISC_FAST_STRINGS | MISC_BTS_UNAVAILABLE | MISC_PEBS_UNAVAILABLE,
	  .mask = MISC_FAST_STRINGS | MISC_LIMIT_CPUID | MISC_WITHOUT_EFFECT | 1ull << 34,
	  .stored = STORED_MISC_ENABLE },
	{ .msr = MSR_DEBUGCTL, .vendor = BOTH, .feature = CPU_FPU, .kind = REGISTER_STORED,
	  .mask = DEBUGCTL_LBR_BTF, .stored = STORED_DEBUGCTL },
	{ .msr = MSR_K7_EVENT_SELECT, .last = MSR_K7_EVENT_SELECT + 7, .vendor = CPU_AMD,
	  .feature = CPU_FPU, .kind = REGISTER_IGNORED }, /* no CPUID bit could hide them */
	{ .msr = MSR_SYSCFG, .vendor = CPU_AMD, .feature = CPU_FPU, .kind = REGISTER_IGNORED },
	{ .msr = MSR_HWCR, .vendor = CPU_AMD, .feature = CPU_FPU, .kind = REGISTER_STORED,
	  .value = HWCR_SMM_LOCK | HWCR_TSC_IS_CONSTANT, .mask = 0x41, .stored = STORED_HWCR },
	{ .msr = MSR_NB_CFG, .vendor = CPU_AMD, .feature = CPU_FPU, .kind = REGISTER_IGNORED,
	  .value = 1ull << 46 }, /* configuration space by ports, as Linux wants it */
	{ .msr = MSR_DE_CFG, .vendor = CPU_AMD, .feature = CPU_FPU, .kind = REGISTER_IGNORED,
	  .value = DE_CFG_LFENCE_SERIALIZES },
};
enum { REGISTERS = sizeof(registers) / sizeof(registers[0]) };

static const struct register_row *find_register(const struct cpu_model *model, uint32_t msr)
{
	for (unsigned n = 0; n < REGISTERS; n++) {
		const struct register_row *row = &registers[n];

		if (msr >= row->msr && msr <= (row->last ? row->last : row->msr) &&
		    (row->vendor == BOTH || row->vendor == model->vendor) &&
		    cpu_has(&model->features, row->feature))
			return row;
	}
	return NULL;
}

void cpu_model_reset(const struct cpu_model *model, uint64_t stored[CPU_MODEL_REGISTERS])
{
	memset(stored, 0, CPU_MODEL_REGISTERS * sizeof(stored[0]));
	for (unsigned n = 0; n < REGISTERS; n++)
		if (registers[n].kind == REGISTER_STORED &&
		    find_register(model, registers[n].msr) == &registers[n])
			stored[registers[n].stored] = registers[n].value;
}

static uint64_t arch_capabilities(const struct cpu_model *model)
{
	uint64_t value = 0;

	for (unsigned feature = 0; feature < CPU_FEATURES; feature++)
		if (cpu_feature_info[feature].leaf == CPU_LEAF_ARCH_CAPABILITIES &&
		    cpu_has(&model->features, (enum cpu_feature)feature))
			value |= 1ull << (32 * cpu_feature_info[feature].reg +
					  cpu_feature_info[feature].bit);
	return value;
}

int cpu_model_read(const struct cpu_model *model, const uint64_t stored[CPU_MODEL_REGISTERS],
		   uint32_t msr, uint64_t *ret)
{
	const struct register_row *row = find_register(model, msr);

	*ret = 0;
	if (!row || row->kind == REGISTER_WRITE_ONLY)
		return -EINVAL;
	*ret = row->kind == REGISTER_STORED ? stored[row->stored] : row->value;
	if (msr == MSR_ARCH_CAPABILITIES)
		*ret = arch_capabilities(model);
	return 0;
}

int cpu_model_write(const struct cpu_model *model, uint64_t stored[CPU_MODEL_REGISTERS],
		    uint32_t msr, uint64_t value)
{
	const struct register_row *row = find_register(model, msr);

	if (!row || row->kind == REGISTER_FIXED)
		return -EINVAL;
	if (row->kind == REGISTER_WRITE_ONLY && value & ~row->mask)
		return -EINVAL;
	if (row->kind == REGISTER_STORED && row->msr == MSR_SPEC_CTRL && value & ~row->mask)
		return -EINVAL;
	if (row->kind == REGISTER_STORED)
		stored[row->stored] = (row->value & ~row->mask) | (value & row->mask);
	return 0;
}

/* ---- by name ---- */

static bool name_is(const struct model_data *data, const char *text, size_t bytes)
{
	char full[CPU_MODEL_NAME_BYTES];

	snprintf(full, sizeof(full), "%s-v%u", data->name, data->version);
	return (strlen(data->name) == bytes && !memcmp(data->name, text, bytes)) ||
	       (strlen(full) == bytes && !memcmp(full, text, bytes));
}

static const struct model_data *find_model(const char *text, size_t bytes)
{
	if (bytes == 7 && !memcmp(text, "default", 7))
		return &models[0];
	for (unsigned n = 0; n < MODELS; n++)
		if (name_is(&models[n], text, bytes))
			return &models[n];
	return NULL;
}

static bool fits_vendor(enum cpu_feature feature, enum cpu_vendor vendor)
{
	unsigned flags = cpu_feature_info[feature].flags;

	return !(flags & (vendor == CPU_INTEL ? CPU_AMD_ONLY : CPU_INTEL_ONLY));
}

static void add_list(struct cpu_features *set, const enum cpu_feature *list)
{
	for (; *list != CPU_FEATURES; list++)
		cpu_add(set, *list);
}

/* What this host has and the engine can do: the features of its vendor's model, and beside them all
 * that is the host's to execute. */
static void take_host(struct cpu_model *model, const struct cpu_host *host)
{
	snprintf(model->name, sizeof(model->name), "host");
	model->vendor = host->vendor;
	model->signature = host->signature;
	add_list(&model->features, host->vendor == CPU_AMD ? amd_features : intel_features);
	for (unsigned feature = 0; feature < CPU_FEATURES; feature++) {
		if (!(cpu_feature_info[feature].flags & CPU_BY_HOST) ||
		    !fits_vendor((enum cpu_feature)feature, model->vendor))
			continue;
		if (cpu_has(&host->features, (enum cpu_feature)feature))
			cpu_add(&model->features, (enum cpu_feature)feature);
		else
			cpu_remove(&model->features, (enum cpu_feature)feature);
	}
}

static int refuse(char *reason, size_t bytes, int error, const char *format, const char *what)
{
	snprintf(reason, bytes, format, what);
	return error;
}

/* "+name" or "-name". */
static int change(struct cpu_model *model, const char *text, size_t bytes, char *reason,
		  size_t reason_bytes)
{
	enum cpu_feature feature = bytes && (*text == '+' || *text == '-')
					   ? cpu_feature_find(text + 1, bytes - 1)
					   : CPU_FEATURES;
	char bad[CPU_MODEL_NAME_BYTES];

	if (feature == CPU_FEATURES) {
		snprintf(bad, sizeof(bad), "%.*s",
			 (int)(bytes < sizeof(bad) ? bytes : sizeof(bad) - 1), text);
		return refuse(reason, reason_bytes, -EINVAL,
			      "no feature of a processor that can be offered: %s", bad);
	}
	if (cpu_feature_info[feature].flags & CPU_FIXED)
		return *text == '+'
			       ? 0
			       : refuse(reason, reason_bytes, -ENOTSUP, "%s cannot be taken away",
					cpu_feature_info[feature].name);
	if (!fits_vendor(feature, model->vendor))
		return refuse(reason, reason_bytes, -ENOTSUP,
			      "a processor of this model's vendor has no %s",
			      cpu_feature_info[feature].name);
	if (*text == '+')
		cpu_add(&model->features, feature);
	else
		cpu_remove(&model->features, feature);
	return 0;
}

static int check_needs(const struct cpu_model *model, char *reason, size_t bytes)
{
	for (unsigned feature = 0; feature < CPU_FEATURES; feature++) {
		enum cpu_feature needs;

		if (!cpu_has(&model->features, (enum cpu_feature)feature))
			continue;
		needs = cpu_feature_missing(&model->features, (enum cpu_feature)feature);
		if (needs == CPU_FEATURES)
			continue;
		snprintf(reason, bytes, "%s is not without %s", cpu_feature_info[feature].name,
			 cpu_feature_info[needs].name);
		return -ENOTSUP;
	}
	return 0;
}

enum cpu_feature cpu_model_lacks(const struct cpu_model *model, const struct cpu_host *host)
{
	for (unsigned feature = 0; feature < CPU_FEATURES; feature++)
		if (cpu_feature_info[feature].flags & CPU_BY_HOST &&
		    cpu_has(&model->features, (enum cpu_feature)feature) &&
		    !cpu_has(&host->features, (enum cpu_feature)feature))
			return (enum cpu_feature)feature;
	return CPU_FEATURES;
}

static void add_fixed(struct cpu_model *model)
{
	for (unsigned feature = 0; feature < CPU_FEATURES; feature++)
		if (cpu_feature_info[feature].flags & CPU_FIXED &&
		    fits_vendor((enum cpu_feature)feature, model->vendor))
			cpu_add(&model->features, (enum cpu_feature)feature);
}

static void choose_mitigations(struct cpu_model *model, enum cpu_mitigations mitigations)
{
	for (unsigned n = 0; n < CPU_FEATURES; n++) {
		enum cpu_feature feature = (enum cpu_feature)n;

		if (!(cpu_feature_info[feature].flags & CPU_SPECULATION) ||
		    mitigations == CPU_MITIGATIONS_TRUE)
			continue;
		cpu_remove(&model->features, feature);
		if (mitigations == CPU_MITIGATIONS_OFF && fits_vendor(feature, model->vendor))
			cpu_add(&model->features, feature);
	}
}

bool cpu_model_tells_immunity(const struct cpu_model *model)
{
	for (unsigned feature = 0; feature < CPU_FEATURES; feature++)
		if (cpu_feature_info[feature].flags & CPU_SPECULATION &&
		    cpu_has(&model->features, (enum cpu_feature)feature))
			return true;
	return false;
}

int cpu_model_resolve(struct cpu_model *model, const char *text, enum cpu_mitigations mitigations,
		      unsigned cpus, const struct cpu_host *host, char *reason, size_t reason_bytes)
{
	const char *name = text ? text : "default";
	size_t bytes = strcspn(name, ",");
	bool is_host = bytes == 4 && !memcmp(name, "host", 4);
	const struct model_data *data = is_host ? NULL : find_model(name, bytes);
	enum cpu_feature lacks;
	char bad[CPU_MODEL_NAME_BYTES];
	int error = 0;

	assert(cpus && host && reason_bytes);
	memset(model, 0, sizeof(*model));
	if (!data && !is_host) {
		snprintf(bad, sizeof(bad), "%.*s",
			 (int)(bytes < sizeof(bad) ? bytes : sizeof(bad) - 1), name);
		return refuse(reason, reason_bytes, -EINVAL, "no processor model: %s", bad);
	}
	if (is_host) {
		take_host(model, host);
	} else {
		snprintf(model->name, sizeof(model->name), "%s-v%u", data->name, data->version);
		model->vendor = data->vendor;
		model->signature = data->signature;
		add_list(&model->features, data->features);
	}
	add_fixed(model);
	choose_mitigations(model, mitigations);
	for (const char *at = name + bytes; *at && !error; at += bytes) {
		at++;
		bytes = strcspn(at, ",");
		error = change(model, at, bytes, reason, reason_bytes);
	}
	if (!error)
		error = check_needs(model, reason, reason_bytes);
	if (error)
		return error;
	lacks = cpu_model_lacks(model, host);
	if (lacks != CPU_FEATURES)
		return refuse(reason, reason_bytes, -ENOTSUP,
			      "the processor of this host has no %s", cpu_feature_info[lacks].name);
	make_leaves(model, is_host ? NULL : data->brand, cpus, is_host ? host : NULL);
	return 0;
}

/* ---- saved ---- */

static void check_loaded(struct archive *archive, const struct cpu_model *model)
{
	char reason[80];

	archive_check(archive, model->name[CPU_MODEL_NAME_BYTES - 1] == 0);
	for (unsigned n = 0; n < model->leaf_count && !archive->error; n++)
		archive_check(archive,
			      (model->leaf[n].leaf & 0x7fffffff) < sizeof(model->first[0]) &&
				      (!n || model->leaf[n].leaf >= model->leaf[n - 1].leaf));
	archive_check(archive, !(model->features.word[CPU_FEATURES / 64] >> CPU_FEATURES % 64));
	if (!archive->error)
		archive_check(archive, !check_needs(model, reason, sizeof(reason)));
}

void cpu_model_archive(struct archive *archive, struct cpu_model *model)
{
	uint32_t vendor = model->vendor;

	archive_bytes(archive, model->name, sizeof(model->name));
	archive_u32(archive, &vendor);
	archive_u64s(archive, model->features.word, CPU_FEATURE_WORDS);
	archive_u32(archive, &model->signature);
	archive_u32(archive, &model->leaf_count);
	if (!archive_check(archive, model->leaf_count <= CPU_LEAF_ROWS && vendor < CPU_VENDORS))
		return;
	model->vendor = (enum cpu_vendor)vendor;
	for (unsigned n = 0; n < model->leaf_count; n++) {
		archive_u32(archive, &model->leaf[n].leaf);
		archive_u32(archive, &model->leaf[n].subleaf);
		archive_u32s(archive, model->leaf[n].value, 4);
	}
	check_loaded(archive, model);
	if (!archive->error && archive->loading) {
		make_index(model);
		make_valid_bits(model);
	}
}
