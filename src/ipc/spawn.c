/* See spawn.h. */
#include "spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

#include "lib/write_all.h"

/* Where descriptors wait until their numbers are free. */
enum { FIRST_FREE_FD = 80 };
static_assert(GRANT_FIRST_FD + GRANTS <= FIRST_FREE_FD, "no number is taken before it is free");

void grants_clear(struct grants *grants)
{
	grants->errors = -1;
	for (unsigned n = 0; n < GRANTS; n++)
		grants->fd[n] = -1;
}

void grants_of_process(struct grants *ret)
{
	const grant_set here = role_grants_here();

	grants_clear(ret);
	for (unsigned n = 0; n < GRANTS; n++)
		if (here & GRANT(n))
			ret->fd[n] = grant_fd((enum grant)n);
}

void spawn_raise_descriptors(unsigned count)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= count)
		return;
	limit.rlim_cur = limit.rlim_max < count ? limit.rlim_max : count;
	setrlimit(RLIMIT_NOFILE, &limit); /* what it does not permit is missed where it is needed */
}

int spawn_open_program(void)
{
	int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

	if (fd < 0) /* a host without /proc */
		fd = open((const char *)getauxval(AT_EXECFN), O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int put_part(int fd, const struct spawn_part *part)
{
	return lseek(fd, (off_t)part->at, SEEK_SET) < 0 ? -errno
							: write_all(fd, part->data, part->bytes);
}

int spawn_seal(const char *name, const void *data, size_t bytes)
{
	return spawn_seal_parts(name, &(struct spawn_part){ .data = data, .bytes = bytes }, 1,
				bytes);
}

int spawn_seal_parts(const char *name, const struct spawn_part *part, unsigned count, size_t bytes)
{
	const struct spawn_part last = { .data = "", .at = bytes - 1, .bytes = 1 };
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error;

	assert(part && count && bytes);
	if (fd < 0)
		return -errno;
	/* who begins others may only write: with its last byte the memory has its length */
	error = part[count - 1].at + part[count - 1].bytes < bytes ? put_part(fd, &last) : 0;
	for (unsigned n = 0; n < count && !error; n++)
		error = put_part(fd, &part[n]);
	if (error) {
		close(fd);
		return -ENOSPC;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)) {
		close(fd);
		return -EPERM;
	}
	return fd;
}

int spawn_share(const char *name, size_t bytes)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert(bytes);
	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, (off_t)bytes) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW))
		return fd;
	close(fd);
	return -EPERM;
}

bool spawn_is_share(int fd, size_t bytes)
{
	const int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && seals & F_SEAL_SHRINK && !fstat(fd, &st) &&
	       st.st_size == (off_t)bytes;
}

/* ---- in the process that becomes the role ---- */

static int descriptors_move_up(grant_set wanted, const struct grants *grants, struct grants *ret)
{
	grants_clear(ret);
	for (unsigned n = 0; n < GRANTS; n++) {
		if (!(wanted & GRANT(n)) || grants->fd[n] < 0)
			continue;
		ret->fd[n] = fcntl(grants->fd[n], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
		if (ret->fd[n] < 0)
			return -errno;
	}
	return 0;
}

/* Each to its number; everything else is closed by the execve that follows. */
static int descriptors_place(const struct role_description *role, const struct grants *grants)
{
	struct grants up;
	int error = descriptors_move_up(role->grants, grants, &up);

	if (error)
		return error;
	if (syscall(SYS_close_range, GRANT_FIRST_FD - (role->stdio ? 0 : GRANT_FIRST_FD), ~0u,
		    CLOSE_RANGE_CLOEXEC))
		return -errno;
	for (unsigned n = 0; n < GRANTS; n++)
		if (up.fd[n] >= 0 && dup2(up.fd[n], grant_fd((enum grant)n)) < 0)
			return -errno;
	for (unsigned n = 0; n + role->stdio < GRANT_FIRST_FD; n++)
		fcntl((int)n, F_SETFD, FD_CLOEXEC);
	return 0;
}

int spawn_become(enum role role, const struct grants *grants)
{
	const struct role_description *description = role_describe(role);
	char argument[32];
	char *const arguments[] = { (char[]){ "umbra" }, argument, NULL };
	char *const environment[] = { NULL };
	int program = fcntl(grants->fd[GRANT_PROGRAM], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	int error = program < 0 ? -errno : descriptors_place(description, grants);

	assert(grants->fd[GRANT_PROGRAM] >= 0);
	if (error)
		return error;
	snprintf(argument, sizeof(argument), "--role=%s", description->name);
	syscall(SYS_execveat, program, "", arguments, environment, AT_EMPTY_PATH);
	return -errno;
}

int spawn_go_on(enum role role, const struct grants *grants)
{
	const struct role_description *description = role_describe(role);
	struct grants up;
	int error = descriptors_move_up(description->grants, grants, &up);

	assert(description->stdio == GRANT_FIRST_FD);
	if (error)
		return error;
	if (syscall(SYS_close_range, GRANT_FIRST_FD, FIRST_FREE_FD - 1, 0))
		return -errno;
	for (unsigned n = 0; n < GRANTS; n++)
		if (up.fd[n] >= 0 && dup2(up.fd[n], grant_fd((enum grant)n)) < 0)
			return -errno;
	return syscall(SYS_close_range, FIRST_FREE_FD, ~0u, 0) ? -errno : 0;
}

void spawn_call_self(char *called, enum role role)
{
	char *end = called;

	/* the kernel puts all of these one behind the other */
	for (char **next = environ; *next; next++)
		if (*next >= end)
			end = *next + strlen(*next) + 1;
	environ = NULL;
	memset(called, 0, (size_t)(end - called));
	snprintf(called, (size_t)(end - called), "umbra --role=%s", role_describe(role)->name);
}

/* ---- in the process that starts it ---- */

/* fork() into namespaces; 0 in the child, which does nothing but execve. */
static pid_t clone_into(int namespaces, int *ret_pidfd)
{
	return (pid_t)syscall(SYS_clone, namespaces | CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd, NULL,
			      0);
}

pid_t spawn_fork(int *ret_pidfd)
{
	const pid_t pid = clone_into(0, ret_pidfd);

	return pid < 0 ? -errno : pid;
}

/*
 * In namespaces of its own the process may do everything until execve; that it may still give
 * itself an empty root afterwards is kept across it.
 */
static void keep_mounting(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	if (syscall(SYS_capget, &head, held))
		return;
	held[0].inheritable |= held[0].permitted & 1u << CAP_SYS_ADMIN;
	if (!syscall(SYS_capset, &head, held))
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0);
}

/* What is to begin. */
struct beginning {
	enum role role;
	const struct grants *grants;
	int group;
	pid_t parent;
};

/* No handler of who begins it is called here, where its memory is. */
static void forget_handlers(void)
{
	struct sigaction old;

	for (int number = 1; number < SIGRTMIN; number++)
		if (!sigaction(number, NULL, &old) && old.sa_handler != SIG_IGN &&
		    old.sa_handler != SIG_DFL)
			signal(number, SIG_DFL);
}

/* All signals are blocked; it may have the memory of who begins it, who waits. */
static int child_begin(void *context)
{
	const struct beginning *beginning = context;
	const enum role role = beginning->role;
	const struct grants *grants = beginning->grants;
	const int group = beginning->group;
	sigset_t none;

	if (group >= 0 && write(group, "0", 1) != 1)
		_exit(EX_OSERR); /* without its limit it is not to run */

	if (role_describe(role)->spawn_namespaces)
		keep_mounting();
	if (role_describe(role)->dies_with_parent &&
	    (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != beginning->parent))
		_exit(EX_OSERR);
	if (grants->errors >= 0 && dup2(grants->errors, STDERR_FILENO) < 0)
		_exit(EX_OSERR);
	/*
	 * the terminal's keys are the broker's, and so is the wish of who stops a whole group of
	 * processes
	 */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	forget_handlers();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	_exit(-spawn_become(role, grants));
}

/*
 * As vfork(): the child has this process's memory, and a stack of its own, until it executes the
 * program; until then this thread waits. To copy the page tables of what is left at once takes
 * longer than all that it does.
 */
static pid_t begin_in_memory(int namespaces, struct beginning *beginning, int *ret_pidfd)
{
	enum { STACK_BYTES = 16 << 10 };
	_Alignas(16) uint8_t stack[STACK_BYTES];
	const pid_t pid = clone(child_begin, stack + STACK_BYTES,
				namespaces | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
				beginning, ret_pidfd);

	/* for a sanitizer: the child never left its functions, whose borders lie here still */
	ASAN_UNPOISON_MEMORY_REGION(stack, sizeof(stack));
	return pid;
}

int spawn_role(enum role role, const struct grants *grants, int group, struct spawned *ret)
{
	const int namespaces = role_describe(role)->spawn_namespaces;
	struct beginning beginning = {
		.role = role, .grants = grants, .group = group, .parent = getpid()
	};
	sigset_t all, before;

	assert(grants->fd[GRANT_PROGRAM] >= 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret->pid = begin_in_memory(namespaces, &beginning, &ret->pidfd);
	if (ret->pid < 0 && namespaces) /* the host does not permit it: one layer less */
		ret->pid = begin_in_memory(0, &beginning, &ret->pidfd);
	if (ret->pid < 0) /* who starts others has no right to that */
		ret->pid = clone_into(0, &ret->pidfd);
	if (!ret->pid)
		child_begin(&beginning);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ret->pid < 0 ? -errno : 0;
}
