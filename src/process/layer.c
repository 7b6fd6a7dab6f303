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
#include "disk_change.h"

union ancillary { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(LAYER_FILES * sizeof(int))]; };

/* ---- the broker's side ---- */

int layer_make_socket(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret))
		return -errno;
	return fcntl(ret[0], F_SETFL, O_NONBLOCK) ? -errno : 0;
}

int layer_send(const struct layer_ask *ask, const int *files, unsigned count)
{
	union ancillary ancillary = { .head = { .cmsg_len = CMSG_LEN(count * sizeof(int)),
						.cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS } };
	struct iovec vector = { .iov_base = (void *)(uintptr_t)ask, .iov_len = sizeof(*ask) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	assert(count <= LAYER_FILES && ask->kind < LAYER_KINDS);
	if (count) {
		message.msg_control = &ancillary;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		memcpy(CMSG_DATA(&ancillary.head), files, count * sizeof(int));
	}
	return sendmsg(grant_fd(GRANT_LAYERS), &message, MSG_NOSIGNAL) == sizeof(*ask) ? 0
										       : -errno;
}

int layer_ask(uint32_t disk, const char *path, int file)
{
	struct layer_ask ask = { .kind = LAYER_PUT_ON, .disk = disk };
	int error = plan_set_text(ask.path, sizeof(ask.path), path);

	assert(file >= 0);
	return error ? error : layer_send(&ask, &file, 1);
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
	struct disk_changes *changes;
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

static void answer_changed(int error, const struct block_disk *disk)
{
	const struct layer_answer a = { .news = LAYER_CHANGED, .error = error, .disk = *disk };
	ssize_t written = write(grant_fd(GRANT_LAYERS), &a, sizeof(a));

	(void)written;
}

/* The one beneath is for good as it is: its children need it so. */
static int settle(struct disk *child)
{
	char reason[DISK_REASON_BYTES];
	const char *name = strrchr(disk_path(child), '/');
	int error;

	assert(disk_parent(child));
	snprintf(reason, sizeof(reason), LAYER_REASON "%s",
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

struct layers *layers_begin(struct disk **disks, struct disk_queue **queues, bool *writes,
			    unsigned count)
{
	struct layers *layers = calloc(1, sizeof(*layers));

	assert(count <= BLOCK_DISKS);
	if (!layers)
		return NULL;
	layers->changes = disk_changes_begin(disks, queues, writes, count);
	if (!layers->changes) {
		free(layers);
		return NULL;
	}
	layers->disks = disks;
	layers->queues = queues;
	layers->count = count;
	pthread_mutex_init(&layers->lock, NULL);
	pthread_cond_init(&layers->changed, NULL);
	if (pthread_create(&layers->settler, NULL, settle_when_asked, layers)) {
		free(layers->changes);
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

/* What one message brings. */
struct brought { struct layer_ask ask; int file[LAYER_FILES]; unsigned files; };

static void brought_close(const struct brought *brought)
{
	for (unsigned n = 0; n < brought->files; n++)
		close(brought->file[n]);
}

/* A layer is one file, a file of a chain that and perhaps what lies beside it, the others none. */
static bool is_whole(const struct brought *brought)
{
	switch (brought->ask.kind) {
	case LAYER_PUT_ON: return brought->files == 1;
	case LAYER_FILE: return brought->files == 1 || brought->files == 2;
	case LAYER_DETACH:
	case LAYER_RESIZE: return !brought->files;
	default: return false;
	}
}

/* 0; -EAGAIN: there is none; -EBADMSG. */
static int take_ask(struct brought *ret)
{
	union ancillary ancillary;
	struct iovec vector = { .iov_base = &ret->ask, .iov_len = sizeof(ret->ask) };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	ssize_t got = recvmsg(grant_fd(GRANT_LAYERS), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	ret->files = 0;
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EBADMSG;
	if (message.msg_controllen && ancillary.head.cmsg_type == SCM_RIGHTS) {
		ret->files = (unsigned)((ancillary.head.cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(ret->file, CMSG_DATA(&ancillary.head), ret->files * sizeof(int));
	}
	if (got == sizeof(ret->ask) && memchr(ret->ask.path, 0, sizeof(ret->ask.path)) &&
	    is_whole(ret))
		return 0;
	brought_close(ret);
	return -EBADMSG;
}

static int put_on(struct layers *layers, const struct layer_ask *ask, int file)
{
	struct disk_error why;
	struct disk *child;
	int error = 0;

	pthread_mutex_lock(&layers->lock);
	if (ask->disk >= layers->count || !layers->disks[ask->disk])
		error = -ENODEV;
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
	return 0;
}

/* Once it was said that the disk is on it: that it is settled is heard after that, or not. */
static void have_settled(struct layers *layers, uint32_t disk)
{
	pthread_mutex_lock(&layers->lock);
	layers->child[disk] = layers->disks[disk];
	pthread_cond_broadcast(&layers->changed);
	pthread_mutex_unlock(&layers->lock);
}

/* What is being settled is used. */
static bool is_settling(struct layers *layers, uint32_t disk)
{
	bool settles;

	pthread_mutex_lock(&layers->lock);
	settles = disk < layers->count && layers->child[disk];
	pthread_mutex_unlock(&layers->lock);
	return settles;
}

static void change(struct layers *layers, const struct brought *brought)
{
	const struct layer_ask *ask = &brought->ask;
	struct block_disk disk = { .size_bytes = 0 };
	int error;

	if (ask->kind == LAYER_FILE)
		error = disk_changes_file(layers->changes, ask, brought->file[0],
					  brought->files > 1 ? brought->file[1] : -1, &disk);
	else if (is_settling(layers, ask->disk))
		error = -EBUSY;
	else if (ask->kind == LAYER_DETACH)
		error = disk_changes_detach(layers->changes, ask->disk);
	else
		error = disk_changes_resize(layers->changes, ask, &disk);
	answer_changed(error, &disk);
}

int layers_take(struct layers *layers)
{
	struct brought brought;
	int error = take_ask(&brought);

	if (error)
		return error == -EAGAIN ? 0 : error;
	if (brought.ask.kind != LAYER_PUT_ON) {
		change(layers, &brought);
		return 0;
	}
	error = put_on(layers, &brought.ask, brought.file[0]);
	answer(LAYER_ON, error);
	if (!error)
		have_settled(layers, brought.ask.disk);
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
	disk_changes_end(layers->changes);
	free(layers);
}
