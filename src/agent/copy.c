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

enum { MODES = 07777, UNSIZED_BYTES = 16 << 20 };

/*
 * A path with a folder's name leads to a file of that name in it, and a link to what it names. What
 * is there and no file is not replaced by one. 0 or errno.
 */
static int place_of(const char *path, const char *name, char place[PATH_MAX])
{
	char given[PATH_MAX];
	struct stat st;
	int bytes = !stat(path, &st) && S_ISDIR(st.st_mode)
			    ? snprintf(given, PATH_MAX, "%s/%s", path, name)
			    : snprintf(given, PATH_MAX, "%s", path);

	if (bytes >= PATH_MAX)
		return ENAMETOOLONG;
	if (strchr(name, '/') || !strcmp(name, "..") || !*name)
		return EINVAL;
	if (lstat(given, &st)) {
		memcpy(place, given, (size_t)bytes + 1);
		return 0;
	}
	if (!realpath(given, place) || stat(place, &st))
		return errno;
	return S_ISREG(st.st_mode) ? 0 : EINVAL;
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
		if (file >= 0 && !error && !write_whole(file, frame.data, frame.head.bytes))
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
	if (path && name) {
		error = place_of(path, name, place);
		if (error)
			receive(fd, -1);
		else
			error = put_file(fd, place, head.mode);
	}
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

/* What of a file that says no length comes until its end: /proc's. NULL with errno. */
static uint8_t *read_unsized(int file, size_t *ret_bytes)
{
	uint8_t *data = malloc(UNSIZED_BYTES);
	ssize_t got = 1;

	*ret_bytes = 0;
	while (data && got > 0 && *ret_bytes < UNSIZED_BYTES) {
		got = read(file, data + *ret_bytes, UNSIZED_BYTES - *ret_bytes);
		*ret_bytes += got > 0 ? (size_t)got : 0;
	}
	if (!data || !got)
		return data;
	if (got > 0)
		errno = EFBIG;
	free(data);
	return NULL;
}

/* False, with errno: nothing was sent. */
static bool send_unsized(int fd, int file, const struct stat *st)
{
	struct agent_file head = { .mode = st->st_mode & MODES };
	size_t bytes;
	uint8_t *data = read_unsized(file, &bytes);
	bool goes_on;

	if (!data)
		return false;
	head.bytes = bytes;
	goes_on = line_write(fd, AGENT_FILE, &head, sizeof(head));
	for (size_t at = 0, n; goes_on && at < bytes; at += n) {
		n = bytes - at < AGENT_FRAME_BYTES ? bytes - at : AGENT_FRAME_BYTES;
		goes_on = line_write(fd, AGENT_DATA, data + at, n);
	}
	if (goes_on)
		line_write(fd, AGENT_DATA_END, "", 0);
	free(data);
	return true;
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
		if (S_ISREG(st.st_mode) && st.st_size) {
			send_file(fd, file, &st);
			return;
		}
		if (S_ISREG(st.st_mode)) {
			if (send_unsized(fd, file, &st))
				return;
			error = errno;
		}
	}
	line_write_number(fd, AGENT_FAILED, (uint32_t)error);
}
