/*
 * Compatibility and 16-bit code, SYSCALL and SYSRET, far transfers, segment bases, XSAVE, FSGSBASE.
 */
#include "guest.h"

#define AT 0x40000000ull /* below 4 GiB: for 32-bit code */

static uint8_t *code;

static void put(unsigned at, const void *bytes, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		((volatile uint8_t *)AT)[at + n] = ((const uint8_t *)bytes)[n];
}

/* 32-bit code, assembled here and copied. */
__asm__(".code32\n"
	"compat: movl $0x11223344, %eax; pushl %eax; popl %ebx; incl %ebx; movl $3, %ecx; xorl "
	"%edx, %edx\n"
	"1: addl %ecx, %edx; loop 1b; call 2f; int $0x80\n"
	"2: pushal; movl $7, %esi; popal; leal 4(%edx,%ecx,2), %esi; movl %esp, %ebp; xchgw %ax, "
	"%di; bound_end: ret\n"
	"compat_end:\n"
	"compat_fault: movl $0x2b, %eax; movl %eax, %ds; movl 0x7f000000, %eax; int $0x80\n"
	"compat_fault_end:\n"
	"compat_aaa: movl $0x0f, %eax; aaa; movl %eax, %ebx; movl $0x1234, %eax; daa; int $0x80\n"
	"compat_aaa_end:\n"
	".code16\n"
	"sixteen: movw $0x1234, %ax; pushw %ax; popw %bx; addw $1, %bx; movl $0x89abcdef, %ecx; "
	"movw $5, %si; leaw 3(%bx,%si), %di; int $0x80\n"
	"sixteen_end:\n"
	".code64\n");
extern const uint8_t compat[], compat_end[], compat_fault[], compat_fault_end[], compat_aaa[],
	compat_aaa_end[], sixteen[], sixteen_end[];

static void thirty_two(void)
{
	put(0, compat, (unsigned)(compat_end - compat));
	check_equal("32-bit user code", (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23),
		    0x80);
	check_equal("its eax and edi exchanged by 16 bits", last.rax & 0xffff, 0);
	check_equal("its ebx", last.rbx, 0x11223345);
	check_equal("its loop", last.rdx, 6);
	check_equal("its lea", last.rsi, 10);
	check_equal("its stack", last.rsp, AT + 8192);
	put(0, compat_fault, (unsigned)(compat_fault_end - compat_fault));
	check_equal("a page fault of 32-bit code",
		    (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23), 14);
	check_equal("its CR2", last_cr2, 0x7f000000);
	check_equal("its CS", last.cs, 0x23);
}

static void sixteen_bits(void)
{
	put(0, sixteen, (unsigned)(sixteen_end - sixteen));
	/* a 16-bit code segment below 64 KiB, reached by IRETQ at CPL 0 */
	for (unsigned n = 0; n < (unsigned)(sixteen_end - sixteen); n++)
		((volatile uint8_t *)0x9000)[n] = sixteen[n];
	check_equal("16-bit code", (uint64_t)try_user((void (*)(void))0x9000, 0x9f00, 0x38), 0x80);
	check_equal("its bx", last.rbx & 0xffff, 0x1235);
	check_equal("its ecx", last.rcx, 0x89abcdef);
	check_equal("its di", last.rdi & 0xffff, 0x123d);
}

enum { SIXTEEN_AT = 0x9000 };

static int64_t run_sixteen(const uint8_t *bytes, unsigned count)
{
	volatile uint8_t *at = (volatile uint8_t *)SIXTEEN_AT;

	for (unsigned n = 0; n < count; n++)
		*at++ = bytes[n];
	*at++ = 0xcd;
	*at = 0x80;
	return try_user((void (*)(void))SIXTEEN_AT, 0x9f00, 0x38);
}

/*
 * An instruction of 16-bit code with F2 or F3 in front, which mean nothing to it: its immediate is
 * as wide as the guest's operand, and nothing of it may be executed. Each immediate ends in FF FF,
 * which is no instruction, and in 0F 0B.
 */
static void sixteen_bits_with_repeat_prefix(void)
{
	static const uint8_t tails[2][2] = { { 0xff, 0xff }, { 0x0f, 0x0b } };
	/* opcode, modrm where there is one (register 5) */
	static const uint8_t forms[][3] = {
		{ 1, 0x05 },       { 1, 0x0d },       { 1, 0x15 },       { 1, 0x1d },
		{ 1, 0x25 },       { 1, 0x2d },       { 1, 0x35 },       { 1, 0x3d },
		{ 2, 0x81, 0xc5 }, { 2, 0x81, 0xcd }, { 2, 0x81, 0xe5 }, { 2, 0x81, 0xed },
		{ 2, 0x81, 0xf5 }, { 2, 0x81, 0xfd }, { 2, 0x69, 0xed }, { 1, 0xa9 },
		{ 2, 0xf7, 0xc5 }, { 1, 0xbd },       { 2, 0xc7, 0xc5 },
	};
	unsigned bad = 0;

	for (unsigned n = 0; n < sizeof(forms) / sizeof(forms[0]); n++)
		for (unsigned wide = 0; wide < 2; wide++)
			for (unsigned prefix = 0xf2; prefix <= 0xf3; prefix++)
				for (unsigned tail = 0; tail < 2; tail++) {
					uint8_t code[12];
					unsigned at = 0;

					if (wide)
						code[at++] = 0x66;
					code[at++] = (uint8_t)prefix;
					for (unsigned k = 0; k < forms[n][0]; k++)
						code[at++] = forms[n][1 + k];
					if (wide) {
						code[at++] = 0;
						code[at++] = 0;
					}
					code[at++] = tails[tail][0];
					code[at++] = tails[tail][1];
					bad += run_sixteen(code, at) != 0x80 ||
					       last.rip != SIXTEEN_AT + at + 2;
				}
	check_equal("immediates behind F2 and F3 are not executed", bad, 0);
	check_equal("MOV behind F3",
		    (uint64_t)run_sixteen((const uint8_t[]){ 0x66, 0xf3, 0xbd, 1, 2, 3, 4 }, 7),
		    0x80);
	check_equal("its ebp", last.rbp, 0x04030201);
	check_equal(
		"MOV behind F3, 16 bits",
		(uint64_t)run_sixteen((const uint8_t[]){ 0x66, 0x31, 0xed, 0xf3, 0xbd, 1, 2 }, 7),
		0x80);
	check_equal("its bp", last.rbp, 0x0201);
}

/*
 * BT and its kin behind F2 and F3 reach as far as the guest's operand: the last two bytes of a
 * page, not four.
 */
static void sixteen_bits_bit_string(void)
{
	static const uint8_t opcodes[4] = { 0xa3, 0xab, 0xb3, 0xbb };
	unsigned done = 0, faults = 0;

	/* the way back from user code has made it null */
	__asm__ volatile("mov %0, %%ds" : : "r"(0x10));
	for (unsigned n = 0; n < 4; n++)
		for (unsigned prefix = 0xf2; prefix <= 0xf3; prefix++) {
			/* mov esi, AT + 8190; xor eax, eax; bt [esi], ax or eax */
			const uint8_t narrow[] = { 0x66,
						   0xbe,
						   0xfe,
						   0x1f,
						   0,
						   0x40,
						   0x66,
						   0x31,
						   0xc0,
						   0x67,
						   (uint8_t)prefix,
						   0x0f,
						   opcodes[n],
						   6 };
			const uint8_t wide[] = { 0x66, 0xbe,       0xfe, 0x1f,
						 0,    0x40,       0x66, 0x31,
						 0xc0, 0x67,       0x66, (uint8_t)prefix,
						 0x0f, opcodes[n], 6 };

			done += run_sixteen(narrow, sizeof(narrow)) == 0x80;
			faults += run_sixteen(wide, sizeof(wide)) == 14 && last_cr2 == AT + 8192;
		}
	check_equal("bit strings of 16 bits behind F2 and F3 at a page's end", done, 8);
	check_equal("those of 32 bits fault", faults, 8);
}

/*
 * Effective addresses of 32-bit code: the offset is cut to 32 bits, and so is its sum with the
 * segment's base. GS begins at AT + 0x800, DS at AT; offsets are negative.
 */
__asm__(".code32\n"
	"compat_moffs: movl $0x13b, %eax; movl %eax, %ds; movl $0x143, %eax; movl %eax, %gs; "
	"movl $0xffffffff, %ebx\n"
	".byte 0x65, 0xa1; .long -0x10; movl %eax, %edx\n" /* mov %gs:-16, %eax */
	".byte 0x65, 0xa0; .long -0x0f; movl %eax, %esi\n" /* mov %gs:-15, %al */
	"addl $1, %eax; .byte 0x65, 0xa3; .long -0x20\n" /* mov %eax, %gs:-32 */
	".byte 0x65, 0xa2; .long -0x1c\n" /* mov %al, %gs:-28 */
	"movl %gs:-0x20, %edi; movb %gs:-0x1c, %cl; int $0x80\n"
	"compat_moffs_end:\n"
	"compat_xlat: movl $0x13b, %eax; movl %eax, %ds; movl $0x143, %eax; movl %eax, %gs\n"
	"movl $0x7e0, %ebx; movl $0x10, %eax; xlatb; movzbl %al, %edx\n" /* DS:(7e0 + 10) */
	/* GS:(-20 + 11) */
	"movl $-0x20, %ebx; movl $0x11, %eax; .byte 0x65; xlatb; movzbl %al, %esi\n"
	"movl $-0x20, %ebx; movl $0x11, %eax; .byte 0x65, 0xd7; movzbl %al, %edi\n"
	"movl $0x7fffffff, %ebx; btl %ebx, %gs:0x100; setc %cl; int $0x80\n"
	"compat_xlat_end:\n"
	"compat_strings: movl $0x143, %eax; movl %eax, %gs; movl %eax, %es; movl $-0x10, %esi; "
	"movl $-0x40, %edi\n"
	".byte 0x65; movsl; movl %es:-0x40, %edx; movl %gs:-0x10, %ecx; movl $-0x40, %edi; movl "
	"$0x5555, %eax; stosl\n"
	"movl %es:-0x40, %ebx\n"
	"movl $-0x40000700, %eax; movl $0x80000001, %ecx; btsl %ecx, %gs:(%eax); int $0x80\n"
	"compat_strings_end:\n"
	".code64\n");
extern const uint8_t compat_moffs[], compat_moffs_end[], compat_xlat[], compat_xlat_end[],
	compat_strings[], compat_strings_end[];
extern uint64_t gdt[];

static void effective_addresses(void)
{
	uint64_t user_data = 0x00cff3000000ffff;
	volatile uint32_t *word = (volatile uint32_t *)(AT + 0x7f0);

	gdt[0x138 / 8] = user_data | (AT & 0xffffff) << 16 | (AT >> 24 & 0xff) << 56;
	gdt[0x140 / 8] =
		user_data | ((AT + 0x800) & 0xffffff) << 16 | ((AT + 0x800) >> 24 & 0xff) << 56;
	word[0] = 0x44332211;
	put(0, compat_moffs, (unsigned)(compat_moffs_end - compat_moffs));
	check_equal("moffs of 32-bit code at a negative offset",
		    (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23), 0x80);
	check_equal("MOV EAX, moffs", last.rdx, 0x44332211);
	check_equal("MOV AL, moffs", last.rsi, 0x44332222);
	check_equal("MOV moffs, EAX", last.rdi & 0xffffffff, 0x44332223);
	check_equal("MOV moffs, AL", last.rcx & 0xff, 0x23);
	put(0, compat_xlat, (unsigned)(compat_xlat_end - compat_xlat));
	check_equal("XLAT of 32-bit code", (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23),
		    14);
	check_equal("XLAT in DS", last.rdx, 0x11);
	check_equal("XLAT in GS", last.rsi, 0x22);
	check_equal("a bit string beyond 256 MiB: its CR2", last_cr2,
		    (AT + 0x800 + 0x100 + 0x0ffffffc));
	put(0, compat_strings, (unsigned)(compat_strings_end - compat_strings));
	check_equal("strings of 32-bit code at negative offsets",
		    (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23), 14);
	check_equal("MOVS", last.rdx, 0x44332211);
	check_equal("STOS", last.rbx, 0x5555);
	check_equal("a bit string that wraps: its CR2", last_cr2, 0xf0000100);
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs" : : "r"(0x10));
}

__asm__("user_syscall: mov $5, %eax; syscall; mov %eax, %ebx; int $0x80\nuser_syscall_end:\n"
	"syscall_entry: add $2, %eax; mov %rcx, saved_rcx; mov %r11, saved_r11; sysretq\n"
	".data\nsaved_rcx: .quad 0\nsaved_r11: .quad 0\n.text");
extern uint8_t user_syscall[], user_syscall_end[], syscall_entry[];
extern uint64_t saved_rcx, saved_r11;

static void system_calls(void)
{
	put(0, user_syscall, (unsigned)(user_syscall_end - user_syscall));
	/* user: 0x33 code, 0x2b data; kernel: 8 and 0x10 */
	wrmsr(0xc0000081, 0x0023ull << 48 | 0x0008ull << 32);
	wrmsr(0xc0000082, (uint64_t)syscall_entry);
	wrmsr(0xc0000084, 0x200);
	check_equal("SYSCALL and SYSRET", (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x33),
		    0x80);
	check_equal("what the kernel added", last.rbx, 7);
	check_equal("RCX is the return address", saved_rcx, AT + 7);
	check_equal("R11 is the flags", saved_r11 & 0x202, 2);
	check_equal("user CS", last.cs, 0x33);
	check_equal("user SS", last.ss, 0x2b);
}

static void read_gs(void *a) { __asm__ volatile("mov %%gs:0, %%rax" : : : "rax"); (void)a; }

static void bases(void)
{
	static uint64_t one = 0x111, two = 0x222;
	uint64_t value, other;

	wrmsr(0xc0000101, (uint64_t)&one);
	wrmsr(0xc0000102, (uint64_t)&two);
	__asm__ volatile("mov %%gs:0, %0; swapgs; mov %%gs:0, %1; swapgs"
			 : "=r"(value), "=r"(other));
	check_equal("GS base", value, 0x111);
	check_equal("SWAPGS", other, 0x222);
	write_cr4(read_cr4() | 0x10000);
	__asm__ volatile("wrgsbase %1; mov %%gs:0, %0" : "=r"(value) : "r"(&two));
	check_equal("WRGSBASE", value, 0x222);
	__asm__ volatile("rdgsbase %0" : "=r"(value));
	check_equal("RDGSBASE", value, (uint64_t)&two);
	__asm__ volatile("wrgsbase %0" : : "r"(0x7000000000));
	check_equal("a fault through GS", (uint64_t)try_code(read_gs, NULL), 14);
	check_equal("its CR2 has the base", last_cr2, 0x7000000000);
}

static uint8_t area[1024] __attribute__((aligned(64)));
static uint8_t again[1024] __attribute__((aligned(64)));

static void bad_header(void *a)
{
	(void)a;
	area[528] = 1;
	__asm__ volatile("xrstor %0" : : "m"(area), "a"(7), "d"(0) : "memory");
}
static void no_device(void *a) { (void)a; __asm__ volatile("pxor %xmm0, %xmm0"); }

static void avx(void *a) { (void)a; __asm__ volatile("vpxor %xmm0, %xmm0, %xmm0"); }
static void save(void *a) { (void)a; __asm__ volatile("fxsave %0" : "=m"(area)); }

/*
 * Whether bytes [from, to) of what an instruction stored of the x87 unit's pointers are zero: they
 * would be the host's.
 */
static bool no_pointers(const uint8_t *image, unsigned from, unsigned to)
{
	for (unsigned n = from; n < to; n++)
		if (image[n])
			return false;
	return true;
}

static void touch_x87(void)
{
	static double number = 1;

	__asm__ volatile("fninit; fldl %0; fldl %0" : : "m"(number));
	for (unsigned n = 0; n < sizeof(area); n++)
		((volatile uint8_t *)area)[n] = n < 512 || n >= 576 ? 0xff : 0;
}

enum { XSAVEOPT = 1, XSAVEC = 2 }; /* CPUID.(0DH,1):EAX */

static uint32_t xsave_forms(void)
{
	uint32_t eax = 0xd, ebx, ecx = 1, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return eax;
}

/* Every instruction that stores where the x87 unit was: no host address. */
static void x87_pointers(void)
{
	touch_x87();
	__asm__ volatile("fxsave %0" : "+m"(area));
	check("FXSAVE has no pointers", no_pointers(area, 8, 24));
	touch_x87();
	__asm__ volatile("fxsave64 %0" : "+m"(area));
	check("FXSAVE64 has no pointers", no_pointers(area, 8, 24));
	check_equal("FXSAVE64: FTW", area[4], 0xc0);
	touch_x87();
	__asm__ volatile("xsave64 %0" : "+m"(area) : "a"(7), "d"(0));
	check("XSAVE64 has no pointers", no_pointers(area, 8, 24));
	if (xsave_forms() & XSAVEOPT) {
		touch_x87();
		__asm__ volatile("xsaveopt64 %0" : "+m"(area) : "a"(7), "d"(0));
		check("XSAVEOPT64 has no pointers", no_pointers(area, 8, 24));
	}
	if (xsave_forms() & XSAVEC) {
		touch_x87();
		__asm__ volatile("xsavec64 %0" : "+m"(area) : "a"(7), "d"(0));
		check("XSAVEC64 has no pointers", no_pointers(area, 8, 24));
	}
	touch_x87();
	__asm__ volatile("fnstenv %0" : "+m"(area));
	check("FNSTENV has no pointers", no_pointers(area, 12, 28));
	check_equal("FNSTENV: control word", area[0] | area[1] << 8, 0x37f);
	check_equal("FNSTENV: tags", area[8] | area[9] << 8, 0x0fff);
	check_equal("FNSTENV: no more than 28 bytes", area[28], 0xff);
	touch_x87();
	__asm__ volatile("data16 fnstenv %0" : "+m"(area));
	check("16-bit FNSTENV has no pointers", no_pointers(area, 6, 14));
	check_equal("16-bit FNSTENV: no more than 14 bytes", area[14], 0xff);
	touch_x87();
	__asm__ volatile("fnsave %0" : "+m"(area));
	check("FNSAVE has no pointers", no_pointers(area, 12, 28));
	check_equal("FNSAVE: ST0 is 1", area[28 + 8] | area[28 + 9] << 8, 0x3fff);
	check_equal("FNSAVE: no more than 108 bytes", area[108], 0xff);
	__asm__ volatile("fnstenv %0" : "+m"(area));
	check_equal("FNSAVE initializes", area[8] | area[9] << 8, 0xffff);
}

static void vector_state(void)
{
	uint64_t value = 0x0123456789abcdef, other;
	bool same = true;

	check_equal("#UD of AVX without OSXSAVE", (uint64_t)try_code(avx, NULL), 6);
	write_cr4(read_cr4() | 0x40000);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	__asm__ volatile("vmovq %0, %%xmm3; vpbroadcastq %%xmm3, %%ymm3; fninit; fld1; fldpi"
			 :
			 : "r"(value));
	__asm__ volatile("xsave %0" : "+m"(area) : "a"(7), "d"(0) : "memory");
	check_equal("XSAVE: XMM3", *(uint64_t *)(area + 160 + 48), value);
	check_equal("XSAVE: upper YMM3", *(uint64_t *)(area + 576 + 48), value);
	check_equal("XSAVE: XSTATE_BV", area[512], 7);
	__asm__ volatile("vzeroall; fninit; xrstor %1; vmovq %%xmm3, %0"
			 : "=r"(other)
			 : "m"(area), "a"(7), "d"(0));
	check_equal("XRSTOR", other, value);
	__asm__ volatile("xsave %0" : "+m"(again) : "a"(7), "d"(0) : "memory");
	for (int n = 0; n < 832; n++)
		same &= area[n] == again[n] ||
			(n >= 8 && n < 24); /* instruction and operand pointers */
	check("XSAVE of what XRSTOR brought", same);
	check_equal("XRSTOR of a bad header", (uint64_t)try_code(bad_header, NULL), 13);
	write_cr0(read_cr0() | 8);
	check_equal("#NM with TS", (uint64_t)try_code(no_device, NULL), 7);
	check_equal("#NM of FXSAVE with TS", (uint64_t)try_code(save, NULL), 7);
	__asm__ volatile("clts");
	check_equal("CLTS", (uint64_t)try_code(no_device, NULL), (uint64_t)-1);
}

void test_main(void)
{
	code = new_page();
	new_page();
	map_page(AT, (uint64_t)code, PAGE_P | PAGE_W | PAGE_U);
	map_page(AT + PAGE_BYTES, (uint64_t)code + PAGE_BYTES, PAGE_P | PAGE_W | PAGE_U);
	write_cr4(read_cr4());
	thirty_two();
	sixteen_bits();
	sixteen_bits_with_repeat_prefix();
	sixteen_bits_bit_string();
	effective_addresses();
	system_calls();
	bases();
	vector_state();
	x87_pointers();
}
