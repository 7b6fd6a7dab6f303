/*
 * Multiboot entry to 32-bit C without paging: segments, IDT stubs, what try_code() and try_iret()
 * come back through.
 */
	.section .multiboot, "a"
	.long 0x1badb002, 0, -0x1badb002

	.section .bss
	.balign 16
stack:	.skip 32768
stack_end:

	.data
	.balign 16
	.globl gdt, gdt_end
gdt:	.quad 0
	.quad 0x00cf9b000000ffff /* 08 code */
	.quad 0x00cf93000000ffff /* 10 data */
	.quad 0x00cffb000000ffff /* 18 user code */
	.quad 0x00cff3000000ffff /* 20 user data */
	.quad 0x00009b000000ffff /* 28 code 16 */
	.quad 0x000093000000ffff /* 30 data 16 */
	.fill 25, 8, 0           /* 38 the task, 40 and on: the tests' */
gdt_end:
gdtr:	.word gdt_end - gdt - 1
	.long gdt
	.globl try_stack
try_stack: .long 0

	.text
	.globl _start
_start:	movl $stack_end, %esp
	lgdt gdtr
	ljmp $8, $1f
1:	call load_data
	movl $0x600, %eax /* OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	call guest_main
	cli
	hlt
load_data:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movl %eax, %ss
	ret

#include "../stubs.inc"
common:
	pushal
	pushl %ds
	pushl %es
	pushl %fs
	pushl %gs
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	cld
	movl %esp, %eax
	pushl %eax
	call guest_trap
	addl $4, %esp
	testl %eax, %eax
	jns try_resume
	popl %gs
	popl %fs
	popl %es
	popl %ds
	popal
	addl $8, %esp
	iretl

/* int try_code(void (*code)(void)): a trap comes back here with its vector in EAX, else -1. */
	.globl try_code, try_iret
try_code:
	pushal
	movl %esp, try_stack
	call *36(%esp)
	movl $-1, %eax
try_resume:
	movl try_stack, %esp
	movl $0, try_stack
	movl %eax, 28(%esp)
	pushl $2
	popfl
	call load_data
	popal
	ret

/* int try_iret(const uint32_t *frame, unsigned words): with data segments of a user. */
try_iret:
	pushal
	movl %esp, try_stack
	movl 36(%esp), %esi
	movl 40(%esp), %ecx
	movl %ecx, %eax
	shll $2, %eax
	subl %eax, %esp
	movl %esp, %edi
	cld
	rep movsl
	movl $0x23, %eax
	movl %eax, %ds
	movl %eax, %es
	iretl
