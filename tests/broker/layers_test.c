/*
 * What the disk process says of a layer comes in its order: that the disk is on it, then that what
 * is beneath is settled, also where its file needs no time for that. A broker that heard it the
 * other way round would wait without end.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/queue.h"
#include "ipc/role.h"
#include "process/layer.h"

enum { SLOW_US = 300000, WAIT_MS = 60000, SIZE_BYTES = 8 << 20 };

ssize_t __real_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);

/* Who says that a disk is on its layer has lost his processor just then. */
ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
	const struct layer_answer *answer = data;

	if (bytes == sizeof(*answer) && answer->news == LAYER_ON)
		usleep(SLOW_US);
	return __real_write(fd, data, bytes);
}

static struct disk *make_disk(const char *path)
{
	const struct disk_create what = { .format = DISK_VHDX, .size_bytes = SIZE_BYTES };
	const struct disk_options options = { .format = DISK_VHDX, .write = true };
	struct disk_error why;
	struct disk *disk;

	return disk_create(path, &what, &why) || disk_open(path, &options, &disk, &why) ? NULL
											: disk;
}

static bool send_layer(int broker, const char *path)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct layer_ask ask = { .kind = LAYER_PUT_ON };
	struct iovec vector = { .iov_base = &ask, .iov_len = sizeof(ask) };
	const struct msghdr message = { .msg_iov = &vector,
					.msg_iovlen = 1,
					.msg_control = &ancillary,
					.msg_controllen = sizeof(ancillary) };
	const int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

	snprintf(ask.path, sizeof(ask.path), "%s", path);
	memcpy(CMSG_DATA(&ancillary.head), &file, sizeof(file));
	return file >= 0 && sendmsg(broker, &message, 0) == sizeof(ask);
}

static bool hears(int broker, enum layer_news news)
{
	struct pollfd comes = { .fd = broker, .events = POLLIN };
	struct layer_answer answer;

	return poll(&comes, 1, WAIT_MS) == 1 &&
	       read(broker, &answer, sizeof(answer)) == sizeof(answer) && answer.news == news &&
	       !answer.error;
}

int main(void)
{
	char folder[] = "/tmp/umbra-layers-XXXXXX";
	char path[64], layer[64];
	const struct disk_queue_options options = { .no_ring = true };
	bool writes = true;
	struct disk_queue *queue;
	struct layers *layers;
	struct disk *disk;
	int sockets[2];
	bool good;

	if (!mkdtemp(folder) || layer_make_socket(sockets) ||
	    dup2(sockets[1], grant_fd(GRANT_LAYERS)) < 0)
		return 2;
	snprintf(path, sizeof(path), "%s/disk.vhdx", folder);
	snprintf(layer, sizeof(layer), "%s/layer.vhdx", folder);
	disk = make_disk(path);
	if (!disk || disk_queue_open(disk, &options, &queue))
		return 2;
	layers = layers_begin(&disk, &queue, &writes, 1);
	if (!layers || !send_layer(sockets[0], layer) || layers_take(layers))
		return 2;
	good = hears(sockets[0], LAYER_ON) && hears(sockets[0], LAYER_SETTLED);
	printf("%s on, then settled\n", good ? "ok  " : "FAIL");
	layers_end(layers);
	disk_queue_close(queue);
	disk_close(disk);
	unlink(path);
	unlink(layer);
	rmdir(folder);
	return !good;
}
