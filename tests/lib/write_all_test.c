/*
 * All bytes arrive where a pipe takes few at a time and signals interrupt the writer; what takes
 * none is an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/write_all.h"

enum { BYTES = 1 << 20, STEP = 251, PAUSE_US = 200, READ_BYTES = 5000 };

static void interrupt(int number) { (void)number; }

/* Exits with 0 when it has had every byte, in its order. */
static void take_slowly(int from)
{
	uint8_t data[READ_BYTES];
	size_t got = 0;
	ssize_t now;

	while ((now = read(from, data, sizeof(data))) > 0) {
		for (ssize_t n = 0; n < now; n++)
			if (data[n] != (got + (size_t)n) % STEP)
				_exit(1);
		got += (size_t)now;
		usleep(PAUSE_US);
	}
	_exit(got != BYTES);
}

/* With a signal each millisecond, which no call outlives by itself. */
static bool arrives(const uint8_t *data)
{
	const struct sigaction action = { .sa_handler = interrupt };
	const struct itimerval each_ms = {
		.it_interval = { .tv_usec = 1000 },
		.it_value = { .tv_usec = 1000 },
	};
	const struct itimerval never = { 0 };
	int ends[2];
	int status = 1;
	int error;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return false;
	child = fork();
	if (!child) {
		close(ends[1]);
		take_slowly(ends[0]);
	}
	close(ends[0]);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &each_ms, NULL);
	error = write_all(ends[1], data, BYTES);
	setitimer(ITIMER_REAL, &never, NULL);
	close(ends[1]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return !error && !status;
}

static int into(const char *path, int flags, const uint8_t *data)
{
	const int fd = open(path, flags | O_CLOEXEC);
	const int error = write_all(fd, data, READ_BYTES);

	close(fd);
	return error;
}

/* A file that may have no more than so many bytes takes part of it, and then says why. */
static bool is_cut_off(const uint8_t *data)
{
	enum { AT = 6, MOST = 10 };
	const struct rlimit most = { .rlim_cur = MOST, .rlim_max = RLIM_INFINITY };
	const struct rlimit any = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
	const int fd = memfd_create("cut-off", MFD_CLOEXEC);
	uint8_t there[READ_BYTES];
	int error;

	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &most);
	errno = 0;
	error = write_all_at(fd, data, READ_BYTES, AT);
	setrlimit(RLIMIT_FSIZE, &any);
	return error == -EFBIG && !write_all_at(fd, data, READ_BYTES, AT) &&
	       pread(fd, there, sizeof(there), AT) == sizeof(there) &&
	       !memcmp(there, data, sizeof(there));
}

static unsigned expect(bool is_right, const char *what)
{
	if (!is_right)
		printf("%s\n", what);
	return !is_right;
}

int main(void)
{
	static uint8_t data[BYTES];
	unsigned faults = 0;

	for (size_t n = 0; n < BYTES; n++)
		data[n] = (uint8_t)(n % STEP);
	faults += expect(arrives(data), "not every byte arrives");
	faults += expect(into("/dev/full", O_WRONLY, data) == -ENOSPC, "a full device takes all");
	faults += expect(into("/dev/null", O_RDONLY, data) == -EBADF, "what is read is written");
	faults += expect(is_cut_off(data), "what is cut off is whole, or not written where it is");
	faults += expect(!write_all(-1, NULL, 0), "nothing is too much");
	return faults != 0;
}
