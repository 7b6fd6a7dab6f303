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

#include "disk/queue.h"

struct server;
struct slot { struct server *server; struct disk_request request; struct iovec iov; };

struct server {
	const struct block_service *service;
	struct disk_queue *queue[BLOCK_DISKS];
	struct slot_server slots;
	struct slot slot[BLOCK_SLOTS];
};

static void done(struct disk_request *request, int error)
{
	struct slot *slot = request->context;
	struct server *s = slot->server;

	assert(error <= 0 && slot == &s->slot[slot - s->slot]);
	slot_answer(&s->slots, (unsigned)(slot - s->slot), error);
}

static const enum disk_request_kind kinds[BLOCK_KINDS] = { [BLOCK_READ] = DISK_READ,
							   [BLOCK_WRITE] = DISK_WRITE,
							   [BLOCK_ZERO] = DISK_ZERO,
							   [BLOCK_FLUSH] = DISK_FLUSH };

/* False: not a request. What is wrong with its place the disk says. */
static bool take(struct server *s, const struct slot_request *r)
{
	struct slot *slot = &s->slot[r->slot];
	bool has_data = r->kind == BLOCK_READ || r->kind == BLOCK_WRITE;

	if (r->target >= s->service->count || r->kind >= BLOCK_KINDS ||
	    (has_data && r->bytes > BLOCK_SLOT_BYTES))
		return false;
	*slot = (struct slot){ .server = s };
	slot->iov.iov_base = s->service->memory->data[r->slot];
	slot->iov.iov_len = has_data ? r->bytes : 0;
	slot->request = (struct disk_request){ .kind = kinds[r->kind],
					       .offset = r->offset,
					       .bytes = r->bytes,
					       .iov = &slot->iov,
					       .count = 1,
					       .done = done,
					       .context = slot };
	return !disk_queue_submit(s->queue[r->target],
				  &slot->request); /* its depth is the number of slots */
}

/* -EBADMSG, or how many. */
static int take_all(struct server *s)
{
	struct slot_request request;
	int count = 0;
	int got;

	while ((got = slot_take(&s->slots, &request)) > 0) {
		if (!take(s, &request))
			return -EBADMSG;
		count++;
	}
	return got < 0 ? got : count;
}

static void sleep_until(struct server *s, struct pollfd *fds)
{
	bool may_sleep = slot_server_may_sleep(&s->slots);

	assert(s->service->count <= BLOCK_DISKS);
	poll(fds, 2 + s->service->count, may_sleep ? -1 : 0);
	slot_server_wakes(&s->slots, fds[0].revents);
}

static int serve(struct server *s)
{
	const struct block_service *b = s->service;
	struct pollfd fds[2 + BLOCK_DISKS] = { { .fd = b->doorbell_fd, .events = POLLIN },
					       { .fd = b->end_fd, .events = POLLIN } };

	for (unsigned n = 0; n < b->count; n++)
		fds[2 + n] = (struct pollfd){ .fd = disk_queue_fd(s->queue[n]), .events = POLLIN };
	while (!fds[1].revents) {
		int got = take_all(s);

		if (got < 0)
			return got;
		for (unsigned n = 0; n < b->count; n++)
			got += (int)disk_queue_poll(s->queue[n]);
		slot_tell(&s->slots);
		if (!got)
			sleep_until(s, fds);
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
	struct server s = { .service = service,
			    .slots = { .queue = &service->memory->queue,
				       .slots = BLOCK_SLOTS,
				       .doorbell_fd = service->doorbell_fd,
				       .answer_fd = service->answer_fd } };
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
