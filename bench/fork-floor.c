/*
 * fork-floor PID: a bare fork(2) of a process that has as much as process PID: a mapping for each
 * that a fork copies, of the same length, with as many pages that were written, in huge pages where
 * those are. For each line that it reads, one: from the call to the child's first instruction, in
 * nanoseconds. Of what PID has mapped nothing is read; its pages lie closer here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, KIB = 1024, LINE_BYTES = 512 };

struct mapping { uint64_t bytes, written, huge; bool is_kept, is_writable; };

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void map(const struct mapping *like)
{
	const int protection = like->is_writable ? PROT_READ | PROT_WRITE : PROT_READ;
	uint64_t left = like->written < like->bytes ? like->written : like->bytes;
	/* the next one shall not become one with it */
	char *at = mmap(NULL, like->bytes + PAGE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED || mprotect(at, like->bytes, protection))
		return;
	if (like->huge)
		madvise(at, like->bytes, MADV_HUGEPAGE);
	for (uint64_t n = 0; like->is_writable && left; n += PAGE, left -= PAGE)
		*(volatile char *)(at + n) = 1;
}

/* What a fork copies of PID: of what is shared, or kept from forks, nothing. */
static void take(const char *line, struct mapping *mapping)
{
	char rights[5];
	uint64_t from, end, number;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &from, &end, rights) == 3)
		*mapping = (struct mapping){ .bytes = end - from,
					     .is_writable = rights[1] == 'w',
					     .is_kept = rights[3] != 'p' };
	else if (sscanf(line, "Anonymous: %" SCNu64, &number) == 1)
		mapping->written = number * KIB;
	else if (sscanf(line, "AnonHugePages: %" SCNu64, &number) == 1)
		mapping->huge = number * KIB;
	else if (!strncmp(line, "VmFlags:", strlen("VmFlags:"))) {
		if (strstr(line, " wf")) /* the mapping, and none of its pages */
			mapping->written = 0;
		if (!mapping->is_kept && !strstr(line, " dc"))
			map(mapping);
	}
}

static int map_all(const char *pid)
{
	struct mapping mapping = { .bytes = 0 };
	char text[LINE_BYTES];
	FILE *file;

	snprintf(text, sizeof(text), "/proc/%s/smaps", pid);
	file = fopen(text, "r");
	if (!file)
		return 1;
	while (fgets(text, sizeof(text), file))
		take(text, &mapping);
	fclose(file);
	return 0;
}

static uint64_t fork_once(volatile uint64_t *first)
{
	const uint64_t begun = now_ns();
	const pid_t pid = fork();

	if (!pid) {
		*first = now_ns();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return *first - begun;
}

/* A round for each line that is read. */
int main(int argc, char **argv)
{
	volatile uint64_t *first = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char line[LINE_BYTES];

	if (argc != 2 || first == MAP_FAILED || map_all(argv[1]))
		return 1;
	while (fgets(line, sizeof(line), stdin)) {
		printf("%" PRIu64 "\n", fork_once(first));
		fflush(stdout);
	}
	return 0;
}
