/*
 * Hardware tasks: JMP, CALL, IRET, gates; what is saved and loaded; busy and NT, TS and T; what is
 * wrong with a task state segment before the switch, and with its segments behind it. And frames
 * that do not fit: their faults need a stack that is good, so these vectors have tasks, too.
 */
#include "guest.h"

enum {
	OTHER = FREE,
	GATE = FREE + 16,
	SHORT = FREE + 24,
	LOCAL = FREE + 32,
	FIRST_HANDLER = FREE + 40,
	TASK_OF_16 = FREE + 64,
	ABSENT_CODE = FREE + 72,
	ABSENT_DATA = FREE + 80,
	SMALL_STACK = FREE + 88,
	SMALL_CODE = FREE + 96,
	CALL_GATE = FREE + 104,
	IN_LOCAL = 4
};
enum { STACK_BYTES = PAGE_BYTES, GATE_VECTOR = 0x60, DR6_BT = 0x8000 };

struct task_16 {
	uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es,
		cs, ss, ds, ldt;
} __attribute__((packed));

static struct task other;
static struct task_16 other_16;
static uint8_t other_stack[STACK_BYTES];
/* What the other task found when it came. */
extern volatile struct found {
	uint32_t eax, ebx, flags, cr0, task, local, fs, link;
} found;
volatile struct found found;
extern const uint8_t note_entry[], leave_by_jump[], leave_by_return[], note_again[], enter_16[];

/* Notes, and then goes where EDI says. */
__asm__("note_entry: movl %eax, found; movl %ebx, found + 4; pushfl; popl found + 8; "
	"movl %cr0, %eax; movl %eax, found + 12\n"
	"strl %eax; movl %eax, found + 16; sldtl %eax; movl %eax, found + 20; movl %fs, %eax; "
	"movl %eax, found + 24\n"
	"jmp *%edi\n"
	"leave_by_jump: ljmp $0x38, $0\n"
	"leave_by_return: iretl\n"
	/* behind the IRET: where the task goes on when it is called again */
	"note_again: movl $0x999, found; iretl\n"
	"enter_16: movw %ax, found; strw found + 16; .byte 0xea; .long 0; .word 0x38");
static void jump(void) { __asm__ volatile("ljmp $0x40, $0" : : : "memory"); }
static void call(void) { __asm__ volatile("lcall $0x40, $0" : : : "memory"); }
static void call_gate(void) { __asm__ volatile("lcall $0x50, $0" : : : "memory"); }
static void jump_to_16(void) { __asm__ volatile("ljmp $0x80, $0" : : : "memory"); }
static void interrupt(void) { __asm__ volatile("int $0x60" : : : "memory"); }
static void nested_return(void)
{
	__asm__ volatile("pushfl; orl $0x4000, (%%esp); popfl; .globl the_return; the_return: iretl"
			 :
			 :
			 : "memory");
}
extern const uint8_t the_return[];

static void ready(const uint8_t *leave)
{
	other = (struct task){ .eip = at(note_entry),
			       .eflags = 2,
			       .eax = 0xa0a0,
			       .ebx = 0xb0b0,
			       .edi = at(leave),
			       .esp = at(other_stack) + STACK_BYTES,
			       .cs = CODE,
			       .ss = DATA,
			       .ds = DATA,
			       .es = DATA,
			       .fs = DATA,
			       .ldt = LOCAL,
			       .io_map = sizeof(other) };
	found = (struct found){ 0 };
	set_descriptor(OTHER, descriptor(at(&other), sizeof(other) - 1, SEGMENT_P | TASK_32));
	set_descriptor(TASK, descriptor(at(&main_task), sizeof(main_task) - 1,
					SEGMENT_P | TASK_32 | TASK_BUSY));
	main_task.eip = 0;
	__asm__ volatile("clts");
}

static bool is_busy(unsigned selector) { return gdt[selector / 8] >> 40 & TASK_BUSY; }
static uint32_t run(void (*code)(void)) { return (uint32_t)try_code(code); }

static void by_jump(void)
{
	ready(leave_by_jump);
	check_equal("a jump to a task and back", run(jump), (uint32_t)NONE);
	check_equal("it has its registers", found.eax, 0xa0a0);
	check_equal("all of them", found.ebx, 0xb0b0);
	check_equal("its segments", found.fs & 0xffff, DATA);
	check_equal("its local table", found.local, LOCAL);
	check_equal("TR", found.task & 0xffff, OTHER);
	check("TS is set", found.cr0 & CR0_TS);
	check("NT is not", !(found.flags & FLAG_NT));
	check_equal("no link is written", other.link & 0xffff, 0);
	check("the old task was saved", main_task.eip > at(jump) && main_task.eip < at(jump) + 32);
	check_equal("with its segments", main_task.ds & 0xffff, DATA);
	check("and the other at its own jump",
	      other.eip > at(leave_by_jump) && other.eip <= at(leave_by_return));
	check_equal("which holds what it had", other.ebx, 0xb0b0);
	check("the other is not busy", !is_busy(OTHER));
	check("this one is", is_busy(TASK));
}

static void by_call(void)
{
	ready(leave_by_return);
	check_equal("a call and its return", run(call), (uint32_t)NONE);
	check("it has NT", found.flags & FLAG_NT);
	check_equal("and the link", other.link & 0xffff, TASK);
	check("its return took NT from what is saved", !(other.eflags & FLAG_NT));
	check("and made it free", !is_busy(OTHER));
	check("the caller was busy all the time", is_busy(TASK));
	check_equal("called again", run(call), (uint32_t)NONE);
	check_equal("it goes on behind its return", found.eax, 0x999);
	ready(leave_by_return);
	set_descriptor(GATE, task_gate(OTHER, 0));
	check_equal("by a gate", run(call_gate), (uint32_t)NONE);
	check_equal("was there", found.eax, 0xa0a0);
	ready(leave_by_return);
	set_raw_gate(GATE_VECTOR, task_gate(OTHER, 0));
	check_equal("by INT", run(interrupt), (uint32_t)NONE);
	check_equal("was there", found.eax, 0xa0a0);
	check_equal("with a link", other.link & 0xffff, TASK);
}

static void of_16_bits(void)
{
	other_16 = (struct task_16){ .ip = 0x8000,
				     .flags = 2,
				     .ax = 0x1616,
				     .sp = 0x9000,
				     .cs = CODE,
				     .ss = DATA,
				     .ds = DATA,
				     .es = DATA };
	copy(0x8000, enter_16, enter_16 + 64);
	found = (struct found){ 0 };
	set_descriptor(TASK_OF_16,
		       descriptor(at(&other_16), sizeof(other_16) - 1, SEGMENT_P | TASK_16));
	check_equal("a task of 16 bits", run(jump_to_16), (uint32_t)NONE);
	check_equal("its register", found.eax & 0xffff, 0x1616);
	check_equal("TR", found.task & 0xffff, TASK_OF_16);
	check_equal("it is saved in its layout", other_16.ds, DATA);
	check("behind its jump", other_16.ip > 0x8000 && other_16.ip < 0x8040);
}

static void trap_bit(void)
{
	ready(leave_by_jump);
	other.trap = 1;
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0));
	check_equal("T", run(jump), DB);
	check_equal("before the task's first instruction", last.eip, at(note_entry));
	check_equal("and DR6 says so", read_dr6() & (DR6_BT | 0x400f), DR6_BT);
}

/* Whatever was caught in the other task: this one is the task again. */
static void come_home(void)
{
	set_descriptor(TASK,
		       descriptor(at(&main_task), sizeof(main_task) - 1, SEGMENT_P | TASK_32));
	__asm__ volatile("lldt %w0; ltr %w1; mov %0, %%fs" : : "r"(0), "r"(TASK));
}

/* Before the switch: in this task, at the instruction. */
static void check_refused(const char *name, void (*code)(void), int vector, uint32_t error)
{
	check_equal(name, run(code), (uint32_t)vector);
	check_equal("its code", last.code, error);
	check_equal("at the instruction", last.eip,
		    code == nested_return ? at(the_return) : at(code));
	check_equal("nothing has happened", main_task.eip, 0);
	check("but it would have: this task is busy", is_busy(TASK));
}

static void bad_tasks(void)
{
	ready(leave_by_jump);
	set_descriptor(OTHER, gdt[OTHER / 8] | (uint64_t)TASK_BUSY << 40);
	check_refused("a jump to a busy task", jump, GP, OTHER);
	check_refused("a call", call, GP, OTHER);
	ready(leave_by_jump);
	set_descriptor(OTHER, descriptor(at(&other), sizeof(other) - 1, TASK_32));
	check_refused("an absent task", jump, NP, OTHER);
	set_descriptor(OTHER, descriptor(at(&other), 102, SEGMENT_P | TASK_32));
	check_refused("one that is too short", jump, TS, OTHER);
	set_descriptor(OTHER, descriptor(at(&other), 103, SEGMENT_P | LOCAL_TABLE));
	check_refused("what is no task", jump, GP, OTHER);
	set_descriptor(GATE, task_gate(OTHER, 0));
	check_refused("by a gate", call_gate, GP, OTHER);
	set_descriptor(GATE, task_gate(LOCAL | IN_LOCAL, 0));
	check_refused("a gate to the local table", call_gate, GP, LOCAL | IN_LOCAL);
	set_descriptor(GATE, task_gate(OTHER, 0) & ~(1ull << 47));
	check_refused("an absent gate", call_gate, NP, GATE);
	set_raw_gate(GATE_VECTOR, task_gate(OTHER, 0));
	check_refused("by INT", interrupt, TS, OTHER);
	ready(leave_by_jump);
	set_descriptor(OTHER, gdt[OTHER / 8] & ~(1ull << 47));
	check_refused("an absent one by INT", interrupt, NP, OTHER);
	ready(leave_by_jump);
	main_task.link = OTHER;
	check_refused("a return to a task that is not busy", nested_return, TS, OTHER);
	main_task.link = 0;
	check_refused("or to none", nested_return, TS, 0);
	main_task.link = SHORT;
	check_refused("or to no task", nested_return, TS, SHORT);
}

/* ---- faults whose stack may be bad have tasks ---- */

enum { HANDLERS = 3 }; /* of #TS, #NP, #SS */
static struct task handler[HANDLERS];
static uint8_t handler_stack[HANDLERS][STACK_BYTES];
extern volatile struct caught {
	uint32_t vector, code, link;
} caught;
volatile struct caught caught;
extern const uint8_t handler_entry[], handler_resume[];
/*
 * EBX: its vector, ESI: its own state, EDI: a good stack of the kernel for the first task, or 0. It
 * goes back to the first task, which waits behind its jump.
 */
__asm__("handler_entry: popl caught + 4; movl %ebx, caught; movzwl (%esi), %eax; "
	"movl %eax, caught + 8\n"
	"pushfl; andl $~0x4000, (%esp); popfl\n"
	"testl %edi, %edi; jz 1f; movl %edi, main_task + 4; movl $0x10, main_task + 8\n"
	"1: andb $0xfd, gdt + 0x38 + 5\n"
	"ljmp $0x38, $0");

static void ready_handlers(void)
{
	for (unsigned n = 0; n < HANDLERS; n++) {
		unsigned selector = FIRST_HANDLER + 8 * n;

		handler[n] = (struct task){ .eip = at(handler_entry),
					    .eflags = 2,
					    .ebx = TS + n,
					    .esi = at(&handler[n]),
					    .esp = at(handler_stack[n]) + STACK_BYTES,
					    .cs = CODE,
					    .ss = DATA,
					    .ds = DATA,
					    .es = DATA,
					    .io_map = sizeof(handler[n]) };
		set_descriptor(selector, descriptor(at(&handler[n]), sizeof(handler[n]) - 1,
						    SEGMENT_P | TASK_32));
		set_raw_gate(TS + n, task_gate(selector, 0));
	}
	caught = (struct caught){ 0 };
}

static void no_handlers(void)
{
	for (unsigned n = 0; n < HANDLERS; n++)
		set_gate(TS + n, stub_of(TS + n), 0);
}

/* The fault belongs to the task that could not be loaded. */
static void check_segments(const char *name, uint32_t vector, uint32_t error)
{
	ready_handlers();
	check_equal(name, run(jump), (uint32_t)NONE);
	check_equal("its vector", caught.vector, vector);
	check_equal("its code", caught.code, error);
	check_equal("of the new task", caught.link, OTHER);
	check_equal("at its first instruction", other.eip, at(note_entry));
	check_equal("which it has not executed", found.eax, 0);
	come_home();
}

#define BAD(name, field, value, vector, error)       \
	do {                                         \
		ready(leave_by_jump);                \
		other.field = value;                 \
		check_segments(name, vector, error); \
	} while (0)

static void bad_segments(void)
{
	BAD("a code segment that is null", cs, 0, TS, 0);
	BAD("that is data", cs, DATA, TS, DATA);
	BAD("of another level", cs, USER_CODE & ~3u, TS, USER_CODE & ~3u);
	BAD("that is absent", cs, ABSENT_CODE, NP, ABSENT_CODE);
	BAD("a stack that is null", ss, 0, TS, 0);
	BAD("that is code", ss, CODE, TS, CODE);
	BAD("of a user", ss, USER_DATA, TS, USER_DATA & ~3u);
	BAD("that is absent", ss, ABSENT_DATA, SS, ABSENT_DATA);
	BAD("data that is a task", ds, TASK, TS, TASK);
	BAD("that is absent", es, ABSENT_DATA, NP, ABSENT_DATA);
	BAD("behind the table", fs, 0xff0, TS, 0xff0);
	BAD("a local table that is none", ldt, DATA, TS, DATA);
	BAD("that is in itself", ldt, LOCAL | IN_LOCAL, TS, LOCAL | IN_LOCAL);
}

/* ---- frames ---- */

SNIPPET(32, user_interrupt, "int $0x60")
SNIPPET(32, user_call, "lcall $0xa8, $0")
static uint8_t user_page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
extern const uint8_t call_entry[];
__asm__("call_entry: movl 4(%esp), %eax; movl 8(%esp), %ebx; movl 12(%esp), %ecx; "
	"movl 16(%esp), %edx; int $0x80");

static void as_user(const uint8_t *code, const uint8_t *end)
{
	uint32_t frame[] = { at(user_page), USER_CODE, 2, at(user_page) + sizeof(user_page) - 8,
			     USER_DATA };

	copy(at(user_page), code, end);
	*(volatile uint32_t *)(user_page + sizeof(user_page) - 8) = 0x11;
	*(volatile uint32_t *)(user_page + sizeof(user_page) - 4) = 0x22;
	try_iret(frame, 5);
}

/* A user's event whose stack of the kernel is bad; the handler's task answers. */
static void check_frame(const char *name, uint32_t ss0, uint32_t esp0, uint32_t vector,
			uint32_t error)
{
	uint32_t old_esp0 = main_task.esp0;

	set_gate(GATE_VECTOR, stub_of(GATE_VECTOR), 3);
	ready_handlers();
	/* they come back to where the user was: at its interrupt, which has a good stack then */
	main_task.ss0 = ss0;
	main_task.esp0 = esp0;
	for (unsigned n = 0; n < HANDLERS; n++)
		handler[n].edi = old_esp0;
	as_user(user_interrupt, user_interrupt_end);
	check_equal(name, caught.vector, vector);
	check_equal("its code", caught.code, error);
	check_equal("where", main_task.eip, at(user_page));
	check_equal("and then it goes on", last.vector, GATE_VECTOR);
}

static void frames(void)
{
	check_frame("no room for a frame", SMALL_STACK, 0x10, SS, SMALL_STACK);
	check_frame("a stack behind its limit", SMALL_STACK, 0x200, SS, SMALL_STACK);
	check_frame("a null stack", 0, 0x200, TS, 0);
	check_frame("a stack of another level", USER_DATA, 0x200, TS, USER_DATA & ~3u);
	check_frame("an absent stack", ABSENT_DATA, 0x200, SS, ABSENT_DATA);
}

static void code_limits(void)
{
	set_raw_gate(GATE_VECTOR, 0x00008e0000000200ull | (uint64_t)SMALL_CODE << 16);
	check_equal("a handler behind its segment's limit", run(interrupt), GP);
	check_equal("its code", last.code, 0);
	check_equal("in the old segment", last.cs & 0xffff, CODE);
}

static void call_gates(void)
{
	enum { GATE_32_USER = 0xec, PARAMETERS = 2 };
	uint64_t gate = (at(call_entry) & 0xffff) | (uint64_t)CODE << 16 |
			(uint64_t)PARAMETERS << 32 | (uint64_t)GATE_32_USER << 40 |
			(uint64_t)(at(call_entry) >> 16) << 48;

	set_descriptor(CALL_GATE, gate);
	as_user(user_call, user_call_end);
	check_equal("a call gate to the kernel", last.vector, DONE);
	check_equal("it comes from the user", last.eax & 0xffff, USER_CODE);
	check_equal("its parameters are copied", last.ebx, 0x11);
	check_equal("in their order", last.ecx, 0x22);
	check_equal("below the stack's pointer", last.edx, at(user_page) + sizeof(user_page) - 8);
	ready_handlers();
	handler[0].edi = main_task.esp0;
	main_task.ss0 = USER_DATA;
	as_user(user_call, user_call_end);
	check_equal("a bad stack", caught.vector, TS);
	check_equal("its code", caught.code, USER_DATA & ~3u);
}

void test_main(void)
{
	set_descriptor(LOCAL, descriptor(at(gdt), 0xff, SEGMENT_P | LOCAL_TABLE));
	set_descriptor(ABSENT_CODE, descriptor(0, 0xfffff, SEGMENT_G | SEGMENT_D | CODE_KIND));
	set_descriptor(ABSENT_DATA, descriptor(0, 0xfffff, SEGMENT_G | SEGMENT_D | DATA_KIND));
	set_descriptor(SMALL_STACK,
		       descriptor(at(other_stack), 0xff, SEGMENT_P | SEGMENT_D | DATA_KIND));
	set_descriptor(SMALL_CODE, descriptor(0, 0x1ff, SEGMENT_P | SEGMENT_D | CODE_KIND));
	set_descriptor(SHORT, 0);
	by_jump();
	by_call();
	of_16_bits();
	trap_bit();
	come_home();
	bad_tasks();
	come_home();
	bad_segments();
	frames();
	no_handlers();
	code_limits();
	ready_handlers();
	call_gates();
}
