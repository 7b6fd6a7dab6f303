/* See sandbox.h. */
#include "sandbox.h"

#include <assert.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/call_filter.h"
#include "lib/write_all.h"

enum { MEMORY_BYTES = 2000 << 20, SECONDS = 600 };

/* ---- in the process that reads ---- */

/* Into the pipe alone: the caller's other descriptors are the disk, his terminal, his catalog. */
static int allow_conditionally(struct call_filter *filter, int pipe)
{
	const struct filter_test to_pipe = { .argument = 0,
					     .compare = FILTER_EQUAL,
					     .value = (uint64_t)pipe };
	const struct filter_test own_memory[] = {
		{ .argument = 2, .compare = FILTER_MASKED, .mask = PROT_EXEC },
		{ .argument = 3,
		  .compare = FILTER_MASKED,
		  .mask = MAP_ANONYMOUS,
		  .value = MAP_ANONYMOUS },
	};
	int error = call_filter_add(filter, SECCOMP_RET_ALLOW, SYS_write, 1, &to_pipe);

	return error ? error
		     : call_filter_add(filter, SECCOMP_RET_ALLOW, SYS_mmap, 2, own_memory);
}

static int load(const struct call_filter *filter)
{
	struct sock_fprog program;
	int error = call_filter_compile(filter, &program);

	if (!error && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		error = -errno;
	return error ? error : call_filter_load(&program);
}

static int lock_down(int pipe)
{
	static const uint32_t calls[] = { SYS_preadv,     SYS_preadv2,       SYS_pread64,
					  SYS_fstat,      SYS_newfstatat,    SYS_lseek,
					  SYS_munmap,     SYS_mremap,        SYS_madvise,
					  SYS_brk,        SYS_futex,         SYS_clock_gettime,
					  SYS_getrandom,  SYS_exit,          SYS_exit_group,
					  SYS_rt_sigreturn };
	struct call_filter *filter = call_filter_new(SECCOMP_RET_KILL_PROCESS);
	int error = filter ? 0 : -ENOMEM;

	for (size_t n = 0; !error && n < sizeof(calls) / sizeof(calls[0]); n++)
		error = call_filter_add(filter, SECCOMP_RET_ALLOW, calls[n], 0, NULL);
	if (!error)
		error = allow_conditionally(filter, pipe);
	if (!error)
		error = load(filter);
	call_filter_free(filter);
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
	return write_all(pipe, data, bytes) ? -EIO : 0;
}

/* ---- in the one that asked ---- */

int sandbox_take_json(int pipe, unsigned long most, json_t **ret)
{
	size_t room = 1 << 20;
	size_t used = 0;
	char *text = malloc(room);
	ssize_t n = 0;

	while (text && used < most && (n = read(pipe, text + used, room - used)) > 0) {
		char *more;

		used += (size_t)n;
		if (used < room)
			continue;
		room *= 2;
		more = realloc(text, room);
		if (!more)
			free(text);
		text = more;
	}
	*ret = text && !n ? json_loadb(text, used, 0, NULL) : NULL;
	free(text);
	return json_is_object(*ret) ? 0 : -EBADMSG;
}

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
