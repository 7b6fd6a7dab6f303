/*
 * Files from the host and to it. One that comes is written beside its place and renamed: who looks
 * sees the old one or the whole new one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

enum { MODES = 07777 };

/* A path with a folder's name leads to a file of that name in it. */
static bool place_of(const char *path, const char *name, char place[PATH_MAX])
{
	struct stat st;
	int bytes = !stat(path, &st) && S_ISDIR(st.st_mode)
			    ? snprintf(place, PATH_MAX, "%s/%s", path, name)
			    : snprintf(place, PATH_MAX, "%s", path);

	return bytes < PATH_MAX && !strchr(name, '/') && strcmp(name, "..") && *name;
}

/* 0, errno, or -1: the host is gone. */
static int receive(int fd, int file)
{
	static struct line_frame frame;
	int error = 0;

	for (;;) {
		if (!line_read(fd, &frame))
			return -1;
		if (frame.head.kind == AGENT_DATA_END)
			return error;
		if (frame.head.kind != AGENT_DATA)
			return -1;
		/* what follows an error is read, and is for nobody */
		if (!error && !write_whole(file, frame.data, frame.head.bytes))
			error = errno;
	}
}

static int put_file(int fd, const char *place, uint32_t mode)
{
	char partial[PATH_MAX];
	int file;
	int error;

	if (snprintf(partial, sizeof(partial), "%s.XXXXXX", place) >= (int)sizeof(partial))
		return ENAMETOOLONG;
	file = mkostemp(partial, O_CLOEXEC);
	error = file < 0 ? errno : 0;
	if (error) {
		receive(fd, -1);
		return error;
	}
	error = receive(fd, file);
	if (!error && (fchmod(file, mode & MODES) || close(file) || rename(partial, place)))
		error = errno;
	if (error)
		unlink(partial);
	return error;
}

void agent_put(int fd, const struct line_frame *frame)
{
	size_t at = sizeof(struct agent_file);
	struct agent_file head = { .mode = 0 };
	const char *path = NULL;
	const char *name = NULL;
	char place[PATH_MAX];
	int error = EINVAL;

	if (frame->head.bytes > sizeof(head)) {
		memcpy(&head, frame->data, sizeof(head));
		path = line_text(frame, &at);
		name = line_text(frame, &at);
	}
	if (path && name && place_of(path, name, place))
		error = put_file(fd, place, head.mode);
	if (error > 0)
		line_write_number(fd, AGENT_FAILED, (uint32_t)error);
	else if (!error)
		line_write(fd, AGENT_DONE, "", 0);
}

/* As many bytes as were promised; a file that got shorter ends the connection. */
static void send_file(int fd, int file, const struct stat *st)
{
	const struct agent_file head = { .mode = st->st_mode & MODES,
					 .bytes = (uint64_t)st->st_size };
	uint8_t data[AGENT_FRAME_BYTES];
	uint64_t left = head.bytes;

	if (!line_write(fd, AGENT_FILE, &head, sizeof(head)))
		return;
	while (left) {
		ssize_t got = read(file, data, left < sizeof(data) ? left : sizeof(data));

		if (got <= 0 || !line_write(fd, AGENT_DATA, data, (size_t)got))
			return;
		left -= (uint64_t)got;
	}
	line_write(fd, AGENT_DATA_END, "", 0);
}

void agent_get(int fd, const struct line_frame *frame)
{
	size_t at = 0;
	const char *path = line_text(frame, &at);
	int file = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	int error = path ? errno : EINVAL;
	struct stat st;

	if (file >= 0 && !fstat(file, &st)) {
		error = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
		if (S_ISREG(st.st_mode)) {
			send_file(fd, file, &st);
			return;
		}
	}
	line_write_number(fd, AGENT_FAILED, (uint32_t)error);
}
