/*
 * A control group of a machine's own: which group of the host's is taken for one that was
 * delegated, by files that look like the host's; and, where this host has delegated one, that the
 * kernel ends who uses more. Where it has not that is said: no test can make it so.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/group.h"

enum { PATH_BYTES = 160, LIMIT_BYTES = 64 << 20, GREED_BYTES = 256 << 20, STEP_BYTES = 4096 };

static int failures;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

/* ---- by files that look like the host's ---- */

static char top[] = "group-XXXXXX";

static void put(const char *folder, const char *name, const char *text)
{
	char path[PATH_BYTES];
	FILE *file;

	snprintf(path, sizeof(path), "%s%s/%s", top, folder, name);
	file = fopen(path, "w");
	if (!file || fputs(text, file) < 0)
		exit(EXIT_FAILURE);
	fclose(file);
}

static bool has(const char *folder, const char *name, const char *text)
{
	char path[PATH_BYTES];
	char got[PATH_BYTES] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s%s/%s", top, folder, name);
	file = fopen(path, "r");
	if (!file)
		return !text;
	if (!fgets(got, sizeof(got), file))
		got[0] = 0;
	fclose(file);
	return text && !strcmp(got, text);
}

static void make_folder(const char *folder)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s%s", top, folder);
	if (mkdir(path, 0700))
		exit(EXIT_FAILURE);
}

static struct group_place place_of(const char *membership)
{
	struct group_place place = { .mount = top };

	snprintf(place.membership, sizeof(place.membership), "%s", membership);
	return place;
}

static pid_t process_that_was(void)
{
	const pid_t child = fork();

	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	return child;
}

static void looks_like_the_hosts(void)
{
	struct group_place place;
	char inner[PATH_BYTES];
	char left[PATH_BYTES];
	char made[PATH_BYTES];
	const pid_t gone = process_that_was();
	int members;

	if (!mkdtemp(top))
		exit(EXIT_FAILURE);
	place = place_of("12:memory:/old\n");
	expect("groups of version 1 are not taken", group_make(&place, LIMIT_BYTES) == -ENOENT);
	put("", "cgroup.controllers", "cpu pids\n");
	put("", "cgroup.procs", "");
	put("", "cgroup.subtree_control", "");
	place = place_of("12:memory:/old\n0::/\n");
	expect("one without the controller of memory is not", group_make(&place, 1) == -ENOENT);
	put("", "cgroup.controllers", "cpu memory pids\n");
	make_folder("/other");
	put("/other", "cgroup.controllers", "memory\n");
	place = place_of("0::/other\n");
	expect("one that may not be written is not", group_make(&place, 1) == -EACCES);
	snprintf(inner, sizeof(inner), "/umbra-machine-%d", (int)getpid());
	make_folder(inner);
	put(inner, "memory.max", "");
	put(inner, "cgroup.procs", "");
	snprintf(left, sizeof(left), "/umbra-machine-%d", gone);
	snprintf(made, sizeof(made), "/umbra-machine-%d", (int)getppid());
	put(inner, "memory.swap.max", "");
	make_folder(left);
	make_folder(made);
	make_folder("/of-somebody-else");
	place = place_of("0::/\n");
	expect("one that was delegated is", !group_look(&place));
	members = group_make(&place, LIMIT_BYTES);
	expect("it gives a group", members >= 0 && write(members, "0", 1) == 1);
	expect("which has the limit", has(inner, "memory.max", "67108864"));
	expect("and is entered by its members", has(inner, "cgroup.procs", "0"));
	expect("or by who takes another in", !ftruncate(members, 0) &&
						     lseek(members, 0, SEEK_SET) == 0 &&
						     !group_take_in(members, 4711) &&
						     has(inner, "cgroup.procs", "4711"));
	expect("the controller is passed on", has("", "cgroup.subtree_control", "+memory"));
	expect("what an earlier one left is gone", has(left, ".", NULL));
	expect("not what somebody else is about to enter", has(made, ".", ""));
	expect("swap has it, too", has(inner, "memory.swap.max", "67108864"));
	expect("and nothing else", has("/of-somebody-else", ".", ""));
	close(members);
}

/* ---- on this host ---- */

static void be_greedy(int members)
{
	char *at = mmap(NULL, GREED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);

	if (at == MAP_FAILED || write(members, "0", 1) != 1)
		_exit(EXIT_FAILURE);
	for (size_t n = 0; n < GREED_BYTES; n += STEP_BYTES)
		at[n] = 1;
	_exit(EXIT_SUCCESS);
}

static void on_this_host(void)
{
	struct group_place place;
	int error = group_place_find(&place);
	int status = 0;
	int members;
	pid_t child;

	if (!error)
		error = group_look(&place);
	if (error) {
		printf("# this host delegates no group to this test: %s\n", strerror(-error));
		return;
	}
	members = group_make(&place, LIMIT_BYTES);
	expect("a group of this host's", members >= 0);
	child = fork();
	if (!child)
		be_greedy(members);
	waitpid(child, &status, 0);
	close(members);
	expect("who uses more is ended", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(void)
{
	char command[PATH_BYTES];

	looks_like_the_hosts();
	snprintf(command, sizeof(command), "rm -r '%s'", top);
	if (system(command))
		failures++;
	on_this_host();
	return failures != 0;
}
