/* Multiboot entry to 64-bit C: identity map of 4 GiB by 2 MiB pages, user bit off; IDT stubs; start of other processors. */
	.section .multiboot, "a"
	.long 0x1badb002, 0, -0x1badb002

	.section .bss
	.balign 4096
	.globl page_tables
page_tables: .skip 4096 * 6
stacks:	.skip 65536 * 17
stacks_end:

	.section .data
	.balign 16
	.globl gdt
gdt:	.quad 0
	.quad 0x00af9b000000ffff /* 08 code 64 */
	.quad 0x00cf93000000ffff /* 10 data */
	.quad 0x00cf9b000000ffff /* 18 code 32 */
	.quad 0x00cffb000000ffff /* 20 user code 32 */
	.quad 0x00cff3000000ffff /* 28 user data */
	.quad 0x00affb000000ffff /* 30 user code 64 */
	.quad 0x000f9b000000ffff /* 38 code 16 */
	.quad 0x000f93000000ffff /* 40 data 16 */
	.fill 32, 8, 0           /* 48 task states, two entries each */
gdt_end:
gdtr:	.word gdt_end - gdt - 1
	.quad gdt
	.globl cpu_count
cpu_count: .long 1

	.text
	.code32
	.globl _start
_start:	movl $stacks + 65536, %esp
	movl %ebx, boot_information
	movl $page_tables, %edi
	movl $page_tables + 4096 + 7, (%edi)
	movl $4, %ecx
	leal 4096(%edi), %esi
	movl $page_tables + 8192 + 7, %eax
1:	movl %eax, (%esi)
	addl $8, %esi
	addl $4096, %eax
	loop 1b
	movl $2048, %ecx
	leal 8192(%edi), %esi
	movl $0x83, %eax
2:	movl %eax, (%esi)
	addl $8, %esi
	addl $0x200000, %eax
	loop 2b
	xorl %edi, %edi
	jmp enter_long
/* edi: processor number; esp: its stack. Also reached from the trampoline. */
	.globl enter_long
enter_long:
	movl $page_tables, %eax
	movl %eax, %cr3
	movl $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x901, %eax /* NXE, LME, SCE */
	wrmsr
	movl $0x80010033, %eax
	movl %eax, %cr0
	lgdt gdtr
	ljmp $8, $1f
	.code64
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl %esp, %esp
	testl %edi, %edi
	jnz 2f
	call guest_main
2:	call guest_other
	cli
	hlt

/* Copied to 0x8000: the start of another processor. */
	.code16
	.globl trampoline, trampoline_end
trampoline:
	cli
	movw %cs, %ax
	movw %ax, %ds
	lgdtl gdtr16 - trampoline
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x18, $start32 - trampoline + 0x8000
	.code32
start32:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $1, %edi
	lock xaddl %edi, cpu_count
	movl %edi, %eax
	incl %eax
	shll $16, %eax
	leal stacks(%eax), %esp
	movl $enter_long, %eax
	jmp *%eax
gdtr16:	.word gdt_end - gdt - 1
	.long gdt
trampoline_end:

	.code64
#include "stubs.inc"
common:
	pushq %r15; pushq %r14; pushq %r13; pushq %r12; pushq %r11; pushq %r10; pushq %r9; pushq %r8
	pushq %rbp; pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %rbx; pushq %rax
	movq %rsp, %rdi
	movq %rsp, %rbp
	andq $-16, %rsp
	cld
	call guest_trap
	movq %rbp, %rsp
	popq %rax; popq %rbx; popq %rcx; popq %rdx; popq %rsi; popq %rdi; popq %rbp
	popq %r8; popq %r9; popq %r10; popq %r11; popq %r12; popq %r13; popq %r14; popq %r15
	addq $16, %rsp
	iretq

/* try(rdi code): runs it; a trap comes back here with its vector in rax, else rax = -1. */
	.globl try_code, try_resume
try_code:
	pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15
	movq %rsp, try_stack
	movq %rdi, %rax
	movq %rsi, %rdi
	call *%rax
	movq $-1, %rax
try_resume:
	movq try_stack, %rsp
	movq $0, try_stack
	popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx
	ret

/* as try_code, at the level of the selector: rdi code (ends with int $0x80), rsi its stack, rdx selector of code */
	.globl try_user
try_user:
	pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15
	movq %rsp, try_stack
	movl $0x10, %eax
	testb $3, %dl
	jz 1f
	movl $0x2b, %eax
1:	pushq %rax
	pushq %rsi
	pushq try_flags
	pushq %rdx
	pushq %rdi
	iretq

	.data
	.globl try_stack, try_flags, boot_information
try_flags: .quad 2
try_stack: .quad 0
boot_information: .quad 0
