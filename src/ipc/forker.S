/*
 * The page of forker.h: no stack, and memory only where whoever changes it harms himself.
 *
 *   forker_clone -> serve -- read a byte --> fork --> serve          in the forker
 *                     |                       +-----> forked         in what was forked
 *                     +-- end of the socket --> end
 *
 * What counts is in registers: r12 is the place at which a forked process goes on. Read and written
 * are a byte that means nothing, the numbers that the kernel gives descriptors (they are known), a
 * structure that says where those lie, and sets of the host's processors (forker.c); whoever changes
 * them, or the place, spoils a process that is his own copy, or says on which processors that and
 * its forker are. The filter is in the page, where nobody can change it, and where it lies is said
 * in memory that is made for that.
 */
#include <asm/unistd_64.h>

#include "forker_abi.h"

#define BELOW_FD (FORKER_ASK_FD-1)
#define ABOVE_FD (FORKER_SELF_FD+1)
#define HIGHEST_FD 0x7fffffff
#define MESSAGE_CONTROL_BYTES 40 /* in struct msghdr */
#define PROGRAM_FILTER 8         /* in struct sock_fprog */
#define SET_MODE_FILTER 1        /* SECCOMP_SET_MODE_FILTER */
#define FOR_ALL_THREADS 1        /* SECCOMP_FILTER_FLAG_TSYNC */
#define WAIT_PRIVATE 128         /* FUTEX_WAIT_PRIVATE */
#define KILL 9                   /* SIGKILL */
#define OWN 0                    /* of who calls */
#define PAGE_BYTES 4096
#define PROT_READ_WRITE 3
#define MAP_PRIVATE_ANONYMOUS 0x22

	.macro kernel number
	mov $\number, %eax
	syscall
	.endm

	/* last: included */
	.macro close_all first, last
	mov $\first, %edi
	mov $\last, %esi
	xor %edx, %edx
	kernel __NR_close_range
	.endm

	/* A byte to the broker, with who says it. */
	.macro say
	mov $FORKER_KIT_FD, %edi
	lea forker_byte(%rip), %rsi
	mov $1, %edx
	xor %r10d, %r10d
	xor %r8d, %r8d
	xor %r9d, %r9d
	kernel __NR_sendto
	.endm

	/* Descriptors, at the lowest numbers that are free. */
	.macro take_kit
	mov $FORKER_KIT_FD, %edi
	lea forker_message(%rip), %rsi
	movq $FORKER_CONTROL_BYTES, MESSAGE_CONTROL_BYTES(%rsi)
	xor %edx, %edx
	kernel __NR_recvmsg
	.endm

	/* Where it is: who is woken elsewhere costs who wakes him more than what he does at first. */
	.macro stay_on_processor
	mov $OWN, %edi
	mov $FORKER_PROCESSORS_BYTES, %esi
	lea forker_processors(%rip), %rdx
	kernel __NR_sched_getaffinity
	test %rax, %rax
	js 9f
	lea forker_processor(%rip), %rdi
	xor %esi, %esi
	xor %edx, %edx
	kernel __NR_getcpu
	mov forker_processor(%rip), %ebx
	cmp $FORKER_PROCESSORS_BYTES * 8, %ebx
	jae 9f
	mov $OWN, %edi
	mov $FORKER_PROCESSORS_BYTES, %esi
	lea forker_one(%rip), %rdx
	bts %rbx, (%rdx)
	kernel __NR_sched_setaffinity
	btr %rbx, (%rdx)
9:
	.endm

	/* As it was. */
	.macro leave_processor
	mov $OWN, %edi
	mov $FORKER_PROCESSORS_BYTES, %esi
	lea forker_processors(%rip), %rdx
	kernel __NR_sched_setaffinity
	.endm

	.macro go_to_place /* r12; the stack pointer is there already */
	mov FORK_PLACE_RBX(%r12), %rbx
	mov FORK_PLACE_RBP(%r12), %rbp
	mov FORK_PLACE_R13(%r12), %r13
	mov FORK_PLACE_R14(%r12), %r14
	mov FORK_PLACE_R15(%r12), %r15
	mov FORK_PLACE_RIP(%r12), %rcx
	mov FORK_PLACE_R12(%r12), %r12
	mov $1, %eax
	jmp *%rcx
	.endm

	.text
	.globl fork_place_take
	.type fork_place_take, @function
fork_place_take:
	endbr64
	mov %rbx, FORK_PLACE_RBX(%rdi)
	mov %rbp, FORK_PLACE_RBP(%rdi)
	mov %r12, FORK_PLACE_R12(%rdi)
	mov %r13, FORK_PLACE_R13(%rdi)
	mov %r14, FORK_PLACE_R14(%rdi)
	mov %r15, FORK_PLACE_R15(%rdi)
	lea 8(%rsp), %rax
	mov %rax, FORK_PLACE_RSP(%rdi)
	mov (%rsp), %rax
	mov %rax, FORK_PLACE_RIP(%rdi)
	mov %fs:0, %rax /* its own address, by the ABI */
	mov %rax, FORK_PLACE_TLS(%rdi)
	xor %eax, %eax
	ret
	.size fork_place_take, . - fork_place_take

	.section .text.forker, "ax", @progbits
	.balign 4096
	/* rdi: struct sock_fprog of the forker's calls. The forker's id, or -errno. */
	.globl forker_clone
	.type forker_clone, @function
forker_clone:
	endbr64
	push %r12
	mov %rdi, %r12
	mov $FORKER_SELF_FLAGS, %edi
	xor %esi, %esi
	xor %edx, %edx
	xor %r10d, %r10d
	xor %r8d, %r8d
	kernel __NR_clone
	test %rax, %rax
	jz begin
	pop %r12
	ret

	/* The first forker of a lineage: the memory is still ours alone. */
begin:	xor %esp, %esp
	close_all 0, BELOW_FD
	close_all ABOVE_FD, HIGHEST_FD
	mov $SET_MODE_FILTER, %edi
	xor %esi, %esi
	mov %r12, %rdx
	kernel __NR_seccomp
	test %rax, %rax
	jnz end
	say
	movl $1, forker_started(%rip)

serve:	mov $FORKER_ASK_FD, %edi
	lea forker_byte(%rip), %rsi
	mov $1, %edx
	kernel __NR_read
	cmp $1, %rax
	jne end
	mov forker_place(%rip), %r12
	mov $FORKER_FORK_FLAGS, %edi
	mov FORK_PLACE_RSP(%r12), %rsi
	xor %edx, %edx
	xor %r10d, %r10d
	mov FORK_PLACE_TLS(%r12), %r8
	kernel __NR_clone
	test %rax, %rax
	jz forked
	jns serve

	/* It could not: the kit is nobody's, and who says so is the forker. */
	take_kit
	close_all 0, BELOW_FD
	close_all ABOVE_FD, HIGHEST_FD
	say
	jmp serve

	/* The broker is gone, or something is not as it should be. */
end:	mov $FORKER_SELF_FD, %edi
	mov $KILL, %esi
	xor %edx, %edx
	xor %r10d, %r10d
	kernel __NR_pidfd_send_signal
stop:	xor %edi, %edi
	kernel __NR_exit_group
	hlt

	/* Alone with its memory, and with the stack pointer of the place. */
forked:	mov $FORKER_ASK_FD, %edi
	kernel __NR_close
	mov $FORKER_SELF_FD, %edi
	kernel __NR_close
	say
	stay_on_processor
	take_kit
	cmp $1, %rax
	jne stop
	/* the next forker's `kit` has come behind the old one: it takes its number */
	mov $FORKER_SELF_FD, %edi
	mov $FORKER_KIT_FD, %esi
	kernel __NR_dup2
	cmp $FORKER_KIT_FD, %rax
	jne stop
	mov $FORKER_SELF_FD, %edi
	kernel __NR_close
	kernel __NR_getpid
	mov %eax, %edi
	xor %esi, %esi
	kernel __NR_pidfd_open
	cmp $FORKER_SELF_FD, %rax
	jne stop
	mov $FORKER_SELF_FLAGS, %edi
	xor %esi, %esi
	xor %edx, %edx
	xor %r10d, %r10d
	xor %r8d, %r8d
	kernel __NR_clone
	test %rax, %rax
	js stop
	jnz 1f
	xor %esp, %esp
	close_all 0, BELOW_FD
	close_all ABOVE_FD, HIGHEST_FD
	leave_processor
	say
	jmp serve

1:	close_all FORKER_ASK_FD, FORKER_SELF_FD
	lea forker_places(%rip), %r13
	mov $FORKER_THREADS_MOST, %ebp
more:	mov (%r13), %rbx
	test %rbx, %rbx
	jz alone
	mov $FORKER_THREAD_FLAGS, %edi
	mov FORK_PLACE_RSP(%rbx), %rsi
	xor %edx, %edx
	xor %r10d, %r10d
	mov FORK_PLACE_TLS(%rbx), %r8
	kernel __NR_clone
	test %rax, %rax
	jz thread
	js stop
	add $8, %r13
	dec %ebp
	jnz more

	/* what says where the filter is lies in new memory: nobody else has that */
alone:	xor %edi, %edi
	mov $PAGE_BYTES, %esi
	mov $PROT_READ_WRITE, %edx
	mov $MAP_PRIVATE_ANONYMOUS, %r10d
	mov $-1, %r8
	xor %r9d, %r9d
	kernel __NR_mmap
	test %rax, %rax
	js stop
	mov %rax, %rdx
	movq $(filter_end - filter) / 8, (%rdx)
	lea filter(%rip), %rax
	mov %rax, PROGRAM_FILTER(%rdx)
	mov $SET_MODE_FILTER, %edi
	mov $FOR_ALL_THREADS, %esi
	kernel __NR_seccomp
	test %rax, %rax
	jnz stop
	mov %rdx, %rdi
	mov $PAGE_BYTES, %esi
	kernel __NR_munmap
	go_to_place

thread:	mov %rbx, %r12
2:	cmpl $0, FORK_PLACE_GOES(%r12) /* not written before it goes: its page is still shared */
	jne 1f
	lea FORK_PLACE_GOES(%r12), %rdi
	mov $WAIT_PRIVATE, %esi
	xor %edx, %edx
	xor %r10d, %r10d
	kernel __NR_futex
	jmp 2b

	/*
	 * Who says that it may go is not believed: it has the filter when it may not ask who it is.
	 * Where the processors have other work the machine process's list may be there as well by
	 * then: that refuses it, too, and does not end the process.
	 */
1:	movl $0, FORK_PLACE_GOES(%r12)
4:	kernel __NR_getpid
	test %rax, %rax
	js 3f
	kernel __NR_sched_yield
	jmp 4b
3:	go_to_place
	.size forker_clone, . - forker_clone

	/* no process and no thread is made; what only the page needs is no call any more */
	.macro bpf code, if_so, if_not, value
	.2byte \code
	.byte \if_so, \if_not
	.4byte \value
	.endm
	.balign 8
filter:	bpf 0x20, 0, 0, 0                       /* ld   the call's number */
	bpf 0x15, 10, 0, __NR_pidfd_open        /* jeq  kill */
	bpf 0x15, 9, 0, __NR_pidfd_send_signal
	bpf 0x15, 8, 0, __NR_dup2
	bpf 0x15, 7, 0, __NR_sendto
	bpf 0x15, 6, 0, __NR_clone
	bpf 0x15, 4, 0, __NR_getpid             /* jeq  refuse */
	bpf 0x15, 0, 2, __NR_recvmsg            /* windows come to it, and no kit */
	bpf 0x20, 0, 0, 16                      /* ld   its first argument */
	bpf 0x15, 2, 0, FORKER_KIT_FD           /* jeq  kill */
	bpf 0x06, 0, 0, 0x7fff0000              /* ret  SECCOMP_RET_ALLOW */
	bpf 0x06, 0, 0, 0x00050001              /* ret  SECCOMP_RET_ERRNO | EPERM */
	bpf 0x06, 0, 0, 0x80000000              /* ret  SECCOMP_RET_KILL_PROCESS */
filter_end:
	.org forker_clone + 4096 /* it is no longer than its page, and alone there */

	.section .note.GNU-stack, "", @progbits
