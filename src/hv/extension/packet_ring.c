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

static uint64_t request_gpa(const struct hv_ring *r, uint32_t n)
{
	return r->gpa + REQUESTS_OFFSET + sizeof(struct request) * (n & (r->entries - 1));
}
static uint64_t completion_gpa(const struct hv_ring *r, uint32_t n)
{
	return r->gpa + REQUESTS_OFFSET + sizeof(struct request) * (uint64_t)r->entries +
	       sizeof(struct completion) * (n & (r->entries - 1));
}
static uint64_t ring_bytes(uint32_t entries)
{
	return HEADER_BYTES +
	       (sizeof(struct request) + sizeof(struct completion)) * (uint64_t)entries;
}

static bool read_word(struct hv_partition *p, uint64_t gpa, uint32_t *ret)
{
	guest_memory_begin(); /* an index may change, and is checked each time */
	return !guest_memory_load(p->host->memory, gpa, ret);
}

static void write_bytes(struct hv_partition *p, uint64_t gpa, const void *from, size_t bytes)
{
	if (!guest_memory_write(p->host->memory, gpa, from, bytes))
		p->host->memory_written(p->host->context, gpa, bytes);
}

static void publish(struct hv_partition *p, uint64_t gpa, uint32_t value)
{
	if (!guest_memory_store(p->host->memory, gpa, value))
		p->host->memory_written(p->host->context, gpa, sizeof(value));
}

/* ---- registration ---- */

bool ring_is_possible(const struct hv_partition *p, uint32_t entries, uint64_t gpa, uint32_t sint)
{
	return entries >= 2 && entries <= RING_ENTRIES_MAX && !(entries & (entries - 1)) &&
	       gpa % GUEST_PAGE_BYTES == 0 && sint < HV_SINTS &&
	       !guest_memory_probe(p->host->memory, gpa, ring_bytes(entries), true);
}

enum hv_status umbra_call_register_ring(struct hv_call *c)
{
	struct hv_partition *p = c->cpu->partition;
	struct { uint32_t ring, entries; uint64_t gpa; uint32_t sint, reserved; } in;
	struct hv_ring *ring;
	enum hv_status status = HV_SUCCESS;

	memcpy(&in, c->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved || !ring_is_possible(p, in.entries, in.gpa, in.sint))
		return HV_INVALID_PARAMETER;
	ring = &p->ring[speculation_bound(in.ring, RINGS)];
	hv_lock(p);
	if (ring->registered)
		status = HV_OBJECT_IN_USE;
	else
		*ring = (struct hv_ring){ .registered = true,
					  .entries = in.entries,
					  .vp_index = c->cpu->index,
					  .sint = in.sint,
					  .gpa = in.gpa };
	hv_unlock(p);
	return status;
}

/* Refused while something is under way: cancel it and take its completion first. */
enum hv_status umbra_call_unregister_ring(struct hv_call *c)
{
	struct hv_partition *p = c->cpu->partition;
	struct { uint32_t ring, reserved; } in;
	struct hv_ring *ring;
	enum hv_status status = HV_SUCCESS;

	memcpy(&in, c->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved)
		return HV_INVALID_PARAMETER;
	ring = &p->ring[speculation_bound(in.ring, RINGS)];
	hv_lock(p);
	if (!ring->registered)
		status = HV_NOT_FOUND;
	else if (ring->busy || ring->in_flight)
		status = HV_OBJECT_IN_USE;
	else
		ring->registered = false;
	hv_unlock(p);
	return status;
}

/* ---- completions; with the lock ---- */

/* Contiguous in the ring as long as it does not wrap. */
static void put_completions(struct hv_partition *p, struct hv_ring *r,
			    const struct completion *done, uint32_t count)
{
	while (count) {
		uint32_t left = r->entries - (r->completion_tail & (r->entries - 1)),
			 n = count < left ? count : left;

		write_bytes(p, completion_gpa(r, r->completion_tail), done, n * sizeof(*done));
		r->completion_tail += n;
		done += n;
		count -= n;
	}
}

static void tell(struct hv_partition *p, struct hv_ring *r)
{
	uint32_t wants = 0;

	publish(p, r->gpa + COMPLETION_TAIL, r->completion_tail);
	/* the tail before the look: see the guest's side */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (read_word(p, r->gpa + WANTS_EVENTS, &wants) && wants && r->sint)
		hv_signal(&p->cpu[r->vp_index], r->sint, (unsigned)(r - p->ring));
}

void ring_complete(struct hv_partition *p, uint32_t n, const struct work_request *w)
{
	struct hv_ring *r = &p->ring[n];
	const struct completion done = { .id = w->id,
					 .status = (uint16_t)w->outcome,
					 .output = { w->result, w->done_bytes } };

	r->in_flight--;
	put_completions(p, r, &done, 1);
	tell(p, r);
}

/* ---- requests ---- */

static enum hv_status begin_work(struct hv_partition *p, struct hv_ring *r, const struct request *q)
{
	struct work_parameters w;
	enum hv_status status;

	memcpy(&w, q->input, sizeof(w));
	hv_lock(p);
	status = work_check(p, &w);
	if (!status && (!q->id || work_find(p, q->id)))
		status = HV_OBJECT_IN_USE;
	if (!status && !work_submit(p, q->id, &w, DELIVER_RING, (uint32_t)(r - p->ring)))
		status = HV_INSUFFICIENT_BUFFERS;
	if (!status)
		r->in_flight++;
	hv_unlock(p);
	return status;
}

/*
 * What a call in the ring is; NULL: none that may come this way. A doorbell within a doorbell would
 * be a way to stay here.
 */
static const struct hv_call_definition *callable(const struct hv_partition *p, uint16_t code)
{
	const struct hv_call_definition *d = hv_find_call(code);

	return d && hv_has(p, (enum hv_feature)d->feature) && d->flags & CALL_RING &&
			       d->act != hv_call_signal_event
		       ? d
		       : NULL;
}

/*
 * False: long work has begun, and completes later. call: of the request before this one, so that a
 * run of equal ones is quick.
 */
static bool act(struct hv_ring *r, const struct request *q, struct hv_call *call,
		struct completion *done)
{
	struct hv_partition *p = call->cpu->partition;
	enum hv_status status;

	done->output[0] = done->output[1] = 0;
	if (q->flags || q->reserved) {
		status = HV_INVALID_PARAMETER;
	} else if (q->code == CODE_WORK) {
		status = begin_work(p, r, q);
		if (!status)
			return false;
	} else {
		if (!call->definition || call->definition->code != q->code)
			call->definition = callable(p, q->code);
		call->input = q->input;
		call->output = (uint8_t *)done->output;
		status = call->definition ? call->definition->act(call) : HV_INVALID_CALL_CODE;
	}
	if (status)
		hv_refuse(p, status);
	done->id = q->id;
	done->status = (uint16_t)status;
	done->flags = 0;
	done->reserved = 0;
	return true;
}

/*
 * How many more completions the ring has room for: what is under way only gets less meanwhile, and
 * turns into completions one for one.
 */
static uint32_t room(struct hv_partition *p, struct hv_ring *r)
{
	uint32_t head, used;

	if (!read_word(p, r->gpa + COMPLETION_HEAD, &head))
		return 0;
	hv_lock(p);
	used = r->completion_tail - head;
	if (used <= r->entries)
		used += r->in_flight;
	else
		r->broken = true;
	hv_unlock(p);
	return used < r->entries ? r->entries - used : 0;
}

/*
 * Takes up to `available` requests, at most BATCH; how many. Without the lock; the ring is busy
 * with us.
 */
static uint32_t ring_take(struct hv_cpu *cpu, struct hv_ring *r, uint32_t available)
{
	struct hv_partition *p = cpu->partition;
	uint32_t left = r->entries - (r->request_head & (r->entries - 1));
	uint32_t space = room(p, r);
	uint32_t count = available;
	uint32_t finished = 0;
	struct hv_call call = { .cpu = cpu };
	struct request q[BATCH];
	struct completion done[BATCH];

	count = count < left ? count : left;
	count = count < space ? count : space;
	count = count < BATCH ? count : BATCH;
	guest_memory_begin();
	if (r->broken || guest_memory_read(p->host->memory, request_gpa(r, r->request_head), q,
					   count * sizeof(*q))) {
		r->broken = true;
		return 0;
	}
	for (uint32_t n = 0; n < count; n++)
		finished += act(r, &q[n], &call, &done[finished]);
	r->request_head += count;
	hv_lock(p);
	put_completions(p, r, done, finished);
	hv_unlock(p);
	return count;
}

/*
 * Everything up to the tail that was read once, as long as there is room and time. True: the time
 * is up.
 */
static bool work_off(struct hv_cpu *cpu, struct hv_ring *r, uint64_t until_tsc)
{
	struct hv_partition *p = cpu->partition;
	uint32_t tail;
	bool late = false;

	if (!read_word(p, r->gpa + REQUEST_TAIL, &tail) || tail - r->request_head > r->entries)
		r->broken = true;
	while (!r->broken && r->request_head != tail && !late &&
	       ring_take(cpu, r, tail - r->request_head))
		late = __builtin_ia32_rdtsc() >= until_tsc;
	publish(p, r->gpa + REQUEST_HEAD, r->request_head);
	return late && r->request_head != tail;
}

enum hv_status ring_doorbell(struct hv_cpu *cpu, uint32_t n)
{
	struct hv_partition *p = cpu->partition;
	struct hv_ring *r = &p->ring[n];
	uint64_t until_tsc = __builtin_ia32_rdtsc() + p->slice_tsc;
	bool more = false;

	hv_lock(p);
	if (!r->registered || r->broken || r->busy) {
		enum hv_status status = r->broken ? HV_INVALID_PARAMETER : HV_SUCCESS;

		if (!r->registered)
			status = HV_NOT_FOUND;
		r->again |= r->busy;
		hv_unlock(p);
		return status;
	}
	r->busy = true;
	do {
		r->again = false;
		hv_unlock(p);
		more = work_off(cpu, r, until_tsc);
		hv_lock(p);
		more |= r->again && __builtin_ia32_rdtsc() >= until_tsc;
	} while (r->again && !r->broken && !more);
	r->busy = false;
	tell(p, r);
	hv_unlock(p);
	if (r->broken)
		return HV_INVALID_PARAMETER;
	return more ? HV_CALL_PENDING : HV_SUCCESS;
}

/* "Not finished" while there is more: progress is the ring's own, and the guest rings again. */
enum hv_status umbra_call_doorbell(struct hv_call *c)
{
	struct { uint32_t ring, reserved; } in;

	memcpy(&in, c->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved)
		return HV_INVALID_PARAMETER;
	return ring_doorbell(c->cpu, in.ring);
}
