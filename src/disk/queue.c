/*
 * See queue.h. A request is in exactly one place: the ring, the list of those that wait for a
 * thread, a thread, the list of those that are done. `lock` guards both lists; everything else is
 * the owner's.
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
	bool stop;
	unsigned depth, used, threads, begun;
	pthread_mutex_t lock;
	pthread_cond_t work, started;
	struct list waiting, done;
	pthread_t thread[THREADS_MAX];
};

static void list_clear(struct list *l)
{
	l->first = NULL;
	l->end = &l->first;
}

static void list_add(struct list *l, struct disk_request *r)
{
	r->own.next = NULL;
	*l->end = r;
	l->end = &r->own.next;
}

static void signal_owner(struct disk_queue *q)
{
	ssize_t written = write(q->ring->event, &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full is readable, too */
}

/* ---- threads ---- */

static int request_perform(struct disk *d, const struct disk_request *r)
{
	switch (r->kind) {
	case DISK_READ: return disk_readv(d, r->offset, r->iov, r->count);
	case DISK_WRITE: return disk_writev(d, r->offset, r->iov, r->count);
	case DISK_ZERO: return disk_zero(d, r->offset, r->bytes);
	case DISK_FLUSH: return disk_flush(d);
	}
	return -EINVAL;
}

static void *queue_work(void *context)
{
	struct disk_queue *q = context;

	pthread_mutex_lock(&q->lock);
	q->begun++;
	pthread_cond_broadcast(&q->started);
	while (!q->stop || q->waiting.first) {
		struct disk_request *r = q->waiting.first;

		if (!r) {
			pthread_cond_wait(&q->work, &q->lock);
			continue;
		}
		q->waiting.first = r->own.next;
		if (!q->waiting.first)
			list_clear(&q->waiting);
		pthread_mutex_unlock(&q->lock);
		r->own.error = request_perform(q->disk, r);
		pthread_mutex_lock(&q->lock);
		list_add(&q->done, r);
		signal_owner(q);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static void give_to_threads(struct disk_queue *q, struct disk_request *r)
{
	pthread_mutex_lock(&q->lock);
	list_add(&q->waiting, r);
	pthread_cond_signal(&q->work);
	pthread_mutex_unlock(&q->lock);
}

/* ---- the ring ---- */

/* False: not for the ring, or it is full. */
static bool give_to_ring(struct disk_queue *q, struct disk_request *r)
{
	struct disk *d = q->disk;
	bool write = r->kind == DISK_WRITE;
	struct io_uring_sqe *s;
	uint64_t at;
	int fd;

	if (!q->ring->is_there || r->kind > DISK_WRITE || !d->driver->map ||
	    !d->file.ops->descriptor || r->count > VECTOR_MAX)
		return false;
	if (disk_check_request(d, r->offset, r->own.bytes) || !r->own.bytes ||
	    (write && (!d->write || file_failed(&d->file))))
		return false; /* a thread says what is wrong */
	if (!io_uring_sq_space_left(&q->ring->uring) ||
	    !d->driver->map(d, write, r->offset, r->own.bytes, &at))
		return false;
	s = io_uring_get_sqe(&q->ring->uring);
	fd = d->file.ops->descriptor(d->file.context, at, r->iov, r->count);
	if (write)
		digest_touch(d, r->offset, r->own.bytes);
	if (write)
		io_uring_prep_writev(s, fd, r->iov, (unsigned)r->count, at);
	else
		io_uring_prep_readv(s, fd, r->iov, (unsigned)r->count, at);
	io_uring_sqe_set_data(s, r);
	return true;
}

/* What came back short, or with an error, is done once more by a thread: it knows how. */
static bool ring_finished(struct disk_queue *q, struct disk_request *r, int result)
{
	assert(q->used && r->kind <= DISK_WRITE);
	q->disk->driver->unmap(q->disk, r->kind == DISK_WRITE);
	if (result < 0 || (uint64_t)result != r->own.bytes) {
		give_to_threads(q, r);
		return false;
	}
	if (r->kind == DISK_WRITE)
		digest_written(q->disk, r->offset, r->own.bytes);
	return true;
}

static unsigned collect_ring(struct disk_queue *q)
{
	struct io_uring_cqe *c;
	unsigned count = 0;

	while (q->ring->is_there && !io_uring_peek_cqe(&q->ring->uring, &c)) {
		struct disk_request *r = io_uring_cqe_get_data(c);
		int result = c->res;

		io_uring_cqe_seen(&q->ring->uring, c);
		if (!ring_finished(q, r, result))
			continue;
		q->used--;
		count++;
		r->done(r, 0);
	}
	return count;
}

/* ---- the owner ---- */

int disk_queue_submit(struct disk_queue *q, struct disk_request *r)
{
	assert(r->done && r->kind <= DISK_FLUSH && q->used <= q->depth);
	if (q->used == q->depth)
		return -EAGAIN;
	q->used++;
	r->own.bytes = r->kind <= DISK_WRITE ? iov_bytes(r->iov, r->count) : r->bytes;
	if (!give_to_ring(q, r))
		give_to_threads(q, r);
	return 0;
}

void disk_queue_kick(struct disk_queue *q)
{
	if (q->ring->is_there && io_uring_sq_ready(&q->ring->uring))
		io_uring_submit(&q->ring->uring);
}

unsigned disk_queue_poll(struct disk_queue *q)
{
	struct disk_request *r, *next;
	uint64_t events;
	ssize_t got;
	unsigned count;

	disk_queue_kick(q);
	/* before looking: what comes later makes it readable again */
	got = read(q->ring->event, &events, sizeof(events));
	(void)got;
	count = collect_ring(q);
	pthread_mutex_lock(&q->lock);
	r = q->done.first;
	list_clear(&q->done);
	pthread_mutex_unlock(&q->lock);
	for (; r; r = next, count++) {
		next = r->own.next;
		assert(q->used && r->own.error <= 0);
		q->used--;
		r->done(r, r->own.error);
	}
	disk_queue_kick(q);
	return count;
}

int disk_queue_fd(const struct disk_queue *q) { return q->ring->event; }
bool disk_queue_has_ring(const struct disk_queue *q) { return q->ring->is_there; }

void disk_queue_wait(struct disk_queue *q)
{
	while (q->used && !disk_queue_poll(q))
		poll(&(struct pollfd){ .fd = q->ring->event, .events = POLLIN }, 1, 1000);
}

void disk_queue_drain(struct disk_queue *q)
{
	while (q->used)
		disk_queue_wait(q);
}

static void queue_release(struct disk_queue *q)
{
	assert(!q->used);
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_broadcast(&q->work);
	pthread_mutex_unlock(&q->lock);
	while (q->threads)
		pthread_join(q->thread[--q->threads], NULL);
	pthread_cond_destroy(&q->work);
	pthread_cond_destroy(&q->started);
	pthread_mutex_destroy(&q->lock);
	disk_ring_destroy(q->ring);
	free(q);
}

void disk_queue_close(struct disk_queue *q)
{
	disk_queue_drain(q);
	queue_release(q);
}

static unsigned depth_of(const struct disk_queue_options *o)
{
	unsigned depth = o->depth ? o->depth : DEPTH;

	return depth < DEPTH_MAX ? depth : DEPTH_MAX;
}

static long ring_register(struct io_uring *ring, unsigned what, const void *data, unsigned count)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, what, data, count);
}

/* A ring that can only read and write: whoever takes the process over has no more system calls by
 * it. False: none here. */
static bool ring_begin(struct disk_ring *r, unsigned depth)
{
	struct io_uring_restriction only[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
	};

	if (io_uring_queue_init(depth, &r->uring, IORING_SETUP_R_DISABLED))
		return false;
	if (!io_uring_register_eventfd(&r->uring, r->event) &&
	    !ring_register(&r->uring, IORING_REGISTER_RESTRICTIONS, only, 2) &&
	    !ring_register(&r->uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return true;
	io_uring_queue_exit(&r->uring);
	return false;
}

int disk_ring_create(const struct disk_queue_options *o, struct disk_ring **ret)
{
	struct disk_ring *r = calloc(1, sizeof(*r));
	int error;

	if (!r)
		return -ENOMEM;
	r->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->event < 0) {
		error = -errno;
		free(r);
		return error;
	}
	r->is_there = !o->no_ring && ring_begin(r, depth_of(o));
	*ret = r;
	return 0;
}

void disk_ring_destroy(struct disk_ring *r)
{
	if (r->is_there)
		io_uring_queue_exit(&r->uring);
	close(r->event);
	free(r);
}

/* A thread's first system calls are not those of its work: the owner may take them away after
 * this. */
static void threads_wait(struct disk_queue *q)
{
	pthread_mutex_lock(&q->lock);
	while (q->begun < q->threads)
		pthread_cond_wait(&q->started, &q->lock);
	pthread_mutex_unlock(&q->lock);
}

int disk_queue_open(struct disk *d, const struct disk_queue_options *o, struct disk_queue **ret)
{
	unsigned threads = o->threads ? o->threads : THREADS;
	struct disk_queue *q = calloc(1, sizeof(*q));
	int error = 0;

	if (!q)
		return -ENOMEM;
	q->ring = o->ring;
	if (!q->ring)
		error = disk_ring_create(o, &q->ring);
	if (error) {
		free(q);
		return error;
	}
	q->disk = d;
	q->depth = depth_of(o);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->work, NULL);
	pthread_cond_init(&q->started, NULL);
	list_clear(&q->waiting);
	list_clear(&q->done);
	for (; !error && q->threads < threads && q->threads < THREADS_MAX; q->threads += !error)
		error = -pthread_create(&q->thread[q->threads], NULL, queue_work, q);
	threads_wait(q);
	if (error)
		queue_release(q);
	else
		*ret = q;
	return error;
}
