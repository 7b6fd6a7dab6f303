/* See agent_line.h. */
#include "agent_line.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "control/names.h"

enum { GREETING_BYTES = 64, MOST_ERRNO = 4095, AGAIN_US = 100000 };

/* ---- making one ---- */

static bool machine_runs(const char *machine)
{
	int fd = name_connect(machine);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int socket_connect(const char *machine)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int error = name_socket_path(machine, at.sun_path, sizeof(at.sun_path));
	int fd = error ? error : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error == -EINVAL ? -ENOENT : fd;
	if (!connect(fd, (const struct sockaddr *)&at, sizeof(at)))
		return fd;
	close(fd);
	return machine_runs(machine) ? -ENOTCONN : -ENOENT;
}

/* "OK NUMBER\n", and not a byte of what follows. */
static bool hear_greeting(int fd)
{
	char text[GREETING_BYTES];

	for (unsigned n = 0; n < sizeof(text); n++) {
		if (read(fd, &text[n], 1) != 1)
			return false;
		if (text[n] == '\n')
			return !strncmp(text, "OK ", 3);
	}
	return false;
}

static int connect_once(const char *machine, struct agent_line *ret)
{
	const struct timeval limit = { .tv_sec = AGENT_HEAR_SECONDS };
	char text[GREETING_BYTES];
	int bytes = snprintf(text, sizeof(text), "CONNECT %u\n", AGENT_PORT);

	ret->used = 0;
	ret->fd = socket_connect(machine);
	if (ret->fd < 0)
		return ret->fd;
	/* frames are received without waiting: this is for the greeting */
	setsockopt(ret->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (send(ret->fd, text, (size_t)bytes, MSG_NOSIGNAL) == bytes && hear_greeting(ret->fd))
		return 0;
	close(ret->fd);
	return -ECONNREFUSED;
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int agent_connect(const char *machine, unsigned wait_seconds, struct agent_line *ret)
{
	const long long end_ms = now_ms() + wait_seconds * 1000ll;
	int error = connect_once(machine, ret);

	while (error == -ECONNREFUSED && now_ms() < end_ms) {
		usleep(AGAIN_US);
		error = connect_once(machine, ret);
	}
	return error;
}

void agent_close(struct agent_line *line) { close(line->fd); }

/* ---- frames ---- */

int agent_say(struct agent_line *line, uint32_t kind, const void *data, size_t bytes)
{
	struct { struct agent_frame head; uint8_t data[AGENT_FRAME_BYTES]; } frame;
	const uint8_t *from = (const uint8_t *)&frame;
	size_t left = sizeof(frame.head) + bytes;

	if (bytes > sizeof(frame.data))
		return -E2BIG;
	frame.head = (struct agent_frame){ .kind = kind, .bytes = (uint32_t)bytes };
	memcpy(frame.data, data, bytes);
	while (left) {
		ssize_t put = send(line->fd, from, left, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		from += put;
		left -= (size_t)put;
	}
	return 0;
}

int agent_receive(struct agent_line *line)
{
	ssize_t got = recv(line->fd, line->data + line->used, sizeof(line->data) - line->used,
			   MSG_DONTWAIT);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	line->used += (size_t)got;
	assert(line->used <= sizeof(line->data));
	return got ? 0 : -EPIPE;
}

/* The frame that was looked at last goes when the next is asked for. */
int agent_next(struct agent_line *line, struct agent_said *ret)
{
	struct agent_frame head;

	if (ret->data) {
		size_t bytes = sizeof(head) + ret->bytes;

		assert(bytes <= line->used);
		line->used -= bytes;
		memmove(line->data, line->data + bytes, line->used);
		ret->data = NULL;
	}
	if (line->used < sizeof(head))
		return 0;
	memcpy(&head, line->data, sizeof(head));
	if (head.bytes > AGENT_FRAME_BYTES)
		return -EPROTO;
	if (line->used - sizeof(head) < head.bytes)
		return 0;
	*ret = (struct agent_said){ .kind = head.kind,
				    .bytes = head.bytes,
				    .data = line->data + sizeof(head) };
	assert(sizeof(head) + ret->bytes <= line->used);
	return 1;
}

/* 0; -ETIMEDOUT; -errno. end_ms: of now_ms(); negative: for ever. */
static int wait_until(const struct agent_line *line, long long end_ms)
{
	struct pollfd there = { .fd = line->fd, .events = POLLIN };
	const long long left_ms = end_ms < 0 ? -1 : end_ms - now_ms();

	if (end_ms >= 0 && left_ms <= 0)
		return -ETIMEDOUT;
	return poll(&there, 1, (int)left_ms) < 0 && errno != EINTR ? -errno : 0;
}

static int hear_until(struct agent_line *line, struct agent_said *ret, long long end_ms)
{
	int got = agent_next(line, ret);

	while (!got) {
		int error = wait_until(line, end_ms);

		if (!error)
			error = agent_receive(line);
		if (error)
			return error;
		got = agent_next(line, ret);
	}
	return got;
}

int agent_hear(struct agent_line *line, struct agent_said *ret)
{
	return hear_until(line, ret, -1);
}

int agent_hear_soon(struct agent_line *line, struct agent_said *ret)
{
	return hear_until(line, ret, now_ms() + AGENT_HEAR_SECONDS * 1000);
}

int agent_failure(const struct agent_said *said)
{
	uint32_t number = 0;

	if (said->bytes == sizeof(number))
		memcpy(&number, said->data, sizeof(number));
	return number && number <= MOST_ERRNO ? -(int)number : -EPROTO;
}

int agent_complain(const char *machine, int error)
{
	switch (error) {
	case -ENOENT:
		return complain(EXIT_UNUSABLE, "no machine of that name runs", machine,
				"umbra ps lists them");
	case -ENOTCONN:
		return complain(EXIT_UNUSABLE, "it has no bus, or its relay has ended", machine,
				"run it without --no-bus");
	case -ECONNREFUSED:
		return complain(EXIT_UNUSABLE, "no agent answers in it", machine,
				"start umbra-agent in it, or wait until it has booted");
	case -EPIPE:
	case -ECONNRESET:
		return complain(EXIT_UNUSABLE, "the connection ended", machine,
				"it, or its agent, may have ended");
	case -EPROTO:
		return complain(EXIT_UNUSABLE, "its agent says what cannot be", machine,
				"use the umbra-agent of this Umbra");
	default: return complain(EXIT_UNUSABLE, strerror(-error), machine, "try again");
	}
}
