/*
 * Programs for program_test: position-independent, C calling convention, rdi = 8 KiB of zeroed memory, result in rax.
 *
 *   program NAME, RESULT     begins one: its name and the result that it must give, on every processor
 */
	.section .note.GNU-stack, "", @progbits
	.data
	.globl programs, programs_end
	.balign 8
programs:
	.macro program name, result
	.pushsection .data
	.quad 9f, \result, 7f, 8f
	.popsection
	.pushsection .rodata
9:	.asciz "\name"
	.popsection
	.text
7:
	.endm
	.macro end
8:
	.endm

	.text
	program "recursion", 6765 /* fib(20) */
	movl $20, %edi
	call 1f
	ret
1:	cmpl $2, %edi
	jb 2f
	pushq %rbx
	pushq %rdi
	decl %edi
	call 1b
	movq %rax, %rbx
	popq %rdi
	subl $2, %edi
	call 1b
	addq %rbx, %rax
	popq %rbx
	ret
2:	movl %edi, %eax
	ret
	end

	program "flags over calls and jumps", 0x5a /* CF, ZF and SF live across CALL, RET, JMP, PUSH, POP and moves to memory */
	xorl %eax, %eax
	stc
	call 3f /* returns with CF kept */
	adcb $0, %al
	cmpl %eax, %eax
	movq %rax, 64(%rdi)
	pushq %rax
	popq %rcx
	jmp 1f
1:	sete %dl
	addb %dl, %al
	movb $0x80, %dl
	testb %dl, %dl
	movl $3, (%rdi)
	movl (%rdi), %r10d
	movl %r10d, 4(%rdi)
	js 2f
	xorl %eax, %eax
	ret
2:	incl %r10d /* keeps CF = 0 */
	sbbb $0, %al
	movb $0xff, %cl
	addb $1, %cl /* CF, ZF */
	movq 64(%rdi), %r14
	movq %r14, 72(%rdi)
	adcb $0x57, %al
	ret
3:	pushq %r15
	movq %r15, 8(%rdi)
	popq %r15
	ret
	end

	program "a jump table", 27
	pushq %rbx
	xorl %eax, %eax
	xorl %ecx, %ecx
1:	movl %ecx, %edx
	andl $3, %edx
	leaq 5f(%rip), %rbx
	movslq (%rbx, %rdx, 4), %rdx
	addq %rbx, %rdx
	jmp *%rdx
2:	addl $1, %eax
	jmp 6f
3:	addl $2, %eax
	jmp 6f
4:	leal (%rax, %rcx), %eax
6:	incl %ecx
	cmpl $10, %ecx
	jb 1b
	popq %rbx
	ret
	.balign 4
5:	.long 2b - 5b, 3b - 5b, 4b - 5b, 4b - 5b
	end

	program "strings", 0x1c9b
	cld
	movq %rdi, %r8
	movl $1000, %ecx
	movb $7, %al
	rep stosb
	movq %r8, %rsi
	leaq 4000(%r8), %rdi /* over the page's end */
	movl $200, %ecx
	rep movsb
	movq %r8, %rsi
	leaq 4000(%r8), %rdi
	movb $9, 4150(%r8)
	movl $200, %ecx
	repe cmpsb
	movl %ecx, %eax /* 49 left */
	movq %r8, %rdi
	movb $1, 900(%r8)
	movl $1, %edx
	xchgb %al, %dl
	movl $1000, %ecx
	pushq %rdx
	repne scasb
	popq %rdx
	leaq (%rcx, %rdx), %rax /* 99 + 49 */
	leaq 2000(%r8), %rsi
	leaq 2008(%r8), %rdi
	std
	movl $4, %ecx
	movq $0x1c07, (%rsi)
	rep movsq
	cld
	addq 2008(%r8), %rax
	ret
	end

	program "loops", 5995
	movl $10, %ecx
	xorl %eax, %eax
1:	addl %ecx, %eax
	loop 1b
	movl $100, %ecx
2:	addl %ecx, %eax
	testb $0x7f, %cl
	loopne 2b
	jrcxz 3f
	incl %eax
3:	movl $8, %ecx
4:	addl $90, %eax
	cmpl %eax, %eax
	loope 4b
	jecxz 5f
	movl $1, %eax
5:	addl $170, %eax
	ret
	end

	program "arithmetic of 128 bits", 0x9e3779b97f4a7c14
	movabsq $0x9e3779b97f4a7c15, %rax
	movq %rax, %r11
	mulq %r11
	movq %rax, %r10
	movq %rdx, %r14
	pushq %r15
	movq %r14, %r15
	divq %r11 /* back: the product by its factor */
	popq %r15
	addq %rdx, %rax
	decq %rax
	ret
	end

	program "x87, SSE and AVX", 42
	subq $24, %rsp
	movl $6, (%rsp)
	fildl (%rsp)
	fmuls 1f(%rip)
	fistpl (%rsp)
	cvtsi2sdl (%rsp), %xmm15
	vaddsd %xmm15, %xmm15, %xmm1
	vbroadcastsd %xmm1, %ymm2
	vextractf128 $1, %ymm2, %xmm3
	mulsd 2f(%rip), %xmm3
	cvttsd2sil %xmm3, %eax
	vzeroupper
	addq $24, %rsp
	ret
	.balign 8
1:	.float 7
2:	.double 0.5
	end

	program "code that changes itself", 10
	xorl %eax, %eax
	movl $4, %ecx
1:	.byte 0x05 /* addl $imm, eax: imm grows each time */
2:	.long 1
	incl 2b(%rip)
	decl %ecx
	jnz 1b
	movl $1, 2b(%rip) /* as it was */
	ret
	end

	.data
programs_end:
