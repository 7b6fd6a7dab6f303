/*
 * A machine without processors around the Hyper-V interface: memory, one register file per
 * processor, and counters.
 */
#pragma once

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/test_ram.h"
#include "hv/hv.h"
#include "x86/state.h"

enum { FAKE_RAM_BYTES = 1 << 20, FAKE_CPUS = 4, FAKE_ANY_STATUS = 0x80 };

struct fake {
	struct hv_host host;
	struct guest_memory memory;
	struct x86_state state[FAKE_CPUS];
	uint8_t xmm[FAKE_CPUS][16][16];
	uint64_t now;
	uint32_t raised, flushed, resets, crashes, wanted_forks, unwanted_forks;
	pthread_mutex_t lock;
	struct hv_partition *partition;
};

static void fake_get_state(void *context, uint32_t n, struct x86_state *to)
{
	*to = ((struct fake *)context)->state[n];
}
static void fake_set_general(void *context, uint32_t n, const struct x86_state *from)
{
	((struct fake *)context)->state[n] = *from;
}
static void *fake_xmm(void *context, uint32_t cpu, unsigned n)
{
	return ((struct fake *)context)->xmm[cpu][n];
}
static void fake_flush(void *context, uint64_t targets, const struct engine_gva_range *range,
		       unsigned n, bool global)
{
	volatile uint64_t pages = 0;

	(void)targets;
	(void)global;
	for (unsigned k = 0; k < n; k++) /* the ranges must be there to be read */
		pages += range[k].pages;
	(void)pages;
	__atomic_fetch_add(&((struct fake *)context)->flushed, 1, __ATOMIC_RELAXED);
}
static void fake_written(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}
static int fake_discard(void *context, uint8_t *hva, size_t bytes)
{
	struct fake *fake = context;

	if (hva < fake->memory.ram || bytes > fake->memory.ram_bytes ||
	    hva - fake->memory.ram > (ptrdiff_t)(fake->memory.ram_bytes - bytes))
		abort();
	memset(hva, 0, bytes);
	return 0;
}
static uint64_t fake_now(void *context)
{
	return __atomic_add_fetch(&((struct fake *)context)->now, 10, __ATOMIC_RELAXED);
}
static uint64_t fake_runtime(void *context, uint32_t n)
{
	(void)n;
	return fake_now(context);
}
static void fake_yield(void *context, uint32_t vp_index)
{
	(void)context;
	(void)vp_index;
}
static void fake_place(void *context, unsigned n, uint64_t gpa, bool ro)
{
	guest_overlay_place(&((struct fake *)context)->memory, n, gpa, ro);
}
static void fake_raise(void *context, uint32_t n, uint8_t value)
{
	if (n >= FAKE_CPUS)
		abort();
	((struct fake *)context)->raised += value ? 1 : 0;
}
static void fake_auto_eoi(void *context, uint32_t n, uint8_t value, bool on)
{
	(void)context;
	(void)n;
	(void)value;
	(void)on;
}
static int fake_apic_read(void *context, uint32_t n, enum hv_apic_register reg, uint64_t *value)
{
	(void)context;
	(void)n;
	(void)reg;
	*value = 0;
	return 0;
}
static int fake_apic_write(void *context, uint32_t n, enum hv_apic_register reg, uint64_t value)
{
	(void)context;
	(void)n;
	(void)reg;
	(void)value;
	return 0;
}
static bool fake_waiting(void *context, uint32_t n)
{
	(void)context;
	return n == FAKE_CPUS - 1;
}
static void fake_idle(void *context, uint32_t n)
{
	(void)context;
	(void)n;
}
static void fake_crashed(void *context, const char *text, size_t bytes,
			 const uint64_t parameters[5])
{
	volatile uint64_t sum = parameters[0];

	for (size_t n = 0; n < bytes; n++)
		sum += (uint8_t)text[n];
	(void)sum;
	((struct fake *)context)->crashes++;
}
static void fake_want_fork(void *context, bool is_wanted)
{
	struct fake *fake = context;

	fake->wanted_forks += is_wanted;
	fake->unwanted_forks += !is_wanted;
}
static void fake_reset(void *context) { ((struct fake *)context)->resets++; }

/* The memory is exactly as long as it says. */
static inline void fake_init(struct fake *fake, uint64_t features)
{
	uint8_t *ram = test_ram_make(FAKE_RAM_BYTES);

	memset(fake, 0, sizeof(*fake));
	guest_memory_init(&fake->memory, ram, FAKE_RAM_BYTES, FAKE_RAM_BYTES);
	pthread_mutex_init(&fake->lock, NULL);
	fake->host = (struct hv_host){
		.get_state = fake_get_state, .set_general = fake_set_general, .xmm = fake_xmm,
		.flush = fake_flush, .memory_written = fake_written, .discard = fake_discard,
		.now_100ns = fake_now, .runtime_100ns = fake_runtime, .yield = fake_yield,
		.place_overlay = fake_place, .raise = fake_raise, .set_auto_eoi = fake_auto_eoi,
		.apic_read = fake_apic_read, .apic_write = fake_apic_write,
		.is_waiting = fake_waiting, .idle = fake_idle, .crashed = fake_crashed,
		.reset = fake_reset, .want_fork = fake_want_fork,
		.context = fake, .lock = &fake->lock, .memory = &fake->memory,
		.tsc_hz = 2000000000, .apic_hz = 200000000, .features = features, .cpus = FAKE_CPUS,
		.reference_scale = 1ull << 56,
	};
	for (unsigned n = 0; n < FAKE_CPUS; n++)
		fake->state[n].cr0 = CR0_PE;
	fake->partition = hv_partition_create(&fake->host);
}

static inline void fake_destroy(struct fake *fake)
{
	hv_partition_destroy(fake->partition);
	test_ram_free(fake->memory.ram, FAKE_RAM_BYTES);
	pthread_mutex_destroy(&fake->lock);
}

static inline enum engine_call fake_hypercall(struct fake *fake, unsigned cpu, bool long_mode)
{
	const struct engine_call_registers registers = { .gpr = fake->state[cpu].gpr,
							 .protected_mode = true,
							 .long_mode = long_mode };

	return hv_hypercall(hv_partition_cpu(fake->partition, cpu), &registers);
}

static inline uint64_t fake_call(struct fake *fake, unsigned cpu, uint64_t control, uint64_t input,
				 uint64_t output)
{
	struct x86_state *state = &fake->state[cpu];

	state->gpr[1] = control;
	state->gpr[2] = input;
	state->gpr[8] = output;
	while (fake_hypercall(fake, cpu, true) == ENGINE_CALL_AGAIN)
		;
	return state->gpr[0];
}
