/*
 * A process that does not end with its machine, as a lost disk process would not: its reaper kills
 * it when its time is over; one that ends by itself is not, and leaves no reaper.
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/reaper.h"

enum { SHORT_MS = 50, LONG_MS = 60000, WAIT_TURNS = 60000 };

static int failures;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

static void stay(void)
{
	for (;;)
		pause();
}

/* *ret_end: the broker's end of its pipe; *ret_held: closed once nobody is left. */
static pid_t start(bool ends, int patience_ms, int *ret_end, int *ret_held)
{
	int end[2];
	int held[2];
	char byte;
	pid_t child;

	if (pipe(end) || pipe(held))
		abort();
	child = fork();
	if (!child) {
		close(end[1]);
		close(held[0]);
		if (reaper_make(end[0], patience_ms))
			_exit(9);
		if (write(held[1], "", 1) != 1)
			_exit(8);
		if (!ends)
			stay();
		_exit(read(end[0], &byte, 1) ? 7 : 3);
	}
	close(end[0]);
	close(held[1]);
	if (read(held[0], &byte, 1) != 1)
		abort();
	*ret_end = end[1];
	*ret_held = held[0];
	return child;
}

static int end_of(pid_t child)
{
	int status = 0;

	return waitpid(child, &status, 0) == child ? status : -1;
}

/* Who was adopted by this process: the reaper. */
static bool is_last(void)
{
	int status = 1;

	return waitpid(-1, &status, 0) > 0 && !status && waitpid(-1, NULL, 0) < 0;
}

/* How many descriptors; once it has closed all others. */
static unsigned held_by_reaper_of(pid_t child)
{
	char path[64];
	unsigned count = 0;
	int reaper = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", child, child);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%d", &reaper) != 1)
		return 0;
	fclose(file);
	snprintf(path, sizeof(path), "/proc/%d/fd", reaper);
	for (unsigned n = 0; n < WAIT_TURNS && count != 2; n++, usleep(1000)) {
		DIR *folder = opendir(path);

		count = 0;
		while (folder && readdir(folder))
			count++;
		count -= 2; /* "." and ".." */
		closedir(folder);
	}
	return count;
}

int main(void)
{
	int end;
	int held;
	int status;
	pid_t child;

	alarm(120);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child = start(false, SHORT_MS, &end, &held);
	expect("nobody is killed while the machine is there",
	       !waitpid(child, NULL, WNOHANG) && !kill(child, 0));
	close(end);
	status = end_of(child);
	expect("one that goes on after its end is killed",
	       WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	expect("and its reaper ends", is_last());
	child = start(true, LONG_MS, &end, &held);
	close(end);
	status = end_of(child);
	expect("one that ends by itself is left to it",
	       WIFEXITED(status) && WEXITSTATUS(status) == 3);
	expect("and its reaper does not wait then", is_last());
	child = start(false, LONG_MS, &end, &held);
	expect("it holds the pipe and the process, and nothing else",
	       held_by_reaper_of(child) == 2);
	kill(child, SIGKILL);
	end_of(child);
	expect("nor for the end of the machine", is_last());
	return failures != 0;
}
