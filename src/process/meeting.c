/* See meeting.h. */
#include "meeting.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/spawn.h"

enum { BACKLOG = 64 };

static int new_socket(const char *path, struct sockaddr_un *ret)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strncpy(ret->sun_path, path, sizeof(ret->sun_path) - 1);
	return fd < 0 ? -errno : fd;
}

static bool somebody_listens(const char *path)
{
	struct sockaddr_un at;
	int fd = new_socket(path, &at);
	bool listens;

	if (fd < 0)
		return false;
	listens = !connect(fd, (const struct sockaddr *)&at, sizeof(at)) || errno == EAGAIN;
	close(fd);
	return listens;
}

/* A socket at which one can be started; -EADDRINUSE: another one has begun meanwhile. */
static int listen_at(const char *path)
{
	struct sockaddr_un at;
	int fd = new_socket(path, &at);
	int error;

	if (fd < 0)
		return fd;
	if (!bind(fd, (const struct sockaddr *)&at, sizeof(at)) && !listen(fd, BACKLOG))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/*
 * It is nobody's child who would have to look after it: it outlives the machine, and whoever would
 * read what it says. 0 or -errno.
 */
static int spawn_alone(enum role role, struct grants *grants)
{
	struct spawned one;
	int status = 0;
	pid_t between;

	/* who starts it opens nothing to be written: what is said there fails, and is lost, too */
	grants->errors = open("/dev/null", O_RDONLY | O_CLOEXEC);
	between = grants->errors < 0 ? -1 : fork();
	if (!between) {
		setsid(); /* keys of this terminal are for this machine, not for what serves all */
		_exit(-spawn_role(role, grants, -1, &one));
	}
	if (between > 0)
		waitpid(between, &status, 0);
	close(grants->errors);
	if (between < 0)
		return -EAGAIN;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static int start_locked(const char *path, enum role role, int program_fd)
{
	struct grants grants;
	int error;

	assert(program_fd >= 0);
	if (somebody_listens(path))
		return 0;
	unlink(path);
	grants_clear(&grants);
	grants.fd[GRANT_PROGRAM] = program_fd;
	if (role_was_given(GRANT_ROOT))
		grants.fd[GRANT_ROOT] = grant_fd(GRANT_ROOT);
	grants.fd[GRANT_CONTROL] = listen_at(path);
	if (grants.fd[GRANT_CONTROL] < 0)
		return grants.fd[GRANT_CONTROL];
	error = spawn_alone(role, &grants);
	close(grants.fd[GRANT_CONTROL]);
	return error;
}

int meeting_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *end = strrchr(path, '/');
	int fd;

	if (!end || strlen(path) >= sizeof(folder))
		return -EINVAL;
	memcpy(folder, path, (size_t)(end - path));
	folder[end - path] = 0;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int meeting_start(const char *path, enum role role, int program_fd)
{
	const int lock = meeting_folder(path);
	int error;

	if (lock < 0)
		return lock;
	error = flock(lock, LOCK_EX) ? -errno : start_locked(path, role, program_fd);
	close(lock);
	return error;
}
