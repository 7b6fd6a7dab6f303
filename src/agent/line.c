/* See line.h. */
#include "line.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

bool write_whole(int fd, const void *data, size_t bytes)
{
	const uint8_t *from = data;

	while (bytes) {
		ssize_t put = write(fd, from, bytes);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		from += put;
		bytes -= (size_t)put;
	}
	return true;
}

static bool read_whole(int fd, void *data, size_t bytes)
{
	uint8_t *to = data;

	while (bytes) {
		ssize_t got = read(fd, to, bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		to += got;
		bytes -= (size_t)got;
	}
	return true;
}

bool line_read(int fd, struct line_frame *ret)
{
	return read_whole(fd, &ret->head, sizeof(ret->head)) &&
	       ret->head.bytes <= sizeof(ret->data) &&
	       read_whole(fd, ret->data, ret->head.bytes);
}

bool line_write(int fd, uint32_t kind, const void *data, size_t bytes)
{
	struct line_frame frame = { .head = { .kind = kind, .bytes = (uint32_t)bytes } };

	assert(bytes <= sizeof(frame.data));
	memcpy(frame.data, data, bytes);
	return write_whole(fd, &frame, sizeof(frame.head) + bytes);
}

bool line_write_number(int fd, uint32_t kind, uint32_t number)
{
	return line_write(fd, kind, &number, sizeof(number));
}

const char *line_text(const struct line_frame *frame, size_t *at)
{
	const char *text = (const char *)frame->data + *at;
	const char *end;

	if (*at >= frame->head.bytes)
		return NULL;
	end = memchr(text, 0, frame->head.bytes - *at);
	if (!end)
		return NULL;
	*at += (size_t)(end - text) + 1;
	assert(*at <= frame->head.bytes);
	return text;
}
