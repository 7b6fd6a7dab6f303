/*
 * For bench/run-cold: starts a program COUNT times, one after the other, and prints its name, the
 * time in microseconds and a checksum of what it printed, which must be the same everywhere.
 *
 *   cold NAME COUNT PROGRAM ARGUMENT...
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Its status; its output goes to a pipe that is read here. */
static int run(char **command, uint32_t *checksum)
{
	enum { BUFFER_BYTES = 1 << 12 };
	unsigned char buffer[BUFFER_BYTES];
	int pipe_ends[2], status;
	ssize_t got;
	pid_t child;

	if (pipe(pipe_ends))
		return -1;
	child = vfork();
	if (!child) {
		dup2(pipe_ends[1], 1);
		close(pipe_ends[0]);
		close(pipe_ends[1]);
		execv(command[0], command);
		_exit(127);
	}
	close(pipe_ends[1]);
	while ((got = read(pipe_ends[0], buffer, sizeof(buffer))) > 0)
		for (ssize_t n = 0; n < got; n++)
			*checksum = *checksum * 31 + buffer[n];
	close(pipe_ends[0]);
	return waitpid(child, &status, 0) == child ? status : -1;
}

int main(int argc, char **argv)
{
	uint32_t checksum = 1;
	uint64_t begin = now_us();
	int status = 0;

	if (argc < 4)
		return 2;
	for (int n = atoi(argv[2]); n > 0; n--)
		status |= run(argv + 3, &checksum);
	printf("P %s %llu %08x %d\n", argv[1], (unsigned long long)(now_us() - begin), checksum,
	       status);
	return 0;
}
