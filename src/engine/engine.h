/*
 * The contract between a machine and what executes its processors.
 *
 * An engine owns the processor state while engine_run() runs; the machine answers through engine_ops on the processor's own
 * thread. engine_kick() may be called from any thread and from a signal handler.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct x86_state;
struct guest_memory;
struct cpu_host;
struct cpu_model;
struct engine;
struct engine_cpu;

/* What became of a hypercall instruction; AGAIN: it is executed once more, after pending interrupts. */
enum engine_call { ENGINE_CALL_UNDEFINED, ENGINE_CALL_DONE, ENGINE_CALL_AGAIN };
enum engine_exit { ENGINE_EXIT_NONE, ENGINE_EXIT_HALT, ENGINE_EXIT_KICK, ENGINE_EXIT_SHUTDOWN, ENGINE_EXIT_STOP };

struct engine_ops {
	uint64_t (*port_read)(void *context, uint16_t port, unsigned bytes);
	void (*port_write)(void *context, uint16_t port, unsigned bytes, uint64_t value);
	void (*mmio_read)(void *context, uint64_t gpa, void *to, size_t bytes);
	void (*mmio_write)(void *context, uint64_t gpa, const void *from, size_t bytes);
	/* 0, or -EINVAL for #GP. */
	int (*msr_read)(void *context, uint32_t msr, uint64_t *ret_value);
	int (*msr_write)(void *context, uint32_t msr, uint64_t value);
	void (*cpuid)(void *context, uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
	/* The vector to deliver now, or -1. Taking it acknowledges it. */
	int (*interrupt)(void *context);
	void (*set_cr8)(void *context, uint8_t value);
	/* The hypercall instruction at CPL 0; registers are in the state. UNDEFINED: #UD. */
	enum engine_call (*hypercall)(void *context);
};

/* Addresses of 4 KiB pages: [gva, gva + 4096 * pages). */
struct engine_gva_range { uint64_t gva; uint32_t pages; };

/* The memory outlives the engine. NULL when the host's is short. */
struct engine *engine_create(const struct guest_memory *memory);
/* What the processors are: instructions and control bits that the model hides are not there. Before the first engine_run(); without it
 * everything is there that decodes. Both outlive the engine. */
void engine_set_model(struct engine *engine, const struct cpu_model *model, const struct cpu_host *host);
struct engine_cpu *engine_cpu_create(struct engine *engine, const struct engine_ops *ops, void *context);
struct x86_state *engine_cpu_state(struct engine_cpu *cpu);
/* x87, SSE and AVX state between engine_run() calls: an XSAVE area in standard form, ENGINE_VECTOR_BYTES. */
enum { ENGINE_VECTOR_BYTES = 832 };
void *engine_cpu_vector(struct engine_cpu *cpu);
/* Within engine_ops only: 16 bytes, the low half of YMM n (0 to 15), which may be changed. */
void *engine_cpu_xmm(struct engine_cpu *cpu, unsigned n);
/* Once on the thread that will run the processor, before the first engine_run(): signal stack, segment base. 0 or -errno. */
int engine_prepare_thread(struct engine_cpu *cpu);
/* The state was replaced as by INIT: nothing cached for the processor survives. On its thread. */
void engine_reset(struct engine_cpu *cpu);
/* Runs until an exit. Call on one thread per processor only, between engine_run calls the state may be changed. */
enum engine_exit engine_run(struct engine_cpu *cpu);
void engine_kick(struct engine_cpu *cpu);
/* A non-maskable interrupt, from any thread. */
void engine_nmi(struct engine_cpu *cpu);
/* Whether one waits. */
bool engine_has_nmi(const struct engine_cpu *cpu);
/* What the state does not show: whether an NMI waits, and whether one is being handled. Between engine_run() calls. */
enum { ENGINE_NMI_PENDING = 1, ENGINE_NMI_BLOCKED = 2 };
unsigned engine_cpu_nmi(const struct engine_cpu *cpu);
/*
 * The state and the vector area were replaced as a whole, as from a saved machine. 0; -EBADMSG: the vector area is none that XSAVE
 * writes for this state. While the processor is not in engine_run(), from any thread.
 */
int engine_cpu_restored(struct engine_cpu *cpu, unsigned nmi);
/*
 * The dirty log: sets bit n of dirty (a bit for each page of guest_memory_footprint_bytes()) for each frame n that was written since the
 * call before, or ever; leaves the others. Returns how many it set. What is written after it returns is of the next call; what is read from
 * then on holds everything that this call tells of. Pages that the machine writes without engine_memory_written() (overlays) are not
 * in it. From a thread that is no processor; as engine_flush().
 */
uint64_t engine_take_dirty(struct engine *engine, uint64_t *dirty);
/* Guest memory [gpa, gpa + bytes) was written by something other than a processor. */
void engine_memory_written(struct engine *engine, uint64_t gpa, size_t bytes);
/*
 * Translations that processors (bit n of *targets: index n in order of creation, 64 bits) have cached are forgotten: of these
 * ranges, or with count 0 all, of global pages only if `global`. When it returns none of them uses one any more. Within
 * engine_ops, or from a thread that is no processor; not under a lock that a processor takes while it executes the guest.
 */
void engine_flush(struct engine *engine, uint64_t targets, const struct engine_gva_range *ranges, unsigned count, bool global);
/* guest_overlay_place(), with everything that was cached of both places forgotten. As engine_flush(). */
void engine_place_overlay(struct engine *engine, struct guest_memory *memory, unsigned overlay, uint64_t gpa, bool read_only);
void engine_stop(struct engine_cpu *cpu, enum engine_exit why);
/* Counters as one line of text; its length without the NUL, cut at bytes - 1. */
size_t engine_statistics(struct engine_cpu *cpu, char *text, size_t bytes);
/* Where a fault of the engine's own is described before the process ends with 70. */
void engine_set_last_words(struct engine *engine, char *text, size_t bytes);
