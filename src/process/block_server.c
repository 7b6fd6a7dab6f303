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
#include <sys/stat.h>

#include "disk/queue.h"
#include "layer.h"
#include "lib/brief_wait.h"

enum { OWN_FDS = 3, BULK_BYTES = 64 << 10, TURNS = 64 };

struct server;
struct slot { struct server *server; struct disk_request request; struct iovec iov; };

struct server {
	const struct block_service *service;
	struct disk_queue *queue[BLOCK_DISKS];
	struct layers *layers; /* NULL: none come */
	struct slot_server slots;
	struct brief_wait brief;
	bool has_bulk; /* its last request */
	struct slot slot[BLOCK_SLOTS];
};

static void done(struct disk_request *request, int error)
{
	struct slot *slot = request->context;
	struct server *server = slot->server;

	assert(error <= 0 && slot == &server->slot[slot - server->slot]);
	slot_answer(&server->slots, (unsigned)(slot - server->slot), error);
}

static const enum disk_request_kind kinds[BLOCK_KINDS] = { [BLOCK_READ] = DISK_READ,
							   [BLOCK_WRITE] = DISK_WRITE,
							   [BLOCK_ZERO] = DISK_ZERO,
							   [BLOCK_FLUSH] = DISK_FLUSH };

/* False: not a request. What is wrong with its place the disk says. */
static bool take(struct server *server, const struct slot_request *request)
{
	struct slot *slot = &server->slot[request->slot];
	bool has_data = request->kind == BLOCK_READ || request->kind == BLOCK_WRITE;

	assert(request->slot < BLOCK_SLOTS); /* slot_queue_take() has looked */
	if (request->target >= server->service->count ||
	    !server->service->disks[request->target] || request->kind >= BLOCK_KINDS ||
	    (has_data && request->bytes > BLOCK_SLOT_BYTES))
		return false;
	*slot = (struct slot){ .server = server };
	slot->iov.iov_base = server->service->memory->data[request->slot];
	slot->iov.iov_len = has_data ? request->bytes : 0;
	slot->request = (struct disk_request){ .kind = kinds[request->kind],
					       .offset = request->offset,
					       .bytes = request->bytes,
					       .iov = &slot->iov,
					       .count = 1,
					       .done = done,
					       .context = slot };
	return !disk_queue_submit(server->queue[request->target],
				  &slot->request); /* its depth is the number of slots */
}

/* -EBADMSG, or how many. */
static int take_all(struct server *server)
{
	struct slot_request request;
	int count = 0;
	int got;

	while ((got = slot_take(&server->slots, &request)) > 0) {
		if (!take(server, &request))
			return -EBADMSG;
		server->has_bulk = request.kind <= BLOCK_WRITE && request.bytes >= BULK_BYTES;
		count++;
	}
	return got < 0 ? got : count;
}

/*
 * Nothing is there: whether to look again. Behind much data it sleeps, so that who is woken has its
 * processor, in whose cache they are.
 */
static bool looks_again(struct server *server)
{
	return !server->has_bulk && brief_wait_looks(&server->brief);
}

static void sleep_until(struct server *server, struct pollfd *fds)
{
	const unsigned disks = server->service->count;
	bool may_sleep = slot_server_may_sleep(&server->slots);

	assert(disks <= BLOCK_DISKS);
	for (unsigned n = 0; n < disks; n++)
		may_sleep &= disk_queue_may_sleep(server->queue[n]);
	if (may_sleep)
		poll(fds, OWN_FDS + disks, -1);
	for (unsigned n = 0; n < disks; n++)
		disk_queue_wakes(server->queue[n], may_sleep && fds[OWN_FDS + n].revents);
	slot_server_wakes(&server->slots, may_sleep && fds[0].revents);
}

static int serve(struct server *server)
{
	const struct block_service *service = server->service;
	struct pollfd fds[OWN_FDS + BLOCK_DISKS] = {
		{ .fd = service->doorbell_fd, .events = POLLIN },
		{ .fd = service->end_fd, .events = POLLIN },
		{ .fd = service->layers_fd, .events = POLLIN }
	};

	for (unsigned n = 0; n < service->count; n++)
		fds[OWN_FDS + n] = (struct pollfd){ .fd = disk_queue_fd(server->queue[n]),
						    .events = POLLIN };
	for (unsigned turns = 1; !fds[1].revents; turns++) {
		int got = take_all(server);

		if (got < 0)
			return got;
		for (unsigned n = 0; n < service->count; n++)
			got += (int)disk_queue_poll(server->queue[n]);
		slot_tell(&server->slots);
		if (got)
			brief_wait_found(&server->brief);
		else if (!looks_again(server))
			sleep_until(server, fds);
		/* the end and layers come also to one that never sleeps */
		if (turns % TURNS == 0)
			poll(fds + 1, OWN_FDS - 1, 0);
		if (fds[2].revents && layers_take(server->layers))
			fds[2].fd = -1; /* the broker is gone; the end comes as well */
		fds[2].revents = 0;
	}
	return 0;
}

struct guid block_place_id(const char *path)
{
	struct guid id = { 0 };
	struct stat st;

	if (stat(path, &st))
		return id;
	memcpy(id.byte, &st.st_ino, sizeof(id.byte) / 2);
	memcpy(id.byte + sizeof(id.byte) / 2, &st.st_dev, sizeof(id.byte) / 2);
	return id;
}

void block_describe(struct disk *disk, bool write, struct block_disk *ret)
{
	struct disk_info info;

	disk_info(disk, &info);
	*ret = (struct block_disk){ .size_bytes = disk_size_bytes(disk),
				    .sector_bytes = disk_sector_bytes(disk),
				    .physical_bytes = info.physical_sector_bytes
							      ? info.physical_sector_bytes
							      : disk_sector_bytes(disk),
				    .read_only = !write };
	memcpy(ret->id, info.disk_id.byte, sizeof(ret->id));
}

int block_serve(const struct block_service *service, int (*ready)(void *context), void *context)
{
	struct server server = { .service = service,
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
					&server.queue[n]);
	if (!error && service->layers_fd >= 0) {
		server.layers = layers_begin(service->disks, server.queue, service->writes,
					     service->count);
		error = server.layers ? 0 : -ENOMEM;
	}
	if (!error)
		error = ready(context);
	if (!error)
		error = serve(&server);
	if (server.layers)
		layers_end(server.layers);
	for (unsigned n = 0; n < service->count && server.queue[n]; n++)
		disk_queue_close(server.queue[n]);
	return error;
}
