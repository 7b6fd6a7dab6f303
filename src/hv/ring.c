/*
 * Requests and completions in pages of the guest's (docs/umbra-interface.md, "Rings").
 *
 *   page 0   0 request tail (guest)  64 request head (host)  128 completion tail (host)  192 completion head (guest)  256 wants events (guest)
 *   page 1   entries x 64 bytes: requests, then entries x 32 bytes: completions; entries is a power of two from 2 to RING_ENTRIES_MAX
 *
 *  1. Where and how large a ring is, is frozen at registration. The host's two indices are kept here; what stands in the guest's page
 *     is for the guest to read. The guest's two are read once each time and checked: more than `entries` ahead breaks the ring.
 *  2. A request is taken only while completions not yet consumed plus requests under way are fewer than `entries`: a completion
 *     always finds room, and nothing is lost. What is not taken stays in the ring until the guest rings again.
 *  3. One processor at a time works on a ring; one that comes meanwhile leaves word that there is more.
 *  4. Calls are executed in order, at once. Long work completes when it is done, in any order.
 */
#include "hv_internal.h"

enum { REQUEST_TAIL = 0, REQUEST_HEAD = 64, COMPLETION_TAIL = 128, COMPLETION_HEAD = 192, WANTS_EVENTS = 256, REQUESTS_OFFSET = 4096 };
enum { RING_INPUT_BYTES = 48, RING_OUTPUT_BYTES = 16, CODE_WORK = 0xc001, HEADER_BYTES = 4096 };

struct request { uint64_t id; uint16_t code, flags; uint32_t reserved; uint8_t input[RING_INPUT_BYTES]; };
struct completion { uint64_t id; uint16_t status, flags; uint32_t reserved; uint64_t output[2]; };
_Static_assert(sizeof(struct request) == 64 && sizeof(struct completion) == 32, "ring entries");

static uint64_t request_gpa(const struct hv_ring *r, uint32_t n) { return r->gpa + REQUESTS_OFFSET + sizeof(struct request) * (n & (r->entries - 1)); }
static uint64_t completion_gpa(const struct hv_ring *r, uint32_t n)
{
	return r->gpa + REQUESTS_OFFSET + sizeof(struct request) * (uint64_t)r->entries + sizeof(struct completion) * (n & (r->entries - 1));
}
static uint64_t ring_bytes(uint32_t entries) { return HEADER_BYTES + (sizeof(struct request) + sizeof(struct completion)) * (uint64_t)entries; }

/* Single words are read and written whole. */
static bool read_word(struct hv_partition *p, uint64_t gpa, uint32_t *ret)
{
	guest_memory_begin(); /* an index may change, and is checked each time */
	return !guest_memory_read(p->host->memory, gpa, ret, 4);
}

static void write_bytes(struct hv_partition *p, uint64_t gpa, const void *from, size_t bytes)
{
	if (!guest_memory_write(p->host->memory, gpa, from, bytes))
		p->host->memory_written(p->host->context, gpa, bytes);
}

static void publish(struct hv_partition *p, uint64_t gpa, uint32_t value)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	write_bytes(p, gpa, &value, 4);
}

/* ---- registration ---- */

enum hv_status umbra_call_register_ring(struct hv_call *c)
{
	struct hv_partition *p = c->cpu->partition;
	struct { uint32_t ring, entries; uint64_t gpa; uint32_t sint, reserved; } in;
	enum hv_status status = HV_SUCCESS;

	memcpy(&in, c->input, sizeof(in));
	if (in.ring >= RINGS || in.entries < 2 || in.entries > RING_ENTRIES_MAX || in.entries & (in.entries - 1) || in.gpa & 4095 || in.reserved ||
	    in.sint >= HV_SINTS || guest_memory_probe(p->host->memory, in.gpa, ring_bytes(in.entries), true))
		return HV_INVALID_PARAMETER;
	hv_lock(p);
	if (p->ring[in.ring].registered)
		status = HV_OBJECT_IN_USE;
	else
		p->ring[in.ring] = (struct hv_ring){ .registered = true, .entries = in.entries, .vp_index = c->cpu->index, .sint = in.sint, .gpa = in.gpa };
	hv_unlock(p);
	return status;
}

/* Refused while something is under way: cancel it and take its completion first. */
enum hv_status umbra_call_unregister_ring(struct hv_call *c)
{
	struct hv_partition *p = c->cpu->partition;
	struct { uint32_t ring, reserved; } in;
	enum hv_status status = HV_SUCCESS;

	memcpy(&in, c->input, sizeof(in));
	if (in.ring >= RINGS || in.reserved)
		return HV_INVALID_PARAMETER;
	hv_lock(p);
	if (!p->ring[in.ring].registered)
		status = HV_NOT_FOUND;
	else if (p->ring[in.ring].busy || p->ring[in.ring].in_flight)
		status = HV_OBJECT_IN_USE;
	else
		p->ring[in.ring].registered = false;
	hv_unlock(p);
	return status;
}

/* ---- completions; with the lock, or by the one processor that works on the ring ---- */

static void put_completion(struct hv_partition *p, struct hv_ring *r, const struct completion *done)
{
	write_bytes(p, completion_gpa(r, r->completion_tail), done, sizeof(*done));
	r->completion_tail++;
}

static void tell(struct hv_partition *p, struct hv_ring *r)
{
	uint32_t wants = 0;

	publish(p, r->gpa + COMPLETION_TAIL, r->completion_tail);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the tail before the look: see the guest's side */
	if (read_word(p, r->gpa + WANTS_EVENTS, &wants) && wants && r->sint)
		hv_signal(&p->cpu[r->vp_index], r->sint, (unsigned)(r - p->ring));
}

void ring_complete(struct hv_partition *p, uint32_t n, const struct work_request *w)
{
	struct hv_ring *r = &p->ring[n];
	const struct completion done = { .id = w->id, .status = (uint16_t)w->outcome, .output = { w->result, w->done_bytes } };

	r->in_flight--;
	put_completion(p, r, &done);
	tell(p, r);
}

/* ---- requests ---- */

static enum hv_status begin_work(struct hv_partition *p, struct hv_ring *r, const struct request *q)
{
	struct work_parameters w;
	enum hv_status status;

	memcpy(&w, q->input, sizeof(w));
	status = work_check(p, &w);
	if (!status && (!q->id || work_find(p, q->id)))
		status = HV_OBJECT_IN_USE;
	if (!status && !work_submit(p, q->id, &w, DELIVER_RING, (uint32_t)(r - p->ring)))
		status = HV_INSUFFICIENT_BUFFERS;
	if (!status)
		r->in_flight++;
	return status;
}

static enum hv_status call(struct hv_cpu *cpu, const struct request *q, uint64_t output[2])
{
	struct hv_partition *p = cpu->partition;
	const struct hv_call_definition *d = hv_find_call(q->code);
	struct hv_call c = { .cpu = cpu, .definition = d, .input = q->input, .output = (uint8_t *)output };

	if (!d || !hv_has(p, (enum hv_feature)d->feature) || !(d->flags & CALL_RING))
		return HV_INVALID_CALL_CODE;
	/* a doorbell within a doorbell would be a way to stay here */
	return q->code == 0x5d ? HV_OPERATION_DENIED : d->act(&c);
}

/* False: it stays in the ring. Without the lock; the ring is busy with us. */
static bool take(struct hv_cpu *cpu, struct hv_ring *r)
{
	struct hv_partition *p = cpu->partition;
	struct completion done = { 0 };
	struct request q;
	enum hv_status status;

	guest_memory_begin();
	if (guest_memory_read(p->host->memory, request_gpa(r, r->request_head), &q, sizeof(q))) {
		r->broken = true;
		return false;
	}
	if (q.flags || q.reserved) {
		status = HV_INVALID_PARAMETER;
	} else if (q.code == CODE_WORK) {
		hv_lock(p);
		status = begin_work(p, r, &q);
		hv_unlock(p);
		if (!status) {
			r->request_head++;
			return true;
		}
	} else {
		status = call(cpu, &q, done.output);
	}
	hv_refuse(p, status);
	r->request_head++;
	done.id = q.id;
	done.status = (uint16_t)status;
	hv_lock(p);
	put_completion(p, r, &done);
	hv_unlock(p);
	return true;
}

/* What is under way only gets less meanwhile, and turns into completions, one for one. */
static bool has_room(struct hv_partition *p, struct hv_ring *r)
{
	uint32_t head, used, under_way;

	if (!read_word(p, r->gpa + COMPLETION_HEAD, &head))
		return false;
	hv_lock(p);
	used = r->completion_tail - head;
	under_way = r->in_flight;
	hv_unlock(p);
	if (used > r->entries)
		r->broken = true;
	return used + under_way < r->entries;
}

/* Everything up to the tail that was read once, as long as there is room and time. True: the time is up. */
static bool work_off(struct hv_cpu *cpu, struct hv_ring *r, uint64_t until_tsc)
{
	struct hv_partition *p = cpu->partition;
	uint32_t tail, done = 0;
	bool late = false;

	if (!read_word(p, r->gpa + REQUEST_TAIL, &tail) || tail - r->request_head > r->entries)
		r->broken = true;
	while (!r->broken && r->request_head != tail && !late && has_room(p, r) && take(cpu, r))
		late = !(++done & 7) && __builtin_ia32_rdtsc() >= until_tsc;
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
		enum hv_status status = !r->registered ? HV_NOT_FOUND : r->broken ? HV_INVALID_PARAMETER : HV_SUCCESS;

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
	return r->broken ? HV_INVALID_PARAMETER : more ? HV_CALL_PENDING : HV_SUCCESS;
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

void ring_forget_all(struct hv_partition *p) { memset(p->ring, 0, sizeof(p->ring)); }
