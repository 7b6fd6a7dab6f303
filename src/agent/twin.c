/*
 * What a machine that was forked has to have anew (abi/agent_layout.h): random numbers, also of a
 * kernel that has no driver for its generation id; its name; the id of /etc/machine-id, by which
 * services tell machines apart. Each is as the host says, or as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent.h"

enum { BITS_PER_BYTE = 8 };

/* Into the kernel's pool, and from there at once into what it draws random numbers from. */
static int add_random(const struct agent_twin *twin)
{
	_Alignas(struct rand_pool_info) uint8_t bytes[sizeof(struct rand_pool_info) +
						      AGENT_RANDOM_BYTES];
	struct rand_pool_info *pool = (struct rand_pool_info *)bytes;
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return errno;
	pool->entropy_count = AGENT_RANDOM_BYTES * BITS_PER_BYTE;
	pool->buf_size = AGENT_RANDOM_BYTES;
	memcpy(pool->buf, twin->random, AGENT_RANDOM_BYTES);
	if (ioctl(fd, RNDADDENTROPY, pool) || ioctl(fd, RNDRESEEDCRNG))
		error = errno;
	explicit_bzero(bytes, sizeof(bytes));
	close(fd);
	return error;
}

/* A file of one line; beside it first. */
static int write_line(const char *path, const char *line)
{
	char partial[64];
	int fd;
	int error = 0;

	snprintf(partial, sizeof(partial), "%s.umbra", path);
	fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno;
	if (!write_whole(fd, line, strlen(line)) || !write_whole(fd, "\n", 1) || fsync(fd))
		error = errno;
	close(fd);
	if (!error && rename(partial, path))
		error = errno;
	if (error)
		unlink(partial);
	return error;
}

static int set_name(const char *name)
{
	if (sethostname(name, strlen(name)))
		return errno;
	return write_line("/etc/hostname", name);
}

void agent_twin(int fd, const struct line_frame *frame)
{
	struct agent_twin twin;
	size_t at = sizeof(twin);
	const char *name;
	const char *id;
	int error;

	if (frame->head.bytes < sizeof(twin))
		return;
	memcpy(&twin, frame->data, sizeof(twin));
	name = line_text(frame, &at);
	id = name ? line_text(frame, &at) : NULL;
	if (!id)
		return;
	error = add_random(&twin);
	if (!error && *name)
		error = set_name(name);
	if (!error && *id)
		error = write_line("/etc/machine-id", id);
	if (error)
		line_write_number(fd, AGENT_FAILED, (uint32_t)error);
	else
		line_write(fd, AGENT_DONE, NULL, 0);
}
