/*
 * See block.h: the machine process's side. Submissions are the caller's to put in order; collecting
 * is one thread's.
 */
#include "block.h"

#include <errno.h>
#include <unistd.h>

static void ring_bell(int fd)
{
	ssize_t written = write(fd, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

void block_submit(struct block_client *c, const struct block_request *r)
{
	struct block_requests *q = &c->memory->requests;

	q->entry[c->submitted % BLOCK_SLOTS] = *r;
	c->submitted++;
	__atomic_store_n(&q->written, c->submitted, __ATOMIC_RELEASE);
}

void block_kick(struct block_client *c)
{
	/* with the other side's: it says that it sleeps, then looks for requests */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->memory->requests.sleeps, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&c->memory->requests.sleeps, 0, __ATOMIC_SEQ_CST))
		ring_bell(c->doorbell_fd);
}

static uint32_t waiting(const struct block_client *c)
{
	return __atomic_load_n(&c->memory->replies.written, __ATOMIC_ACQUIRE) - c->collected;
}

int block_collect(struct block_client *c, struct block_reply *ret)
{
	uint32_t count = waiting(c);

	if (!count)
		return 0;
	if (count > BLOCK_SLOTS)
		return -EBADMSG;
	*ret = c->memory->replies.entry[c->collected % BLOCK_SLOTS];
	if (ret->slot >= BLOCK_SLOTS)
		return -EBADMSG;
	c->collected++;
	return 1;
}

bool block_sleep(struct block_client *c)
{
	uint64_t count;

	__atomic_store_n(&c->memory->replies.sleeps, 1, __ATOMIC_SEQ_CST);
	if (waiting(c)) {
		__atomic_store_n(&c->memory->replies.sleeps, 0, __ATOMIC_RELAXED);
		return true;
	}
	return read(c->answer_fd, &count, 8) == 8 || errno == EINTR;
}

void block_wake(struct block_client *c) { ring_bell(c->answer_fd); }
