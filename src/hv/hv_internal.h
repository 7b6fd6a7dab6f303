/* Inside the Hyper-V interface. */
#pragma once

#include <errno.h>
#include <string.h>

#include "lib/speculation.h"
#include "x86/state.h"
#include "hv.h"

enum hv_status {
	HV_SUCCESS = 0, HV_INVALID_CALL_CODE = 2, HV_INVALID_INPUT = 3, HV_INVALID_ALIGNMENT = 4,
	HV_INVALID_PARAMETER = 5, HV_ACCESS_DENIED = 6,
	HV_OPERATION_DENIED = 8, HV_INVALID_PARTITION_ID = 0xd, HV_INVALID_VP_INDEX = 0xe,
	HV_NOT_FOUND = 0x10, HV_INVALID_CONNECTION_ID = 0x12,
	HV_INSUFFICIENT_BUFFERS = 0x13, HV_INVALID_VP_STATE = 0x15, HV_OBJECT_IN_USE = 0x19,
	HV_FEATURE_UNAVAILABLE = 0x1e,
	HV_CANCELLED = 0x0077, HV_CALL_PENDING = 0x0079, HV_STATUSES = 0x80
};

/* Overlay pages: two of the partition, the information page, three of each processor. */
enum {
	OVERLAY_HYPERCALL, OVERLAY_REFERENCE_TSC, OVERLAY_INFO, OVERLAY_CPU, OVERLAY_ASSIST = 0,
	OVERLAY_SIMP, OVERLAY_SIEFP, OVERLAYS_OF_CPU
};
_Static_assert(OVERLAY_CPU + OVERLAYS_OF_CPU * X86_MAX_PROCESSORS <= GUEST_OVERLAYS, "overlays");

/* What saved machines record of the contents that the guest was shown. */
enum { HYPERCALL_PAGE_VERSION = 1, INFO_PAGE_VERSION = 1, SYNIC_VERSION = 1 };
enum {
	MESSAGE_BYTES = 256, PAYLOAD_BYTES = 240, QUEUE_MESSAGES = 16, HYPERCALL_LOOP_OFFSET = 0x100
};

struct hv_message {
	uint32_t type;
	uint8_t payload_bytes, flags;
	uint16_t reserved;
	uint64_t sender;
	uint8_t payload[PAYLOAD_BYTES];
};
_Static_assert(sizeof(struct hv_message) == MESSAGE_BYTES, "a message is a slot");

struct hv_queue { struct hv_message message[QUEUE_MESSAGES]; unsigned first, count; };
struct hv_timer { uint64_t config, count, due_100ns; };

struct hv_cpu {
	struct hv_partition *partition;
	uint32_t index;
	uint64_t vp_assist, scontrol, siefp, simp, sint[HV_SINTS];
	struct hv_timer timer[HV_TIMERS];
	struct hv_queue queue[HV_SINTS];
};

/* work.c */
enum { WORK_REQUESTS = 64, RINGS = 8, RING_ENTRIES_MAX = 256 };
enum work_state { WORK_FREE, WORK_QUEUED, WORK_RUNNING, WORK_FINISHED };
enum work_delivery { DELIVER_LOOP, DELIVER_RING, DELIVER_MESSAGE };
enum work_operation {
	WORK_NOTHING, WORK_PREFAULT, WORK_DISCARD, WORK_ZERO, WORK_COPY, WORK_CHECKSUM,
	WORK_OPERATIONS,
	WORK_MACHINE = 0x100,
	WORK_FORK = WORK_MACHINE
};

struct work_parameters {
	uint16_t operation, flags;
	uint32_t reserved;
	uint64_t gpa, bytes, argument;
};

struct work_request {
	enum work_state state;
	enum work_delivery delivery;
	uint32_t target; /* ring, or vp_index << 8 | sint */
	uint64_t id, sequence;
	struct work_parameters parameters;
	bool cancel;
	/* of a fork: the host was asked, and told that it is not wanted; or this is the child */
	bool is_asked, is_dropped, is_child;
	enum hv_status outcome;
	uint64_t result, done_bytes;
};

/* ring.c: what was frozen at registration, and the host's own indices */
struct hv_ring {
	bool registered, broken, busy, again;
	uint32_t entries, vp_index, sint;
	uint64_t gpa;
	uint32_t request_head, completion_tail, in_flight;
};

struct hv_partition {
	const struct hv_host *host;
	uint64_t guest_os_id, hypercall, reference_tsc, tsc_invariant, crash[5];
	/* offered: a restored machine is offered what it was when it began */
	uint32_t umbra_newest;
	uint32_t umbra_version; /* agreed upon; 0: not yet */
	struct hv_cpu cpu[X86_MAX_PROCESSORS];
	struct work_request work[WORK_REQUESTS];
	uint64_t work_sequence;
	pthread_cond_t work_ready, work_idle;
	bool work_stop, work_held, work_busy; /* busy: the worker is in a piece, or will be */
	bool fork_is_out; /* host->want_fork() was not answered yet */
	struct hv_ring ring[RINGS];
	uint64_t slice_tsc; /* what a rep call may take before it yields */
	uint64_t calls, refused[HV_STATUSES], yields, bad_msrs;
};

static inline bool hv_has(const struct hv_partition *partition, enum hv_feature feature)
{
	return partition->host->features >> feature & 1;
}
static inline void hv_lock(struct hv_partition *partition)
{
	pthread_mutex_lock(partition->host->lock);
}
static inline void hv_unlock(struct hv_partition *partition)
{
	pthread_mutex_unlock(partition->host->lock);
}
static inline uint64_t hv_now(const struct hv_partition *partition)
{
	return partition->host->now_100ns(partition->host->context);
}
static inline void hv_count(uint64_t *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

/* ---- one hypercall (hypercall.c) ---- */

enum {
	CALL_INPUT_BYTES = GUEST_PAGE_BYTES,
	CALL_OUTPUT_BYTES = GUEST_PAGE_BYTES,
	FAST_BYTES = 112
};

struct hv_call {
	struct hv_cpu *cpu;
	const struct hv_call_definition *definition;
	uint32_t rep_start, rep_count, variable_bytes;
	/*
	 * A copy: the fixed header, the variable header, then of a rep call the elements from
	 * rep_start on.
	 */
	const uint8_t *input;
	/* the fixed part, or of a rep call what the elements from rep_start on yield */
	uint8_t *output;
	/* What the handler leaves of a rep call: elements done, counted from 0. */
	uint32_t reps_done;
	uint64_t until_tsc;
};

enum {
	CALL_VARIABLE = 1, /* takes a variable header */
	CALL_REP = 2,
	CALL_MEMORY = 4,   /* never fast */
	CALL_RING = 8,     /* may come through a ring */
	CALL_UMBRA = 16,   /* not before a version is agreed upon */
};
struct hv_call_definition {
	uint16_t code;
	uint16_t flags;
	uint16_t input_bytes, output_bytes; /* of a rep call: header, and nothing */
	uint16_t rep_input_bytes, rep_output_bytes;
	uint8_t feature, feature_too; /* enum hv_feature; both are needed */
	uint32_t newest; /* CALL_UMBRA: since this version */
	enum hv_status (*act)(struct hv_call *call);
	const char *name;
};

const struct hv_call_definition *hv_find_call(uint16_t code);
/* That the table is sorted, and that each row's fields go with its flags. */
void hv_check_calls(void);
/* Whether the handler of a rep call should return now; at least one element is done. */
bool hv_call_must_yield(const struct hv_call *call);
enum hv_status hv_refuse(struct hv_partition *partition, enum hv_status status);

/* calls.c, vp_registers.c, extension.c, packet_ring.c: the handlers */
enum hv_status hv_call_flush_space(struct hv_call *call);
enum hv_status hv_call_flush_list(struct hv_call *call);
enum hv_status hv_call_flush_space_ex(struct hv_call *call);
enum hv_status hv_call_flush_list_ex(struct hv_call *call);
enum hv_status hv_call_spin_wait(struct hv_call *call);
enum hv_status hv_call_send_ipi(struct hv_call *call);
enum hv_status hv_call_send_ipi_ex(struct hv_call *call);
enum hv_status hv_call_get_registers(struct hv_call *call);
enum hv_status hv_call_set_registers(struct hv_call *call);
enum hv_status hv_call_vp_index(struct hv_call *call);
enum hv_status hv_call_post_message(struct hv_call *call);
enum hv_status hv_call_signal_event(struct hv_call *call);
enum hv_status hv_call_capabilities(struct hv_call *call);
enum hv_status hv_call_boot_zeroed(struct hv_call *call);
enum hv_status hv_call_heat_hint(struct hv_call *call);
enum hv_status umbra_call_version(struct hv_call *call);
enum hv_status umbra_call_work(struct hv_call *call);
enum hv_status umbra_call_cancel(struct hv_call *call);
enum hv_status umbra_call_register_ring(struct hv_call *call);
enum hv_status umbra_call_unregister_ring(struct hv_call *call);
enum hv_status umbra_call_doorbell(struct hv_call *call);
enum hv_status umbra_call_null(struct hv_call *call);
enum hv_status umbra_call_pages(struct hv_call *call);

/* overlay.c; with the lock */
uint8_t *hv_overlay(struct hv_partition *partition, unsigned n);
void hv_place(struct hv_partition *partition, unsigned n, uint64_t msr_value, bool read_only);
/* The three pages of a processor, where its registers say. */
void hv_place_cpu(struct hv_cpu *cpu);
void hv_write_hypercall_page(struct hv_partition *partition);
void hv_write_reference_tsc(struct hv_partition *partition);
void hv_write_info_page(struct hv_partition *partition);

/* synic.c; with the lock. more: others wait behind it */
bool hv_try_slot(struct hv_cpu *cpu, unsigned sint, const struct hv_message *message, bool more);
void hv_end_of_message(struct hv_cpu *cpu);
int hv_set_sint(struct hv_cpu *cpu, unsigned n, uint64_t value);
/* Whether a SINT may have this value. */
bool hv_is_sint(const struct hv_cpu *cpu, uint64_t value);

/* synthetic_timer.c; with the lock */
void hv_set_timer(struct hv_cpu *cpu, unsigned n, bool count, uint64_t value);
/* Whether hv_set_timer() and what expires can have left it so. */
bool hv_is_timer(const struct hv_cpu *cpu, const struct hv_timer *timer);

/* work.c; with the lock */
/* The invariants at the top of work.c. */
void check_work(const struct hv_partition *partition);
enum hv_status work_check(struct hv_partition *partition, const struct work_parameters *parameters);
struct work_request *work_find(struct hv_partition *partition, uint64_t id);
struct work_request *work_submit(struct hv_partition *partition, uint64_t id,
				 const struct work_parameters *parameters,
				 enum work_delivery delivery, uint32_t target);
void work_release(struct work_request *request);
enum hv_status work_cancel(struct hv_partition *partition, uint64_t id);
void work_deliver_waiting(struct hv_partition *partition);
/* The one that was submitted next after r, or NULL; r NULL: the first. */
struct work_request *work_after(struct hv_partition *partition, const struct work_request *request);
/* One piece of an operation, at most a few pages; without the lock. */
enum hv_status work_piece(struct hv_partition *partition, const struct work_parameters *parameters,
			  uint64_t at, size_t bytes, uint64_t *result);

/* extension.c, packet_ring.c */
/* The invariants at the top of packet_ring.c, of ring n. With the lock. */
void check_packet_ring(const struct hv_partition *partition, unsigned n);
enum {
	UMBRA_VERSION_1_0 = 0x10000, UMBRA_VERSION_1_1 = 0x10001, UMBRA_NEWEST = UMBRA_VERSION_1_1,
	UMBRA_OLDEST = UMBRA_VERSION_1_0
};
enum {
	UMBRA_CONNECTION_PACKET = 0x554d01, UMBRA_CONNECTION_DOORBELL = 0x554d10 /* + ring */,
	UMBRA_MESSAGE_REPLY = 0x80554d01
};
enum { UMBRA_FEATURES = 1 | 2 | 4 | 8 | 16 | 32 };
bool umbra_cpuid(const struct hv_partition *partition, uint32_t leaf, uint32_t registers[4]);
enum hv_status umbra_packet(struct hv_cpu *cpu, uint32_t type, const uint8_t *payload,
			    size_t bytes);
/* HV_CALL_PENDING: its time is up before everything was taken. */
enum hv_status ring_doorbell(struct hv_cpu *cpu, uint32_t n);
/* Whether a ring can be registered so. */
bool ring_is_possible(const struct hv_partition *partition, uint32_t entries, uint64_t gpa,
		      uint32_t sint);
/* A request that came through a ring is finished. With the lock. */
void ring_complete(struct hv_partition *partition, uint32_t n, const struct work_request *request);
