/*
 * Synthetic timers (TLFS "Timers"): one-shot at an absolute reference time, or periodic; by message
 * or as a direct interrupt.
 */
#include "hv_internal.h"

#include <assert.h>

enum {
	STIMER_ENABLE = 1, STIMER_PERIODIC = 2, STIMER_AUTO = 8, STIMER_DIRECT = 1 << 12,
	STIMER_CONFIG = 0xf1fff
};
enum { RETRY_100NS = 10000 };
#define MESSAGE_TIMER_EXPIRED 0x80000010u

/*
 * Puts the message into its slot; false when the slot is taken. Timer messages do not queue: the
 * timer itself waits.
 */
static bool post_expiry(struct hv_cpu *cpu, unsigned n)
{
	const struct hv_timer *t = &cpu->timer[n];
	const struct {
		uint32_t timer, reserved;
		uint64_t due, now;
	} payload = { n, 0, t->due_100ns, hv_now(cpu->partition) };
	struct hv_message m = { .type = MESSAGE_TIMER_EXPIRED, .payload_bytes = sizeof(payload) };

	assert(n < HV_TIMERS && !(t->config & STIMER_DIRECT));
	memcpy(m.payload, &payload, sizeof(payload));
	return hv_try_slot(cpu, t->config >> 16 & 15, &m, cpu->queue[t->config >> 16 & 15].count);
}

/* A period later, or off. */
static void go_on(struct hv_timer *t, uint64_t now)
{
	if (!(t->config & STIMER_PERIODIC)) {
		t->config &= ~(uint64_t)STIMER_ENABLE;
		return;
	}
	assert(t->count);
	t->due_100ns += t->count;
	if (t->due_100ns <= now)
		t->due_100ns = now + t->count;
}

uint64_t hv_run_timers(struct hv_cpu *cpu)
{
	const struct hv_host *host = cpu->partition->host;
	uint64_t now = 0;
	uint64_t next = UINT64_MAX;

	for (unsigned n = 0; n < HV_TIMERS; n++) {
		struct hv_timer *t = &cpu->timer[n];

		if (!(t->config & STIMER_ENABLE))
			continue;
		now = now ? now : hv_now(cpu->partition);
		if (now >= t->due_100ns) {
			if (t->config & STIMER_DIRECT) {
				host->raise(host->context, cpu->index, (uint8_t)(t->config >> 4));
			} else if (!post_expiry(cpu, n)) {
				/* EOM brings it sooner */
				next = next < now + RETRY_100NS ? next : now + RETRY_100NS;
				continue;
			}
			go_on(t, now);
		}
		if (t->config & STIMER_ENABLE && t->due_100ns < next)
			next = t->due_100ns;
	}
	return next;
}

static bool has_target(const struct hv_timer *t)
{
	return t->config & STIMER_DIRECT || t->config >> 16 & 15;
}

bool hv_is_timer(const struct hv_cpu *cpu, const struct hv_timer *t)
{
	if (t->config & ~(uint64_t)STIMER_CONFIG ||
	    (t->config & STIMER_DIRECT && !hv_has(cpu->partition, HV_DIRECT_TIMERS)))
		return false;
	return !(t->config & STIMER_ENABLE) || (t->count && has_target(t));
}

void hv_set_timer(struct hv_cpu *cpu, unsigned n, bool count, uint64_t value)
{
	struct hv_timer *t = &cpu->timer[n];

	assert(n < HV_TIMERS);
	if (count) {
		t->count = value;
		if (!value)
			t->config &= ~(uint64_t)STIMER_ENABLE;
		else if (t->config & STIMER_AUTO && has_target(t))
			t->config |= STIMER_ENABLE;
	} else {
		t->config = value & STIMER_CONFIG;
		if (t->config & STIMER_DIRECT && !hv_has(cpu->partition, HV_DIRECT_TIMERS))
			t->config &= ~(uint64_t)STIMER_DIRECT;
		if (!has_target(t) || !t->count)
			t->config &= ~(uint64_t)STIMER_ENABLE;
	}
	t->due_100ns = t->config & STIMER_PERIODIC ? hv_now(cpu->partition) + t->count : t->count;
	if (t->due_100ns < t->count)
		t->due_100ns = UINT64_MAX;
	assert(hv_is_timer(cpu, t));
}
