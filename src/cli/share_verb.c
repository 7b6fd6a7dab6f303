/*
 * umbra share: a folder of the host's in a machine, as long as this process lives. It asks the
 * machine's agent to mount it, and goes on as who serves it, with nothing of the user's but that
 * folder (process/folder_main.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent_line.h"
#include "cli.h"
#include "option.h"
#include "ipc/spawn.h"
#include "process/plan.h"

static const char share_help[] =
	"usage: umbra share [--read-only] [--alone] NAME DIRECTORY [PATH]\n"
	"Mounts a folder of the host's in the machine NAME, at PATH (/mnt/ and the folder's name "
	"when it is not said), until Ctrl-C,\n"
	"or umount there. Its files are the guest's root's; what is not a file, a folder or a "
	"symbolic link is not in it, and links\n"
	"lead to what is there in the guest. It needs umbra-agent, and FUSE, in the guest.\n"
	"What changes on the host is seen after a second; with --alone nobody but this guest "
	"changes the folder, and it asks less.\n";

enum { PATH_BYTES = 4096, DESCRIPTORS = 4096 };

/* /mnt and the last name of the folder. */
static int default_path(const char *folder, char path[PATH_BYTES])
{
	char whole[PATH_BYTES];
	const char *slash;

	if (!realpath(folder, whole))
		return -errno;
	slash = strrchr(whole, '/');
	snprintf(path, PATH_BYTES, "/mnt%s", slash[1] ? slash : "/root");
	return 0;
}

/* 0 once it is mounted; -errno. */
static int ask(struct agent_line *line, const char *path, bool read_only)
{
	struct agent_said said = { .data = NULL };
	uint8_t data[sizeof(uint32_t) + PATH_BYTES];
	const uint32_t flag = read_only;
	const size_t bytes = strlen(path) + 1;
	int error;

	if (bytes > PATH_BYTES)
		return -ENAMETOOLONG;
	memcpy(data, &flag, sizeof(flag));
	memcpy(data + sizeof(flag), path, bytes);
	error = agent_say(line, AGENT_SHARE, data, sizeof(flag) + bytes);
	if (!error)
		error = agent_hear_soon(line, &said);
	if (error < 0)
		return error;
	if (said.kind == AGENT_FAILED)
		return agent_failure(&said);
	return said.kind == AGENT_DONE ? 0 : -EPROTO;
}

/* Who serves begins with the next byte: the agent waits for him to say so. */
static int hear_no_more(const struct agent_line *line)
{
	return line->used == sizeof(struct agent_frame) ? 0 : -EPROTO;
}

static int complain_of(const char *machine, const char *path, int error)
{
	switch (error) {
	case -ENODEV: case -ENXIO:
		return complain(EXIT_UNUSABLE, "its guest has no FUSE", machine,
				"load the module fuse there");
	case -ENOSYS:
		return complain(EXIT_UNUSABLE, "its agent is an older one", machine,
				"use the umbra-agent of this Umbra");
	case -EPIPE: case -ECONNRESET: case -EPROTO: case -ETIMEDOUT:
		return agent_complain(machine, error);
	default:
		return complain(EXIT_UNUSABLE, strerror(-error), path,
				"name another place in the guest");
	}
}

struct manner { bool is_read_only, is_alone; };

/* Returns only an exit code of what went wrong. */
static int serve(struct agent_line *line, int folder, struct manner manner)
{
	struct plan *plan = plan_new();
	struct grants grants;
	int error = plan ? 0 : -ENOMEM;

	grants_clear(&grants);
	if (!error) {
		plan->folder_is_read_only = manner.is_read_only;
		plan->folder_is_alone = manner.is_alone;
		grants.fd[GRANT_PLAN] = plan_seal(plan, ROLE_FOLDER);
		grants.fd[GRANT_PROGRAM] = spawn_open_program();
		grants.fd[GRANT_FOLDER] = folder;
		grants.fd[GRANT_CONTROL] = line->fd;
		spawn_raise_descriptors(DESCRIPTORS);
		error = spawn_become(ROLE_FOLDER, &grants);
	}
	return complain(EXIT_FAULT, strerror(-error), "serving a folder", "see umbra doctor");
}

static int share(const char *machine, const char *folder, const char *path, struct manner manner)
{
	static struct agent_line line;
	const int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int error;

	if (fd < 0)
		return complain(EXIT_UNUSABLE, strerror(errno), folder, "name a folder");
	error = agent_connect(machine, 0, &line);
	if (error)
		return agent_complain(machine, error);
	error = ask(&line, path, manner.is_read_only);
	if (!error)
		error = hear_no_more(&line);
	if (error)
		return complain_of(machine, path, error);
	/* how long a greeting may take is nothing that holds for questions */
	setsockopt(line.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0 },
		   sizeof(struct timeval));
	printf("%s is %s in %s%s\n", folder, path, machine,
	       manner.is_read_only ? ", read-only" : "");
	fflush(stdout);
	return serve(&line, fd, manner);
}

int verb_share(int argc, char **argv)
{
	static const struct option longs[] = { { "read-only", 0, 0, 'r' },
					       { "alone", 0, 0, 'a' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	char path[PATH_BYTES];
	struct manner manner = { .is_alone = false };
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "h", longs)) != -1)
		switch (option) {
		case 'r': manner.is_read_only = true; break;
		case 'a': manner.is_alone = true; break;
		case 'h': fputs(share_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (argc - optind < 2 || argc - optind > 3)
		return complain(EXIT_USAGE, "wrong number of arguments", "share",
				"see umbra share --help");
	if (argc - optind == 3)
		return share(argv[optind], argv[optind + 1], argv[optind + 2], manner);
	if (default_path(argv[optind + 1], path))
		return complain(EXIT_UNUSABLE, strerror(errno), argv[optind + 1], "name a folder");
	return share(argv[optind], argv[optind + 1], path, manner);
}
