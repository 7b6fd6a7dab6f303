/*
 * What the processor says of itself against what it does: each feature's instruction executes where
 * its CPUID bit is shown and is #UD where it is hidden, each register is there with its feature and
 * #GP without, and so is each bit of CR4. The same on every model.
 */
#include "hv.h"

enum { EAX, EBX, ECX, EDX };
enum { UD = 6, GP = 13 };

static void leaf(uint32_t number, uint32_t subleaf, uint32_t registers[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]),
			   "=d"(registers[3])
			 : "a"(number), "c"(subleaf));
}

static bool shown(uint32_t number, uint32_t subleaf, unsigned reg, unsigned bit)
{
	uint32_t registers[4];

	leaf(number & 0x80000000, 0, registers);
	if (number > registers[0])
		return false;
	leaf(number, subleaf, registers);
	return registers[reg] >> bit & 1;
}

static bool is_amd(void)
{
	uint32_t registers[4];

	leaf(0, 0, registers);
	return registers[EBX] == 0x68747541;
}

/* ---- instructions ---- */

static uint8_t area[PAGE_BYTES] __attribute__((aligned(64)));

#define INSTRUCTION(name, text)                                    \
	static void name(void *at)                                 \
	{                                                          \
		__asm__ volatile(text                              \
				 :                                 \
				 : "S"(at), "a"(0), "c"(0), "d"(0) \
				 : "rbx", "cc", "memory");         \
	}
INSTRUCTION(sse3, "haddps %%xmm0, %%xmm0")
INSTRUCTION(fisttp, "fldz; fisttps (%%rsi)")
INSTRUCTION(pclmulqdq, "pclmulqdq $0, %%xmm0, %%xmm0")
INSTRUCTION(ssse3, "pshufb %%xmm0, %%xmm0")
INSTRUCTION(palignr, "palignr $1, %%xmm0, %%xmm0")
INSTRUCTION(fma, "vfmadd132ps %%xmm0, %%xmm0, %%xmm0")
INSTRUCTION(cx16, "xor %%ebx, %%ebx; cmpxchg16b (%%rsi)")
INSTRUCTION(invpcid, "mov $2, %%ecx; invpcid (%%rsi), %%rcx")
INSTRUCTION(sse4_1, "pminsd %%xmm0, %%xmm0")
INSTRUCTION(sse4_2, "pcmpgtq %%xmm0, %%xmm0")
INSTRUCTION(crc32, "crc32l %%eax, %%ecx")
INSTRUCTION(movbe, "movbe (%%rsi), %%eax")
INSTRUCTION(popcnt, "popcnt %%eax, %%ecx")
INSTRUCTION(aes, "aesenc %%xmm0, %%xmm0")
INSTRUCTION(vaes, "vaesenc %%xmm0, %%xmm0, %%xmm0")
INSTRUCTION(avx, "vaddps %%ymm0, %%ymm0, %%ymm0")
INSTRUCTION(f16c, "vcvtph2ps %%xmm0, %%xmm0")
INSTRUCTION(rdrand, "rdrand %%eax")
INSTRUCTION(rdseed, "rdseed %%eax")
INSTRUCTION(bmi1, "andn %%eax, %%eax, %%ecx")
INSTRUCTION(bmi2, "pdep %%eax, %%eax, %%ecx")
INSTRUCTION(avx2, "vpaddd %%ymm0, %%ymm0, %%ymm0")
INSTRUCTION(gather, "vpxor %%xmm1, %%xmm1, %%xmm1; vpgatherdd %%xmm1, (%%rsi,%%xmm2), %%xmm0")
INSTRUCTION(adx, "adcx %%eax, %%ecx")
INSTRUCTION(clac, "clac")
INSTRUCTION(clflushopt, "clflushopt (%%rsi)")
INSTRUCTION(sha, "sha256msg1 %%xmm0, %%xmm0")
INSTRUCTION(xsave, "xsave (%%rsi)")
INSTRUCTION(xsaveopt, "xsaveopt (%%rsi)")
INSTRUCTION(xsavec, "xsavec (%%rsi)")
INSTRUCTION(xgetbv, "xgetbv")
INSTRUCTION(rdtscp, "rdtscp")
INSTRUCTION(rdfsbase, "rdfsbase %%rax")
INSTRUCTION(sysenter, "sysenter")
INSTRUCTION(sysexit, "sysexit")
/* What no model has. */
INSTRUCTION(rdpid, "rdpid %%rax")
INSTRUCTION(clwb, "clwb (%%rsi)")
INSTRUCTION(gfni, "gf2p8mulb %%xmm0, %%xmm0")
INSTRUCTION(vaes_wide, "vaesenc %%ymm0, %%ymm0, %%ymm0")
INSTRUCTION(rdpkru, "rdpkru")
INSTRUCTION(monitor, "mov %%rsi, %%rax; monitor")
INSTRUCTION(clzero, "clzero")
INSTRUCTION(xsaves, "xsaves (%%rsi)")
INSTRUCTION(xbegin, ".byte 0xc7, 0xf8, 0, 0, 0, 0; xor %%eax, %%eax")
INSTRUCTION(avx512, ".byte 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0")
INSTRUCTION(sse4a, "extrq %%xmm0, %%xmm0")

struct instruction {
	const char *name;
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
	void (*run)(void *);
};

static const struct instruction instructions[] = {
	{ .name = "pni", .leaf = 1, .reg = ECX, .bit = 0, .run = sse3 },
	{ .name = "FISTTP", .leaf = 1, .reg = ECX, .bit = 0, .run = fisttp },
	{ .name = "pclmulqdq", .leaf = 1, .reg = ECX, .bit = 1, .run = pclmulqdq },
	{ .name = "ssse3", .leaf = 1, .reg = ECX, .bit = 9, .run = ssse3 },
	{ .name = "PALIGNR", .leaf = 1, .reg = ECX, .bit = 9, .run = palignr },
	{ .name = "fma", .leaf = 1, .reg = ECX, .bit = 12, .run = fma },
	{ .name = "cx16", .leaf = 1, .reg = ECX, .bit = 13, .run = cx16 },
	{ .name = "sse4_1", .leaf = 1, .reg = ECX, .bit = 19, .run = sse4_1 },
	{ .name = "sse4_2", .leaf = 1, .reg = ECX, .bit = 20, .run = sse4_2 },
	{ .name = "CRC32", .leaf = 1, .reg = ECX, .bit = 20, .run = crc32 },
	{ .name = "movbe", .leaf = 1, .reg = ECX, .bit = 22, .run = movbe },
	{ .name = "popcnt", .leaf = 1, .reg = ECX, .bit = 23, .run = popcnt },
	{ .name = "aes", .leaf = 1, .reg = ECX, .bit = 25, .run = aes },
	{ .name = "VAESENC", .leaf = 1, .reg = ECX, .bit = 25, .run = vaes },
	{ .name = "xsave", .leaf = 1, .reg = ECX, .bit = 26, .run = xsave },
	{ .name = "XGETBV", .leaf = 1, .reg = ECX, .bit = 26, .run = xgetbv },
	{ .name = "avx", .leaf = 1, .reg = ECX, .bit = 28, .run = avx },
	{ .name = "f16c", .leaf = 1, .reg = ECX, .bit = 29, .run = f16c },
	{ .name = "rdrand", .leaf = 1, .reg = ECX, .bit = 30, .run = rdrand },
	{ .name = "fsgsbase", .leaf = 7, .reg = EBX, .bit = 0, .run = rdfsbase },
	{ .name = "bmi1", .leaf = 7, .reg = EBX, .bit = 3, .run = bmi1 },
	{ .name = "avx2", .leaf = 7, .reg = EBX, .bit = 5, .run = avx2 },
	{ .name = "gathers", .leaf = 7, .reg = EBX, .bit = 5, .run = gather },
	{ .name = "bmi2", .leaf = 7, .reg = EBX, .bit = 8, .run = bmi2 },
	{ .name = "invpcid", .leaf = 7, .reg = EBX, .bit = 10, .run = invpcid },
	{ .name = "rdseed", .leaf = 7, .reg = EBX, .bit = 18, .run = rdseed },
	{ .name = "adx", .leaf = 7, .reg = EBX, .bit = 19, .run = adx },
	{ .name = "smap", .leaf = 7, .reg = EBX, .bit = 20, .run = clac },
	{ .name = "clflushopt", .leaf = 7, .reg = EBX, .bit = 23, .run = clflushopt },
	{ .name = "sha_ni", .leaf = 7, .reg = EBX, .bit = 29, .run = sha },
	{ .name = "xsaveopt", .leaf = 0xd, .subleaf = 1, .reg = EAX, .bit = 0, .run = xsaveopt },
	{ .name = "xsavec", .leaf = 0xd, .subleaf = 1, .reg = EAX, .bit = 1, .run = xsavec },
	{ .name = "rdtscp", .leaf = 0x80000001, .reg = EDX, .bit = 27, .run = rdtscp },
	{ .name = "rdpid", .leaf = 7, .reg = ECX, .bit = 22, .run = rdpid },
	{ .name = "clwb", .leaf = 7, .reg = EBX, .bit = 24, .run = clwb },
	{ .name = "gfni", .leaf = 7, .reg = ECX, .bit = 8, .run = gfni },
	{ .name = "vaes", .leaf = 7, .reg = ECX, .bit = 9, .run = vaes_wide },
	{ .name = "ospke", .leaf = 7, .reg = ECX, .bit = 4, .run = rdpkru },
	{ .name = "monitor", .leaf = 1, .reg = ECX, .bit = 3, .run = monitor },
	{ .name = "clzero", .leaf = 0x80000008, .reg = EBX, .bit = 0, .run = clzero },
	{ .name = "xsaves", .leaf = 0xd, .subleaf = 1, .reg = EAX, .bit = 3, .run = xsaves },
	{ .name = "rtm", .leaf = 7, .reg = EBX, .bit = 11, .run = xbegin },
	{ .name = "avx512f", .leaf = 7, .reg = EBX, .bit = 16, .run = avx512 },
	{ .name = "sse4a", .leaf = 0x80000001, .reg = ECX, .bit = 6, .run = sse4a },
};

static void check_instructions(void)
{
	for (unsigned n = 0; n < sizeof(instructions) / sizeof(instructions[0]); n++) {
		const struct instruction *instruction = &instructions[n];

		check_equal(instruction->name, (uint64_t)try_code(instruction->run, area),
			    shown(instruction->leaf, instruction->subleaf, instruction->reg,
				  instruction->bit)
				    ? ~0ull
				    : UD);
	}
}

/* In long mode Intel has them, and they want a code segment; AMD does not. */
static void check_vendor(void)
{
	uint64_t want = is_amd() ? UD : GP;

	wrmsr(0x174, 0);
	check_equal("SYSENTER", (uint64_t)try_code(sysenter, area), want);
	check_equal("SYSEXIT", (uint64_t)try_code(sysexit, area), want);
}

static void xgetbv_in_use(void *unused)
{
	(void)unused;
	__asm__ volatile("xgetbv" : : "c"(1) : "rax", "rdx");
}

/* ---- registers ---- */

struct model_register { const char *name; uint32_t msr; bool exists; };

static void check_registers(void)
{
	bool amd = is_amd();
	bool spec_ctrl = shown(7, 0, EDX, 26);
	const struct model_register registers[] = {
		{ "PLATFORM_ID", 0x17, !amd },
		{ "SPEC_CTRL", 0x48, spec_ctrl },
		{ "microcode's revision", 0x8b, true },
		{ "PLATFORM_INFO", 0xce, !amd },
		{ "CORE_CAPABILITIES", 0xcf, shown(7, 0, EDX, 30) },
		{ "ARCH_CAPABILITIES", 0x10a, shown(7, 0, EDX, 29) },
		{ "FLUSH_CMD", 0x10b, false },
		{ "TSX_CTRL", 0x122, false },
		{ "MCG_CAP", 0x179, shown(1, 0, EDX, 14) },
		{ "MISC_ENABLE", 0x1a0, !amd },
		{ "MTRR_CAP", 0xfe, shown(1, 0, EDX, 12) },
		{ "PAT", 0x277, shown(1, 0, EDX, 16) },
		{ "TSC_ADJUST", 0x3b, shown(7, 0, EBX, 1) },
		{ "TSC_DEADLINE", 0x6e0, shown(1, 0, ECX, 24) },
		{ "XSS", 0xda0, shown(0xd, 1, EAX, 3) },
		{ "APERF", 0xe8, shown(6, 0, ECX, 0) },
		{ "thermal status", 0x19c, shown(1, 0, EDX, 22) },
		{ "PERF_CAPABILITIES", 0x345, shown(1, 0, ECX, 15) },
		{ "SYSCFG", 0xc0010010, amd },
		{ "HWCR", 0xc0010015, amd },
		{ "DE_CFG", 0xc0011029, amd },
		{ "TSC_AUX", 0xc0000103, true },
		{ "VM_CR", 0xc0010114, false },
		{ "unknown", 0x12345, false },
		{ "unknown, AMD's", 0xc001ffff, false },
	};

	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		check_equal(registers[n].name, (uint64_t)try_rdmsr(registers[n].msr),
			    registers[n].exists ? ~0ull : GP);
	check_equal("PRED_CMD", (uint64_t)try_wrmsr(0x49, 1), spec_ctrl ? ~0ull : GP);
	if (!amd) {
		check_equal("fast strings are on, as ERMS and FSRM say", rdmsr(0x1a0) & 1, 1);
		wrmsr(0x1a0, rdmsr(0x1a0) & ~1ull);
		check_equal("MISC_ENABLE is kept", rdmsr(0x1a0) & 1, 0);
		wrmsr(0x1a0, rdmsr(0x1a0) | 1);
	} else {
		check_equal("LFENCE waits", rdmsr(0xc0011029) >> 1 & 1, 1);
		check_equal("the TSC counts at one rate", rdmsr(0xc0010015) >> 24 & 1, 1);
	}
	check_equal("automatic IBRS", (uint64_t)try_wrmsr(0xc0000080, rdmsr(0xc0000080) | 1 << 21),
		    shown(0x80000021, 0, EAX, 8) ? ~0ull : GP);
}

/* TSC_ADJUST and the counter move together. */
static void check_tsc_adjust(void)
{
	const uint64_t far = 1ull << 50;
	uint64_t before = rdtsc();

	if (!shown(7, 0, EBX, 1))
		return;
	check_equal("TSC_ADJUST begins with", rdmsr(0x3b), 0);
	wrmsr(0x3b, far);
	check("TSC_ADJUST moves the counter", rdtsc() - before >= far);
	wrmsr(0x10, rdtsc() + far);
	check("and a write of the counter TSC_ADJUST", 2 * far - rdmsr(0x3b) < far / 2);
	wrmsr(0x3b, 0);
	check("and back", rdtsc() - before < far);
}

/* ---- control bits ---- */

static void set_cr4_bit(void *bit)
{
	uint64_t before = read_cr4();

	write_cr4(before | 1ull << (uint64_t)bit);
	write_cr4(before);
}

/* SMEP and SMAP only where they are hidden: this guest's pages are everybody's. */
static void check_control_bits(void)
{
	const struct { const char *name; unsigned bit; bool exists;
	} bits[] = {
		{ "CR4.VME", 0, shown(1, 0, EDX, 1) },
		{ "CR4.MCE", 6, shown(1, 0, EDX, 7) },
		{ "CR4.UMIP", 11, shown(7, 0, ECX, 2) },
		{ "CR4.LA57", 12, shown(7, 0, ECX, 16) },
		{ "CR4.VMXE", 13, shown(1, 0, ECX, 5) },
		{ "CR4.SMXE", 14, shown(1, 0, ECX, 6) },
		{ "CR4.FSGSBASE", 16, shown(7, 0, EBX, 0) },
		{ "CR4.PCIDE", 17, shown(1, 0, ECX, 17) },
		{ "CR4.OSXSAVE", 18, shown(1, 0, ECX, 26) },
		{ "CR4.SMEP", 20, shown(7, 0, EBX, 7) },
		{ "CR4.SMAP", 21, shown(7, 0, EBX, 20) },
		{ "CR4.PKE", 22, shown(7, 0, ECX, 3) },
		{ "CR4.CET", 23, shown(7, 0, ECX, 7) },
		{ "CR4.PKS", 24, shown(7, 0, ECX, 31) },
	};

	for (unsigned n = 0; n < sizeof(bits) / sizeof(bits[0]); n++)
		if (!bits[n].exists || (bits[n].bit != 20 && bits[n].bit != 21))
			check_equal(bits[n].name,
				    (uint64_t)try_code(set_cr4_bit, (void *)(uint64_t)bits[n].bit),
				    bits[n].exists ? ~0ull : GP);
}

/* ---- leaves ---- */

static void check_leaves(void)
{
	uint32_t registers[4], first[4];
	bool avx = shown(1, 0, ECX, 28);
	unsigned wrong = 0;

	leaf(7, 0, registers);
	check("FSRM only with ERMS", !(registers[EDX] >> 4 & 1) || registers[EBX] >> 9 & 1);
	leaf(0xd, 0, registers);
	if (shown(1, 0, ECX, 26)) {
		check_equal("XCR0's bits", registers[EAX], avx ? 7 : 3);
		check_equal("the area of all of them", registers[ECX], avx ? 832 : 576);
	}
	leaf(0xb, 1, registers);
	leaf(1, 0, first);
	check_equal("processors by leaf 1 and by leaf 0xb", first[EBX] >> 16 & 0xff,
		    registers[EBX]);
	check_equal("HT where there are several", first[EDX] >> 28 & 1, registers[EBX] > 1);
	check_equal("the APIC ids", first[EBX] >> 24, registers[EDX]);
	leaf(0x80000008, 0, registers);
	check_equal("address bits", registers[EAX] & 0xffff, 48 << 8 | 40);
	if (is_amd())
		check_equal("processors by leaf 0x80000008", (registers[ECX] & 0xff) + 1,
			    first[EBX] >> 16 & 0xff);
	check_equal("OSXSAVE follows CR4", first[ECX] >> 27 & 1, read_cr4() >> 18 & 1);
	/* twice the same, for every leaf that there may be */
	for (uint32_t n = 0; n < 0x60; n++) {
		leaf((n < 0x30 ? 0 : 0x80000000 - 0x30) + n, 0, first);
		leaf((n < 0x30 ? 0 : 0x80000000 - 0x30) + n, 0, registers);
		for (unsigned k = 0; k < 4; k++)
			wrong += registers[k] != first[k];
	}
	check_equal("a leaf says the same twice", wrong, 0);
}

static void cost_of_cpuid(void)
{
	uint64_t least = ~0ull;

	for (int n = 0; n < 2000; n++) {
		uint32_t registers[4];
		uint64_t begin = rdtsc();

		leaf(1, 0, registers);
		begin = rdtsc() - begin;
		least = begin < least ? begin : least;
	}
	print("# cycles of CPUID: ");
	print_number(least);
	print("\n");
}

void test_main(void)
{
	bool avx = shown(1, 0, ECX, 28);

	if (shown(1, 0, ECX, 26)) {
		write_cr4(read_cr4() | 1 << 18);
		__asm__ volatile("xsetbv" : : "c"(0), "a"(avx ? 7 : 3), "d"(0));
	}
	if (shown(7, 0, EBX, 0))
		write_cr4(read_cr4() | 1 << 16);
	check_instructions();
	if (shown(1, 0, ECX, 26))
		check_equal("XGETBV of what is in use", (uint64_t)try_code(xgetbv_in_use, NULL),
			    shown(0xd, 1, EAX, 2) ? ~0ull : GP);
	check_vendor();
	check_registers();
	check_tsc_adjust();
	check_control_bits();
	check_leaves();
	cost_of_cpuid();
}
