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
 *  4. A fork of the machine (WORK_FORK) is the host's: the worker asks, and goes on with others. It
 *     is asked for one at a time, and is not asked for another one before it has answered. In the
 *     child the request is the worker's again, which ends it there.
 *  5. Guest memory is addressed page by page through the overlays; an operation on a range that was
 *     fine at submission and is not any more fails.
 */
#include "hv/hv_internal.h"

#include <assert.h>

#include "lib/check.h"
#include "lib/crc32c.h"

enum { PIECE_BYTES = 64 << 10 };

static void check_request(const struct hv_partition *partition, const struct work_request *request)
{
	const struct hv_ring *ring = &partition->ring[request->target % RINGS];

	assert(request->id && request->sequence && request->sequence <= partition->work_sequence);
	assert(request->delivery != DELIVER_RING || (request->target < RINGS && ring->registered));
	assert(request->delivery != DELIVER_MESSAGE ||
	       request->target >> 8 < partition->host->cpus);
	assert(request->state != WORK_FINISHED || request->outcome < HV_STATUSES);
	assert(!request->is_asked || (request->parameters.operation == WORK_FORK &&
				      request->state != WORK_QUEUED && partition->fork_is_out));
}

void check_work(const struct hv_partition *partition)
{
	unsigned running = 0;

	for (unsigned n = 0; n < WORK_REQUESTS; n++) {
		const struct work_request *request = &partition->work[n];

		if (request->state == WORK_FREE)
			continue;
		check_request(partition, request);
		running += request->state == WORK_RUNNING && !request->is_asked;
		for (unsigned other = 0; other < n; other++)
			assert(partition->work[other].state == WORK_FREE ||
			       partition->work[other].id != request->id);
	}
	assert(running <= 1); /* there is one worker */
}

struct work_request *work_find(struct hv_partition *partition, uint64_t id)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].state != WORK_FREE && partition->work[n].id == id)
			return &partition->work[n];
	return NULL;
}

/* One at a time, from when it was asked for until the host has answered. */
static enum hv_status check_fork(struct hv_partition *partition,
				 const struct work_parameters *parameters)
{
	if (!partition->host->want_fork)
		return HV_FEATURE_UNAVAILABLE;
	if (parameters->flags || parameters->reserved || parameters->gpa || parameters->bytes ||
	    parameters->argument)
		return HV_INVALID_PARAMETER;
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].parameters.operation == WORK_FORK &&
		    (partition->work[n].state == WORK_QUEUED ||
		     partition->work[n].state == WORK_RUNNING))
			return HV_INSUFFICIENT_BUFFERS;
	return partition->fork_is_out ? HV_INSUFFICIENT_BUFFERS : HV_SUCCESS;
}

enum hv_status work_check(struct hv_partition *partition, const struct work_parameters *parameters)
{
	const struct guest_memory *memory = partition->host->memory;
	bool writes = parameters->operation == WORK_ZERO || parameters->operation == WORK_DISCARD;

	if (parameters->operation == WORK_FORK)
		return check_fork(partition, parameters);
	if (parameters->operation >= WORK_MACHINE)
		return HV_FEATURE_UNAVAILABLE; /* what a machine does to itself */
	if (parameters->operation >= WORK_OPERATIONS || parameters->flags || parameters->reserved ||
	    (parameters->operation != WORK_COPY && parameters->argument))
		return HV_INVALID_PARAMETER;
	if (parameters->operation == WORK_NOTHING)
		return parameters->gpa || parameters->bytes ? HV_INVALID_PARAMETER : HV_SUCCESS;
	if (!parameters->bytes ||
	    (parameters->gpa | parameters->bytes | parameters->argument) & (GUEST_PAGE_BYTES - 1) ||
	    guest_memory_probe(memory, parameters->gpa, parameters->bytes, writes))
		return HV_INVALID_PARAMETER;
	if (parameters->operation != WORK_COPY)
		return HV_SUCCESS;
	if (guest_memory_probe(memory, parameters->argument, parameters->bytes, true) ||
	    (parameters->gpa < parameters->argument + parameters->bytes &&
	     parameters->argument < parameters->gpa + parameters->bytes))
		return HV_INVALID_PARAMETER;
	return HV_SUCCESS;
}

struct work_request *work_submit(struct hv_partition *partition, uint64_t id,
				 const struct work_parameters *parameters,
				 enum work_delivery delivery, uint32_t target)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].state == WORK_FREE) {
			partition->work[n] =
				(struct work_request){ .state = WORK_QUEUED,
						       .delivery = delivery,
						       .target = target,
						       .id = id,
						       .sequence = ++partition->work_sequence,
						       .parameters = *parameters };
			pthread_cond_signal(&partition->work_ready);
			return &partition->work[n];
		}
	return NULL;
}

void work_release(struct work_request *request)
{
	assert(request->state == WORK_FINISHED);
	request->state = WORK_FREE;
}

static void deliver(struct hv_partition *partition, struct work_request *request)
{
	struct {
		uint64_t id;
		uint32_t status, reserved;
		uint64_t result, done_bytes;
	} reply = {
		.id = request->id,
		.status = request->outcome,
		.result = request->result,
		.done_bytes = request->done_bytes,
	};

	assert(request->state == WORK_FINISHED);
	switch (request->delivery) {
	case DELIVER_LOOP: return; /* collected by the call */
	case DELIVER_RING: ring_complete(partition, request->target, request); break;
	case DELIVER_MESSAGE:
		if (!hv_post(&partition->cpu[request->target >> 8], request->target & 0xff,
			     UMBRA_MESSAGE_REPLY, UMBRA_CONNECTION_PACKET, &reply, sizeof(reply)))
			return;
		break;
	}
	work_release(request);
}

/* The oldest in this state that was submitted after `after`. */
static struct work_request *oldest(struct hv_partition *partition, enum work_state state,
				   uint64_t after)
{
	struct work_request *request = NULL;

	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].state == state && partition->work[n].sequence > after &&
		    (!request || partition->work[n].sequence < request->sequence))
			request = &partition->work[n];
	return request;
}

struct work_request *work_after(struct hv_partition *partition, const struct work_request *request)
{
	struct work_request *next = NULL;

	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].state != WORK_FREE &&
		    (!request || partition->work[n].sequence > request->sequence) &&
		    (!next || partition->work[n].sequence < next->sequence))
			next = &partition->work[n];
	return next;
}

void work_deliver_waiting(struct hv_partition *partition)
{
	uint64_t after = 0;

	for (struct work_request *request; (request = oldest(partition, WORK_FINISHED, after));
	     deliver(partition, request))
		after = request->sequence;
}

/* None goes before one that waits for room. */
static void finish(struct hv_partition *partition, struct work_request *request,
		   enum hv_status outcome)
{
	assert(request->state == WORK_QUEUED || request->state == WORK_RUNNING);
	request->state = WORK_FINISHED;
	request->outcome = outcome;
	work_deliver_waiting(partition);
	CHECK(check_work(partition));
}

enum hv_status work_cancel(struct hv_partition *partition, uint64_t id)
{
	struct work_request *request = work_find(partition, id);

	if (!request || request->state == WORK_FINISHED)
		return HV_NOT_FOUND; /* its outcome is on its way, or was taken */
	if (request->state == WORK_QUEUED && !request->is_child) {
		finish(partition, request, HV_CANCELLED);
	} else {
		request->cancel = true;
		pthread_cond_signal(&partition->work_ready); /* who has asked for a fork */
	}
	return HV_SUCCESS;
}

/* ---- operations ---- */

/* One page at gpa. */
static int on_page(struct hv_partition *partition, const struct work_parameters *parameters,
		   uint64_t gpa, uint64_t to_gpa, uint64_t *result)
{
	static const uint8_t zeros[GUEST_PAGE_BYTES];
	const struct hv_host *host = partition->host;
	struct guest_memory *memory = host->memory;
	uint8_t page[GUEST_PAGE_BYTES], *hva;
	uint64_t written = GUEST_NOWHERE;
	int error = 0;

	switch (parameters->operation) {
	case WORK_PREFAULT:
		hva = guest_hva(memory, gpa);
		if (!hva)
			return -EFAULT;
		/* makes it the machine's own page, and changes nothing */
		if (guest_memory_probe(memory, gpa, 1, true) != -EROFS)
			__atomic_fetch_or(hva, 0, __ATOMIC_RELAXED);
		break;
	case WORK_DISCARD: /* an overlay is not given away */
	case WORK_ZERO:
		error = guest_memory_write(memory, written = gpa, zeros, sizeof(zeros));
		break;
	case WORK_COPY:
		error = guest_memory_read(memory, gpa, page, sizeof(page));
		if (!error)
			error = guest_memory_write(memory, written = to_gpa, page, sizeof(page));
		break;
	case WORK_CHECKSUM:
		error = guest_memory_read(memory, gpa, page, sizeof(page));
		*result = crc32c((uint32_t)*result, page, sizeof(page));
		break;
	default: break;
	}
	if (!error && written != GUEST_NOWHERE)
		host->memory_written(host->context, written, GUEST_PAGE_BYTES);
	return error;
}

/* RAM in one piece without an overlay goes back to the host; false where that is not so. */
static bool give_away(struct hv_partition *partition, uint64_t gpa, size_t bytes)
{
	const struct hv_host *host = partition->host;
	uint8_t *first = guest_ram_hva(host->memory, gpa);
	uint8_t *last = guest_ram_hva(host->memory, gpa + bytes - 1);

	if (!first || !last || (size_t)(last - first) != bytes - 1 ||
	    host->discard(host->context, first, bytes))
		return false;
	host->memory_written(host->context, gpa, bytes);
	return true;
}

static bool has_overlay(const struct guest_memory *memory, uint64_t gpa, size_t bytes)
{
	for (unsigned n = 0; n < GUEST_OVERLAYS; n++)
		if (memory->overlay[n].gpa != GUEST_NOWHERE && memory->overlay[n].gpa - gpa < bytes)
			return true;
	return false;
}

enum hv_status work_piece(struct hv_partition *partition, const struct work_parameters *parameters,
			  uint64_t at, size_t bytes, uint64_t *result)
{
	if (parameters->operation == WORK_DISCARD &&
	    !has_overlay(partition->host->memory, parameters->gpa + at, bytes) &&
	    give_away(partition, parameters->gpa + at, bytes))
		return HV_SUCCESS;
	for (size_t done = 0; done < bytes; done += GUEST_PAGE_BYTES) {
		guest_memory_begin();
		if (on_page(partition, parameters, parameters->gpa + at + done,
			    parameters->argument + at + done, result))
			return HV_INVALID_PARAMETER;
	}
	return HV_SUCCESS;
}

/* ---- the worker ---- */

/* With the lock: until nobody holds the worker, or it has to end. */
static void stand_still(struct hv_partition *partition)
{
	while (partition->work_held && !partition->work_stop) {
		partition->work_busy = false;
		pthread_cond_broadcast(&partition->work_idle);
		pthread_cond_wait(&partition->work_ready, partition->host->lock);
	}
	partition->work_busy = true;
}

/* With the lock, which it gives up for every piece. What is done so far is in the request. */
static void run(struct hv_partition *partition, struct work_request *request)
{
	const struct work_parameters parameters = request->parameters;
	enum hv_status status = HV_SUCCESS;
	uint64_t at =
		request->done_bytes; /* not 0 where it was under way when the machine was forked */
	uint64_t result = request->result;

	request->state = WORK_RUNNING;
	while (at < parameters.bytes && !status && !request->cancel) {
		size_t bytes =
			parameters.bytes - at < PIECE_BYTES ? parameters.bytes - at : PIECE_BYTES;

		hv_unlock(partition);
		status = work_piece(partition, &parameters, at, bytes, &result);
		hv_lock(partition);
		at += bytes;
		request->done_bytes = at;
		request->result = result;
		stand_still(partition);
	}
	if (!status && at < parameters.bytes)
		status = HV_CANCELLED;
	finish(partition, request, status);
}

/* ---- forks ---- */

/* With the lock, which it gives up for that; the request may have ended then. */
static void ask_host(struct hv_partition *partition, bool is_wanted)
{
	hv_unlock(partition);
	partition->host->want_fork(partition->host->context, is_wanted);
	hv_lock(partition);
}

static void run_fork(struct hv_partition *partition, struct work_request *request)
{
	request->state = WORK_RUNNING;
	if (request->is_child) {
		finish(partition, request, HV_SUCCESS);
		return;
	}
	request->is_asked = partition->fork_is_out = true;
	ask_host(partition, true);
}

/* One that the host was asked for, and is not wanted any more. */
static struct work_request *dropped_fork(struct hv_partition *partition)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++) {
		struct work_request *request = &partition->work[n];

		if (request->state == WORK_RUNNING && request->is_asked && request->cancel &&
		    !request->is_dropped)
			return request;
	}
	return NULL;
}

static enum hv_status fork_outcome(int error)
{
	switch (error) {
	case 0: return HV_SUCCESS;
	case -ECANCELED: return HV_CANCELLED;
	case -EPERM: return HV_ACCESS_DENIED;
	case -EDQUOT: case -EAGAIN: case -EBUSY: return HV_INSUFFICIENT_BUFFERS;
	default: return HV_OPERATION_DENIED;
	}
}

void hv_fork_ended(struct hv_partition *partition, int error, uint32_t child)
{
	const enum hv_status outcome = fork_outcome(error);

	hv_lock(partition);
	for (unsigned n = 0; n < WORK_REQUESTS && partition->fork_is_out; n++) {
		struct work_request *request = &partition->work[n];

		if (request->state != WORK_RUNNING || !request->is_asked)
			continue;
		request->is_asked = false;
		request->result = outcome ? 0 : child;
		if (outcome)
			hv_count(&partition->refused[outcome]);
		finish(partition, request, outcome);
	}
	partition->fork_is_out = false;
	hv_unlock(partition);
}

/* With the lock. */
static bool run_oldest(struct hv_partition *partition)
{
	struct work_request *request;

	stand_still(partition);
	request = dropped_fork(partition);
	if (request) {
		request->is_dropped = true;
		ask_host(partition, false);
	} else {
		request = oldest(partition, WORK_QUEUED, 0);
		if (request && request->parameters.operation == WORK_FORK)
			run_fork(partition, request);
		else if (request)
			run(partition, request);
	}
	partition->work_busy = false;
	pthread_cond_broadcast(&partition->work_idle);
	return request;
}

bool hv_work_step(struct hv_partition *partition)
{
	bool any;

	hv_lock(partition);
	any = run_oldest(partition);
	hv_unlock(partition);
	return any;
}

void hv_work_run(struct hv_partition *partition)
{
	hv_lock(partition);
	while (!partition->work_stop)
		/* it may have been told to stop while it stood still */
		if (!run_oldest(partition) && !partition->work_stop)
			pthread_cond_wait(&partition->work_ready, partition->host->lock);
	hv_unlock(partition);
}

static bool any_running(const struct hv_partition *partition)
{
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].state == WORK_RUNNING)
			return true;
	return false;
}

void hv_work_cancel_all(struct hv_partition *partition)
{
	hv_lock(partition);
	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		if (partition->work[n].is_asked && partition->work[n].state == WORK_RUNNING) {
			/* nobody waits here for who answers it */
			partition->work[n].is_asked = false;
			finish(partition, &partition->work[n], HV_CANCELLED);
		} else if (partition->work[n].state == WORK_QUEUED ||
			   partition->work[n].state == WORK_RUNNING) {
			work_cancel(partition, partition->work[n].id);
		}
	while (any_running(partition))
		pthread_cond_wait(&partition->work_idle, partition->host->lock);
	hv_unlock(partition);
}

void hv_work_forked(struct hv_partition *partition)
{
	pthread_cond_init(&partition->work_ready, NULL);
	pthread_cond_init(&partition->work_idle, NULL);
	partition->fork_is_out = false;
	for (unsigned n = 0; n < WORK_REQUESTS; n++) {
		struct work_request *request = &partition->work[n];

		if (request->state != WORK_RUNNING)
			continue;
		request->state = WORK_QUEUED; /* the oldest: it is the next again */
		request->is_child = request->is_asked;
		request->is_asked = false;
	}
}

void hv_work_hold(struct hv_partition *partition)
{
	hv_lock(partition);
	partition->work_held = true;
	while (partition->work_busy)
		pthread_cond_wait(&partition->work_idle, partition->host->lock);
	hv_unlock(partition);
}

void hv_work_go_on(struct hv_partition *partition)
{
	hv_lock(partition);
	partition->work_held = false;
	pthread_cond_broadcast(&partition->work_ready);
	hv_unlock(partition);
}

void hv_work_stop(struct hv_partition *partition)
{
	hv_work_go_on(partition);
	hv_work_cancel_all(partition);
	hv_lock(partition);
	partition->work_stop = true;
	pthread_cond_broadcast(&partition->work_ready);
	hv_unlock(partition);
}
