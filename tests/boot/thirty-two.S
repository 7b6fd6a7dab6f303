/* A static 32-bit Linux program: stack, calls, strings, x87 and SSE, a fault of its own caught by a signal, the
 * kernel's own way into a system call (AT_SYSINFO: SYSENTER or SYSCALL, by vendor); prints THIRTYTWO and a sum. */
	.bss
buffer:	.skip 4096
copy:	.skip 4096
	.data
action:	.long on_fault, 0x44000004, restorer, 0, 0 /* SA_RESTORER | SA_NODEFER | SA_SIGINFO */
text:	.ascii "THIRTYTWO "
digits:	.ascii "00000000\n"
	.text
	.globl _start
_start:	movl (%esp), %eax
	leal 8(%esp,%eax,4), %esi /* behind the arguments: the environment, 0, the auxiliary vector */
5:	lodsl
	testl %eax, %eax
	jnz 5b
6:	lodsl
	movl %eax, %ebx
	lodsl
	testl %ebx, %ebx
	jz 7f /* a kernel without it */
	cmpl $32, %ebx /* AT_SYSINFO */
	jne 6b
	movl %eax, %esi
	movl $20, %eax /* getpid */
	int $0x80
	movl %eax, %edi
	movl $20, %eax
	call *%esi
	cmpl %eax, %edi
	jne on_fault
7:	movl $174, %eax /* rt_sigaction(SIGSEGV) */
	movl $11, %ebx
	movl $action, %ecx
	xorl %edx, %edx
	movl $8, %esi
	int $0x80
	movl $buffer, %edi
	movl $1024, %ecx
	movl $0x01020304, %eax
1:	stosl
	roll $3, %eax
	addl %ecx, %eax
	loop 1b
	cld
	movl $buffer, %esi
	movl $copy, %edi
	movl $4096, %ecx
	rep movsb
	movl $copy, %esi
	movl $1024, %ecx
	xorl %ebx, %ebx
2:	lodsl
	pushl %ecx
	pushl %eax
	call mix
	addl $8, %esp
	loop 2b
	fldpi
	fldl2e
	fmulp
	fistpl buffer
	addl buffer, %ebx
	cvtsi2sd %ebx, %xmm0
	cvttsd2si %xmm0, %eax
	addl %eax, %ebx
	addl $5, %ebx
	pushal
	movl 0, %eax /* the handler goes on behind it */
	.globl behind
behind:	popal
	movl $8, %ecx
	movl $digits, %edi
3:	roll $4, %ebx
	movl %ebx, %eax
	andl $15, %eax
	cmpb $10, %al
	jb 4f
	addb $39, %al
4:	addb $48, %al
	stosb
	loop 3b
	movl $4, %eax
	movl $1, %ebx
	movl $text, %ecx
	movl $19, %edx
	int $0x80
	movl $1, %eax
	xorl %ebx, %ebx
	int $0x80
mix:	pushl %ebp
	movl %esp, %ebp
	xorl 8(%ebp), %ebx
	roll $5, %ebx
	addl 12(%ebp), %ebx
	leave
	ret
on_fault:
	movl 12(%esp), %eax /* ucontext: eip is at 20 + 14 * 4 */
	movl $behind, 76(%eax)
	ret
restorer:
	movl $173, %eax
	int $0x80
