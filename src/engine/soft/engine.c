/* The life of an engine and of its processors: creating them, running them, what is said to them from outside. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "soft_internal.h"

void *soft_reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

/*
 * Even, and never canonical: what is not cached has no canonical address for a guest that does not guess. The control of the test
 * of speculation is built without it.
 */
static int soft_make_poison(struct soft_engine *e)
{
#ifndef UMBRA_SPECULATION_UNMENDED
	if (getrandom(&e->poison, sizeof(e->poison), 0) != sizeof(e->poison))
		return -EAGAIN;
	e->poison = (e->poison & ~(3ull << 62 | 1)) | 1ull << 62;
#else
	e->poison = 0;
#endif
	return 0;
}

struct engine *engine_create(const struct guest_memory *memory)
{
	size_t frames = guest_memory_footprint_bytes(memory->ram_bytes) >> 12;
	struct soft_engine *e = calloc(1, sizeof(*e));
	int fd = memfd_create("umbra-code", MFD_CLOEXEC);

	if (!e || fd < 0)
		return NULL;
	e->memory = memory;
	e->ram = memory->ram;
	e->code_bytes = 64 << 20;
	e->cold_start = e->cold_used = 24 << 20;
	if (ftruncate(fd, (off_t)e->code_bytes) || getrandom(&e->secret, 8, 0) != 8 || getrandom(&e->no_key, 8, 0) != 8 || soft_make_poison(e))
		return NULL;
	e->code_write = mmap(NULL, e->code_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	e->code_run = mmap(NULL, e->code_bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	e->blocks = soft_reserve(MAX_BLOCKS * sizeof(*e->blocks));
	e->hash = soft_reserve(HASH_BUCKETS * sizeof(*e->hash));
	e->maps = soft_reserve(MAX_MAPS * sizeof(*e->maps));
	e->page_blocks = soft_reserve(frames * sizeof(*e->page_blocks));
	e->frame_flags = soft_reserve(frames);
	e->frame_writes = soft_reserve(frames);
	if (e->code_write == MAP_FAILED || e->code_run == MAP_FAILED || !e->blocks || !e->hash || !e->maps || !e->page_blocks || !e->frame_flags || !e->frame_writes)
		return NULL;
	return (struct engine *)e;
}

void engine_set_model(struct engine *engine, const struct cpu_model *model, const struct cpu_host *host)
{
	struct soft_engine *e = (struct soft_engine *)engine;

	e->model = model;
	e->clears_buffers = host->leaks_buffers;
}

struct engine_cpu *engine_cpu_create(struct engine *engine, const struct engine_ops *ops, void *context)
{
	struct soft_engine *e = (struct soft_engine *)engine;
	struct soft_cpu *cpu = e->cpu_count < MAX_CPUS ? soft_reserve(sizeof(*cpu)) : NULL;

	if (!cpu)
		return NULL;
	if (soft_create_space(cpu))
		return NULL;
	cpu->self = cpu;
	cpu->poison = e->poison;
	cpu->engine = e;
	cpu->ops = ops;
	cpu->ops_context = context;
	*(uint16_t *)(void *)(cpu->vector) = 0x37f;
	*(uint32_t *)(void *)(cpu->vector + 24) = 0x1f80;
	if (e->cpu_count) {
		const struct soft_cpu *first = e->cpus[0];

		cpu->thunk_memory = first->thunk_memory;
		cpu->thunk_commit = first->thunk_commit;
		cpu->thunk_system = first->thunk_system;
		cpu->thunk_chain = first->thunk_chain;
		cpu->thunk_miss = first->thunk_miss;
	} else {
		soft_make_thunks(e, cpu);
	}
	e->cpus[e->cpu_count++] = cpu;
	return (struct engine_cpu *)cpu;
}

void engine_reset(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	soft_flush(cpu, true);
	cpu->nmi_pending = 0;
	cpu->nmi_blocked = false;
	cpu->pending &= ~(uint32_t)(PENDING_STEP_TRAP | PENDING_SINGLE);
}

unsigned engine_cpu_nmi(const struct engine_cpu *opaque)
{
	const struct soft_cpu *cpu = (const struct soft_cpu *)opaque;

	return (cpu->nmi_pending ? ENGINE_NMI_PENDING : 0) | (cpu->nmi_blocked ? ENGINE_NMI_BLOCKED : 0);
}

/* What XRSTOR would refuse (SDM Vol. 1 13.8.1) would be a fault of ours. */
static bool is_loadable(const uint8_t *area)
{
	uint64_t header[8];
	uint32_t mxcsr;

	memcpy(header, area + 512, sizeof(header));
	memcpy(&mxcsr, area + 24, 4);
	if (header[0] & ~7ull || header[1] || mxcsr >> 16) /* an x86-64-v3 processor has all 16 */
		return false;
	for (int n = 2; n < 8; n++)
		if (header[n])
			return false;
	return true;
}

int engine_cpu_restored(struct engine_cpu *opaque, unsigned nmi)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	if (!is_loadable(cpu->vector))
		return -EBADMSG;
	engine_reset(opaque);
	cpu->nmi_pending = nmi & ENGINE_NMI_PENDING ? 1 : 0;
	cpu->nmi_blocked = nmi & ENGINE_NMI_BLOCKED;
	soft_set_code_bits(&cpu->state);
	soft_debug_changed(cpu);
	engine_kick(opaque);
	return 0;
}

enum engine_exit engine_run(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;
	void (*enter)(struct soft_cpu *, void *) = (void (*)(struct soft_cpu *, void *))cpu->engine->enter;

	cpu->exit = ENGINE_EXIT_NONE;
	soft_set_rflags(cpu, cpu->state.rflags | (cpu->state.interrupt_flag ? FLAG_IF : 0));
	soft_set_shadow(cpu, cpu->state.interrupt_shadow * PENDING_STI_SHADOW);
	soft_load_vectors(cpu);
	soft_enter(cpu);
	soft_start_executing(cpu);
	enter(cpu, soft_dispatch(cpu));
	soft_stop_executing(cpu);
	soft_exit(cpu);
	soft_store_vectors(cpu);
	cpu->state.rflags = soft_rflags(cpu);
	cpu->state.interrupt_shadow = (uint8_t)((cpu->pending & PENDING_SHADOW) / PENDING_STI_SHADOW);
	return cpu->exit;
}

void soft_kick(struct soft_cpu *cpu, uint32_t why)
{
	__atomic_fetch_or(&cpu->kick, why, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->jump_key, cpu->engine->no_key, __ATOMIC_SEQ_CST);
}

void engine_kick(struct engine_cpu *opaque) { soft_kick((struct soft_cpu *)opaque, KICK_EVENT); }

bool engine_has_nmi(const struct engine_cpu *opaque) { return __atomic_load_n(&((const struct soft_cpu *)opaque)->nmi_pending, __ATOMIC_SEQ_CST); }

void engine_nmi(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	__atomic_store_n(&cpu->nmi_pending, 1, __ATOMIC_SEQ_CST);
	soft_kick(cpu, KICK_EVENT);
}

void engine_stop(struct engine_cpu *opaque, enum engine_exit why)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	__atomic_store_n(&cpu->stop_asked, why, __ATOMIC_SEQ_CST);
	engine_kick(opaque);
}

void *engine_cpu_vector(struct engine_cpu *cpu) { return ((struct soft_cpu *)cpu)->vector; }

struct x86_state *engine_cpu_state(struct engine_cpu *cpu) { return &((struct soft_cpu *)cpu)->state; }

size_t engine_statistics(struct engine_cpu *opaque, char *text, size_t bytes)
{
	struct soft_cpu *c = (struct soft_cpu *)opaque;
	int n = snprintf(text, bytes, "rip %lx translations %lu fills %lu dispatches %lu chains %lu system %lu code %zu KiB\n", c->state.rip,
			 c->translations, c->fills, c->misses, c->chains, c->systems, (c->engine->code_used + c->engine->cold_used - c->engine->cold_start) >> 10);

	return n < 0 ? 0 : (size_t)n < bytes ? (size_t)n : bytes - 1;
}

void engine_set_last_words(struct engine *engine, char *text, size_t bytes)
{
	((struct soft_engine *)engine)->last_words = text;
	((struct soft_engine *)engine)->last_words_bytes = bytes;
}
