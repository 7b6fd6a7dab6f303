/*
 * One thread takes requests and collects outcomes; the disks' queues (disk/queue.h) do the work.
 * The memory's words are read once and checked: the other side is a machine process, which is taken
 * for lost.
 */
#include "block_server.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "disk/queue.h"

struct server;
struct slot { struct server *server; struct disk_request request; struct iovec iov; bool busy; };

struct server {
	const struct block_service *service;
	struct disk_queue *queue[BLOCK_DISKS];
	struct slot slot[BLOCK_SLOTS];
	uint32_t taken, answered;
	bool answers; /* not yet told */
};

static void done(struct disk_request *request, int error)
{
	struct slot *slot = request->context;
	struct server *s = slot->server;
	struct block_replies *q = &s->service->memory->replies;

	assert(slot->busy && error <= 0 && slot == &s->slot[slot - s->slot]);
	slot->busy = false;
	q->entry[s->answered % BLOCK_SLOTS] =
		(struct block_reply){ (uint32_t)(slot - s->slot), error };
	s->answered++;
	__atomic_store_n(&q->written, s->answered, __ATOMIC_RELEASE);
	s->answers = true;
}

static void tell_answers(struct server *s)
{
	struct block_replies *q = &s->service->memory->replies;
	ssize_t written;

	if (!s->answers)
		return;
	s->answers = false;
	/* with the other side's: it says that it sleeps, then looks for replies */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&q->sleeps, __ATOMIC_RELAXED) ||
	    !__atomic_exchange_n(&q->sleeps, 0, __ATOMIC_SEQ_CST))
		return;
	written = write(s->service->answer_fd, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
}

static const enum disk_request_kind kinds[BLOCK_KINDS] = { [BLOCK_READ] = DISK_READ,
							   [BLOCK_WRITE] = DISK_WRITE,
							   [BLOCK_ZERO] = DISK_ZERO,
							   [BLOCK_FLUSH] = DISK_FLUSH };

/* False: not a request. What is wrong with its place the disk says. */
static bool take(struct server *s, const struct block_request *r)
{
	struct slot *slot = r->slot < BLOCK_SLOTS ? &s->slot[r->slot] : NULL;
	bool has_data = r->kind == BLOCK_READ || r->kind == BLOCK_WRITE;

	if (!slot || slot->busy || r->disk >= s->service->count || r->kind >= BLOCK_KINDS ||
	    (has_data && r->bytes > BLOCK_SLOT_BYTES))
		return false;
	*slot = (struct slot){ .server = s, .busy = true };
	slot->iov.iov_base = s->service->memory->data[r->slot];
	slot->iov.iov_len = has_data ? r->bytes : 0;
	slot->request = (struct disk_request){ .kind = kinds[r->kind],
					       .offset = r->offset,
					       .bytes = r->bytes,
					       .iov = &slot->iov,
					       .count = 1,
					       .done = done,
					       .context = slot };
	return !disk_queue_submit(s->queue[r->disk],
				  &slot->request); /* its depth is the number of slots */
}

/* -EBADMSG, or how many. */
static int take_all(struct server *s)
{
	struct block_requests *q = &s->service->memory->requests;
	uint32_t count = __atomic_load_n(&q->written, __ATOMIC_ACQUIRE) - s->taken;

	if (count > BLOCK_SLOTS)
		return -EBADMSG;
	for (uint32_t n = 0; n < count; n++) {
		struct block_request r;

		memcpy(&r, &q->entry[s->taken % BLOCK_SLOTS], sizeof(r));
		/* what is checked is this copy: no compiler reads the original again */
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		s->taken++;
		if (!take(s, &r))
			return -EBADMSG;
	}
	return (int)count;
}

static void sleep_until(struct server *s, struct pollfd *fds)
{
	struct block_requests *q = &s->service->memory->requests;
	bool waits;

	assert(s->service->count <= BLOCK_DISKS);
	__atomic_store_n(&q->sleeps, 1, __ATOMIC_SEQ_CST);
	waits = __atomic_load_n(&q->written, __ATOMIC_ACQUIRE) != s->taken;
	poll(fds, 2 + s->service->count, waits ? 0 : -1);
	__atomic_store_n(&q->sleeps, 0, __ATOMIC_RELAXED);
}

static int serve(struct server *s)
{
	const struct block_service *b = s->service;
	struct pollfd fds[2 + BLOCK_DISKS] = { { .fd = b->doorbell_fd, .events = POLLIN },
					       { .fd = b->end_fd, .events = POLLIN } };
	uint64_t count;

	for (unsigned n = 0; n < b->count; n++)
		fds[2 + n] = (struct pollfd){ .fd = disk_queue_fd(s->queue[n]), .events = POLLIN };
	while (!fds[1].revents) {
		int got = take_all(s);

		if (got < 0)
			return got;
		for (unsigned n = 0; n < b->count; n++)
			got += (int)disk_queue_poll(s->queue[n]);
		tell_answers(s);
		if (!got)
			sleep_until(s, fds);
		if (fds[0].revents && read(b->doorbell_fd, &count, 8) < 0 && errno != EAGAIN)
			return -errno;
		fds[0].revents = 0;
	}
	return 0;
}

void block_describe(struct disk *d, bool write, struct block_disk *ret)
{
	struct disk_info info;

	disk_info(d, &info);
	*ret = (struct block_disk){ .size_bytes = disk_size_bytes(d),
				    .sector_bytes = disk_sector_bytes(d),
				    .physical_bytes = info.physical_sector_bytes
							      ? info.physical_sector_bytes
							      : disk_sector_bytes(d),
				    .read_only = !write };
	memcpy(ret->id, info.disk_id.byte, sizeof(ret->id));
}

int block_serve(const struct block_service *service, int (*ready)(void *context), void *context)
{
	struct server s = { .service = service };
	int error = 0;

	assert(service->count <= BLOCK_DISKS && service->memory && ready);
	for (unsigned n = 0; n < service->count && !error; n++)
		error = disk_queue_open(service->disks[n],
					&(struct disk_queue_options){
						.depth = BLOCK_SLOTS,
						.ring = service->rings[n] },
					&s.queue[n]);
	if (!error)
		error = ready(context);
	if (!error)
		error = serve(&s);
	for (unsigned n = 0; n < service->count && s.queue[n]; n++)
		disk_queue_close(s.queue[n]);
	return error;
}
