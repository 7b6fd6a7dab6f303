/*
 * A disk process whose machine has another request at each of its looks: that the machine is gone
 * it sees all the same. The machine is here in the server's own calls (slot_take()), and a request
 * is done at once, so that the server never finds nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "disk/queue.h"
#include "process/block_server.h"

enum { TURNS = 1000, TURNS_MOST = 100000, DISK_BYTES = 1 << 20 };

static struct slot_client client;
static int end[2];
static unsigned turns;
static bool is_asked;

int __real_slot_take(struct slot_server *server, struct slot_request *ret);
int __wrap_slot_take(struct slot_server *server, struct slot_request *ret);
int __wrap_disk_queue_submit(struct disk_queue *queue, struct disk_request *request);

static void fail(const char *what)
{
	printf("FAIL %s\n", what);
	exit(EXIT_FAILURE);
}

int __wrap_disk_queue_submit(struct disk_queue *queue, struct disk_request *request)
{
	(void)queue;
	request->done(request, 0);
	return 0;
}

/* One request in each turn of the server's. */
int __wrap_slot_take(struct slot_server *server, struct slot_request *ret)
{
	struct slot_reply reply;

	is_asked = !is_asked;
	if (!is_asked)
		return __real_slot_take(server, ret);
	while (slot_collect(&client, &reply) > 0)
		;
	slot_submit(&client, &(struct slot_request){ .kind = BLOCK_FLUSH });
	if (++turns == TURNS)
		close(end[1]);
	if (turns == TURNS_MOST)
		fail("it does not see that its machine is gone");
	return __real_slot_take(server, ret);
}

static int ready(void *unused)
{
	(void)unused;
	return 0;
}

int main(void)
{
	char path[] = "/tmp/umbra-busy-XXXXXX";
	const struct disk_queue_options options = { .depth = BLOCK_SLOTS };
	const int fd = mkstemp(path);
	struct disk *disk;
	struct disk_ring *ring;
	struct disk_error error;
	struct block_service service;
	struct block_memory *memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (fd < 0 || ftruncate(fd, DISK_BYTES) || pipe(end) || memory == MAP_FAILED ||
	    disk_open(path, &(struct disk_options){ .format = DISK_RAW, .write = true }, &disk,
		      &error) ||
	    disk_ring_create(&options, &ring))
		fail("a disk");
	client = (struct slot_client){ .queue = &memory->queue,
				       .slots = BLOCK_SLOTS,
				       .doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				       .answer_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	service = (struct block_service){ .memory = memory,
					  .disks = &disk,
					  .rings = &ring,
					  .count = 1,
					  .doorbell_fd = client.doorbell_fd,
					  .answer_fd = client.answer_fd,
					  .end_fd = end[0],
					  .layers_fd = -1 };
	if (block_serve(&service, ready, NULL))
		fail("serving");
	if (turns < TURNS)
		fail("it ends before its machine");
	if (disk_close(disk))
		fail("closing");
	close(fd);
	unlink(path);
	printf("ok   a disk process that is never idle ends with its machine\n");
	return EXIT_SUCCESS;
}
