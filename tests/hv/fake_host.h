/*
 * A machine without processors around the Hyper-V interface: memory, one register file per
 * processor, and counters.
 */
#pragma once

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hv/hv.h"
#include "x86/state.h"

enum { FAKE_RAM_BYTES = 1 << 20, FAKE_CPUS = 4, FAKE_ANY_STATUS = 0x80 };

struct fake {
	struct hv_host host;
	struct guest_memory memory;
	struct x86_state state[FAKE_CPUS];
	uint8_t xmm[FAKE_CPUS][16][16];
	uint64_t now;
	uint32_t raised, flushed, resets, crashes;
	pthread_mutex_t lock;
	struct hv_partition *partition;
};

static void fake_get_state(void *c, uint32_t n, struct x86_state *to)
{
	*to = ((struct fake *)c)->state[n];
}
static void fake_set_general(void *c, uint32_t n, const struct x86_state *from)
{
	((struct fake *)c)->state[n] = *from;
}
static void *fake_xmm(void *c, uint32_t cpu, unsigned n) { return ((struct fake *)c)->xmm[cpu][n]; }
static void fake_flush(void *c, uint64_t t, const struct engine_gva_range *r, unsigned n, bool g)
{
	volatile uint64_t pages = 0;

	(void)t;
	(void)g;
	for (unsigned k = 0; k < n; k++) /* the ranges must be there to be read */
		pages += r[k].pages;
	(void)pages;
	__atomic_fetch_add(&((struct fake *)c)->flushed, 1, __ATOMIC_RELAXED);
}
static void fake_written(void *c, uint64_t gpa, size_t bytes)
{
	(void)c;
	(void)gpa;
	(void)bytes;
}
static int fake_discard(void *c, uint8_t *hva, size_t bytes)
{
	struct fake *f = c;

	if (hva < f->memory.ram || bytes > f->memory.ram_bytes ||
	    hva - f->memory.ram > (ptrdiff_t)(f->memory.ram_bytes - bytes))
		abort();
	memset(hva, 0, bytes);
	return 0;
}
static uint64_t fake_now(void *c)
{
	return __atomic_add_fetch(&((struct fake *)c)->now, 10, __ATOMIC_RELAXED);
}
static uint64_t fake_runtime(void *c, uint32_t n)
{
	(void)n;
	return fake_now(c);
}
static void fake_yield(void *c) { (void)c; }
static void fake_place(void *c, unsigned n, uint64_t gpa, bool ro)
{
	guest_overlay_place(&((struct fake *)c)->memory, n, gpa, ro);
}
static void fake_raise(void *c, uint32_t n, uint8_t v)
{
	if (n >= FAKE_CPUS)
		abort();
	((struct fake *)c)->raised += v ? 1 : 0;
}
static void fake_auto_eoi(void *c, uint32_t n, uint8_t v, bool on)
{
	(void)c;
	(void)n;
	(void)v;
	(void)on;
}
static int fake_apic_read(void *c, uint32_t n, enum hv_apic_register r, uint64_t *v)
{
	(void)c;
	(void)n;
	(void)r;
	*v = 0;
	return 0;
}
static int fake_apic_write(void *c, uint32_t n, enum hv_apic_register r, uint64_t v)
{
	(void)c;
	(void)n;
	(void)r;
	(void)v;
	return 0;
}
static bool fake_waiting(void *c, uint32_t n)
{
	(void)c;
	return n == FAKE_CPUS - 1;
}
static void fake_idle(void *c, uint32_t n)
{
	(void)c;
	(void)n;
}
static void fake_crashed(void *c, const char *text, size_t bytes, const uint64_t p[5])
{
	volatile uint64_t sum = p[0];

	for (size_t n = 0; n < bytes; n++)
		sum += (uint8_t)text[n];
	(void)sum;
	((struct fake *)c)->crashes++;
}
static void fake_reset(void *c) { ((struct fake *)c)->resets++; }

/* The memory is exactly as long as it says. */
static inline void fake_init(struct fake *f, uint64_t features)
{
	uint8_t *ram = calloc(1, guest_memory_footprint_bytes(FAKE_RAM_BYTES));

	memset(f, 0, sizeof(*f));
	guest_memory_init(&f->memory, ram, FAKE_RAM_BYTES, FAKE_RAM_BYTES);
	pthread_mutex_init(&f->lock, NULL);
	f->host = (struct hv_host){
		.get_state = fake_get_state, .set_general = fake_set_general, .xmm = fake_xmm,
		.flush = fake_flush, .memory_written = fake_written, .discard = fake_discard,
		.now_100ns = fake_now, .runtime_100ns = fake_runtime, .yield = fake_yield,
		.place_overlay = fake_place, .raise = fake_raise, .set_auto_eoi = fake_auto_eoi,
		.apic_read = fake_apic_read, .apic_write = fake_apic_write,
		.is_waiting = fake_waiting, .idle = fake_idle, .crashed = fake_crashed,
		.reset = fake_reset, .context = f, .lock = &f->lock, .memory = &f->memory,
		.tsc_hz = 2000000000, .apic_hz = 200000000, .features = features, .cpus = FAKE_CPUS,
		.reference_scale = 1ull << 56,
	};
	for (unsigned n = 0; n < FAKE_CPUS; n++)
		f->state[n].cr0 = CR0_PE;
	f->partition = hv_partition_create(&f->host);
}

static inline void fake_destroy(struct fake *f)
{
	hv_partition_destroy(f->partition);
	free(f->memory.ram);
	pthread_mutex_destroy(&f->lock);
}

static inline enum engine_call fake_hypercall(struct fake *f, unsigned cpu, bool long_mode)
{
	const struct engine_call_registers registers = { .gpr = f->state[cpu].gpr,
							 .protected_mode = true,
							 .long_mode = long_mode };

	return hv_hypercall(hv_partition_cpu(f->partition, cpu), &registers);
}

static inline uint64_t fake_call(struct fake *f, unsigned cpu, uint64_t control, uint64_t input,
				 uint64_t output)
{
	struct x86_state *s = &f->state[cpu];

	s->gpr[1] = control;
	s->gpr[2] = input;
	s->gpr[8] = output;
	while (fake_hypercall(f, cpu, true) == ENGINE_CALL_AGAIN)
		;
	return s->gpr[0];
}
