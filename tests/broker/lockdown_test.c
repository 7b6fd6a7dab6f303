/*
 * After lock-down: every system call number is tried in a process of its own. Those of the role's list survive, every other
 * one ends the process with SIGSYS. Prints the list. Also: what a machine process may not do with the calls it keeps, and that
 * Landlock leaves no file.
 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/lockdown.h"

/* uretprobe and uprobe: recent kernels let them past any filter; outside a probe they do nothing. */
enum { HIGHEST_CALL = 470, CALL_URETPROBE = 335, CALL_UPROBE = 336 };

static int event_in, event_out, failures;

struct attempt { long number, arguments[4]; };

/* 0: the call returned; SIGSYS: it ended the process. */
static int try(enum lockdown_role role, const struct attempt *a)
{
	int status;
	pid_t child = fork();

	if (!child) {
		alarm(2);
		if (lockdown_before_threads(role, NULL) || lockdown(role, (const int[]){ event_in, -1 }, (const int[]){ event_out, -1 }))
			_exit(99);
		syscall(a->number, a->arguments[0], a->arguments[1], a->arguments[2], a->arguments[3], -1, -1);
		syscall(SYS_exit_group, 0);
	}
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
		printf("FAIL lock-down itself\n");
		exit(1);
	}
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? SIGSYS : 0;
}

static bool listed(enum lockdown_role role, long number)
{
	for (const char *const *name = lockdown_calls(role); *name; name++)
		if (seccomp_syscall_resolve_name(*name) == number)
			return true;
	return false;
}

static bool has_conditions(enum lockdown_role role, long number)
{
	return number == SYS_mmap || number == SYS_mprotect || (role == LOCKDOWN_MACHINE && (number == SYS_read || number == SYS_write));
}

static void expect(const char *what, int got, int want)
{
	printf("%s %s\n", got == want ? "ok  " : "FAIL", what);
	failures += got != want;
}

static void all_calls(enum lockdown_role role, const char *name)
{
	unsigned kept = 0;

	printf("%s keeps:", name);
	for (long n = 0; n <= HIGHEST_CALL; n++) {
		struct attempt a = { n, { -1, -1, -1, -1 } };
		int got;

		if (has_conditions(role, n) || n == CALL_URETPROBE || n == CALL_UPROBE)
			continue;
		if (n == SYS_kill || n == SYS_tgkill)
			a.arguments[0] = 0x7fffffff, a.arguments[1] = 0x7fffffff, a.arguments[2] = 0; /* nobody */
		got = try(role, &a);
		if (!got) {
			char *text = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)n);

			printf(" %s", text ? text : "?");
			free(text);
			kept++;
		}
		if ((got == 0) != listed(role, n)) {
			printf("\nFAIL call %ld: %s the list\n", n, got ? "denied, but in" : "allowed, but not in");
			failures++;
		}
	}
	printf(" (%u, and read, write, mmap with conditions)\n", kept);
}

static void conditions(void)
{
	static char byte[8];
	int other = open("/dev/zero", O_RDWR);
	long anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

	expect("read of its event", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_read, { event_in, (long)byte, 8, 0 } }), 0);
	expect("read of another descriptor", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_read, { other, (long)byte, 8, 0 } }), SIGSYS);
	expect("write to its event", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_write, { event_out, (long)byte, 8, 0 } }), 0);
	expect("write to another descriptor", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_write, { 2, (long)byte, 0, 0 } }), SIGSYS);
	expect("memory", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE, anonymous } }), 0);
	expect("executable memory", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC, anonymous } }), SIGSYS);
	expect("executable memory, by mprotect", try(LOCKDOWN_DISKS, &(struct attempt){ SYS_mprotect, { 0, 4096, PROT_READ | PROT_EXEC, 0 } }), SIGSYS);
	expect("memory, by mprotect", try(LOCKDOWN_DISKS, &(struct attempt){ SYS_mprotect, { 0, 0, PROT_READ | PROT_WRITE, 0 } }), 0);
	expect("a mapped file", try(LOCKDOWN_MACHINE, &(struct attempt){ SYS_mmap, { 0, 4096, PROT_READ, MAP_PRIVATE } }), SIGSYS);
	close(other);
}

static void no_files(enum lockdown_role role, const char *name)
{
	int status;
	pid_t child = fork();

	if (!child) {
		if (lockdown_before_threads(role, NULL))
			_exit(99);
		_exit(open("/etc/passwd", O_RDONLY) >= 0 ? 1 : errno == EACCES ? 0 : 2);
	}
	waitpid(child, &status, 0);
	expect(name, status, 0);
}

/* A disk process with one folder: files there, and none elsewhere. */
static void one_folder(void)
{
	char name[] = "/tmp/umbra-lockdown-XXXXXX", path[64];
	int status, folder = mkdtemp(name) ? open(name, O_RDONLY | O_DIRECTORY) : -1;
	pid_t child = fork();

	snprintf(path, sizeof(path), "%s/file", name);
	if (!child) {
		if (folder < 0 || lockdown_before_threads(LOCKDOWN_DISKS, (const int[]){ folder, -1 }))
			_exit(99);
		if (open(path, O_RDWR | O_CREAT, 0600) < 0 || unlink(path))
			_exit(1);
		_exit(open("/tmp/umbra-lockdown-elsewhere", O_RDWR | O_CREAT, 0600) >= 0 ? 2 : errno == EACCES ? 0 : 3);
	}
	waitpid(child, &status, 0);
	close(folder);
	rmdir(name);
	expect("a disk process has files in its folder only", status, 0);
}

int main(void)
{
	event_in = eventfd(1, 0);
	event_out = eventfd(0, 0);
	all_calls(LOCKDOWN_MACHINE, "machine process");
	all_calls(LOCKDOWN_BROKER, "broker");
	all_calls(LOCKDOWN_DISKS, "disk process");
	conditions();
	no_files(LOCKDOWN_MACHINE, "a machine process opens no file, by Landlock alone");
	no_files(LOCKDOWN_BROKER, "a broker opens no file, by Landlock alone");
	no_files(LOCKDOWN_DISKS, "a disk process opens no file, by Landlock alone");
	one_folder();
	return failures != 0;
}
