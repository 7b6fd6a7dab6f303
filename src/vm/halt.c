/*
 * What a processor that halts does before it sleeps. What it waits for is often the answer of a
 * disk, a card or a port, some tens of microseconds away: then it looks for that itself, instead of
 * the devices' thread, which would be woken and would wake this one (lib/brief_wait.h says when
 * that is worth it).
 *
 *  - The lock is not held while it looks. Who changes anything for the processor counts in `wakes`
 *    under the lock: a processor that has it again and finds the same number may sleep.
 *  - A short wait that a clock ended says nothing of the next one.
 */
#include "machine_internal.h"

/* of the TSC: a clock of the guest's waits as long, and what else its processor has to do */
enum { ASKED_TICKS = 60000 };

void vcpu_wake(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->wakes, vcpu->wakes + 1, __ATOMIC_RELAXED);
	if (vcpu->holds_wake)
		vcpu->wake_due = true;
	else
		pthread_cond_signal(&vcpu->wake);
}

void vcpu_hold_wake(struct vcpu *vcpu) { vcpu->holds_wake = true; }

bool vcpu_let_wake(struct vcpu *vcpu)
{
	const bool is_due = vcpu->wake_due;

	vcpu->holds_wake = vcpu->wake_due = false;
	return is_due;
}

void vcpu_rouse(struct vcpu *vcpu) { pthread_cond_signal(&vcpu->wake); }

/* From any thread: since there were so many. */
static bool is_woken(const struct vcpu *vcpu, uint32_t wakes)
{
	return __atomic_load_n(&vcpu->wakes, __ATOMIC_RELAXED) != wakes;
}

bool halt_looks(struct vcpu *vcpu, uint64_t next_ns)
{
	struct machine *machine = vcpu->machine;
	const uint32_t wakes = vcpu->wakes;
	bool is_due = false;

	vcpu->due_ns = next_ns;
	if (!machine->devices || vcpu->activity != VCPU_RUNNING)
		return false;
	if (!brief_wait_looks(&vcpu->brief) || !devices_watch(machine->devices)) {
		devices_leave(machine->devices);
		return false;
	}
	pthread_mutex_unlock(&machine->lock);
	do {
		devices_collect(machine->devices);
		is_due = next_ns != UINT64_MAX && clock_monotonic_ns() >= next_ns;
	} while (!is_woken(vcpu, wakes) && !is_due && brief_wait_looks(&vcpu->brief));
	devices_unwatch(machine->devices);
	pthread_mutex_lock(&machine->lock);
	return is_due || vcpu->wakes != wakes;
}

void halt_ends(struct vcpu *vcpu)
{
	if (!vcpu->brief.begun)
		return;
	if (vcpu->due_ns != UINT64_MAX && clock_monotonic_ns() >= vcpu->due_ns)
		brief_wait_forget(&vcpu->brief);
	else
		brief_wait_found(&vcpu->brief);
}

void halt_waits_for_ports(struct vcpu *vcpu)
{
	const uint32_t wakes = __atomic_load_n(&vcpu->wakes, __ATOMIC_RELAXED);
	const uint64_t begin_tsc = __builtin_ia32_rdtsc();

	if (!vcpu->machine->devices)
		return;
	while (!devices_look_at_ports(vcpu->machine->devices) && !is_woken(vcpu, wakes) &&
	       __builtin_ia32_rdtsc() - begin_tsc < ASKED_TICKS &&
	       brief_wait_looks(&vcpu->asked))
		;
	brief_wait_found(&vcpu->asked);
}
