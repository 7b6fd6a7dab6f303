/* See machine_row.h. */
#include "machine_row.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/names.h"
#include "talk.h"

enum { PATH_BYTES = 64 };

const char *machine_row_state(const json_t *machine)
{
	return json_is_true(json_object_get(machine, "suspended")) ? "paused" : "running";
}

/* Who listens at the name, as the kernel says; 0: nobody that is seen from here. */
static pid_t who_listens(int fd)
{
	struct ucred who = { .pid = 0 };
	socklen_t bytes = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) ? 0 : who.pid;
}

/*
 * What that process is by now: a broker, which serves, or the command that will be one. NULL: it is
 * gone, and has left the name to another one.
 */
static const char *state_of(pid_t pid)
{
	static const char executed[] = "umbra\0--role=";
	static const char called[] = "umbra --role=";
	char path[PATH_BYTES];
	char text[sizeof(executed)] = "";
	ssize_t got = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		got = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (got <= 0)
		return NULL;
	return memcmp(text, executed, sizeof(executed) - 1) &&
			       memcmp(text, called, sizeof(called) - 1)
		       ? "starting"
		       : "silent";
}

/* Whether there is something to be heard within ROW_MS. */
static bool answers(FILE *peer)
{
	struct pollfd ready = { .fd = fileno(peer), .events = POLLIN };

	return talk_ask(peer, "info") && poll(&ready, 1, ROW_MS) > 0;
}

static json_t *describe_silent(const char *name, pid_t pid)
{
	const char *state = state_of(pid);
	json_t *machine = json_pack("{s:s, s:s}", "name", name, "state", state ? state : "silent");

	if (state)
		json_object_set_new(machine, "pid", json_integer(pid));
	return machine;
}

/* NULL: it went away. */
static json_t *hear(FILE *peer)
{
	json_t *answer = talk_hear(peer);
	json_t *machine = json_object_get(answer, "machine");

	if (json_is_object(machine))
		json_object_set_new(json_incref(machine), "state",
				    json_string(machine_row_state(machine)));
	else
		machine = NULL;
	json_decref(answer);
	return machine;
}

json_t *machine_row(const char *name)
{
	int error;
	FILE *peer = talk_to(name, &error);
	json_t *machine;

	if (!peer)
		return NULL;
	machine = answers(peer) ? hear(peer) : describe_silent(name, who_listens(fileno(peer)));
	fclose(peer);
	return machine;
}
