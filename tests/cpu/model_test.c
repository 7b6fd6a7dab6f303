/*
 * Processor models: every model, with every choice of mitigations, number of processors and single
 * feature added or taken away, is one that agrees with itself, or is refused in one line; the
 * default runs on the oldest hosts of both vendors; and the feature that the engine asks for before
 * it executes an instruction is the one that Zydis files it under.
 */
#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/archive.h"
#include "x86/cpu_model.h"

enum { MODEL_BYTES = 4096 };

static unsigned failures, checks;

static void check(bool good, const char *what, const char *which)
{
	checks++;
	if (good)
		return;
	if (failures++ < 40)
		printf("%s: %s\n", which, what);
}

/* ---- hosts ---- */

static const enum cpu_feature everywhere[] = {
	CPU_SSE3,  CPU_PCLMULQDQ, CPU_SSSE3, CPU_FMA,   CPU_CX16,  CPU_SSE4_1,   CPU_SSE4_2,
	CPU_MOVBE, CPU_POPCNT,    CPU_AES,   CPU_XSAVE, CPU_AVX,   CPU_F16C,     CPU_RDRAND,
	CPU_BMI1,  CPU_AVX2,      CPU_BMI2,  CPU_LAHF,  CPU_LZCNT, CPU_XSAVEOPT, CPU_FEATURES,
};
static const enum cpu_feature zen_beside[] = { CPU_RDSEED, CPU_ADX,     CPU_CLFLUSHOPT, CPU_SHA,
					       CPU_XSAVEC, CPU_XGETBV1, CPU_FEATURES };

static void add(struct cpu_host *host, const enum cpu_feature *list)
{
	for (; *list != CPU_FEATURES; list++)
		cpu_add(&host->features, *list);
}

static struct cpu_host haswell(void)
{
	struct cpu_host host = { .vendor = CPU_INTEL, .signature = 0x306c3 };

	add(&host, everywhere);
	memcpy(host.brand, "an old host of Intel's", 22);
	return host;
}

static struct cpu_host zen(void)
{
	struct cpu_host host = { .vendor = CPU_AMD, .signature = 0x800f12 };

	add(&host, everywhere);
	add(&host, zen_beside);
	memcpy(host.brand, "an old host of AMD's", 20);
	return host;
}

static struct cpu_host everything(enum cpu_vendor vendor)
{
	struct cpu_host host = { .vendor = vendor,
				 .signature = vendor == CPU_AMD ? 0xa10f11 : 0xc06f2 };

	for (unsigned feature = 0; feature < CPU_FEATURES; feature++)
		cpu_add(&host.features, (enum cpu_feature)feature);
	return host;
}

/* ---- a model with itself ---- */

/* As software asks: not beyond the last leaf. */
static uint32_t bits_of(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
			unsigned reg)
{
	uint32_t registers[4];

	cpu_model_leaf(model, leaf & 0x80000000, 0, 0, 0, 7, registers);
	if (leaf > registers[0])
		return 0;

	cpu_model_leaf(model, leaf, subleaf, 0, 0, 7, registers);
	return registers[reg];
}

static bool reads(const struct cpu_model *model, uint32_t msr, uint64_t *ret)
{
	uint64_t stored[CPU_MODEL_REGISTERS];

	cpu_model_reset(model, stored);
	return !cpu_model_read(model, stored, msr, ret);
}

static bool writes(const struct cpu_model *model, uint32_t msr, uint64_t value)
{
	uint64_t stored[CPU_MODEL_REGISTERS];

	cpu_model_reset(model, stored);
	return !cpu_model_write(model, stored, msr, value);
}

static void check_features(const struct cpu_model *model, const char *which)
{
	for (unsigned n = 0; n < CPU_FEATURES; n++) {
		enum cpu_feature feature = (enum cpu_feature)n;
		const struct cpu_feature_info *info = &cpu_feature_info[feature];
		uint64_t capabilities = 0;
		bool bit;

		if (info->leaf == CPU_LEAF_ARCH_CAPABILITIES) {
			reads(model, info->leaf, &capabilities);
			bit = capabilities >> (32 * info->reg + info->bit) & 1;
		} else {
			bit = bits_of(model, info->leaf, info->subleaf, info->reg) >> info->bit & 1;
		}
		check(bit == cpu_has(&model->features, feature), info->name, which);
		check(!cpu_has(&model->features, feature) ||
			      cpu_feature_missing(&model->features, feature) == CPU_FEATURES,
		      "a feature without what it needs", which);
		check(!cpu_has(&model->features, feature) ||
			      !(info->flags &
				(model->vendor == CPU_AMD ? CPU_INTEL_ONLY : CPU_AMD_ONLY)),
		      "a feature of the other vendor", which);
	}
}

static void check_registers(const struct cpu_model *model, const char *which)
{
	bool intel = model->vendor == CPU_INTEL;
	uint64_t value;

	check(reads(model, 0x1a0, &value) == intel, "MISC_ENABLE is Intel's", which);
	check(!intel || value & 1, "fast strings", which);
	check(reads(model, 0x48, &value) == cpu_has(&model->features, CPU_SPEC_CTRL), "SPEC_CTRL",
	      which);
	check(writes(model, 0x49, 1) == cpu_has(&model->features, CPU_SPEC_CTRL) &&
		      !reads(model, 0x49, &value),
	      "PRED_CMD", which);
	check(reads(model, 0x10a, &value) == cpu_has(&model->features, CPU_ARCH_CAPABILITIES),
	      "ARCH_CAPABILITIES", which);
	check(!writes(model, 0x10a, 0), "ARCH_CAPABILITIES cannot be written", which);
	check(reads(model, 0x8b, &value) && value, "a microcode revision", which);
	check(reads(model, 0xc0010015, &value) == !intel && (intel || value >> 24 & 1), "HWCR",
	      which);
	check(reads(model, 0xc0011029, &value) == !intel && (intel || value & 2), "DE_CFG", which);
	check(!reads(model, 0x12345678, &value) && !writes(model, 0x12345678, 0),
	      "a register that is not there", which);
}

static void check_leaves(const struct cpu_model *model, unsigned cpus, const char *which)
{
	bool amd = model->vendor == CPU_AMD;
	bool avx = cpu_has(&model->features, CPU_AVX);
	bool xsave = cpu_has(&model->features, CPU_XSAVE);
	uint32_t xcr0 = avx ? 7 : 3;
	uint32_t area_bytes = avx ? 832 : 576;
	uint32_t registers[4];

	cpu_model_leaf(model, 0, 0, 0, 0, 7, registers);
	check(!memcmp(&registers[1], amd ? "AuthcAMDenti" : "GenuntelineI", 12) &&
		      registers[0] == 0xd,
	      "the vendor", which);
	check((bits_of(model, 1, 0, 1) >> 16 & 0xff) == cpus, "the number of processors", which);
	check((bits_of(model, 1, 0, 3) >> 28 & 1) == (cpus > 1), "HT where there are several",
	      which);
	check(bits_of(model, 0xb, 1, 1) == cpus && 1u << bits_of(model, 0xb, 1, 0) >= cpus,
	      "topology", which);
	check(bits_of(model, 0xd, 0, 0) == (xsave ? xcr0 : 0), "XCR0's bits", which);
	check(bits_of(model, 0xd, 0, 2) == (xsave ? area_bytes : 0), "the size of the XSAVE area",
	      which);
	check(bits_of(model, 0xd, 2, 0) == (xsave && avx ? 256u : 0u), "the size of AVX's part",
	      which);
	check(!(bits_of(model, 0xd, 1, 0) >> 1 & 1) ||
		      bits_of(model, 0xd, 1, 1) == bits_of(model, 0xd, 0, 2),
	      "the compacted size", which);
	check(!amd || (bits_of(model, 0x80000008, 0, 2) & 0xff) == cpus - 1,
	      "AMD's number of processors", which);
	check(amd == (bits_of(model, 0x80000000, 0, 0) == 0x80000021), "the last leaf", which);
	check(!(model->cr4_valid >> 17 & 1) == !cpu_has(&model->features, CPU_PCID), "CR4.PCIDE",
	      which);
	check(!(model->cr4_valid >> 18 & 1) == !xsave, "CR4.OSXSAVE", which);
	check(!(model->efer_valid >> 21 & 1) == !cpu_has(&model->features, CPU_AUTOIBRS),
	      "EFER.AIBRSE", which);
	for (uint32_t apic = 0; apic < cpus; apic++) {
		cpu_model_leaf(model, 1, 0, apic, 1 << 18, 7, registers);
		check(registers[1] >> 24 == apic && registers[2] >> 27 & 1,
		      "the APIC id and OSXSAVE", which);
		cpu_model_leaf(model, 0xb, 0, apic, 0, 7, registers);
		check(registers[3] == apic, "the APIC id in leaf 0xb", which);
	}
}

static void check_archive(const struct cpu_model *model, const char *which)
{
	static uint8_t bytes[2][MODEL_BYTES];
	struct cpu_model copy = *model;
	struct cpu_model loaded = { 0 };
	struct archive a = archive_save_to(bytes[0], sizeof(bytes[0]));
	struct archive b;
	struct archive archive = archive_save_to(bytes[1], sizeof(bytes[1]));

	cpu_model_archive(&a, &copy);
	b = archive_load_from(bytes[0], a.used);
	cpu_model_archive(&b, &loaded);
	check(!b.error && archive_check_end(&b), "it loads", which);
	cpu_model_archive(&archive, &loaded);
	check(archive.used == a.used && !memcmp(bytes[0], bytes[1], a.used), "and is the same",
	      which);
	for (uint32_t n = 0; n < 0x30; n++)
		for (unsigned k = 0; k < 4; k++)
			check(bits_of(model, n, 0, k) == bits_of(&loaded, n, 0, k),
			      "with the same leaves", which);
}

/*
 * A number of bits is made wrong in what was saved: refused, or a model that agrees with itself as
 * far as the engine goes by it.
 */
static void check_lies(const struct cpu_model *model)
{
	static uint8_t bytes[MODEL_BYTES];
	struct cpu_model copy = *model;
	struct archive a = archive_save_to(bytes, sizeof(bytes));

	cpu_model_archive(&a, &copy);
	for (int n = 0; n < 20000; n++) {
		struct cpu_model loaded = { 0 };
		size_t at = (size_t)rand() % (n % 2 ? 64 : a.used);
		uint8_t before = bytes[at];
		struct archive b;

		bytes[at] ^= (uint8_t)(1 << rand() % 8);
		b = archive_load_from(bytes, a.used);
		cpu_model_archive(&b, &loaded);
		for (uint32_t leaf = 0; !b.error && leaf < 0x40; leaf++)
			bits_of(&loaded, leaf | (leaf & 1) << 31, leaf & 3, 0);
		for (unsigned feature = 0; !b.error && feature < CPU_FEATURES; feature++)
			check(!cpu_has(&loaded.features, (enum cpu_feature)feature) ||
				      cpu_feature_missing(&loaded.features,
							  (enum cpu_feature)feature) ==
					      CPU_FEATURES,
			      "a feature without what it needs", "a lie");
		bytes[at] = before;
	}
}

static bool check_model(const char *text, enum cpu_mitigations mitigations, unsigned cpus,
			const struct cpu_host *host)
{
	struct cpu_model model;
	char reason[128] = "";
	int error =
		cpu_model_resolve(&model, text, mitigations, cpus, host, reason, sizeof(reason));

	check(!error == !reason[0] && !strchr(reason, '\n'), "one line where it is refused", text);
	if (error)
		return false;
	check(cpu_model_lacks(&model, host) == CPU_FEATURES, "the host can run what it was given",
	      text);
	/* by this the engine finds what it bounds */
	check(strchr(text, ',') ||
		      cpu_model_tells_immunity(&model) == (mitigations != CPU_MITIGATIONS_GUEST),
	      "it tells of an immunity unless the guest defends itself", text);
	check_features(&model, text);
	check_registers(&model, text);
	check_leaves(&model, cpus, text);
	check_archive(&model, text);
	return true;
}

static void every_model(void)
{
	const struct cpu_host hosts[] = { haswell(), zen(), everything(CPU_INTEL),
					  everything(CPU_AMD) };
	const unsigned counts[] = { 1, 2, 3, 16 };
	const char *name, *summary;
	char text[96];

	for (unsigned host = 0; host < 4; host++)
		for (unsigned n = 0; (name = cpu_model_name(n, &summary)); n++) {
			for (unsigned k = 0; k < 3 * 4; k++)
				check(check_model(name, (enum cpu_mitigations)(k % 3),
						  counts[k / 3], &hosts[host]),
				      "it runs on every host", name);
			for (unsigned feature = 0; feature < 2 * CPU_FEATURES; feature++) {
				snprintf(text, sizeof(text), "%s,%c%s", name,
					 feature & 1 ? '+' : '-',
					 cpu_feature_info[feature / 2].name);
				check_model(text, CPU_MITIGATIONS_TRUE, 2, &hosts[host]);
			}
		}
}

static void what_is_refused(void)
{
	struct cpu_host host = haswell();
	const char *const refused[] = { "",
					"nothing",
					"umbra-amd-v99",
					"umbra-am",
					"umbra-amd,",
					"umbra-amd,sha_ni",
					"umbra-amd,+",
					"umbra-amd,+nothing",
					"umbra-amd,-lm",
					"umbra-amd,-erms",
					"umbra-amd,+ibrs_all",
					"umbra-intel,+autoibrs",
					"umbra-amd,+sha_ni" };
	const char *bad;
	size_t bytes;

	for (unsigned n = 0; n < sizeof(refused) / sizeof(refused[0]); n++)
		check(!check_model(refused[n], CPU_MITIGATIONS_TRUE, 1, &host), "it is refused",
		      refused[n]);
	check(cpu_host_mask(&host, "-aes,-avx2", &bad, &bytes), "a mask", "masks");
	check(!check_model("umbra-amd", CPU_MITIGATIONS_TRUE, 1, &host), "a host without AES",
	      "masks");
	check(check_model("umbra-amd,-aes,-avx2", CPU_MITIGATIONS_TRUE, 1, &host),
	      "and what it can run", "masks");
	check(!cpu_host_mask(&host, "-aes,erms", &bad, &bytes) && bytes == 4,
	      "a mask that is wrong", "masks");
}

/* What was released stays: a change of one of these numbers is a new version. */
static uint32_t sum_of(const char *text)
{
	struct cpu_host host = everything(CPU_AMD);
	struct cpu_model model;
	char reason[128];
	uint32_t sum = 0;

	cpu_model_resolve(&model, text, CPU_MITIGATIONS_TRUE, 4, &host, reason, sizeof(reason));
	for (unsigned n = 0; n < model.leaf_count; n++)
		for (unsigned k = 0; k < 4; k++)
			sum = (sum << 5 | sum >> 27) ^ model.leaf[n].value[k] ^ model.leaf[n].leaf;
	return sum;
}

static void what_was_released(void)
{
	const struct {
		const char *name;
		uint32_t sum;
	} released[] = { { "umbra-amd-v1", 0xb1548bc1 }, { "umbra-intel-v1", 0x8c9fafe9 } };

	for (unsigned n = 0; n < sizeof(released) / sizeof(released[0]); n++) {
		check(sum_of(released[n].name) == released[n].sum, "a released model has changed",
		      released[n].name);
		if (sum_of(released[n].name) != released[n].sum)
			printf("%s: %#x\n", released[n].name, sum_of(released[n].name));
	}
}

/* ---- instructions ---- */

static const struct { const char *set; enum cpu_feature feature;
} sets[] = {
	{ "SSE3", CPU_SSE3 },
	{ "SSE3X87", CPU_SSE3 },
	{ "SSSE3", CPU_SSSE3 },
	{ "SSSE3MMX", CPU_SSSE3 },
	{ "SSE4", CPU_SSE4_1 },
	{ "SSE42", CPU_SSE4_2 },
	{ "AES", CPU_AES },
	{ "PCLMULQDQ", CPU_PCLMULQDQ },
	{ "AVXAES", CPU_AES },
	{ "AVX_AES", CPU_AES },
	{ "AVX", CPU_AVX },
	{ "AVX2", CPU_AVX2 },
	{ "AVX2GATHER", CPU_AVX2 },
	{ "FMA", CPU_FMA },
	{ "F16C", CPU_F16C },
	{ "BMI1", CPU_BMI1 },
	{ "BMI2", CPU_BMI2 },
	{ "ADOX_ADCX", CPU_ADX },
	{ "MOVBE", CPU_MOVBE },
	{ "POPCNT", CPU_POPCNT },
	{ "RDRAND", CPU_RDRAND },
	{ "RDSEED", CPU_RDSEED },
	{ "RDWRFSGS", CPU_FSGSBASE },
	{ "SHA", CPU_SHA },
	{ "SMAP", CPU_SMAP },
	{ "XSAVE", CPU_XSAVE },
	{ "XSAVEOPT", CPU_XSAVEOPT },
	{ "XSAVEC", CPU_XSAVEC },
	{ "CLFLUSHOPT", CPU_CLFLUSHOPT },
	{ "INVPCID", CPU_INVPCID },
	{ "RDTSCP", CPU_RDTSCP },
	{ "CMPXCHG16B", CPU_FPU },
};

static enum cpu_feature by_set(const ZydisDecodedInstruction *insn)
{
	const char *set = ZydisISASetGetString(insn->meta.isa_set);

	if (insn->mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ)
		return CPU_PCLMULQDQ;
	/* not to be hidden: another instruction without */
	if (insn->mnemonic == ZYDIS_MNEMONIC_TZCNT)
		return CPU_FPU;
	for (unsigned n = 0; n < sizeof(sets) / sizeof(sets[0]); n++)
		if (!strcmp(sets[n].set, set))
			return sets[n].feature;
	return CPU_FPU;
}

static unsigned instructions;

static void compare(const ZydisDecoder *decoder, const uint8_t *bytes)
{
	ZydisDecodedInstruction theirs;
	struct x86_insn ours;
	enum cpu_feature want, got;

	if (x86_decode(bytes, X86_INSN_MAX_BYTES, 64, &ours) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder, NULL, bytes, X86_INSN_MAX_BYTES,
							&theirs)))
		return;
	instructions++;
	want = by_set(&theirs);
	got = cpu_feature_of(&ours);
	checks++;
	if (want == got || failures++ >= 40)
		return;
	printf("%s of %s needs %s, not %s:", ZydisMnemonicGetString(theirs.mnemonic),
	       ZydisISASetGetString(theirs.meta.isa_set), cpu_feature_info[want].name,
	       cpu_feature_info[got].name);
	for (int i = 0; i < 8; i++)
		printf(" %02x", bytes[i]);
	printf("\n");
}

static void every_instruction(void)
{
	static const uint8_t prefixes[4] = { 0x3e, 0x66, 0xf3, 0xf2 };
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (unsigned n = 0; n < 4u * 4 * 256 * 256; n++) {
		unsigned map = n >> 16 & 3;
		uint8_t opcode = (uint8_t)(n >> 8), modrm = (uint8_t)n;
		uint8_t plain[16] = { prefixes[n >> 18] }, vex[16] = {
			0xc4, (uint8_t)(0xe0 | map), (uint8_t)(n >> 18 | 15 << 3), opcode, modrm,
			0x25
		};
		unsigned at = 1;

		if (map)
			plain[at++] = 0x0f;
		if (map > 1)
			plain[at++] = map == 2 ? 0x38 : 0x3a;
		plain[at++] = opcode;
		plain[at++] = modrm;
		plain[at] = 0x25;
		compare(&decoder, plain);
		for (unsigned k = 0; map && k < 8; k++) {
			vex[2] = (uint8_t)(n >> 18 | (k & 1) << 2 | (k & 2) << 6 |
					   (k & 4 ? 15 : 14) << 3);
			compare(&decoder, vex);
		}
	}
}

int main(void)
{
	struct cpu_host host = everything(CPU_AMD);
	struct cpu_model model;
	char reason[128];

	srand(1);
	every_model();
	what_is_refused();
	what_was_released();
	cpu_model_resolve(&model, NULL, CPU_MITIGATIONS_TRUE, 2, &host, reason, sizeof(reason));
	check_lies(&model);
	every_instruction();
	printf("%u checks, %u instructions, %u failures\n", checks, instructions, failures);
	return failures != 0;
}
