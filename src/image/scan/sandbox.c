/* See sandbox.h. */
#include "sandbox.h"

#include <assert.h>
#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <sodium.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEMORY_BYTES = 2000 << 20, SECONDS = 600 };

/* ---- in the process that reads ---- */

/* Into the pipe alone: the caller's other descriptors are the disk, his terminal, his catalog. */
static int allow_conditionally(scmp_filter_ctx filter, int pipe)
{
	int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)pipe, 0));

	if (error)
		return error;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
}

static int lock_down(int pipe)
{
	static const char *const calls[] = { "preadv",        "preadv2",      "pread64", "fstat",
					     "newfstatat",    "lseek",        "munmap",  "mremap",
					     "madvise",       "brk",          "futex",
					     "clock_gettime", "getrandom",    "exit",
					     "exit_group",    "rt_sigreturn" };
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int error = filter ? 0 : -ENOMEM;

	for (size_t n = 0; !error && n < sizeof(calls) / sizeof(calls[0]); n++) {
		int call = seccomp_syscall_resolve_name(calls[n]);

		if (call >= 0)
			error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
	}
	if (!error)
		error = allow_conditionally(filter, pipe);
	if (!error)
		error = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	return error;
}

static void limit(void)
{
	setrlimit(RLIMIT_AS, &(struct rlimit){ MEMORY_BYTES, MEMORY_BYTES });
	setrlimit(RLIMIT_CPU, &(struct rlimit){ SECONDS, SECONDS });
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
}

static void child(const struct sandbox *sandbox, int pipe)
{
	limit();
	if (sandbox->prepare)
		sandbox->prepare();
	if (sodium_init() < 0 || lock_down(pipe))
		_exit(1);
	_exit(sandbox->work(sandbox->context, pipe) ? 1 : 0);
}

int sandbox_write(int pipe, const void *data, unsigned long bytes)
{
	assert(data || !bytes);
	for (unsigned long done = 0; done < bytes;) {
		ssize_t n = write(pipe, (const char *)data + done, bytes - done);

		if (n <= 0)
			return -EIO;
		done += (unsigned long)n;
	}
	return 0;
}

/* ---- in the one that asked ---- */

int sandbox_run(const struct sandbox *sandbox)
{
	int ends[2], status, error;
	pid_t pid;

	assert(sandbox->work && sandbox->take);
	if (pipe(ends))
		return -errno;
	pid = fork();
	if (pid < 0) {
		close(ends[0]);
		close(ends[1]);
		return -errno;
	}
	if (!pid) {
		close(ends[0]);
		child(sandbox, ends[1]);
	}
	close(ends[1]);
	error = sandbox->take(sandbox->context, ends[0]);
	close(ends[0]);
	if (error)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (error)
		return error;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EBADMSG;
}
