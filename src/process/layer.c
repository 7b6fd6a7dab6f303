/* See layer.h. What is said is a record each way, on a socket that keeps them apart. */
#include "layer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/protocol.h"
#include "disk/queue.h"

union ancillary { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int))]; };

/* ---- the broker's side ---- */

int layer_make_socket(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret))
		return -errno;
	return fcntl(ret[0], F_SETFL, O_NONBLOCK) ? -errno : 0;
}

int layer_ask(uint32_t disk, const char *path, int file)
{
	union ancillary ancillary = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)),
						.cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS } };
	struct layer_ask ask = { .disk = disk };
	struct iovec vector = { .iov_base = &ask, .iov_len = sizeof(ask) };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	int error = plan_set_text(ask.path, sizeof(ask.path), path);

	assert(file >= 0);
	if (error)
		return error;
	memcpy(CMSG_DATA(&ancillary.head), &file, sizeof(file));
	return sendmsg(grant_fd(GRANT_LAYERS), &message, MSG_NOSIGNAL) == sizeof(ask) ? 0 : -errno;
}

int layer_hear(struct layer_answer *ret)
{
	ssize_t got = read(grant_fd(GRANT_LAYERS), ret, sizeof(*ret));

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (!got)
		return -ECONNRESET;
	return got == sizeof(*ret) && ret->news < LAYER_NEWS && ret->error <= 0 &&
			       ret->error >= -CONTROL_ERRNO_MAX
		       ? 1
		       : -EBADMSG;
}

/* ---- the disk process's ---- */

struct layers {
	struct disk **disks;
	struct disk_queue **queues;
	unsigned count;
	pthread_t settler;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct disk *child[BLOCK_DISKS]; /* to be settled, or being settled; NULL: none */
	bool has_begun, stop;
};

static void answer(enum layer_news news, int error)
{
	const struct layer_answer a = { .news = news, .error = error };
	ssize_t written = write(grant_fd(GRANT_LAYERS), &a, sizeof(a));

	assert(news < LAYER_NEWS && error <= 0);
	(void)written; /* a broker that is gone ends this process */
}

/* The one beneath is for good as it is: its children need it so. */
static int settle(struct disk *child)
{
	char reason[DISK_REASON_BYTES];
	const char *name = strrchr(disk_path(child), '/');
	int error;

	assert(disk_parent(child));
	snprintf(reason, sizeof(reason), "its machine was forked, and goes on in %s",
		 name ? name + 1 : disk_path(child));
	error = disk_freeze_in_file(disk_parent(child), reason);
	return error ? error : disk_settle(child);
}

static struct disk **find_child(struct layers *layers)
{
	for (unsigned n = 0; n < layers->count; n++)
		if (layers->child[n])
			return &layers->child[n];
	return NULL;
}

static void *settle_when_asked(void *context)
{
	struct layers *layers = context;

	pthread_mutex_lock(&layers->lock);
	layers->has_begun = true;
	pthread_cond_broadcast(&layers->changed);
	for (;;) {
		struct disk **child;
		int error;

		while (!(child = find_child(layers)) && !layers->stop)
			pthread_cond_wait(&layers->changed, &layers->lock);
		if (!child)
			break;
		pthread_mutex_unlock(&layers->lock);
		error = settle(*child);
		pthread_mutex_lock(&layers->lock);
		*child = NULL;
		answer(LAYER_SETTLED, error);
	}
	pthread_mutex_unlock(&layers->lock);
	return NULL;
}

struct layers *layers_begin(struct disk **disks, struct disk_queue **queues, unsigned count)
{
	struct layers *layers = calloc(1, sizeof(*layers));

	assert(count <= BLOCK_DISKS);
	if (!layers)
		return NULL;
	layers->disks = disks;
	layers->queues = queues;
	layers->count = count;
	pthread_mutex_init(&layers->lock, NULL);
	pthread_cond_init(&layers->changed, NULL);
	if (pthread_create(&layers->settler, NULL, settle_when_asked, layers)) {
		free(layers);
		return NULL;
	}
	/* its first system calls are not those of its work */
	pthread_mutex_lock(&layers->lock);
	while (!layers->has_begun)
		pthread_cond_wait(&layers->changed, &layers->lock);
	pthread_mutex_unlock(&layers->lock);
	return layers;
}

/* Of one message: its file; -EAGAIN: there is none; -EBADMSG. */
static int take_ask(struct layer_ask *ask)
{
	union ancillary ancillary;
	struct iovec vector = { .iov_base = ask, .iov_len = sizeof(*ask) };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	ssize_t got = recvmsg(grant_fd(GRANT_LAYERS), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int file = -1;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EBADMSG;
	if (message.msg_controllen && ancillary.head.cmsg_type == SCM_RIGHTS)
		memcpy(&file, CMSG_DATA(&ancillary.head), sizeof(file));
	if (file < 0)
		return -EBADMSG;
	if (got == sizeof(*ask) && memchr(ask->path, 0, sizeof(ask->path)))
		return file;
	close(file);
	return -EBADMSG;
}

static int put_on(struct layers *layers, const struct layer_ask *ask, int file)
{
	struct disk_error why;
	struct disk *child;
	int error = 0;

	pthread_mutex_lock(&layers->lock);
	if (ask->disk >= layers->count)
		error = -EINVAL;
	else if (layers->child[ask->disk])
		error = -EBUSY;
	pthread_mutex_unlock(&layers->lock);
	if (error) {
		close(file);
		return error;
	}
	disk_queue_drain(layers->queues[ask->disk]);
	error = disk_snapshot_into(layers->disks[ask->disk], file, ask->path, &child, &why);
	if (error)
		return error;
	layers->disks[ask->disk] = child;
	disk_queue_move(layers->queues[ask->disk], child);
	pthread_mutex_lock(&layers->lock);
	layers->child[ask->disk] = child;
	pthread_cond_broadcast(&layers->changed);
	pthread_mutex_unlock(&layers->lock);
	return 0;
}

int layers_take(struct layers *layers)
{
	struct layer_ask ask;
	int file = take_ask(&ask);

	if (file == -EAGAIN)
		return 0;
	if (file < 0)
		return file;
	answer(LAYER_ON, put_on(layers, &ask, file));
	return 0;
}

void layers_end(struct layers *layers)
{
	pthread_mutex_lock(&layers->lock);
	layers->stop = true;
	pthread_cond_broadcast(&layers->changed);
	pthread_mutex_unlock(&layers->lock);
	pthread_join(layers->settler, NULL);
	pthread_cond_destroy(&layers->changed);
	pthread_mutex_destroy(&layers->lock);
	free(layers);
}
