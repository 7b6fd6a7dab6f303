/*
 * Requests and completions in pages of the guest's (docs/umbra-interface.md, "Rings").
 *
 *   page 0   0 request tail (guest)  64 request head (host)  128 completion tail (host)  192
 *            completion head (guest)  256 wants events (guest)
 *   page 1   entries x 64 bytes: requests, then entries x 32 bytes: completions; entries is a power
 *            of two from 2 to RING_ENTRIES_MAX
 *
 *  1. Where and how large a ring is, is frozen at registration. The host's two indices are kept
 *     here; what stands in the guest's page is for the guest to read. The guest's two are read once
 *     each time and checked: more than `entries` ahead breaks the ring.
 *  2. A request is taken only while completions not yet consumed plus requests under way are fewer
 *     than `entries`: a completion always finds room, and nothing is lost. What is not taken stays
 *     in the ring until the guest rings again.
 *  3. One processor at a time works on a ring; one that comes meanwhile leaves word that there is
 *     more.
 *  4. Calls are executed in order, at once. Long work completes when it is done, in any order.
 */
#include "hv/hv_internal.h"

#include <assert.h>

#include "lib/check.h"

enum {
	REQUEST_TAIL = 0, REQUEST_HEAD = 64, COMPLETION_TAIL = 128, COMPLETION_HEAD = 192,
	WANTS_EVENTS = 256, REQUESTS_OFFSET = GUEST_PAGE_BYTES
};
enum {
	RING_INPUT_BYTES = 48,
	RING_OUTPUT_BYTES = 16,
	CODE_WORK = 0xc001,
	HEADER_BYTES = GUEST_PAGE_BYTES,
	BATCH = 32
};

struct request {
	uint64_t id;
	uint16_t code, flags;
	uint32_t reserved;
	uint8_t input[RING_INPUT_BYTES];
};
struct completion { uint64_t id; uint16_t status, flags; uint32_t reserved; uint64_t output[2]; };
_Static_assert(sizeof(struct request) == 64 && sizeof(struct completion) == 32, "ring entries");

static uint64_t request_gpa(const struct hv_ring *ring, uint32_t n)
{
	return ring->gpa + REQUESTS_OFFSET + sizeof(struct request) * (n & (ring->entries - 1));
}
static uint64_t completion_gpa(const struct hv_ring *ring, uint32_t n)
{
	return ring->gpa + REQUESTS_OFFSET + sizeof(struct request) * (uint64_t)ring->entries +
	       sizeof(struct completion) * (n & (ring->entries - 1));
}
static uint64_t ring_bytes(uint32_t entries)
{
	return HEADER_BYTES +
	       (sizeof(struct request) + sizeof(struct completion)) * (uint64_t)entries;
}

static bool read_word(struct hv_partition *partition, uint64_t gpa, uint32_t *ret)
{
	guest_memory_begin(); /* an index may change, and is checked each time */
	return !guest_memory_load(partition->host->memory, gpa, ret);
}

static void write_bytes(struct hv_partition *partition, uint64_t gpa, const void *from,
			size_t bytes)
{
	if (!guest_memory_write(partition->host->memory, gpa, from, bytes))
		partition->host->memory_written(partition->host->context, gpa, bytes);
}

static void publish(struct hv_partition *partition, uint64_t gpa, uint32_t value)
{
	if (!guest_memory_store(partition->host->memory, gpa, value))
		partition->host->memory_written(partition->host->context, gpa, sizeof(value));
}

void check_packet_ring(const struct hv_partition *partition, unsigned n)
{
	const struct hv_ring *ring = &partition->ring[n];
	uint32_t under_way = 0;

	for (unsigned k = 0; k < WORK_REQUESTS; k++)
		under_way += partition->work[k].state != WORK_FREE &&
			     partition->work[k].delivery == DELIVER_RING &&
			     partition->work[k].target == n;
	assert(ring->in_flight == under_way);
	assert(ring->registered || (!under_way && !ring->busy));
	if (!ring->registered)
		return;
	assert(ring->entries >= 2 && ring->entries <= RING_ENTRIES_MAX &&
	       !(ring->entries & (ring->entries - 1)));
	assert(ring->gpa % GUEST_PAGE_BYTES == 0 && ring->sint < HV_SINTS &&
	       ring->vp_index < partition->host->cpus);
	assert(ring->in_flight <= ring->entries);
}

/* ---- registration ---- */

bool ring_is_possible(const struct hv_partition *partition, uint32_t entries, uint64_t gpa,
		      uint32_t sint)
{
	return entries >= 2 && entries <= RING_ENTRIES_MAX && !(entries & (entries - 1)) &&
	       gpa % GUEST_PAGE_BYTES == 0 && sint < HV_SINTS &&
	       !guest_memory_probe(partition->host->memory, gpa, ring_bytes(entries), true);
}

enum hv_status umbra_call_register_ring(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct { uint32_t ring, entries; uint64_t gpa; uint32_t sint, reserved; } in;
	struct hv_ring *ring;
	enum hv_status status = HV_SUCCESS;

	memcpy(&in, call->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved ||
	    !ring_is_possible(partition, in.entries, in.gpa, in.sint))
		return HV_INVALID_PARAMETER;
	ring = &partition->ring[speculation_bound(in.ring, RINGS)];
	hv_lock(partition);
	if (ring->registered)
		status = HV_OBJECT_IN_USE;
	else
		*ring = (struct hv_ring){ .registered = true,
					  .entries = in.entries,
					  .vp_index = call->cpu->index,
					  .sint = in.sint,
					  .gpa = in.gpa };
	CHECK(check_packet_ring(partition, in.ring));
	hv_unlock(partition);
	return status;
}

/* Refused while something is under way: cancel it and take its completion first. */
enum hv_status umbra_call_unregister_ring(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct { uint32_t ring, reserved; } in;
	struct hv_ring *ring;
	enum hv_status status = HV_SUCCESS;

	memcpy(&in, call->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved)
		return HV_INVALID_PARAMETER;
	ring = &partition->ring[speculation_bound(in.ring, RINGS)];
	hv_lock(partition);
	if (!ring->registered)
		status = HV_NOT_FOUND;
	else if (ring->busy || ring->in_flight)
		status = HV_OBJECT_IN_USE;
	else
		ring->registered = false;
	hv_unlock(partition);
	return status;
}

/* ---- completions; with the lock ---- */

/* Contiguous in the ring as long as it does not wrap. */
static void put_completions(struct hv_partition *partition, struct hv_ring *ring,
			    const struct completion *done, uint32_t count)
{
	while (count) {
		uint32_t left = ring->entries - (ring->completion_tail & (ring->entries - 1)),
			 n = count < left ? count : left;

		write_bytes(partition, completion_gpa(ring, ring->completion_tail), done,
			    n * sizeof(*done));
		ring->completion_tail += n;
		done += n;
		count -= n;
	}
}

static void tell(struct hv_partition *partition, struct hv_ring *ring)
{
	uint32_t wants = 0;

	publish(partition, ring->gpa + COMPLETION_TAIL, ring->completion_tail);
	/* the tail before the look: see the guest's side */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (read_word(partition, ring->gpa + WANTS_EVENTS, &wants) && wants && ring->sint)
		hv_signal(&partition->cpu[ring->vp_index], ring->sint,
			  (unsigned)(ring - partition->ring));
}

void ring_complete(struct hv_partition *partition, uint32_t n, const struct work_request *request)
{
	struct hv_ring *ring = &partition->ring[n];
	const struct completion done = { .id = request->id,
					 .status = (uint16_t)request->outcome,
					 .output = { request->result, request->done_bytes } };

	ring->in_flight--;
	put_completions(partition, ring, &done, 1);
	tell(partition, ring);
}

/* ---- requests ---- */

static enum hv_status begin_work(struct hv_partition *partition, struct hv_ring *ring,
				 const struct request *request)
{
	struct work_parameters parameters;
	enum hv_status status;

	memcpy(&parameters, request->input, sizeof(parameters));
	hv_lock(partition);
	status = work_check(partition, &parameters);
	if (!status && (!request->id || work_find(partition, request->id)))
		status = HV_OBJECT_IN_USE;
	if (!status && !work_submit(partition, request->id, &parameters, DELIVER_RING,
				    (uint32_t)(ring - partition->ring)))
		status = HV_INSUFFICIENT_BUFFERS;
	if (!status)
		ring->in_flight++;
	hv_unlock(partition);
	return status;
}

/*
 * What a call in the ring is; NULL: none that may come this way. A doorbell within a doorbell would
 * be a way to stay here.
 */
static const struct hv_call_definition *callable(const struct hv_partition *partition,
						 uint16_t code)
{
	const struct hv_call_definition *definition = hv_find_call(code);

	return definition && hv_has(partition, (enum hv_feature)definition->feature) &&
			       definition->flags & CALL_RING &&
			       definition->act != hv_call_signal_event
		       ? definition
		       : NULL;
}

/*
 * False: long work has begun, and completes later. call: of the request before this one, so that a
 * run of equal ones is quick.
 */
static bool act(struct hv_ring *ring, const struct request *request, struct hv_call *call,
		struct completion *done)
{
	struct hv_partition *partition = call->cpu->partition;
	enum hv_status status;

	done->output[0] = done->output[1] = 0;
	if (request->flags || request->reserved) {
		status = HV_INVALID_PARAMETER;
	} else if (request->code == CODE_WORK) {
		status = begin_work(partition, ring, request);
		if (!status)
			return false;
	} else {
		if (!call->definition || call->definition->code != request->code)
			call->definition = callable(partition, request->code);
		call->input = request->input;
		call->output = (uint8_t *)done->output;
		status = call->definition ? call->definition->act(call) : HV_INVALID_CALL_CODE;
	}
	if (status)
		hv_refuse(partition, status);
	done->id = request->id;
	done->status = (uint16_t)status;
	done->flags = 0;
	done->reserved = 0;
	return true;
}

/*
 * How many more completions the ring has room for: what is under way only gets less meanwhile, and
 * turns into completions one for one.
 */
static uint32_t room(struct hv_partition *partition, struct hv_ring *ring)
{
	uint32_t head, used;

	if (!read_word(partition, ring->gpa + COMPLETION_HEAD, &head))
		return 0;
	hv_lock(partition);
	used = ring->completion_tail - head;
	if (used <= ring->entries)
		used += ring->in_flight;
	else
		ring->broken = true;
	hv_unlock(partition);
	return used < ring->entries ? ring->entries - used : 0;
}

/*
 * Takes up to `available` requests, at most BATCH; how many. Without the lock; the ring is busy
 * with us.
 */
static uint32_t ring_take(struct hv_cpu *cpu, struct hv_ring *ring, uint32_t available)
{
	struct hv_partition *partition = cpu->partition;
	uint32_t left = ring->entries - (ring->request_head & (ring->entries - 1));
	uint32_t space = room(partition, ring);
	uint32_t count = available;
	uint32_t finished = 0;
	struct hv_call call = { .cpu = cpu };
	struct request request[BATCH];
	struct completion done[BATCH];

	count = count < left ? count : left;
	count = count < space ? count : space;
	count = count < BATCH ? count : BATCH;
	guest_memory_begin();
	if (ring->broken ||
	    guest_memory_read(partition->host->memory, request_gpa(ring, ring->request_head),
			      request, count * sizeof(*request))) {
		ring->broken = true;
		return 0;
	}
	for (uint32_t n = 0; n < count; n++)
		finished += act(ring, &request[n], &call, &done[finished]);
	ring->request_head += count;
	hv_lock(partition);
	put_completions(partition, ring, done, finished);
	hv_unlock(partition);
	return count;
}

/*
 * Everything up to the tail that was read once, as long as there is room and time. True: the time
 * is up.
 */
static bool work_off(struct hv_cpu *cpu, struct hv_ring *ring, uint64_t until_tsc)
{
	struct hv_partition *partition = cpu->partition;
	uint32_t tail;
	bool late = false;

	if (!read_word(partition, ring->gpa + REQUEST_TAIL, &tail) ||
	    tail - ring->request_head > ring->entries)
		ring->broken = true;
	while (!ring->broken && ring->request_head != tail && !late &&
	       ring_take(cpu, ring, tail - ring->request_head))
		late = __builtin_ia32_rdtsc() >= until_tsc;
	publish(partition, ring->gpa + REQUEST_HEAD, ring->request_head);
	return late && ring->request_head != tail;
}

enum hv_status ring_doorbell(struct hv_cpu *cpu, uint32_t n)
{
	struct hv_partition *partition = cpu->partition;
	struct hv_ring *ring = &partition->ring[n];
	uint64_t until_tsc = __builtin_ia32_rdtsc() + partition->slice_tsc;
	bool more = false;

	hv_lock(partition);
	if (!ring->registered || ring->broken || ring->busy) {
		enum hv_status status = ring->broken ? HV_INVALID_PARAMETER : HV_SUCCESS;

		if (!ring->registered)
			status = HV_NOT_FOUND;
		ring->again |= ring->busy;
		hv_unlock(partition);
		return status;
	}
	ring->busy = true;
	do {
		ring->again = false;
		hv_unlock(partition);
		more = work_off(cpu, ring, until_tsc);
		hv_lock(partition);
		more |= ring->again && __builtin_ia32_rdtsc() >= until_tsc;
	} while (ring->again && !ring->broken && !more);
	ring->busy = false;
	tell(partition, ring);
	CHECK(check_packet_ring(partition, n));
	hv_unlock(partition);
	if (ring->broken)
		return HV_INVALID_PARAMETER;
	return more ? HV_CALL_PENDING : HV_SUCCESS;
}

/* "Not finished" while there is more: progress is the ring's own, and the guest rings again. */
enum hv_status umbra_call_doorbell(struct hv_call *call)
{
	struct { uint32_t ring, reserved; } in;

	memcpy(&in, call->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved)
		return HV_INVALID_PARAMETER;
	return ring_doorbell(call->cpu, in.ring);
}
