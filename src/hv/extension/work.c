/*
 * Long work for a guest, on a thread of its own: requests, their one outcome, and page-range
 * operations.
 *
 *            submit              worker              piece by piece           the guest has it
 *   FREE ------------> QUEUED ------------> RUNNING ---------------> FINISHED ---------------->
 *   FREE
 *                         |  cancel                                      ^
 *                         +----------------------------------------------+
 *
 *  1. All of it changes under the partition's lock; the pieces of an operation (at most
 *     PIECE_BYTES) run without it.
 *  2. A request has one outcome, set on entering FINISHED: success, cancelled, or the status of
 *     what failed. Cancelling one that runs asks the worker, which looks between two pieces: if the
 *     last piece is done the outcome is success all the same.
 *  3. What is finished stays until it is delivered: collected by its loop, put into its ring (which
 *     has kept room for it), or posted (tried again at every end of message, the oldest first). So
 *     the number of requests bounds what a guest can make the host remember.
 *  4. Guest memory is addressed page by page through the overlays; an operation on a range that was
 *     fine at submission and is not any more fails.
 */
#include "hv/hv_internal.h"

#include <assert.h>

#include "lib/crc32c.h"

enum { PIECE_BYTES = 64 << 10 };

struct work_request *work_find(struct hv_partition *p, uint64_t id)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state != WORK_FREE && p->work[n].id == id)
			return &p->work[n];
	return NULL;
}

enum hv_status work_check(struct hv_partition *p, const struct work_parameters *w)
{
	const struct guest_memory *m = p->host->memory;
	bool writes = w->operation == WORK_ZERO || w->operation == WORK_DISCARD;

	if (w->operation >= WORK_MACHINE)
		return HV_FEATURE_UNAVAILABLE; /* what a machine does to itself */
	if (w->operation >= WORK_OPERATIONS || w->flags || w->reserved ||
	    (w->operation != WORK_COPY && w->argument))
		return HV_INVALID_PARAMETER;
	if (w->operation == WORK_NOTHING)
		return w->gpa || w->bytes ? HV_INVALID_PARAMETER : HV_SUCCESS;
	if (!w->bytes || (w->gpa | w->bytes | w->argument) & (GUEST_PAGE_BYTES - 1) ||
	    guest_memory_probe(m, w->gpa, w->bytes, writes))
		return HV_INVALID_PARAMETER;
	if (w->operation != WORK_COPY)
		return HV_SUCCESS;
	if (guest_memory_probe(m, w->argument, w->bytes, true) ||
	    (w->gpa < w->argument + w->bytes && w->argument < w->gpa + w->bytes))
		return HV_INVALID_PARAMETER;
	return HV_SUCCESS;
}

struct work_request *work_submit(struct hv_partition *p, uint64_t id,
				 const struct work_parameters *w, enum work_delivery delivery,
				 uint32_t target)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state == WORK_FREE) {
			p->work[n] = (struct work_request){ .state = WORK_QUEUED,
							    .delivery = delivery,
							    .target = target,
							    .id = id,
							    .sequence = ++p->work_sequence,
							    .parameters = *w };
			pthread_cond_signal(&p->work_ready);
			return &p->work[n];
		}
	return NULL;
}

void work_release(struct work_request *r)
{
	assert(r->state == WORK_FINISHED);
	r->state = WORK_FREE;
}

static void deliver(struct hv_partition *p, struct work_request *r)
{
	struct {
		uint64_t id;
		uint32_t status, reserved;
		uint64_t result, done_bytes;
	} reply = {
		.id = r->id, .status = r->outcome, .result = r->result, .done_bytes = r->done_bytes,
	};

	assert(r->state == WORK_FINISHED);
	switch (r->delivery) {
	case DELIVER_LOOP: return; /* collected by the call */
	case DELIVER_RING: ring_complete(p, r->target, r); break;
	case DELIVER_MESSAGE:
		if (!hv_post(&p->cpu[r->target >> 8], r->target & 0xff, UMBRA_MESSAGE_REPLY,
			     UMBRA_CONNECTION_PACKET, &reply, sizeof(reply)))
			return;
		break;
	}
	work_release(r);
}

/* The oldest in this state that was submitted after `after`. */
static struct work_request *oldest(struct hv_partition *p, enum work_state state, uint64_t after)
{
	struct work_request *r = NULL;

	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state == state && p->work[n].sequence > after &&
		    (!r || p->work[n].sequence < r->sequence))
			r = &p->work[n];
	return r;
}

struct work_request *work_after(struct hv_partition *p, const struct work_request *r)
{
	struct work_request *next = NULL;

	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state != WORK_FREE && (!r || p->work[n].sequence > r->sequence) &&
		    (!next || p->work[n].sequence < next->sequence))
			next = &p->work[n];
	return next;
}

void work_deliver_waiting(struct hv_partition *p)
{
	uint64_t after = 0;

	for (struct work_request *r; (r = oldest(p, WORK_FINISHED, after)); deliver(p, r))
		after = r->sequence;
}

/* None goes before one that waits for room. */
static void finish(struct hv_partition *p, struct work_request *r, enum hv_status outcome)
{
	assert(r->state == WORK_QUEUED || r->state == WORK_RUNNING);
	r->state = WORK_FINISHED;
	r->outcome = outcome;
	work_deliver_waiting(p);
}

enum hv_status work_cancel(struct hv_partition *p, uint64_t id)
{
	struct work_request *r = work_find(p, id);

	if (!r || r->state == WORK_FINISHED)
		return HV_NOT_FOUND; /* its outcome is on its way, or was taken */
	if (r->state == WORK_QUEUED)
		finish(p, r, HV_CANCELLED);
	else
		r->cancel = true;
	return HV_SUCCESS;
}

/* ---- operations ---- */

/* One page at gpa. */
static int on_page(struct hv_partition *p, const struct work_parameters *w, uint64_t gpa,
		   uint64_t to_gpa, uint64_t *result)
{
	static const uint8_t zeros[GUEST_PAGE_BYTES];
	const struct hv_host *host = p->host;
	struct guest_memory *m = host->memory;
	uint8_t page[GUEST_PAGE_BYTES], *hva;
	uint64_t written = GUEST_NOWHERE;
	int error = 0;

	switch (w->operation) {
	case WORK_PREFAULT:
		hva = guest_hva(m, gpa);
		if (!hva)
			return -EFAULT;
		/* makes it the machine's own page, and changes nothing */
		__atomic_fetch_or(hva, 0, __ATOMIC_RELAXED);
		break;
	case WORK_DISCARD: /* an overlay is not given away */
	case WORK_ZERO: error = guest_memory_write(m, written = gpa, zeros, sizeof(zeros)); break;
	case WORK_COPY:
		error = guest_memory_read(m, gpa, page, sizeof(page));
		if (!error)
			error = guest_memory_write(m, written = to_gpa, page, sizeof(page));
		break;
	case WORK_CHECKSUM:
		error = guest_memory_read(m, gpa, page, sizeof(page));
		*result = crc32c((uint32_t)*result, page, sizeof(page));
		break;
	default: break;
	}
	if (!error && written != GUEST_NOWHERE)
		host->memory_written(host->context, written, GUEST_PAGE_BYTES);
	return error;
}

/* RAM in one piece without an overlay goes back to the host; false where that is not so. */
static bool give_away(struct hv_partition *p, uint64_t gpa, size_t bytes)
{
	const struct hv_host *host = p->host;
	uint8_t *first = guest_ram_hva(host->memory, gpa);
	uint8_t *last = guest_ram_hva(host->memory, gpa + bytes - 1);

	if (!first || !last || (size_t)(last - first) != bytes - 1 ||
	    host->discard(host->context, first, bytes))
		return false;
	for (size_t at = 0; at < bytes; at += GUEST_PAGE_BYTES)
		host->memory_written(host->context, gpa + at, GUEST_PAGE_BYTES);
	return true;
}

static bool has_overlay(const struct guest_memory *m, uint64_t gpa, size_t bytes)
{
	for (unsigned n = 0; n < GUEST_OVERLAYS; n++)
		if (m->overlay[n].gpa != GUEST_NOWHERE && m->overlay[n].gpa - gpa < bytes)
			return true;
	return false;
}

enum hv_status work_piece(struct hv_partition *p, const struct work_parameters *w, uint64_t at,
			  size_t bytes, uint64_t *result)
{
	if (w->operation == WORK_DISCARD && !has_overlay(p->host->memory, w->gpa + at, bytes) &&
	    give_away(p, w->gpa + at, bytes))
		return HV_SUCCESS;
	for (size_t done = 0; done < bytes; done += GUEST_PAGE_BYTES) {
		guest_memory_begin();
		if (on_page(p, w, w->gpa + at + done, w->argument + at + done, result))
			return HV_INVALID_PARAMETER;
	}
	return HV_SUCCESS;
}

/* ---- the worker ---- */

/* With the lock: until nobody holds the worker, or it has to end. */
static void stand_still(struct hv_partition *p)
{
	while (p->work_held && !p->work_stop) {
		p->work_busy = false;
		pthread_cond_broadcast(&p->work_idle);
		pthread_cond_wait(&p->work_ready, p->host->lock);
	}
	p->work_busy = true;
}

/* With the lock, which it gives up for every piece. What is done so far is in the request. */
static void run(struct hv_partition *p, struct work_request *r)
{
	const struct work_parameters w = r->parameters;
	enum hv_status status = HV_SUCCESS;
	uint64_t at = r->done_bytes; /* not 0 where it was under way when the machine was forked */
	uint64_t result = r->result;

	r->state = WORK_RUNNING;
	while (at < w.bytes && !status && !r->cancel) {
		size_t bytes = w.bytes - at < PIECE_BYTES ? w.bytes - at : PIECE_BYTES;

		hv_unlock(p);
		status = work_piece(p, &w, at, bytes, &result);
		hv_lock(p);
		at += bytes;
		r->done_bytes = at;
		r->result = result;
		stand_still(p);
	}
	if (!status && at < w.bytes)
		status = HV_CANCELLED;
	finish(p, r, status);
}

/* With the lock. */
static bool run_oldest(struct hv_partition *p)
{
	struct work_request *r;

	stand_still(p);
	r = oldest(p, WORK_QUEUED, 0);
	if (r)
		run(p, r);
	p->work_busy = false;
	pthread_cond_broadcast(&p->work_idle);
	return r;
}

bool hv_work_step(struct hv_partition *p)
{
	bool any;

	hv_lock(p);
	any = run_oldest(p);
	hv_unlock(p);
	return any;
}

void hv_work_run(struct hv_partition *p)
{
	hv_lock(p);
	while (!p->work_stop)
		if (!run_oldest(p))
			pthread_cond_wait(&p->work_ready, p->host->lock);
	hv_unlock(p);
}

static bool any_running(const struct hv_partition *p)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state == WORK_RUNNING)
			return true;
	return false;
}

void hv_work_cancel_all(struct hv_partition *p)
{
	hv_lock(p);
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state == WORK_QUEUED || p->work[n].state == WORK_RUNNING)
			work_cancel(p, p->work[n].id);
	while (any_running(p))
		pthread_cond_wait(&p->work_idle, p->host->lock);
	hv_unlock(p);
}

void hv_work_forked(struct hv_partition *p)
{
	pthread_cond_init(&p->work_ready, NULL);
	pthread_cond_init(&p->work_idle, NULL);
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (p->work[n].state == WORK_RUNNING)
			p->work[n].state = WORK_QUEUED; /* the oldest: it is the next again */
}

void hv_work_hold(struct hv_partition *p)
{
	hv_lock(p);
	p->work_held = true;
	while (p->work_busy)
		pthread_cond_wait(&p->work_idle, p->host->lock);
	hv_unlock(p);
}

void hv_work_go_on(struct hv_partition *p)
{
	hv_lock(p);
	p->work_held = false;
	pthread_cond_broadcast(&p->work_ready);
	hv_unlock(p);
}

void hv_work_stop(struct hv_partition *p)
{
	hv_work_go_on(p);
	hv_work_cancel_all(p);
	hv_lock(p);
	p->work_stop = true;
	pthread_cond_broadcast(&p->work_ready);
	hv_unlock(p);
}
