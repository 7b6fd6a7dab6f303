/*
 * See queue.h. A request is in exactly one place: the ring, the list of those that wait for a
 * thread, a thread, the list of those that are done. `lock` guards both lists and `sleeps`;
 * everything else is the owner's.
 */
#include "queue.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "digest.h"

enum { DEPTH = 64, DEPTH_MAX = 4096, THREADS = 4, THREADS_MAX = 32, VECTOR_MAX = 1024 };

struct list { struct disk_request *first, **end; };

struct disk_ring { struct io_uring uring; int event; bool is_there; };

struct disk_queue {
	struct disk *disk;
	struct disk_ring *ring;
	bool stop, sleeps;
	unsigned depth, used, threads, begun;
	pthread_mutex_t lock;
	pthread_cond_t work, started;
	struct list waiting, done;
	pthread_t thread[THREADS_MAX];
};

static void list_clear(struct list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void list_add(struct list *list, struct disk_request *request)
{
	request->own.next = NULL;
	*list->end = request;
	list->end = &request->own.next;
}

/* With the lock. */
static void wake_owner(struct disk_queue *queue)
{
	ssize_t written;

	if (!queue->sleeps)
		return;
	queue->sleeps = false;
	written = write(queue->ring->event, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full is readable, too */
}

/* ---- threads ---- */

static int request_perform(struct disk *disk, const struct disk_request *request)
{
	switch (request->kind) {
	case DISK_READ: return disk_readv(disk, request->offset, request->iov, request->count);
	case DISK_WRITE: return disk_writev(disk, request->offset, request->iov, request->count);
	case DISK_ZERO: return disk_zero(disk, request->offset, request->bytes);
	case DISK_FLUSH: return disk_flush(disk);
	}
	return -EINVAL;
}

static void *queue_work(void *context)
{
	struct disk_queue *queue = context;

	pthread_mutex_lock(&queue->lock);
	queue->begun++;
	pthread_cond_broadcast(&queue->started);
	while (!queue->stop || queue->waiting.first) {
		struct disk_request *request = queue->waiting.first;

		if (!request) {
			pthread_cond_wait(&queue->work, &queue->lock);
			continue;
		}
		queue->waiting.first = request->own.next;
		if (!queue->waiting.first)
			list_clear(&queue->waiting);
		pthread_mutex_unlock(&queue->lock);
		request->own.error = request_perform(queue->disk, request);
		pthread_mutex_lock(&queue->lock);
		list_add(&queue->done, request);
		wake_owner(queue);
	}
	pthread_mutex_unlock(&queue->lock);
	return NULL;
}

static void give_to_threads(struct disk_queue *queue, struct disk_request *request)
{
	pthread_mutex_lock(&queue->lock);
	list_add(&queue->waiting, request);
	pthread_cond_signal(&queue->work);
	pthread_mutex_unlock(&queue->lock);
}

/* ---- the ring ---- */

/* False: not for the ring, or it is full. */
static bool give_to_ring(struct disk_queue *queue, struct disk_request *request)
{
	struct disk *disk = queue->disk;
	bool write = request->kind == DISK_WRITE;
	struct io_uring_sqe *sqe;
	uint64_t at;
	int fd;

	if (!queue->ring->is_there || request->kind > DISK_WRITE || !disk->driver->map ||
	    !disk->file.ops->descriptor || request->count > VECTOR_MAX)
		return false;
	if (disk_check_request(disk, request->offset, request->own.bytes) || !request->own.bytes ||
	    (write && (!disk->write || file_failed(&disk->file))))
		return false; /* a thread says what is wrong */
	if (!io_uring_sq_space_left(&queue->ring->uring) ||
	    !disk->driver->map(disk, write, request->offset, request->own.bytes, &at))
		return false;
	sqe = io_uring_get_sqe(&queue->ring->uring);
	fd = disk->file.ops->descriptor(disk->file.context, at, request->iov, request->count);
	if (write)
		digest_touch(disk, request->offset, request->own.bytes);
	if (write)
		io_uring_prep_writev(sqe, fd, request->iov, (unsigned)request->count, at);
	else
		io_uring_prep_readv(sqe, fd, request->iov, (unsigned)request->count, at);
	io_uring_sqe_set_data(sqe, request);
	return true;
}

/* What came back short, or with an error, is done once more by a thread: it knows how. */
static bool ring_finished(struct disk_queue *queue, struct disk_request *request, int result)
{
	assert(queue->used && request->kind <= DISK_WRITE);
	queue->disk->driver->unmap(queue->disk, request->kind == DISK_WRITE);
	if (result < 0 || (uint64_t)result != request->own.bytes) {
		give_to_threads(queue, request);
		return false;
	}
	if (request->kind == DISK_WRITE)
		digest_written(queue->disk, request->offset, request->own.bytes);
	return true;
}

static unsigned collect_ring(struct disk_queue *queue)
{
	struct io_uring_cqe *cqe;
	unsigned count = 0;

	while (queue->ring->is_there && !io_uring_peek_cqe(&queue->ring->uring, &cqe)) {
		struct disk_request *request = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&queue->ring->uring, cqe);
		if (!ring_finished(queue, request, result))
			continue;
		queue->used--;
		count++;
		request->done(request, 0);
	}
	return count;
}

/* ---- the owner ---- */

int disk_queue_submit(struct disk_queue *queue, struct disk_request *request)
{
	assert(request->done && request->kind <= DISK_FLUSH && queue->used <= queue->depth);
	if (queue->used == queue->depth)
		return -EAGAIN;
	queue->used++;
	request->own.bytes = request->kind <= DISK_WRITE ? iov_bytes(request->iov, request->count)
							 : request->bytes;
	if (!give_to_ring(queue, request))
		give_to_threads(queue, request);
	return 0;
}

void disk_queue_kick(struct disk_queue *queue)
{
	if (queue->ring->is_there && io_uring_sq_ready(&queue->ring->uring))
		io_uring_submit(&queue->ring->uring);
}

unsigned disk_queue_poll(struct disk_queue *queue)
{
	struct disk_request *request, *next;
	unsigned count;

	if (!queue->used)
		return 0;
	disk_queue_kick(queue);
	count = collect_ring(queue);
	pthread_mutex_lock(&queue->lock);
	request = queue->done.first;
	list_clear(&queue->done);
	pthread_mutex_unlock(&queue->lock);
	for (; request; request = next, count++) {
		next = request->own.next;
		assert(queue->used && request->own.error <= 0);
		queue->used--;
		request->done(request, request->own.error);
	}
	disk_queue_kick(queue);
	return count;
}

int disk_queue_fd(const struct disk_queue *queue) { return queue->ring->event; }
bool disk_queue_has_ring(const struct disk_queue *queue) { return queue->ring->is_there; }

/*
 * Only who sleeps is told, by the ring as by a thread: the event costs a system call to write, and
 * one to read. The ring looks at its flag once it has put an outcome where it is looked for here.
 */
static void set_sleeps(struct disk_queue *queue, bool sleeps)
{
	pthread_mutex_lock(&queue->lock);
	queue->sleeps = sleeps;
	pthread_mutex_unlock(&queue->lock);
	if (queue->ring->is_there)
		io_uring_cq_eventfd_toggle(&queue->ring->uring, sleeps);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool disk_queue_may_sleep(struct disk_queue *queue)
{
	bool some;

	if (!queue->used)
		return true;
	set_sleeps(queue, true);
	pthread_mutex_lock(&queue->lock);
	some = queue->done.first;
	pthread_mutex_unlock(&queue->lock);
	return !some && !(queue->ring->is_there && io_uring_cq_ready(&queue->ring->uring));
}

void disk_queue_wakes(struct disk_queue *queue, bool rung)
{
	uint64_t events;
	ssize_t got;

	if (queue->used)
		set_sleeps(queue, false);
	if (!rung)
		return;
	got = read(queue->ring->event, &events, sizeof(events));
	(void)got;
}

void disk_queue_wait(struct disk_queue *queue)
{
	struct pollfd event = { .fd = queue->ring->event, .events = POLLIN };

	while (queue->used && !disk_queue_poll(queue)) {
		poll(&event, 1, disk_queue_may_sleep(queue) ? 1000 : 0);
		disk_queue_wakes(queue, event.revents);
	}
}

void disk_queue_drain(struct disk_queue *queue)
{
	while (queue->used)
		disk_queue_wait(queue);
}

void disk_queue_move(struct disk_queue *queue, struct disk *disk)
{
	assert(!queue->used);
	assert(!disk || !queue->disk || disk_size_bytes(disk) == disk_size_bytes(queue->disk));
	queue->disk = disk; /* no thread has a request, and each next one comes by the lock */
}

static void queue_release(struct disk_queue *queue)
{
	assert(!queue->used);
	pthread_mutex_lock(&queue->lock);
	queue->stop = true;
	pthread_cond_broadcast(&queue->work);
	pthread_mutex_unlock(&queue->lock);
	while (queue->threads)
		pthread_join(queue->thread[--queue->threads], NULL);
	pthread_cond_destroy(&queue->work);
	pthread_cond_destroy(&queue->started);
	pthread_mutex_destroy(&queue->lock);
	disk_ring_destroy(queue->ring);
	free(queue);
}

void disk_queue_close(struct disk_queue *queue)
{
	disk_queue_drain(queue);
	queue_release(queue);
}

static unsigned depth_of(const struct disk_queue_options *options)
{
	unsigned depth = options->depth ? options->depth : DEPTH;

	return depth < DEPTH_MAX ? depth : DEPTH_MAX;
}

static long ring_register(struct io_uring *ring, unsigned what, const void *data, unsigned count)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, what, data, count);
}

/* A ring that can only read and write: whoever takes the process over has no more system calls by
 * it. False: none here. */
static bool ring_begin(struct disk_ring *ring, unsigned depth)
{
	struct io_uring_restriction only[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
	};

	if (io_uring_queue_init(depth, &ring->uring, IORING_SETUP_R_DISABLED))
		return false;
	if (!io_uring_register_eventfd(&ring->uring, ring->event) &&
	    !io_uring_cq_eventfd_toggle(&ring->uring, false) &&
	    !ring_register(&ring->uring, IORING_REGISTER_RESTRICTIONS, only, 2) &&
	    !ring_register(&ring->uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return true;
	io_uring_queue_exit(&ring->uring);
	return false;
}

int disk_ring_create(const struct disk_queue_options *options, struct disk_ring **ret)
{
	struct disk_ring *ring = calloc(1, sizeof(*ring));
	int error;

	if (!ring)
		return -ENOMEM;
	ring->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ring->event < 0) {
		error = -errno;
		free(ring);
		return error;
	}
	ring->is_there = !options->no_ring && ring_begin(ring, depth_of(options));
	*ret = ring;
	return 0;
}

void disk_ring_destroy(struct disk_ring *ring)
{
	if (ring->is_there)
		io_uring_queue_exit(&ring->uring);
	close(ring->event);
	free(ring);
}

/* A thread's first system calls are not those of its work: the owner may take them away after
 * this. */
static void threads_wait(struct disk_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	while (queue->begun < queue->threads)
		pthread_cond_wait(&queue->started, &queue->lock);
	pthread_mutex_unlock(&queue->lock);
}

int disk_queue_open(struct disk *disk, const struct disk_queue_options *options,
		    struct disk_queue **ret)
{
	unsigned threads = options->threads ? options->threads : THREADS;
	struct disk_queue *queue = calloc(1, sizeof(*queue));
	int error = 0;

	if (!queue)
		return -ENOMEM;
	queue->ring = options->ring;
	if (!queue->ring)
		error = disk_ring_create(options, &queue->ring);
	if (error) {
		free(queue);
		return error;
	}
	queue->disk = disk;
	queue->depth = depth_of(options);
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->work, NULL);
	pthread_cond_init(&queue->started, NULL);
	list_clear(&queue->waiting);
	list_clear(&queue->done);
	for (; !error && queue->threads < threads && queue->threads < THREADS_MAX;
	     queue->threads += !error)
		error = -pthread_create(&queue->thread[queue->threads], NULL, queue_work, queue);
	threads_wait(queue);
	if (error)
		queue_release(queue);
	else
		*ret = queue;
	return error;
}
