/* Compatibility and 16-bit code, SYSCALL and SYSRET, far transfers, segment bases, XSAVE, FSGSBASE. */
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
	"compat: movl $0x11223344, %eax; pushl %eax; popl %ebx; incl %ebx; movl $3, %ecx; xorl %edx, %edx\n"
	"1: addl %ecx, %edx; loop 1b; call 2f; int $0x80\n"
	"2: pushal; movl $7, %esi; popal; leal 4(%edx,%ecx,2), %esi; movl %esp, %ebp; xchgw %ax, %di; bound_end: ret\n"
	"compat_end:\n"
	"compat_fault: movl 0x7f000000, %eax; int $0x80\n"
	"compat_fault_end:\n"
	"compat_aaa: movl $0x0f, %eax; aaa; movl %eax, %ebx; movl $0x1234, %eax; daa; int $0x80\n"
	"compat_aaa_end:\n"
	".code16\n"
	"sixteen: movw $0x1234, %ax; pushw %ax; popw %bx; addw $1, %bx; movl $0x89abcdef, %ecx; movw $5, %si; leaw 3(%bx,%si), %di; int $0x80\n"
	"sixteen_end:\n"
	".code64\n");
extern const uint8_t compat[], compat_end[], compat_fault[], compat_fault_end[], compat_aaa[], compat_aaa_end[], sixteen[], sixteen_end[];

static void thirty_two(void)
{
	put(0, compat, (unsigned)(compat_end - compat));
	check_equal("32-bit user code", (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23), 0x80);
	check_equal("its eax and edi exchanged by 16 bits", last.rax & 0xffff, 0);
	check_equal("its ebx", last.rbx, 0x11223345);
	check_equal("its loop", last.rdx, 6);
	check_equal("its lea", last.rsi, 10);
	check_equal("its stack", last.rsp, AT + 8192);
	put(0, compat_fault, (unsigned)(compat_fault_end - compat_fault));
	check_equal("a page fault of 32-bit code", (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x23), 14);
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

__asm__("user_syscall: mov $5, %eax; syscall; mov %eax, %ebx; int $0x80\nuser_syscall_end:\n"
	"syscall_entry: add $2, %eax; mov %rcx, saved_rcx; mov %r11, saved_r11; sysretq\n"
	".data\nsaved_rcx: .quad 0\nsaved_r11: .quad 0\n.text");
extern uint8_t user_syscall[], user_syscall_end[], syscall_entry[];
extern uint64_t saved_rcx, saved_r11;

static void system_calls(void)
{
	put(0, user_syscall, (unsigned)(user_syscall_end - user_syscall));
	wrmsr(0xc0000081, 0x0023ull << 48 | 0x0008ull << 32); /* user: 0x33 code, 0x2b data; kernel: 8 and 0x10 */
	wrmsr(0xc0000082, (uint64_t)syscall_entry);
	wrmsr(0xc0000084, 0x200);
	check_equal("SYSCALL and SYSRET", (uint64_t)try_user((void (*)(void))AT, AT + 8192, 0x33), 0x80);
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
	uint64_t v, w;

	wrmsr(0xc0000101, (uint64_t)&one);
	wrmsr(0xc0000102, (uint64_t)&two);
	__asm__ volatile("mov %%gs:0, %0; swapgs; mov %%gs:0, %1; swapgs" : "=r"(v), "=r"(w));
	check_equal("GS base", v, 0x111);
	check_equal("SWAPGS", w, 0x222);
	write_cr4(read_cr4() | 0x10000);
	__asm__ volatile("wrgsbase %1; mov %%gs:0, %0" : "=r"(v) : "r"(&two));
	check_equal("WRGSBASE", v, 0x222);
	__asm__ volatile("rdgsbase %0" : "=r"(v));
	check_equal("RDGSBASE", v, (uint64_t)&two);
	__asm__ volatile("wrgsbase %0" : : "r"(0x7000000000));
	check_equal("a fault through GS", (uint64_t)try_code(read_gs, NULL), 14);
	check_equal("its CR2 has the base", last_cr2, 0x7000000000);
}

static uint8_t area[1024] __attribute__((aligned(64))), again[1024] __attribute__((aligned(64)));

static void bad_header(void *a) { (void)a; area[528] = 1; __asm__ volatile("xrstor %0" : : "m"(area), "a"(7), "d"(0) : "memory"); }
static void no_device(void *a) { (void)a; __asm__ volatile("pxor %xmm0, %xmm0"); }

static void avx(void *a) { (void)a; __asm__ volatile("vpxor %xmm0, %xmm0, %xmm0"); }
static void save(void *a) { (void)a; __asm__ volatile("fxsave %0" : "=m"(area)); }

static void vector_state(void)
{
	uint64_t v = 0x0123456789abcdef, w;
	bool same = true;

	check_equal("#UD of AVX without OSXSAVE", (uint64_t)try_code(avx, NULL), 6);
	write_cr4(read_cr4() | 0x40000);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	__asm__ volatile("vmovq %0, %%xmm3; vpbroadcastq %%xmm3, %%ymm3; fninit; fld1; fldpi" : : "r"(v));
	__asm__ volatile("xsave %0" : "+m"(area) : "a"(7), "d"(0) : "memory");
	check_equal("XSAVE: XMM3", *(uint64_t *)(area + 160 + 48), v);
	check_equal("XSAVE: upper YMM3", *(uint64_t *)(area + 576 + 48), v);
	check_equal("XSAVE: XSTATE_BV", area[512], 7);
	__asm__ volatile("vzeroall; fninit; xrstor %1; vmovq %%xmm3, %0" : "=r"(w) : "m"(area), "a"(7), "d"(0));
	check_equal("XRSTOR", w, v);
	__asm__ volatile("xsave %0" : "+m"(again) : "a"(7), "d"(0) : "memory");
	for (int n = 0; n < 832; n++)
		same &= area[n] == again[n] || (n >= 8 && n < 24); /* instruction and operand pointers */
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
	map_page(AT + 4096, (uint64_t)code + 4096, PAGE_P | PAGE_W | PAGE_U);
	write_cr4(read_cr4());
	thirty_two();
	sixteen_bits();
	system_calls();
	bases();
	vector_state();
}
