/*
 * When a processor has to look at its clocks: the APIC's timer, the TSC deadline, and the synthetic
 * timers.
 *
 * While the processor runs, a POSIX timer signals its own thread, whose handler only kicks the
 * engine; while it halts, it sleeps on a condition until the next deadline or a notification
 * (vcpu.c).
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
enum { LVT_TIMER = 0, LVT_MASKED = 1 << 16, TIMER_SLACK_NS = 1 };

static __thread struct vcpu *own_vcpu;

static uint64_t earlier(uint64_t one, uint64_t other) { return one < other ? one : other; }

static uint64_t run_tsc_deadline(struct vcpu *vcpu, uint64_t now_ns)
{
	uint64_t deadline = vcpu->apic.tsc_deadline;
	struct engine_state state;
	uint64_t tsc;

	if (!deadline)
		return UINT64_MAX;
	engine_get(vcpu->cpu, ENGINE_MSRS, &state);
	tsc = clock_tsc() + state.x86.tsc_offset;
	if (tsc < deadline)
		return now_ns + (uint64_t)((unsigned __int128)(deadline - tsc) * NS_PER_S /
					   vcpu->machine->clock.tsc_hz);
	vcpu->apic.tsc_deadline = 0;
	if (!(vcpu->apic.lvt[LVT_TIMER] & LVT_MASKED))
		apic_raise(&vcpu->apic, (uint8_t)vcpu->apic.lvt[LVT_TIMER], false);
	return UINT64_MAX;
}

uint64_t timer_run(struct vcpu *vcpu)
{
	uint64_t now_ns = clock_monotonic_ns();
	uint64_t reference_100ns = machine_now_100ns(vcpu->machine);
	uint64_t due_100ns = hv_run_timers(vcpu->hv);
	uint64_t next =
		earlier(apic_run_timer(&vcpu->apic, now_ns), run_tsc_deadline(vcpu, now_ns));

	if (due_100ns == UINT64_MAX)
		return next;
	if (due_100ns <= reference_100ns)
		return earlier(next, now_ns);
	return earlier(next, now_ns + (due_100ns - reference_100ns) * 100);
}

/*
 * Setting the host's timer is a system call: one that is set for an earlier time, and has still to
 * come, is left as it is. It then comes for nothing, once, and is set anew.
 */
void timer_arm(struct vcpu *vcpu)
{
	uint64_t next = timer_run(vcpu);
	uint64_t now_ns;
	struct itimerspec setting = { 0 };

	if (apic_has_interrupt(&vcpu->apic))
		engine_kick(vcpu->cpu);
	if (next == UINT64_MAX || next == vcpu->armed_ns)
		return;
	now_ns = clock_monotonic_ns();
	if (vcpu->armed_ns > now_ns && vcpu->armed_ns < next)
		return;
	assert(next / NS_PER_S <= INT64_MAX);
	vcpu->armed_ns = next;
	setting.it_value.tv_sec = (time_t)(next / NS_PER_S);
	setting.it_value.tv_nsec = (long)(next % NS_PER_S);
	timer_settime(vcpu->timer, TIMER_ABSTIME, &setting, NULL);
}

static void on_timer(int number)
{
	int saved = errno;

	(void)number;
	if (own_vcpu)
		engine_kick(own_vcpu->cpu);
	errno = saved;
}

int timer_prepare_thread(struct vcpu *vcpu)
{
	struct sigaction action = { .sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };

	event._sigev_un._tid = (int)syscall(SYS_gettid);
	own_vcpu = vcpu;
	/* the default lets a halted processor sleep 50 us too long; what is forked inherits it */
	if (!vcpu->machine->is_forked)
		prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	sigaction(SIGRTMIN, &action, NULL);
	return timer_create(CLOCK_MONOTONIC, &event, &vcpu->timer) ? -errno : 0;
}
