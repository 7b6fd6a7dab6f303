/* See villain.h. */
#include "villain.h"

enum { MSR_EFER = 0xc0000080, MXCSR_DEFAULT = 0x1f80, DATA_SELECTOR = 0x10 };
enum { CR4_OSXSAVE = 1 << 18, XCR0_AVX = 7, EXCEPTIONS = 32, END_BYTES = 4, INT3 = 0xcc };
enum { TABLE_ENTRIES = 512, PIC_MASK = 0x21, PIC_MASK_2 = 0xa1 };

struct table { uint16_t limit; uint64_t base; } __attribute__((packed));
struct entry { struct registers registers; const void *code; };

static struct table gdt_good;
static struct table idt_good;
static uint64_t cr0_good;
static uint64_t cr3_good;
static uint64_t cr4_good;
static uint64_t efer_good;
static bool avx2;
static uint64_t *first_table;

/* R15 is the good stack while an act runs; put_bytes() ends the act with it. */
void villain_enter(void *entry);
__asm__(".text\n"
	"villain_enter: mov %rsp, %r15\n"
	"mov 64(%rdi), %r14\n"
	"mov 0(%rdi), %rax; mov 8(%rdi), %rbx; mov 16(%rdi), %rcx; mov 24(%rdi), %rdx\n"
	"mov 32(%rdi), %rsi; mov 48(%rdi), %rbp\n"
	"cmpq $0, 56(%rdi); je 1f; mov 56(%rdi), %rsp\n"
	"1: mov 40(%rdi), %rdi\n"
	"xor %r8d, %r8d\n"
	"jmp *%r14\n");

static bool avx2_enable(void)
{
	uint32_t max = 0;
	uint32_t ebx = 0;
	uint32_t ecx = 0;
	uint32_t edx = 0;

	__asm__ volatile("cpuid" : "+a"(max), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (max < 7)
		return false;
	max = 1;
	ecx = 0;
	__asm__ volatile("cpuid" : "+a"(max), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (!(ecx >> 26 & 1) || !(ecx >> 28 & 1))
		return false;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	__asm__ volatile("xsetbv" : : "a"(XCR0_AVX), "d"(0), "c"(0));
	max = 7;
	ecx = 0;
	__asm__ volatile("cpuid" : "+a"(max), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ebx >> 5 & 1;
}

bool has_avx2(void) { return avx2; }

/* The first page is absent: what jumps to 0 faults there. */
static void first_page_hide(void)
{
	extern uint64_t page_tables[];
	uint64_t *const directory = page_tables + 2 * TABLE_ENTRIES;
	uint64_t *table = new_page();

	first_table = table;
	for (uint64_t n = 1; n < TABLE_ENTRIES; n++)
		table[n] = n * PAGE_BYTES | PAGE_P | PAGE_W;
	directory[0] = (uint64_t)table | PAGE_P | PAGE_W | PAGE_U;
	write_cr3(read_cr3());
}

void villain_open(void)
{
	outb(PIC_MASK, 0xff);
	outb(PIC_MASK_2, 0xff);
	first_page_hide();
	avx2 = avx2_enable();
	for (unsigned vector = 0; vector < EXCEPTIONS; vector++)
		use_trap_stack(vector);
	__asm__ volatile("sgdt %0; sidt %1" : "=m"(gdt_good), "=m"(idt_good));
	cr0_good = read_cr0();
	cr3_good = read_cr3();
	cr4_good = read_cr4();
	efer_good = rdmsr(MSR_EFER);
}

void put_in_order(void)
{
	const uint32_t mxcsr = MXCSR_DEFAULT;

	__asm__ volatile("push $2; popf" : : : "memory", "cc");
	__asm__ volatile("lgdt %0; lidt %1" : : "m"(gdt_good), "m"(idt_good));
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x400ull));
	__asm__ volatile("mov %0, %%dr6; mov %1, %%cr8" : : "r"(0xffff0ff0ull), "r"(0ull));
	if (read_cr0() != cr0_good)
		write_cr0(cr0_good);
	if (read_cr4() != cr4_good)
		write_cr4(cr4_good);
	first_table[0] = 0;
	write_cr3(cr3_good);
	if (rdmsr(MSR_EFER) != efer_good)
		wrmsr(MSR_EFER, efer_good);
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs; mov %0, %%ss"
			 : : "r"(DATA_SELECTOR));
	__asm__ volatile("fninit; ldmxcsr %0; cld" : : "m"(mxcsr));
	if (avx2)
		__asm__ volatile("xsetbv" : : "a"(XCR0_AVX), "d"(0), "c"(0));
}

struct registers registers_at(uint64_t at)
{
	return (struct registers){
		.rax = at, .rbx = at, .rcx = 4, .rsi = at, .rdi = at, .rbp = at,
	};
}

uint8_t *put_bytes(uint8_t *to, const void *code, unsigned bytes)
{
	static const uint8_t end[END_BYTES] = { 0x4c, 0x89, 0xfc, 0xc3 }; /* mov %r15, %rsp; ret */

	for (unsigned n = 0; n < bytes; n++)
		*to++ = ((const uint8_t *)code)[n];
	for (unsigned n = 0; n < END_BYTES; n++)
		*to++ = end[n];
	return to;
}

unsigned outcome_of(int64_t vector)
{
	return vector >= 0 && vector < EXCEPTIONS ? (unsigned)vector : NOTHING;
}

unsigned run_at(const void *code, const struct registers *registers)
{
	struct entry entry = { .registers = *registers, .code = code };
	int64_t vector = try_code(villain_enter, &entry);

	put_in_order();
	return outcome_of(vector);
}

unsigned run_bytes(const void *code, unsigned bytes, const struct registers *registers)
{
	static uint8_t *page;

	if (!page)
		page = new_page();
	for (unsigned n = 0; n < PAGE_BYTES; n++)
		page[n] = INT3;
	put_bytes(page + PAGE_BYTES / 2, code, bytes);
	return run_at(page + PAGE_BYTES / 2, registers);
}

static const char *outcome_name(unsigned outcome)
{
	static const char *const names[EXCEPTIONS] = {
		[DE] = "#DE", [DB] = "#DB", [NMI] = "NMI", [BP] = "#BP", [OF] = "#OF", [BR] = "#BR",
		[UD] = "#UD", [NM] = "#NM", [DF] = "#DF", [TS] = "#TS", [NP] = "#NP", [SS] = "#SS",
		[GP] = "#GP", [PF] = "#PF", [MF] = "#MF", [AC] = "#AC", [MC] = "#MC", [XM] = "#XM",
		[CP] = "#CP",
	};

	if (outcome >= EXCEPTIONS)
		return "nothing";
	return names[outcome] ? names[outcome] : "a reserved vector";
}

void act(const char *subject, const char *what, const char *where, unsigned outcome,
	 uint64_t allowed)
{
	put_in_order();
	check_begin(allowed >> outcome & 1);
	print(subject);
	print(what ? " " : "");
	print(what ? what : "");
	print(where ? ", " : "");
	print(where ? where : "");
	print(": ");
	print(outcome_name(outcome));
	print("\n");
}
