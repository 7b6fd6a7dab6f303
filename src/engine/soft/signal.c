/*
 * Host signals: faults of copied instructions (#DE, #GP, #SS, #XM, #MF) arrive as such, and become
 * the guest's exceptions. A fault anywhere else is one of the engine's own and ends the process.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/emit.h"
#include "soft_internal.h"

static bool uses_stack(const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_STACK) || (x86_insn_has_memory(insn) && insn->base == RSP);
}

/*
 * The guest's stack pointer is not canonical, and the host raised #GP, #SS or #UD: because of this
 * instruction, or because the host was interrupted and cannot return to such a stack pointer (some
 * hosts cannot). True: the latter; go on where it was.
 */
static bool is_hosts_own(struct soft_cpu *cpu, struct fault *fault)
{
	struct fault unused;
	struct x86_insn insn;
	uint8_t raw[X86_INSN_MAX_BYTES];

	if (!cpu->signal_in_block)
		return true;
	if (!soft_read(cpu, cpu->signal_rip, raw, sizeof(raw), ACCESS_EXEC, &unused) &&
	    !x86_decode(raw, sizeof(raw), 64, &insn) && uses_stack(&insn)) {
		fault->vector = EXC_SS;
		fault->has_code = true;
		return false;
	}
	/* at the same place, and nothing came through C in between */
	cpu->stack_retries = cpu->signal_pc == cpu->stack_retry_pc &&
					     cpu->stack_retry_work == cpu->systems + cpu->misses
				     ? cpu->stack_retries + 1
				     : 0;
	cpu->stack_retry_pc = cpu->signal_pc;
	cpu->stack_retry_work = cpu->systems + cpu->misses;
	return cpu->stack_retries < 100;
}

static bool may_be_hosts_own(unsigned vector)
{
	return vector == EXC_GP || vector == EXC_SS || vector == EXC_UD;
}

void *soft_signal(struct soft_cpu *cpu)
{
	struct fault fault = { .vector = (uint8_t)cpu->signal_vector,
			       .has_code = cpu->signal_vector == EXC_GP ||
					   cpu->signal_vector == EXC_SS };

	if (may_be_hosts_own(fault.vector) && !soft_canonical(cpu->state.gpr[RSP]) &&
	    is_hosts_own(cpu, &fault))
		return cpu->engine->refresh;
	cpu->state.rip = cpu->signal_rip;
	if (!cpu->signal_in_word)
		cpu->flags_word = cpu->signal_word;
	return soft_raise(cpu, &fault);
}

enum { SIGNAL_STACK_BYTES = 64 << 10 };

static __thread struct soft_cpu *running;

static void own_fault(int number, const siginfo_t *info, const greg_t *registers)
{
	const struct soft_engine *engine = running ? running->engine : NULL;

	if (engine && engine->last_words)
		snprintf(engine->last_words, engine->last_words_bytes,
			 "signal %d at %lx (code %+ld), address %p", number,
			 (unsigned long)registers[REG_RIP],
			 (long)(registers[REG_RIP] - (greg_t)engine->code_run), info->si_addr);
	_exit(70);
}

/*
 * A guest's address that is not canonical stays so on the host. One with 48-bit addresses raises
 * #GP, and no address is told; one with 57 takes it for one that is not mapped. Any other address
 * is a fault of ours.
 */
static bool is_guest_address(const siginfo_t *info)
{
	enum { USER_BITS = 47 }; /* nothing of this process lies above */

	return !info->si_addr || (uint64_t)info->si_addr >> USER_BITS;
}

/* What the fault was; 0: none that a guest can cause. */
static unsigned vector_of(int number, const siginfo_t *info, const ucontext_t *context)
{
	switch (number) {
	case SIGFPE:
		if (context->uc_mcontext.fpregs && (context->uc_mcontext.fpregs->swd & 0x80))
			return EXC_MF;
		return info->si_code == FPE_INTDIV || info->si_code == FPE_INTOVF ? EXC_DE + 0x100
										  : EXC_XM;
	case SIGILL: return EXC_UD;
	case SIGBUS: return EXC_SS;
	default: return is_guest_address(info) ? EXC_GP : 0;
	}
}

/*
 * On a stack pointer that is not canonical some hosts raise #GP, #SS or #UD when they return from
 * an interrupt, anywhere in the code cache: also in the way out of a thunk (then what it was to
 * resume is what goes on) and in emit_refresh() (then that begins again).
 */
static void on_signal(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	greg_t *registers = interrupted->uc_mcontext.gregs;
	struct soft_cpu *cpu = running;
	struct soft_engine *engine = cpu ? cpu->engine : NULL;
	uint64_t pc = (uint64_t)registers[REG_RIP];
	unsigned vector = vector_of(number, info, interrupted);
	bool odd_stack = may_be_hosts_own(vector) && !soft_canonical((uint64_t)registers[REG_RSP]);

	if (!engine || !vector || pc - (uint64_t)engine->code_run >= engine->code_bytes) {
		own_fault(number, info, registers);
		return;
	}
	for (unsigned n = 0; odd_stack && n < engine->resume_jump_count; n++)
		if (pc == engine->resume_jumps[n])
			pc = (uint64_t)cpu->resume;
	if (odd_stack && pc >= (uint64_t)engine->refresh && pc < (uint64_t)engine->reload) {
		cpu->resume = engine->refresh;
		registers[REG_RSP] = (greg_t)cpu->host_rsp;
		registers[REG_RIP] = (greg_t)engine->reload;
		return;
	}
	cpu->signal_in_block = soft_guest_pc(cpu, pc, &cpu->signal_rip, &cpu->signal_in_word);
	if (!cpu->signal_in_block && !odd_stack) {
		own_fault(number, info, registers);
		return;
	}
	cpu->signal_vector = vector & 0xff;
	cpu->signal_pc = pc;
	cpu->signal_word = ((uint64_t)registers[REG_EFL] & 0xff) << 8 |
			   ((uint64_t)registers[REG_EFL] >> 11 & 1);
	registers[REG_EFL] &= ~(greg_t)FLAG_DF;
	cpu->state.gpr[RSP] = (uint64_t)registers[REG_RSP];
	/* the guest's may be non-canonical: the host cannot return to that */
	registers[REG_RSP] = (greg_t)cpu->host_rsp;
	registers[REG_RIP] = (greg_t)engine->signal;
}

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31) /* linux/signal.h, which signal.h does not go with */
#endif

/* Kept over a fork. */
static int make_signal_stack(struct soft_cpu *cpu)
{
	uint8_t *place;

	if (cpu->signal_stack)
		return 0;
	place = mmap(NULL, SIGNAL_STACK_BYTES + PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (place == MAP_FAILED)
		return -errno;
	cpu->signal_stack = place;
	return mprotect(place + PAGE_BYTES, SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE) ? -errno
											: 0;
}

static int install_signals(struct soft_cpu *cpu)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK };
	int error = make_signal_stack(cpu);
	/*
	 * Disarmed while a handler runs, so that the kernel does not look at the stack pointer to
	 * see whether one does: the guest's is any number, also one inside this stack.
	 */
	const stack_t stack = { .ss_sp = (uint8_t *)cpu->signal_stack + PAGE_BYTES,
				.ss_size = SIGNAL_STACK_BYTES,
				.ss_flags = (int)SS_AUTODISARM };

	if (error || sigaltstack(&stack, NULL))
		return error ? error : -errno;
	for (unsigned n = 0; n < 4; n++)
		sigaction(numbers[n], &action, NULL);
	return 0;
}

int soft_engine_prepare_thread(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;
	int error = install_signals(cpu);

	if (error)
		return error;
	if (cpu->engine->is_forked)
		soft_forget_forked(cpu);
	/* WRGSBASE would be lost at a switch where the kernel does not use it */
	syscall(SYS_arch_prctl, ARCH_SET_GS, cpu);
	running = cpu;
	return 0;
}

void soft_release_thread(struct soft_cpu *cpu)
{
	const stack_t none = { .ss_flags = SS_DISABLE };

	if (running == cpu) {
		sigaltstack(&none, NULL);
		running = NULL;
	}
	if (cpu->signal_stack)
		munmap(cpu->signal_stack, SIGNAL_STACK_BYTES + PAGE_BYTES);
	cpu->signal_stack = NULL;
}
