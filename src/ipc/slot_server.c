/* See slot_queue.h: the side that serves. */
#include "slot_queue.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lib/check.h"

void check_slot_server(const struct slot_server *server)
{
	uint32_t busy = 0;

	assert(server->queue);
	assert(server->slots && server->slots <= SLOTS_MAX);
	for (unsigned n = 0; n < SLOTS_MAX; n++) {
		assert(!server->busy[n] || n < server->slots);
		busy += server->busy[n];
	}
	assert(server->taken - server->answered == busy);
}

int slot_take(struct slot_server *server, struct slot_request *ret)
{
	const struct slot_requests *requests = &server->queue->requests;
	uint32_t count = __atomic_load_n(&requests->written, __ATOMIC_ACQUIRE) - server->taken;

	if (!count)
		return 0;
	if (count > server->slots)
		return -EBADMSG;
	memcpy(ret, &requests->entry[server->taken % SLOTS_MAX], sizeof(*ret));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (ret->slot >= server->slots || server->busy[ret->slot])
		return -EBADMSG;
	server->taken++;
	server->busy[ret->slot] = true;
	CHECK(check_slot_server(server));
	return 1;
}

void slot_answer_later(struct slot_server *server, unsigned slot, int32_t result)
{
	struct slot_replies *replies = &server->queue->replies;

	assert(slot < server->slots && server->busy[slot]);
	server->busy[slot] = false;
	replies->entry[server->answered % SLOTS_MAX] =
		(struct slot_reply){ .slot = slot, .result = result };
	server->answered++;
	__atomic_store_n(&replies->written, server->answered, __ATOMIC_RELEASE);
	CHECK(check_slot_server(server));
}

void slot_answer(struct slot_server *server, unsigned slot, int32_t result)
{
	slot_answer_later(server, slot, result);
	server->answers = true;
}

void slot_tell(struct slot_server *server)
{
	struct slot_replies *replies = &server->queue->replies;
	ssize_t written;

	if (!server->answers)
		return;
	server->answers = false;
	/* with the other side's: it says that it sleeps, then looks for replies */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&replies->sleeps, __ATOMIC_RELAXED) ||
	    !__atomic_exchange_n(&replies->sleeps, 0, __ATOMIC_SEQ_CST))
		return;
	written = write(server->answer_fd, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
}

bool slot_server_has_request(const struct slot_server *server)
{
	return __atomic_load_n(&server->queue->requests.written, __ATOMIC_ACQUIRE) != server->taken;
}

bool slot_server_may_sleep(struct slot_server *server)
{
	__atomic_store_n(&server->queue->requests.sleeps, 1, __ATOMIC_SEQ_CST);
	return !slot_server_has_request(server);
}

void slot_server_wakes(struct slot_server *server, bool rung)
{
	uint64_t counts[SLOT_RINGS];
	ssize_t got;

	__atomic_store_n(&server->queue->requests.sleeps, 0, __ATOMIC_RELAXED);
	if (!rung)
		return;
	got = read(server->doorbell_fd, counts, sizeof(counts));
	(void)got; /* the doorbell is not waited for here: somebody else may have heard it */
}
