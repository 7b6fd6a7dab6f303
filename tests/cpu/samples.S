/*
 * Hot code whose translation density_test counts: what gcc 12 made of the programs of bench/programs.c, and code in the manner of a kernel's.
 *
 *   sample NAME     begins one; it ends where its block does, or at the next
 */
	.section .note.GNU-stack, "", @progbits
	.data
	.globl samples, samples_end
	.balign 8
samples:
	.macro sample name
	.pushsection .data
	.quad 9f, 7f
	.popsection
	.pushsection .rodata
9:	.asciz "\name"
	.popsection
	.text
7:
	.endm

	.text
	sample "list"
1:	mov %eax, %esi
	xor 0x8(%rcx), %al
	mov (%rcx), %rcx
	movzbl %al, %eax
	shr $0x8, %esi
	xor (%rdi,%rax,4), %esi
	mov %esi, %eax
	sub $0x1, %edx
	jne 1b
	ret

	sample "bytecode"
	cmp $0x6, %dl
	ja 1f
	movslq (%rdi,%rdx,4), %rdx
	add %rdi, %rdx
	jmp *%rdx
1:	ret

	sample "bytecode-pop"
	sub $0x1, %r10d
	add $0x1, %rcx
	mov %r10d, %edx
	and $0x3f, %edx
	add -0x78(%rsp,%rdx,8), %r8
	sub $0x1, %esi
	jne 1f
	ret
1:	ret

	sample "lz"
1:	add $0x1, %edx
	cmp %edi, %edx
	je 2f
	add $0x1, %rax
	cmp $0xff, %edx
	je 2f
	mov %rax, %rcx
	movzbl (%rax), %r14d
	sub %rsi, %rcx
	cmp %r14b, (%rcx,%r8,1)
	je 1b
2:	ret

	sample "fib"
	push %r12
	xor %r12d, %r12d
	push %rbp
	mov %edi, %ebp
	push %rbx
	cmp $0x1, %edi
	je 1f
	lea -1(%rbp), %edi
	call fib_itself
fib_itself:
1:	ret

	sample "fib-return"
	lea (%r12,%rax), %rax
	pop %rbx
	pop %rbp
	pop %r12
	ret

	sample "sieve"
1:	mov %eax, %edx
	add %edi, %eax
	movb $0x1, (%rcx,%rdx,1)
	cmp $0xffff, %eax
	jbe 1b
	ret

	sample "chase"
1:	mov (%rax), %rax
	sub $0x1, %edx
	jne 1b
	ret

	sample "compare"
	mov (%rsi), %eax
	cmp %eax, (%rdi)
	jb 1f
	seta %al
	movzbl %al, %eax
	ret
1:	or $-1, %eax
	ret

	sample "nbody"
1:	movsd (%rcx), %xmm0
	add $0x8, %rcx
	add $0x8, %rax
	add $0x8, %rdx
	movsd 0x10(%rax), %xmm1
	movapd %xmm0, %xmm2
	mulsd %xmm6, %xmm2
	mulsd %xmm3, %xmm0
	mulsd %xmm5, %xmm2
	mulsd %xmm5, %xmm0
	subsd %xmm2, %xmm1
	movsd %xmm1, 0x10(%rax)
	addsd 0x10(%rdx), %xmm0
	movsd %xmm0, 0x10(%rdx)
	cmp %r8, %rcx
	jne 1b
	ret

	sample "axpy"
1:	movaps (%rdx), %xmm0
	add $0x10, %rdx
	add $0x10, %rax
	mulps %xmm1, %xmm0
	addps -0x10(%rax), %xmm0
	movaps %xmm0, -0x10(%rax)
	cmp %rdx, %rcx
	jne 1b
	ret

	sample "matmul"
1:	vmovapd (%rsi,%rax), %ymm0
	vfmadd213pd (%rdx,%rax), %ymm1, %ymm0
	vmovapd %ymm0, (%rdx,%rax)
	add $0x20, %rax
	cmp $0x200, %rax
	jne 1b
	ret

	sample "kernel-prologue"
	push %r15
	push %r14
	push %r13
	push %r12
	push %rbp
	push %rbx
	sub $0x18, %rsp
	mov %rdi, 0x8(%rsp)
	mov %gs:0x28, %rax
	mov %rax, 0x10(%rsp)
	mov 0x20(%rdi), %rbx
	test %rbx, %rbx
	je 1f
	call *0x18(%rbx)
1:	ret

	sample "kernel-epilogue"
	mov 0x10(%rsp), %rax
	add $0x18, %rsp
	pop %rbx
	pop %rbp
	pop %r12
	pop %r13
	pop %r14
	pop %r15
	ret

	sample "kernel-lock"
	xor %eax, %eax
	mov $1, %edx
	lock cmpxchg %edx, (%rdi)
	jne 1f
	incl %gs:0x1234
	ret
1:	ret

	sample "system-call"
	mov $0x6e, %eax
	syscall

	sample "kernel-entry"
	swapgs
	mov %rsp, %gs:0x6014
	mov %gs:0x6010, %rsp
	pushq $0x2b
	pushq %gs:0x6014
	push %r11
	pushq $0x33
	push %rcx
	push %rax
	push %rdi
	push %rsi
	push %rdx
	push %rcx
	pushq $-38
	push %r8
	push %r9
	push %r10
	push %r11
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	xor %esi, %esi
	cld
	ret

	sample "kernel-exit"
	pop %rdi
	pop %rsp
	swapgs
	sysretq
	.skip 256
	.data
samples_end:
