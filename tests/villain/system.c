/*
* System state: descriptors of every kind in far transfers and segment loads, frames of IRET,
    gates,
* tables across absent pages, MSRs and CPUID leaves in hostile ranges, single steps into faults,
    NMI
 * within NMI, SYSCALL and SYSRET. One processor, level 0.
 */
#include "villain.h"

enum { SCRATCH_INDEX = 38, SCRATCH = SCRATCH_INDEX * 8, SCRATCH_VECTOR = 0x90, FLAG_TF = 0x100,
    CODE_BYTES = 64 };
enum { MSR_APIC_BASE = 0x1b, X2APIC_ON = 0xc00, MSR_SPURIOUS = 0x80f, MSR_ICR = 0x830,
    ICR_NMI = 0x44400 };
enum { MSR_EFER = 0xc0000080, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK, EFER_SCE = 1, NMIS = 3 };
#define REFUSED (ALLOW(GP) | ALLOW(NP))

struct table { uint16_t limit; uint64_t base; } __attribute__((packed));
extern uint64_t gdt[];

/* ---- descriptors ------------------------------------------------------------------------- */

/* What far transfers to it, loads of a data segment and of the stack allow. */
struct descriptor {
	const char *name;
	uint64_t low;
	uint64_t high;
	uint64_t far;
	uint64_t data;
	uint64_t stack;
};
#define DESCRIPTOR(a_name, a_low, a_high, a_far, a_data, a_stack) \
	{ .name = a_name, .low = a_low, .high = a_high, .far = a_far, .data = a_data, \
	  .stack = a_stack }
static const struct descriptor descriptors[] = {
	DESCRIPTOR("zero", 0, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("data", 0x00cf93000000ffff, 0, REFUSED, ALLOW(NOTHING), ALLOW(NOTHING)),
	DESCRIPTOR("read-only data", 0x00cf91000000ffff, 0, REFUSED, ALLOW(NOTHING), REFUSED),
	DESCRIPTOR("absent data", 0x00cf13000000ffff, 0, REFUSED, ALLOW(NP), ALLOW(SS)),
	DESCRIPTOR("data of level 3", 0x00cff3000000ffff, 0, REFUSED, ALLOW(NOTHING), REFUSED),
	DESCRIPTOR("absent code", 0x00af1b000000ffff, 0, ALLOW(NP), ALLOW(NP), REFUSED),
	DESCRIPTOR("code of level 3", 0x00affb000000ffff, 0, REFUSED, ALLOW(NOTHING), REFUSED),
	DESCRIPTOR("code of 32 and 64 bits", 0x00ef9b000000ffff, 0, REFUSED, ALLOW(NOTHING),
		   REFUSED),
	DESCRIPTOR("code that is execute-only", 0x00af99000000ffff, 0, ALLOW(PF), REFUSED, REFUSED),
	DESCRIPTOR("code of one byte", 0x00409b0000000000, 0, ALLOW(PF) | ALLOW(GP), ALLOW(NOTHING),
	    REFUSED),
	DESCRIPTOR("a reserved system type", 0x000080000000ffff, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a 16-bit TSS", 0x0000810000000067, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a task gate", 0x0000850000480000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("an LDT", 0x0000820000000067, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a busy TSS", 0x00008b0000000067, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a 16-bit call gate", 0x0000840000080000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("an interrupt gate", 0x00008e0000080000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a trap gate", 0x00008f0000080000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a call gate to nothing", 0x00008c0000000000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a call gate to data", 0x00008c0000100000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a call gate to itself", 0x00008c0001300000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a call gate to 32-bit code", 0x00008c0000180000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("an absent call gate", 0x00000c0000080000, 0, REFUSED, REFUSED, REFUSED),
	DESCRIPTOR("a call gate to an absent page", 0x00008c0000080000, ABSENT_GVA >> 32, ALLOW(PF),
		   REFUSED,
	    REFUSED),
	DESCRIPTOR("a call gate to no canonical address", 0x00008c0000080000, 0x80000000, REFUSED,
		   REFUSED,
	    REFUSED),
	DESCRIPTOR("a call gate with a type in its upper half", 0x00008c0000080000, 0x1f0000001000,
	    REFUSED, REFUSED, REFUSED),
};

#define CODE(name, text) \
	__asm__(".pushsection .rodata; code_" #name ": .byte 9f - 8f; 8: " text \
		"; 9: .popsection"); \
	extern const uint8_t code_##name[];
/* RCX: the selector. */
CODE(far_jump, "push %rcx; push $0; mov %ecx, 4(%rsp); ljmp *(%rsp)")
CODE(far_call, "push %rcx; push $0; mov %ecx, 4(%rsp); lcall *(%rsp)")
CODE(far_return, "push %rcx; push $0; lretq")
CODE(interrupt_return, "mov %rsp, %rdx; push $0x10; push %rdx; push $2; push %rcx; push $0; iretq")
CODE(load_ds, "mov %ecx, %ds")
CODE(load_fs, "push %rcx; pop %fs")
CODE(load_ss, "mov %ecx, %ss")
CODE(load_task, "ltr %cx")
CODE(load_local, "lldt %cx")
CODE(inspect, "lar %ecx, %eax; lsl %ecx, %eax; verr %cx; verw %cx")

/* An IRET or RETF finds gates and system segments where code should be. */
static uint64_t allowed_of(const struct descriptor *descriptor, unsigned use)
{
	enum { FAR_RETURN = 2, INTERRUPT_RETURN, DS, FS, STACK, TASK, LOCAL };
	bool system = !(descriptor->low >> 44 & 1);
	unsigned type = descriptor->low >> 40 & 15;

	if (use < FAR_RETURN)
		return descriptor->far;
	if (use <= INTERRUPT_RETURN)
		return system ? REFUSED : descriptor->far;
	if (use <= FS)
		return descriptor->data;
	if (use == STACK)
		return descriptor->stack;
	if (use == LOCAL && system && type == 2)
		return ALLOW(NOTHING);
	return use == TASK || use == LOCAL ? REFUSED : ALLOW(NOTHING);
}

static void act_descriptors(void)
{
	static const struct { const char *name; const uint8_t *code; } uses[] = {
		{ "JMP to", code_far_jump },
		{ "CALL to", code_far_call },
		{ "RETF to", code_far_return },
		{ "IRET to", code_interrupt_return },
		{ "MOV DS of", code_load_ds },
		{ "POP FS of", code_load_fs },
		{ "MOV SS of", code_load_ss },
		{ "LTR of", code_load_task },
		{ "LLDT of", code_load_local },
		{ "LAR, LSL, VERR, VERW of", code_inspect },
	};
	struct registers registers = registers_at(0);

	registers.rcx = SCRATCH;
	for (unsigned n = 0; n < sizeof(descriptors) / sizeof(descriptors[0]); n++)
		for (unsigned use = 0; use < sizeof(uses) / sizeof(uses[0]); use++) {
			gdt[SCRATCH_INDEX] = descriptors[n].low;
			gdt[SCRATCH_INDEX + 1] = descriptors[n].high;
			act(uses[use].name, descriptors[n].name, NULL,
			    run_bytes(uses[use].code + 1, uses[use].code[0], &registers),
			    allowed_of(&descriptors[n], use));
		}
	__asm__ volatile("lldt %w0" : : "r"(0));
	registers.rcx = 0xfff8;
	for (unsigned use = 0; use < sizeof(uses) / sizeof(uses[0]); use++)
		act(uses[use].name, "what is beyond the table", NULL,
		    run_bytes(uses[use].code + 1, uses[use].code[0], &registers),
		    use + 1 < sizeof(uses) / sizeof(uses[0]) ? ALLOW(GP) : ALLOW(NOTHING));
}

/* ---- frames of IRET, gates,
    tables ------------------------------------------------------------ */

CODE(iret_frame, "mov %rbx, %rsp; iretq")

#define FRAME(a_name, a_rip, a_cs, a_rflags, a_rsp, a_ss, outcomes) \
	{ .name = a_name, .rip = a_rip, .cs = a_cs, .rflags = a_rflags, .rsp = a_rsp, .ss = a_ss, \
	  .allowed = outcomes }

static void act_frames(void)
{
	static const struct {
		const char *name;
		uint64_t rip, cs, rflags, rsp, ss;
		uint64_t allowed;
	} rows[] = {
		FRAME("no canonical RIP", NOT_CANONICAL, 8, 2, 0, 0x10, ALLOW(GP)),
		FRAME("an absent RIP", ABSENT_GVA, 8, 2, 0, 0x10, ALLOW(PF)),
		FRAME("CS 0", 0, 0, 2, 0, 0x10, ALLOW(GP)),
		FRAME("CS of level 3 by its RPL only", 0, 0xb, 2, 0, 0x10, ALLOW(GP)),
		FRAME("CS of level 1", 0, 0x31, 2, 0, 0x2b, ALLOW(GP)),
		FRAME("CS in an LDT that is none", 0, 0xc, 2, 0, 0x10, ALLOW(GP)),
		FRAME("SS of level 3", 0, 8, 2, 0, 0x2b, ALLOW(GP)),
		FRAME("SS that is code", 0, 8, 2, 0, 8, ALLOW(GP)),
		FRAME("SS beyond the table", 0, 8, 2, 0, 0xfff8, ALLOW(GP)),
		FRAME("user code on a kernel stack", 0, 0x33, 2, 0, 0x10, ALLOW(GP)),
		FRAME("user code on no stack", ABSENT_GVA, 0x33, 2, 0, 3, ALLOW(PF) | ALLOW(GP)),
		FRAME("user code that is absent", ABSENT_GVA, 0x33, 2, 0, 0x2b, ALLOW(PF)),
		FRAME("user code at no canonical RIP", NOT_CANONICAL, 0x33, 2, 0, 0x2b, ALLOW(GP)),
		FRAME("32-bit code at an upper RIP", ABSENT_GVA, 0x23, 2, 0, 0x2b,
		    ALLOW(PF) | ALLOW(GP)),
		FRAME("VM and 32-bit code", 0, 0x23, 0x20002, 0, 0x2b, ALLOW(PF) | ALLOW(GP)),
		FRAME("every flag", ABSENT_GVA, 8, ~0x300ull, 0, 0x10, ALLOW(PF)),
		FRAME("TF, at an absent page", ABSENT_GVA, 8, 0x102, 0, 0x10,
		      ALLOW(PF) | ALLOW(DB)),
		FRAME("no canonical RSP", ABSENT_GVA, 8, 2, NOT_CANONICAL, 0x10, ALLOW(PF)),
		FRAME("16-bit code beyond its limit", 0xffffff, 0x38, 2, 0, 0x10, ALLOW(GP)),
	};

	for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		const struct registers registers = registers_at((uint64_t)&rows[n].rip);

		act("IRET:", rows[n].name, NULL, run_bytes(code_iret_frame + 1,
		    code_iret_frame[0], &registers),
		    rows[n].allowed);
	}
}

CODE(interrupt, "int $0x90")
CODE(interrupt_with_table, "lidt (%rbx); int $0x90")
CODE(load_with_table, "lgdt (%rbx); mov $0x18, %eax; mov %eax, %ds")

static void act_gates(void)
{
	static const char *const types[] = {
		"type 0", "type 1", "type 2", "type 3", "type 4", "type 5", "type 6", "type 7",
		"type 8", "type 9", "type 10", "type 11", "type 12", "type 13", "type 14",
		    "type 15",
	};
	enum { INTERRUPT_GATE = 14, TRAP_GATE = 15 };
	struct registers registers = registers_at(0);
	struct table idt;
	uint64_t *gate;
	uint64_t good;

	__asm__ volatile("sidt %0" : "=m"(idt));
	gate = (uint64_t *)idt.base + 2 * SCRATCH_VECTOR;
	good = *gate;
	for (uint64_t type = 0; type <= TRAP_GATE; type++) {
		*gate = (good & ~(15ull << 40)) | type << 40;
		act("INT through a gate of", types[type], NULL,
		    run_bytes(code_interrupt + 1, code_interrupt[0], &registers),
		    ALLOW(type == INTERRUPT_GATE || type == TRAP_GATE ? NOTHING : GP));
	}
	*gate = good & ~(1ull << 47);
	act("INT through", "an absent gate", NULL, run_bytes(code_interrupt + 1,
	    code_interrupt[0], &registers),
	    ALLOW(NP));
	*gate = good;
	gate[1] |= NOT_CANONICAL >> 32;
	act("INT through", "a gate to no canonical address", NULL,
	    run_bytes(code_interrupt + 1, code_interrupt[0], &registers), ALLOW(GP));
	gate[1] = ABSENT_GVA >> 32;
	act("INT through", "a gate to an absent page", NULL,
	    run_bytes(code_interrupt + 1, code_interrupt[0], &registers), ALLOW(PF));
	gate[1] = 0;
	*gate = good | 7ull << 32;
	act("INT through", "a gate with a stack at 0", NULL,
	run_bytes(code_interrupt + 1, code_interrupt[0], &registers),
	    ALLOW(PF) | ALLOW(SS) | ALLOW(GP));
	*gate = good;
}

/* The vectors and segments that the faults themselves need are in the page that is there. */
static void act_table_borders(void)
{
	enum { GDT_BYTES = 24 };
	uint8_t *page = new_page();
	struct table good;
	struct table table;
	struct registers registers = registers_at((uint64_t)&table);

	map_page(DATA_GVA, (uint64_t)page, PAGE_P | PAGE_W);
	map_page(DATA_GVA + PAGE_BYTES, 0, 0);
	__asm__ volatile("sidt %0" : "=m"(good));
	table = (struct table){ good.limit, DATA_GVA + PAGE_BYTES - 16 * SCRATCH_VECTOR };
	for (unsigned n = 0; n < 16 * SCRATCH_VECTOR; n++)
		page[PAGE_BYTES - 16 * SCRATCH_VECTOR + n] = ((uint8_t *)good.base)[n];
	act("INT", "through an IDT that ends in an absent page", NULL,
	run_bytes(code_interrupt_with_table + 1, code_interrupt_with_table[0], &registers),
	    ALLOW(PF));
	table.limit = 16 * SCRATCH_VECTOR - 1;
	act("INT", "beyond the IDT", NULL,
	run_bytes(code_interrupt_with_table + 1, code_interrupt_with_table[0], &registers),
	    ALLOW(GP));
	table.limit = 16 * SCRATCH_VECTOR + 14;
	act("INT", "at the edge of the IDT", NULL,
	run_bytes(code_interrupt_with_table + 1, code_interrupt_with_table[0], &registers),
	    ALLOW(GP));
	table = (struct table){ 0xffff, DATA_GVA + PAGE_BYTES - GDT_BYTES };
	for (unsigned n = 0; n < GDT_BYTES; n++)
		page[PAGE_BYTES - GDT_BYTES + n] = ((uint8_t *)gdt)[n];
	act("MOV DS", "of a GDT that ends in an absent page", NULL,
	    run_bytes(code_load_with_table + 1, code_load_with_table[0], &registers), ALLOW(PF));
	table.limit = GDT_BYTES - 1;
	act("MOV DS", "beyond the GDT", NULL,
	    run_bytes(code_load_with_table + 1, code_load_with_table[0], &registers), ALLOW(GP));
	table = (struct table){ 0xffff, NOT_CANONICAL };
	act("LGDT", "of no canonical base", NULL,
	    run_bytes(code_load_with_table + 1, code_load_with_table[0], &registers), ALLOW(GP));
	act("LIDT", "of no canonical base", NULL,
	run_bytes(code_interrupt_with_table + 1, code_interrupt_with_table[0], &registers),
	    ALLOW(GP));
}

/* ---- MSRs and CPUID ---------------------------------------------------------------------- */

struct msr_range { const char *name; uint32_t first; uint32_t last; bool only_reads; };

static void msr_read(void *msr) { rdmsr((uint32_t)(uint64_t)msr); }
struct msr_write { uint32_t msr; uint64_t value; };
static void msr_write(void *argument)
{
	const struct msr_write *write = argument;

	wrmsr(write->msr, write->value);
}

/* What every access but #GP raised; written is only what was read before, hostile,
    then that again. */
static unsigned sweep_msrs(const struct msr_range *range, bool writes)
{
	static const uint64_t values[] = { ~0ull, NOT_CANONICAL, 1ull << 63, 0xdeadbeef };
	unsigned outcome = NOTHING;

	for (uint32_t msr = range->first;; msr++) {
		unsigned raised = outcome_of(try_code(msr_read, (void *)(uint64_t)msr));

		if (writes && raised == NOTHING) {
			struct msr_write before = { msr, rdmsr(msr) };

			for (unsigned n = 0; n < sizeof(values) / sizeof(values[0]); n++) {
				struct msr_write write = { msr, values[n] };

				raised = outcome_of(try_code(msr_write, &write));
				outcome = raised == NOTHING || raised == GP ? outcome : raised;
			}
			try_code(msr_write, &before);
		} else {
			outcome = raised == NOTHING || raised == GP ? outcome : raised;
		}
		if (msr == range->last)
			return outcome;
	}
}

static void act_msrs(void)
{
	static const struct msr_range ranges[] = {
		{ "0 to 0x1a", 0, 0x1a, false }, { "0x1c to 0x7ff", 0x1c, 0x7ff, false },
		{ "0x900 to 0x1fff", 0x900, 0x1fff, false },
		{ "of the x2APIC", 0x800, 0x8ff, true },
		{ "of Hyper-V", 0x40000000, 0x400000ef, true },
		{ "of Hyper-V, upper", 0x400000f1, 0x40000fff, true },
		{ "of KVM", 0x4b564d00, 0x4b564d0f, false },
		{ "of Xen", 0x50000000, 0x500000ff, false },
		{ "0x7fffff80 to 0x8000007f", 0x7fffff80, 0x8000007f, false },
		{ "0xc0000000 to 0xc000007f", 0xc0000000, 0xc000007f, false },
		{ "of system calls and bases", MSR_STAR, 0xc00000ff, false },
		{ "0xc0000104 to 0xc0001fff", 0xc0000104, 0xc0001fff, false },
		{ "0xc0010000 to 0xc00111ff", 0xc0010000, 0xc00111ff, false },
		{ "the last 256", 0xffffff00, 0xffffffff, false },
	};

	for (unsigned n = 0; n < sizeof(ranges) / sizeof(ranges[0]); n++) {
		act("RDMSR", ranges[n].name, NULL, sweep_msrs(&ranges[n], false), ALLOW(NOTHING));
		if (!ranges[n].only_reads)
			act("WRMSR of hostile values", ranges[n].name, NULL,
			    sweep_msrs(&ranges[n], true),
			    ALLOW(NOTHING));
	}
}

static void cpuid_leaves(void *first)
{
	enum { LEAVES = 0x100, SUBLEAVES = 66 };

	for (uint32_t leaf = 0; leaf < LEAVES; leaf++)
		for (uint32_t sub = 0; sub < SUBLEAVES; sub++) {
			uint32_t eax = (uint32_t)(uint64_t)first + leaf;
			uint32_t ebx;
			uint32_t ecx = sub < 64 ? sub : 0u - sub;
			uint32_t edx;

			__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
		}
}

static void act_leaves(void)
{
	static const struct { const char *name; uint32_t first; } ranges[] = {
		{ "from 0", 0 },
		{ "from 0x20000000", 0x20000000 },
		{ "from 0x3fffff80", 0x3fffff80 },
		{ "from 0x40000000", 0x40000000 },
		{ "from 0x40000100", 0x40000100 },
		{ "from 0x7fffff80", 0x7fffff80 },
		{ "from 0x80000000", 0x80000000 },
		{ "from 0x8fffff80", 0x8fffff80 },
		{ "from 0xc0000000", 0xc0000000 },
		{ "the last", 0xffffff00 },
	};

	for (unsigned n = 0; n < sizeof(ranges) / sizeof(ranges[0]); n++)
		act("CPUID, 256 leaves and 66 subleaves", ranges[n].name, NULL,
		outcome_of(try_code(cpuid_leaves, (void *)(uint64_t)ranges[n].first)),
		    ALLOW(NOTHING));
}

/* ---- single steps, NMI,
    system calls ---------------------------------------------------------- */

static unsigned steps;

static bool step_on(struct frame *frame)
{
	steps += frame->vector == DB;
	return frame->vector == DB && steps < 1000;
}

#define TRACE "pushf; orl $0x100, (%rsp); popf; "
CODE(step_undefined, TRACE "nop; ud2")
CODE(step_breakpoint, TRACE "int3")
CODE(step_interrupt, TRACE "int $0x0d")
CODE(step_absent, TRACE "movabs $0x100000000000, %rax; mov (%rax), %eax")
CODE(step_string, TRACE "movabs $0x100000000000, %rdi; rep stosb")
CODE(step_string_good, TRACE "mov %rsp, %rdi; sub $512, %rdi; mov $64, %ecx; rep stosb; ud2")
CODE(step_stack, TRACE "mov %ss, %eax; mov %eax, %ss; ud2")
CODE(step_popf, TRACE "push $0x102; popf; push $0x102; popf; ud2")
CODE(step_jump, TRACE "movabs $0x800000000000, %rax; jmp *%rax")
CODE(step_itself, TRACE "movb $0x90, 1f(%rip); 1: int3; ud2")
CODE(step_cpuid, TRACE "xor %eax, %eax; cpuid; ud2")
CODE(step_out, TRACE "xor %eax, %eax; out %al, $0x80; in $0x80, %al; ud2")
CODE(step_syscall, TRACE "mov $0xc0000082, %ecx; xor %eax, %eax; mov $0x1000, %edx; wrmsr; syscall")
CODE(step_call, TRACE "call 1f; ud2; 1: ret")

static void act_steps(void)
{
	static const struct { const char *name; const uint8_t *code; uint64_t allowed; } rows[] = {
		{ "UD2", code_step_undefined, ALLOW(UD) },
		{ "INT3", code_step_breakpoint, ALLOW(BP) },
		{ "INT of #GP", code_step_interrupt, ~0ull },
		{ "an absent page", code_step_absent, ALLOW(PF) },
		{ "REP STOS into one", code_step_string, ALLOW(PF) },
		{ "REP STOS; UD2", code_step_string_good, ALLOW(UD) },
		{ "MOV SS; UD2", code_step_stack, ALLOW(UD) },
		{ "POPF with TF; UD2", code_step_popf, ALLOW(UD) },
		{ "a JMP to nowhere", code_step_jump, ALLOW(GP) },
		{ "what it overwrites", code_step_itself, ALLOW(UD) },
		{ "CPUID; UD2", code_step_cpuid, ALLOW(UD) },
		{ "OUT; IN; UD2", code_step_out, ALLOW(UD) },
		{ "SYSCALL to an absent page", code_step_syscall, ALLOW(PF) | ALLOW(GP) },
		{ "CALL; RET; UD2", code_step_call, ALLOW(UD) },
	};
	const struct registers registers = registers_at(DATA_GVA);

	for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		unsigned outcome;

		steps = 0;
		on_trap = step_on;
		outcome = run_bytes(rows[n].code + 1, rows[n].code[0], &registers);
		on_trap = NULL;
		act("single steps into", rows[n].name, NULL, outcome, rows[n].allowed);
	}
}

static unsigned nmis;

/* Each asks for the next, which waits for the IRET of this one. */
static bool nmi_again(struct frame *frame)
{
	if (frame->vector != NMI)
		return false;
	if (++nmis < NMIS)
		wrmsr(MSR_ICR, ICR_NMI);
	return true;
}

static void nmi_send(void *unused)
{
	(void)unused;
	wrmsr(MSR_ICR, ICR_NMI);
	for (unsigned n = 0; n < 1000 && nmis < NMIS; n++)
		cpu_relax();
}

static void act_nmis(void)
{
	unsigned outcome;

	if (outcome_of(try_code(msr_read, (void *)MSR_SPURIOUS)) != NOTHING)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | X2APIC_ON);
	wrmsr(MSR_SPURIOUS, 0x1ff);
	on_trap = nmi_again;
	outcome = outcome_of(try_code(nmi_send, NULL));
	on_trap = NULL;
	act("NMI", "within NMI, each after the other", NULL, nmis == NMIS ? outcome : DF,
	    ALLOW(NOTHING));
}

CODE(syscall_absent, "mov $0xc0000082, %ecx; xor %eax, %eax; mov $0x1000, %edx; wrmsr; syscall")
CODE(syscall_nowhere, "mov $0xc0000082, %ecx; xor %eax, %eax; mov $0x8000, %edx; wrmsr")
CODE(syscall_off, "mov $0xc0000080, %ecx; rdmsr; btr $0, %eax; wrmsr; syscall")
CODE(sysret_nowhere, "mov $0x8000, %ecx; shl $32, %rcx; mov $2, %r11d; sysretq")
CODE(sysret_absent, "mov $0x1000, %ecx; shl $32, %rcx; mov $2, %r11d; sysretq")
CODE(sysret_flags, "mov $0x1000, %ecx; shl $32, %rcx; mov $-1, %r11; btr $9, %r11; sysretq")
CODE(sysret_off, "mov $0xc0000080, %ecx; rdmsr; btr $0, %eax; wrmsr; sysretq")
CODE(efer_mode, "mov $0xc0000080, %ecx; rdmsr; btr $8, %eax; wrmsr")
CODE(efer_all, "mov $0xc0000080, %ecx; mov $-1, %eax; mov $-1, %edx; wrmsr")
CODE(apic_base_all, "mov $0x1b, %ecx; mov $-1, %eax; mov $-1, %edx; wrmsr")
CODE(base_nowhere, "mov $0xc0000100, %ecx; xor %eax, %eax; mov $0x8000, %edx; wrmsr")
CODE(swapgs_base,
     "mov $0xc0000102, %ecx; mov $-1, %eax; mov $0x7fff, %edx; wrmsr; swapgs; mov %gs:1, %eax")

static void act_system_calls(void)
{
	static const struct { const char *name; const uint8_t *code; uint64_t allowed; } rows[] = {
		{ "SYSCALL to an absent page", code_syscall_absent, ALLOW(PF) },
		{ "LSTAR at no canonical address", code_syscall_nowhere, ALLOW(GP) },
		{ "SYSCALL, switched off", code_syscall_off, ALLOW(UD) },
		{ "SYSRET to no canonical address", code_sysret_nowhere, ALLOW(GP) },
		{ "SYSRET to an absent page", code_sysret_absent, ALLOW(PF) },
		{ "SYSRET with every flag", code_sysret_flags, ALLOW(PF) | ALLOW(DB) },
		{ "SYSRET, switched off", code_sysret_off, ALLOW(UD) },
		{ "EFER without LME in 64-bit mode", code_efer_mode, ALLOW(GP) },
		{ "every bit of EFER", code_efer_all, ALLOW(GP) },
		{ "every bit of the APIC's base", code_apic_base_all, ALLOW(GP) },
		{ "a base of FS at no canonical address", code_base_nowhere, ALLOW(GP) },
		{ "GS across the end of the lower half", code_swapgs_base, ALLOW(GP) | ALLOW(PF) },
	};
	const struct registers registers = registers_at(DATA_GVA);

	wrmsr(MSR_STAR, 0x0023000800000000ull);
	for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
		act("system call state:", rows[n].name, NULL, run_bytes(rows[n].code + 1,
		    rows[n].code[0], &registers),
		    rows[n].allowed);
}

void act_system(void)
{
	act_descriptors();
	act_frames();
	act_gates();
	act_table_borders();
	act_leaves();
	act_steps();
	act_nmis();
	act_system_calls();
	act_msrs();
}
