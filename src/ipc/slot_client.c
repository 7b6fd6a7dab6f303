/* See slot_queue.h: the side that asks. */
#include "slot_queue.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

static void ring_bell(int fd)
{
	ssize_t written = write(fd, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

void slot_submit(struct slot_client *client, const struct slot_request *request)
{
	struct slot_requests *requests = &client->queue->requests;

	assert(request->slot < client->slots);
	requests->entry[client->submitted % SLOTS_MAX] = *request;
	client->submitted++;
	__atomic_store_n(&requests->written, client->submitted, __ATOMIC_RELEASE);
}

void slot_kick(struct slot_client *client)
{
	struct slot_requests *requests = &client->queue->requests;

	if (client->kicked) {
		client->kicked(client->context);
		return;
	}
	/* with the other side's: it says that it sleeps, then looks for requests */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&requests->sleeps, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&requests->sleeps, 0, __ATOMIC_SEQ_CST))
		ring_bell(client->doorbell_fd);
}

static uint32_t waiting(const struct slot_client *client)
{
	const struct slot_replies *replies = &client->queue->replies;

	return __atomic_load_n(&replies->written, __ATOMIC_ACQUIRE) -
	       __atomic_load_n(&client->collected, __ATOMIC_RELAXED);
}

static bool is_ignored(const struct slot_client *client)
{
	return __atomic_load_n(&client->ignored, __ATOMIC_RELAXED);
}

bool slot_has_reply(const struct slot_client *client)
{
	return !is_ignored(client) && waiting(client);
}

int slot_collect(struct slot_client *client, struct slot_reply *ret)
{
	uint32_t count = waiting(client);

	if (!count)
		return 0;
	if (count > client->slots)
		return -EBADMSG;
	*ret = client->queue->replies.entry[client->collected % SLOTS_MAX];
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (ret->slot >= client->slots)
		return -EBADMSG;
	__atomic_store_n(&client->collected, client->collected + 1, __ATOMIC_RELAXED);
	return 1;
}

void slot_ignore(struct slot_client *client)
{
	__atomic_store_n(&client->ignored, true, __ATOMIC_RELAXED);
}

void slot_restart(struct slot_client *client)
{
	__atomic_store_n(&client->ignored, false, __ATOMIC_RELAXED);
	client->submitted = 0;
	__atomic_store_n(&client->collected, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&client->queue->requests.written, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&client->queue->replies.written, 0, __ATOMIC_SEQ_CST);
}

static void set_sleeps(struct slot_client *const *clients, unsigned count, uint32_t sleeps)
{
	for (unsigned n = 0; n < count; n++)
		__atomic_store_n(&clients[n]->queue->replies.sleeps, sleeps, __ATOMIC_SEQ_CST);
}

/* One whose writers are all gone is not waited for any more. */
static void take_rings(struct slot_client *client, short events)
{
	uint64_t rung[SLOT_RINGS];
	ssize_t got;

	if (events & POLLIN) {
		got = read(client->answer_fd, rung, sizeof(rung));
		(void)got; /* nobody counts them */
	} else if (events) {
		client->answer_fd = -1;
	}
}

/* Some have their event in common, which is waited for and taken once. */
static int event_of(struct slot_client *const *clients, unsigned number)
{
	for (unsigned n = 0; n < number; n++)
		if (clients[n]->answer_fd == clients[number]->answer_fd)
			return -1;
	return clients[number]->answer_fd;
}

/* By the one call of its kind that a machine process keeps. 0: without an end. */
static int wait_for(struct pollfd *events, unsigned count, uint32_t timeout_us)
{
	const struct timespec timeout = { .tv_sec = timeout_us / 1000000,
					  .tv_nsec = timeout_us % 1000000 * 1000 };

	return ppoll(events, count, timeout_us ? &timeout : NULL, NULL);
}

bool slot_clients_sleep(struct slot_client *const *clients, unsigned count, uint32_t timeout_us)
{
	struct pollfd events[SLOT_CLIENTS_MOST];
	bool some = false;
	int rung = 0;

	assert(count && count <= SLOT_CLIENTS_MOST);
	set_sleeps(clients, count, 1);
	for (unsigned n = 0; n < count; n++) {
		some |= slot_has_reply(clients[n]);
		events[n] = (struct pollfd){ .fd = event_of(clients, n), .events = POLLIN };
	}
	if (!some)
		rung = wait_for(events, count, timeout_us);
	set_sleeps(clients, count, 0);
	for (unsigned n = 0; n < count && rung > 0; n++)
		take_rings(clients[n], events[n].revents);
	return clients[0]->answer_fd >= 0;
}

void slot_clients_watch(struct slot_client *const *clients, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		if (__atomic_load_n(&clients[n]->queue->replies.sleeps, __ATOMIC_RELAXED))
			__atomic_store_n(&clients[n]->queue->replies.sleeps, 0, __ATOMIC_SEQ_CST);
}

bool slot_clients_unwatch(struct slot_client *const *clients, unsigned count)
{
	bool some = false;

	set_sleeps(clients, count, 1);
	for (unsigned n = 0; n < count; n++)
		some |= slot_has_reply(clients[n]);
	return some;
}

void slot_wake(struct slot_client *client) { ring_bell(client->answer_fd); }
