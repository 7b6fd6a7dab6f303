/*
 * Switching round many address spaces inside a guest, or natively: PROCESSES of them in a ring hand
 * on a token; who has it reads a word of each of PAGES pages of its own. Each number is the minimum
 * over rounds, in nanoseconds a hop: "SPACES processes ns ...". With "fixed" a fixed amount of work
 * instead, for who counts what it costs: pipes, forks, and the ring.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 64, MOST = 32, ROUNDS = 200, FORKS = 200 };

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static unsigned touch(const volatile char *pages)
{
	unsigned sum = 0;

	for (int n = 0; n < PAGES; n++)
		sum += (unsigned)pages[n * PAGE];
	return sum;
}

static char *make_pages(void)
{
	char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(pages, PAGES * PAGE, MADV_NOHUGEPAGE);
	memset(pages, 1, PAGES * PAGE);
	return pages;
}

static void member(int from, int to)
{
	char *pages = make_pages();
	char token;

	while (read(from, &token, 1) == 1) {
		touch(pages);
		if (write(to, &token, 1) != 1)
			break;
	}
	_exit(0);
}

/* Nanoseconds a hop, the least of all rounds. */
static uint64_t ring(int processes, int rounds)
{
	int ends[MOST + 1][2];
	pid_t members[MOST];
	char *pages = make_pages();
	uint64_t least = ~0ull;
	char token = 0;

	for (int n = 0; n < processes; n++)
		if (pipe(ends[n]))
			exit(1);
	for (int n = 1; n < processes; n++) {
		members[n] = fork();
		if (!members[n])
			member(ends[n - 1][0], ends[n][1]);
	}
	for (int round = 0; round < rounds; round++) {
		uint64_t begin = now_ns();

		touch(pages);
		if (write(ends[0][1], &token, 1) != 1 ||
		    read(ends[processes - 1][0], &token, 1) != 1)
			exit(1);
		begin = now_ns() - begin;
		least = begin < least ? begin : least;
	}
	for (int n = 1; n < processes; n++) {
		kill(members[n], SIGKILL);
		waitpid(members[n], NULL, 0);
	}
	for (int n = 0; n < processes; n++) {
		close(ends[n][0]);
		close(ends[n][1]);
	}
	munmap(pages, PAGES * PAGE);
	return least / (unsigned)processes;
}

static void forks(const char *self)
{
	for (int n = 0; n < FORKS; n++) {
		pid_t child = fork();

		if (!child) {
			execl(self, self, "exit", NULL);
			_exit(1);
		}
		waitpid(child, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static const int processes[] = { 2, 4, 8, 16, 32 };

	if (argc > 1 && !strcmp(argv[1], "exit"))
		return 0;
	if (argc > 2 && !strcmp(argv[1], "forks")) {
		forks(argv[0]);
		return 0;
	}
	if (argc > 2 && !strcmp(argv[1], "ring")) {
		ring(atoi(argv[2]), ROUNDS * 10);
		return 0;
	}
	printf("SPACES");
	for (unsigned n = 0; n < sizeof(processes) / sizeof(processes[0]); n++)
		printf(" %d %llu", processes[n],
		       (unsigned long long)ring(processes[n], ROUNDS));
	printf("\n");
	return 0;
}
