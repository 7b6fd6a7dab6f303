/*
 * The Hyper-V interface of a partition and its virtual processors (TLFS): discovery, synthetic
 * registers, overlay pages, SynIC, synthetic timers, hypercalls, and Umbra's own extension of them
 * (docs/umbra-interface.md).
 *
 * Locks: hv_host.lock guards all of it. hv_hypercall() and hv_msr_*() are called without it, on the
 * processor's own thread, and take it where they touch more than that processor; the others say so.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "lib/unit.h"
#include "memory/memory.h"

struct archive;

enum { HV_TIMERS = 4, HV_SINTS = 16, HV_INFO_GPA = 0xfed10000 };

/* What can be switched on and off one by one (--hv); hv_feature_name() names them. */
enum hv_feature {
	HV_BASE, HV_RUNTIME, HV_TIME_REF, HV_SYNIC, HV_STIMER, HV_VAPIC, HV_RESET, HV_REF_TSC,
	HV_IDLE, HV_FREQUENCIES, HV_TSC_INVARIANT,
	HV_MESSAGES, HV_EVENTS, HV_VP_REGISTERS, HV_EXT_CALLS, HV_XMM_INPUT, HV_CRASH, HV_EXT_GVA,
	HV_XMM_OUTPUT, HV_SINT_POLLING, HV_CALL_LOCK,
	HV_DIRECT_TIMERS, HV_FLUSH, HV_IPI, HV_EX_MASKS, HV_SPIN, HV_RELAXED, HV_UMBRA, HV_FEATURES
};

/* The local APIC registers that a synthetic register shows, too. */
enum hv_apic_register { HV_APIC_EOI, HV_APIC_ICR, HV_APIC_TPR };

/* What the interface needs of its machine. All but the first group are called with the lock. */
struct hv_host {
	/*
	 * All registers but vectors; of the calling processor, or one that waits for its start-up
	 * interrupt. Set: general registers.
	 */
	void (*get_state)(void *context, uint32_t vp_index, struct x86_state *ret_state);
	void (*set_general)(void *context, uint32_t vp_index, const struct x86_state *state);
	/* 16 bytes; of the calling processor */
	void *(*xmm)(void *context, uint32_t vp_index, unsigned n);
	void (*flush)(void *context, uint64_t targets, const struct engine_gva_range *ranges,
		      unsigned count, bool global);
	void (*memory_written)(void *context, uint64_t gpa, size_t bytes);
	/* whole pages of RAM read as zero afterwards; -errno: they are as they were */
	int (*discard)(void *context, uint8_t *hva, size_t bytes);
	/* whether a device has some of these pages; NULL: none ever has */
	bool (*holds)(void *context, uint64_t gpa, uint64_t bytes);
	uint64_t (*now_100ns)(void *context);
	uint64_t (*runtime_100ns)(void *context, uint32_t vp_index);
	/* This processor waits for another one, or for work of this host's. */
	void (*yield)(void *context, uint32_t vp_index);

	void (*place_overlay)(void *context, unsigned overlay, uint64_t gpa, bool read_only);
	void (*raise)(void *context, uint32_t vp_index, uint8_t vector);
	void (*set_auto_eoi)(void *context, uint32_t vp_index, uint8_t vector, bool on);
	int (*apic_read)(void *context, uint32_t vp_index, enum hv_apic_register reg,
			 uint64_t *ret_value);
	int (*apic_write)(void *context, uint32_t vp_index, enum hv_apic_register reg,
			  uint64_t value);
	/* for its start-up interrupt: its registers may be changed */
	bool (*is_waiting)(void *context, uint32_t vp_index);
	void (*idle)(void *context, uint32_t vp_index);
	void (*crashed)(void *context, const char *text, size_t bytes,
			const uint64_t parameters[5]);
	void (*reset)(void *context);

	/*
	 * The guest wants its machine forked, or no longer: then nothing comes of it unless it has
	 * begun. hv_fork_ended() follows once, in this machine, after the first of the two. On the
	 * worker's thread, without the lock. NULL: the guest may not.
	 */
	void (*want_fork)(void *context, bool is_wanted);

	/*
	 * The partition bus; all NULL where there is none. What the guest posts and signals on
	 * connections that are not the extension's, on the processor's own thread, without the
	 * lock: 0; -ENOENT: no such connection; -EAGAIN: no room now; -EINVAL. And with the lock:
	 * the guest has taken messages, so that hv_post() may find room again.
	 */
	int (*message)(void *context, uint32_t connection, uint32_t type, const uint8_t *payload,
		       size_t bytes);
	int (*event)(void *context, uint32_t connection, uint16_t flag);
	void (*messages_taken)(void *context);

	void *context;
	pthread_mutex_t *lock;
	struct guest_memory *memory;
	uint64_t tsc_hz, apic_hz, features; /* features: bit n is enum hv_feature n */
	unsigned cpus;
	uint64_t tsc_offset; /* what the partition's TSC is ahead of the host's */
	/* now_100ns() is (partition's TSC * reference_scale >> 64) + reference_offset_100ns. */
	uint64_t reference_scale, reference_offset_100ns;
};

struct hv_partition;
struct hv_cpu;

/* The unit: a struct hv_partition, with the thread of its long work. */
extern const struct unit_ops hv_unit;

/* NULL: no memory. The host's fields stay as they are while the partition lives. */
struct hv_partition *hv_partition_create(const struct hv_host *host);
void hv_partition_destroy(struct hv_partition *partition);
/* How many overlay pages, from the first on, one of so many processors may have. */
unsigned hv_overlays(unsigned cpus);
struct hv_cpu *hv_partition_cpu(struct hv_partition *partition, uint32_t index);

const char *hv_feature_name(enum hv_feature feature);
uint64_t hv_default_features(void);
/*
 * "all", "none", "default", then names with + or - before them, separated by commas. False:
 * *ret_bad is the part not understood.
 */
bool hv_parse_features(const char *text, uint64_t *ret_features, const char **ret_bad,
		       size_t *ret_bad_bytes);

/* Leaves 0x40000000 and up that the features include; false for others. */
bool hv_cpuid(const struct hv_cpu *cpu, uint32_t leaf, uint32_t ret[4]);
/*
 * Zeros; reading it has the machine look at the guest's monitor page at once. CPUID is what a
 * program without privileges can call a hypervisor by.
 */
enum { HV_UMBRA_LEAF_LOOK = 0x40000103, HV_UMBRA_LOOK_WAITS = 1 };
/* 0, or -EINVAL where the TLFS has #GP. *ret_armed: the timers of this processor have changed. */
int hv_msr_read(struct hv_cpu *cpu, uint32_t msr, uint64_t *ret_value);
int hv_msr_write(struct hv_cpu *cpu, uint32_t msr, uint64_t value, bool *ret_armed);
/* The instruction at CPL 0 in protected or long mode. */
enum engine_call hv_hypercall(struct hv_cpu *cpu, const struct engine_call_registers *registers);
/* Fires what is due; the next due time in 100 ns, or UINT64_MAX. With the lock. */
uint64_t hv_run_timers(struct hv_cpu *cpu);
/*
 * A message of at most 240 bytes to a SINT of the processor; false: its queue is full. With the
 * lock.
 */
bool hv_post(struct hv_cpu *cpu, unsigned sint, uint32_t type, uint64_t sender, const void *payload,
	     size_t bytes);
/* Interrupts as the SINT says, with neither message nor event flag. With the lock. */
void hv_assert_sint(struct hv_cpu *cpu, unsigned sint);
/* Sets an event flag (0 to 2047), and interrupts where it was clear. With the lock. */
void hv_signal(struct hv_cpu *cpu, unsigned sint, unsigned flag);
/* Runs long work until hv_work_stop(); on a thread of its own. Without the lock. */
void hv_work_run(struct hv_partition *partition);
/* One request, on the calling thread; false: none waits. Without the lock. */
bool hv_work_step(struct hv_partition *partition);
/* Everything not finished ends cancelled; returns when nothing runs any more. Without the lock. */
void hv_work_cancel_all(struct hv_partition *partition);
void hv_work_stop(struct hv_partition *partition);
/* Between these two the worker touches nothing; hv_work_hold() waits for that. Without the lock. */
void hv_work_hold(struct hv_partition *partition);
/*
 * While it is held, in a machine that was forked: the worker that was is none of this machine's;
 * hv_work_run() goes on with what it had begun.
 */
void hv_work_forked(struct hv_partition *partition);
void hv_work_go_on(struct hv_partition *partition);
/*
 * What came of host->want_fork(): 0, and which child of this lineage it is, from 1 on; -ECANCELED:
 * it was not wanted any more in time; -EPERM; -EDQUOT, -EAGAIN or -EBUSY: not now; another -errno.
 * Without the lock.
 */
void hv_fork_ended(struct hv_partition *partition, int error, uint32_t child);
/*
 * As bytes and back (lib/archive.h): into a new partition of the same features and processors. With
 * the lock, or before anything runs; processors stand still and the worker is held. -ENOTSUP: a
 * version that is not known.
 */
void hv_archive(struct archive *archive, struct hv_partition *partition);
/*
 * Everything is loaded, memory, processors and host->tsc_offset too: pages are placed, outcomes
 * delivered. As hv_archive().
 */
void hv_restored(struct hv_partition *partition);
/*
 * The invariants of the SynIC, the timers, long work and the rings: what waits has its limit, and a
 * ring has as many requests under way as there are for it. With the lock.
 */
void check_partition(const struct hv_partition *partition);
/* Counters as text, refusals by status among them; its length without the NUL. */
size_t hv_statistics(const struct hv_partition *partition, char *text, size_t bytes);
