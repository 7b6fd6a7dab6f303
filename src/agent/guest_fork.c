/*
 * See guest_fork.h. The question and its answer are one connection, which in the child ends without
 * an answer: then this asks whose machine it is in, until somebody knows.
 */
#include "guest_fork.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "abi/guest_fork.h"

enum {
	EXIT_REFUSED = 1,
	EXIT_UNKNOWN = 3,
	UNKNOWN_S = 120,
	PAUSE_MS = 50,
	ANSWER_S = 30, /* of who says at once what there is to say */
	NAME_BYTES = 65,
};

/* A connection to the host; -errno. */
static int reach(void)
{
	const struct sockaddr_vm at = { .svm_family = AF_VSOCK,
					.svm_cid = VMADDR_CID_HOST,
					.svm_port = GUEST_FORK_PORT };
	const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&at, sizeof(at)))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/* A line, without its end; false: it has ended before. */
static bool hear(int fd, char text[GUEST_FORK_LINE_BYTES])
{
	size_t used = 0;

	while (used < GUEST_FORK_LINE_BYTES - 1) {
		const ssize_t got = read(fd, text + used, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (text[used] == '\n') {
			text[used] = 0;
			return true;
		}
		used++;
	}
	return false;
}

/* Asks, and hears the answer: 0; -EPIPE: none came; or as reach(). */
static int ask(const char *word, const char *token, unsigned wait_s,
	       char answer[GUEST_FORK_LINE_BYTES])
{
	const struct timeval patience = { .tv_sec = wait_s };
	char line[GUEST_FORK_LINE_BYTES];
	const int bytes = snprintf(line, sizeof(line), "%s %s\n", word, token);
	const int fd = reach();
	bool heard;

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	heard = send(fd, line, (size_t)bytes, MSG_NOSIGNAL) == bytes && hear(fd, answer);
	close(fd);
	return heard ? 0 : -EPIPE;
}

static int refused(const char *what)
{
	fprintf(stderr, "umbra-guest: not forked: %s\n", what);
	return EXIT_REFUSED;
}

static const char *reason(int error)
{
	switch (error) {
	case EDQUOT: return "as many children as it may have were made";
	case EAGAIN: return "too many in a minute; ask later";
	case EBUSY: return "a fork is under way; ask later";
	default: return "the host could not: see umbra fork there";
	}
}

/* -1: it says nothing of an outcome. */
static int take_answer(const char *answer)
{
	int error;

	if (sscanf(answer, "refused %d", &error) == 1)
		return refused(reason(error));
	if (strncmp(answer, "parent ", 7) != 0 && strncmp(answer, "child ", 6) != 0)
		return -1;
	puts(answer);
	return fflush(stdout) ? EXIT_UNKNOWN : 0;
}

static void draw_token(char token[GUEST_FORK_TOKEN_BYTES + 1])
{
	uint8_t drawn[GUEST_FORK_TOKEN_BYTES / 2] = { 0 };

	if (getrandom(drawn, sizeof(drawn), 0) != sizeof(drawn))
		abort();
	for (unsigned n = 0; n < sizeof(drawn); n++)
		snprintf(token + 2 * n, 3, "%02x", drawn[n]);
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

int guest_fork(void)
{
	const struct timespec pause = { .tv_nsec = PAUSE_MS * 1000000 };
	time_t heard_s;
	char token[GUEST_FORK_TOKEN_BYTES + 1];
	char answer[GUEST_FORK_LINE_BYTES] = "";
	int code;
	int error;

	draw_token(token);
	error = ask("fork", token, 0, answer);
	if (error && error != -EPIPE)
		return refused(error == -EAFNOSUPPORT
				       ? "its kernel has no hv_sock"
				       : "nobody permits it (umbra run --guest-forks)");
	code = error ? -1 : take_answer(answer);
	heard_s = now_s(); /* not since it was asked: a fork may take as long as it does */
	while (code < 0 && now_s() - heard_s < UNKNOWN_S) {
		nanosleep(&pause, NULL);
		error = ask("outcome", token, ANSWER_S, answer);
		code = error ? -1 : take_answer(answer);
		if (!error && !strcmp(answer, "wait"))
			heard_s = now_s();
	}
	if (code >= 0)
		return code;
	fprintf(stderr, "umbra-guest: nobody knows whether this is a child\n");
	return EXIT_UNKNOWN;
}
