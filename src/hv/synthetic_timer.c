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
	const struct hv_timer *synthetic = &cpu->timer[n];
	const struct {
		uint32_t timer, reserved;
		uint64_t due, now;
	} payload = { n, 0, synthetic->due_100ns, hv_now(cpu->partition) };
	struct hv_message message = { .type = MESSAGE_TIMER_EXPIRED,
				      .payload_bytes = sizeof(payload) };

	assert(n < HV_TIMERS && !(synthetic->config & STIMER_DIRECT));
	memcpy(message.payload, &payload, sizeof(payload));
	return hv_try_slot(cpu, synthetic->config >> 16 & 15, &message,
			   cpu->queue[synthetic->config >> 16 & 15].count);
}

/* A period later, or off. */
static void go_on(struct hv_timer *timer, uint64_t now)
{
	if (!(timer->config & STIMER_PERIODIC)) {
		timer->config &= ~(uint64_t)STIMER_ENABLE;
		return;
	}
	assert(timer->count);
	timer->due_100ns += timer->count;
	if (timer->due_100ns <= now)
		timer->due_100ns = now + timer->count;
}

uint64_t hv_run_timers(struct hv_cpu *cpu)
{
	const struct hv_host *host = cpu->partition->host;
	uint64_t now = 0;
	uint64_t next = UINT64_MAX;

	for (unsigned n = 0; n < HV_TIMERS; n++) {
		struct hv_timer *timer = &cpu->timer[n];

		if (!(timer->config & STIMER_ENABLE))
			continue;
		now = now ? now : hv_now(cpu->partition);
		if (now >= timer->due_100ns) {
			if (timer->config & STIMER_DIRECT) {
				host->raise(host->context, cpu->index,
					    (uint8_t)(timer->config >> 4));
			} else if (!post_expiry(cpu, n)) {
				/* EOM brings it sooner */
				next = next < now + RETRY_100NS ? next : now + RETRY_100NS;
				continue;
			}
			go_on(timer, now);
		}
		if (timer->config & STIMER_ENABLE && timer->due_100ns < next)
			next = timer->due_100ns;
	}
	return next;
}

static bool has_target(const struct hv_timer *timer)
{
	return timer->config & STIMER_DIRECT || timer->config >> 16 & 15;
}

bool hv_is_timer(const struct hv_cpu *cpu, const struct hv_timer *timer)
{
	if (timer->config & ~(uint64_t)STIMER_CONFIG ||
	    (timer->config & STIMER_DIRECT && !hv_has(cpu->partition, HV_DIRECT_TIMERS)))
		return false;
	return !(timer->config & STIMER_ENABLE) || (timer->count && has_target(timer));
}

void hv_set_timer(struct hv_cpu *cpu, unsigned n, bool count, uint64_t value)
{
	struct hv_timer *timer = &cpu->timer[n];

	assert(n < HV_TIMERS);
	if (count) {
		timer->count = value;
		if (!value)
			timer->config &= ~(uint64_t)STIMER_ENABLE;
		else if (timer->config & STIMER_AUTO && has_target(timer))
			timer->config |= STIMER_ENABLE;
	} else {
		timer->config = value & STIMER_CONFIG;
		if (timer->config & STIMER_DIRECT && !hv_has(cpu->partition, HV_DIRECT_TIMERS))
			timer->config &= ~(uint64_t)STIMER_DIRECT;
		if (!has_target(timer) || !timer->count)
			timer->config &= ~(uint64_t)STIMER_ENABLE;
	}
	timer->due_100ns = timer->config & STIMER_PERIODIC ? hv_now(cpu->partition) + timer->count
							   : timer->count;
	if (timer->due_100ns < timer->count)
		timer->due_100ns = UINT64_MAX;
	assert(hv_is_timer(cpu, timer));
}
