/*
 * What kernel paths cost inside a guest, or natively: null system call, stat, page fault, mmap and
 * munmap, fork and exit, fork and exec, pipe round trip. Each number is the minimum of many
 * measures of about 0.3 ms (or of one call, where that takes longer), in nanoseconds:
 * "CALLS name ns ...".
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MEASURE_NS = 300000, MEASURES = 60, PAGES = 256 };

static int to_child[2], to_parent[2];
static char *self;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void null_call(void) { syscall(SYS_getppid); }

static void stat_call(void)
{
	struct stat st;

	stat("/proc", &st);
}

/* PAGES faults. */
static void fault_call(void)
{
	char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);

	madvise(at, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (int n = 0; n < PAGES; n++)
		at[n * PAGE] = 1;
	munmap(at, PAGES * PAGE);
}

static void map_call(void)
{
	char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*at = 1;
	munmap(at, 4 * PAGE);
}

static void exit_call(void)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
}

static void exec_call(void)
{
	pid_t child = fork();

	if (!child) {
		execl(self, self, "exit", NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
}

static void pipe_call(void)
{
	char byte = 0;

	if (write(to_child[1], &byte, 1) != 1 || read(to_parent[0], &byte, 1) != 1)
		_exit(1);
}

static double measure(void (*call)(void), int divide)
{
	uint64_t least = UINT64_MAX;
	uint64_t begin = now_ns();
	int calls = 1;

	while (now_ns() - begin < MEASURE_NS)
		call();
	begin = now_ns();
	call();
	calls = (int)(MEASURE_NS / (now_ns() - begin + 1)) + 1;
	for (int n = 0; n < MEASURES; n++) {
		begin = now_ns();
		for (int k = 0; k < calls; k++)
			call();
		begin = now_ns() - begin;
		least = begin < least ? begin : least;
	}
	return (double)least / calls / divide;
}

static void echo(void)
{
	char byte;

	while (read(to_child[0], &byte, 1) == 1)
		if (write(to_parent[1], &byte, 1) != 1)
			break;
	_exit(0);
}

static const struct call {
	const char *name;
	void (*call)(void);
	int divide;
} calls[] = {
	{ "null", null_call, 1 }, { "stat", stat_call, 1 }, { "fault", fault_call, PAGES },
	{ "mmap", map_call, 1 },  { "exit", exit_call, 1 }, { "exec", exec_call, 1 },
	{ "pipe", pipe_call, 1 },
};

int main(int argc, char **argv)
{
	pid_t child;

	if (argc > 1 && !strcmp(argv[1], "exit"))
		return 0;
	self = argv[0];
	if (pipe(to_child) || pipe(to_parent))
		return 1;
	child = fork();
	if (!child) {
		close(to_child[1]);
		echo();
	}
	for (unsigned n = 0; n < sizeof(calls) / sizeof(calls[0]); n++)
		printf("%s%s %.0f", n ? " " : "CALLS ", calls[n].name,
		       measure(calls[n].call, calls[n].divide));
	printf("\n");
	close(to_child[1]);
	waitpid(child, NULL, 0);
	return 0;
}
