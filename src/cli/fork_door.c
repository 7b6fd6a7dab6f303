/*
 * See fork_door.h.
 *
 *  - A child's place is there before the child is: what its guest asks at once waits in it.
 *  - A fork's token is kept with the child that it made, so that whoever has lost the connection
 *    can ask: in the child at the child's own socket, where only that child's guest comes.
 *  - What a kernel asks for comes on a connection to its broker (control/machine_wishes.c), which
 *    also hears what came of it, and says to `umbra fork` whether it is still wanted.
 *  - Of connections there are LINES at a time, and the oldest that has not asked yet makes room.
 */
#include "fork_door.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "abi/guest_fork.h"
#include "cli.h"
#include "control/names.h"

enum {
	LINES = 16,
	MACHINES = FORK_DOOR_CHILDREN + 1,
	PATH_BYTES = sizeof(((struct sockaddr_un *)NULL)->sun_path),
	ANSWER_BYTES = 4096,
	MINUTE_S = 60,
	TOLD_FD = 3,
	NAMES_TRIED = 1000,
	SAID_BYTES = 512,
};

struct machine {
	char name[NAME_MAX_BYTES + 1], token[GUEST_FORK_TOKEN_BYTES + 1];
	char place[PATH_BYTES];
	int listener, process, broker; /* -1: it has none; has ended; is gone */
	char said[SAID_BYTES]; /* by its broker, up to a line's end */
	size_t said_bytes;
	uint64_t wish; /* of its guest's kernel, which waits for its turn; 0: none */
};

struct line {
	int fd; /* -1: free */
	unsigned machine;
	unsigned long number; /* the oldest has the least */
	char text[GUEST_FORK_LINE_BYTES];
	size_t used;
	bool waits; /* for the fork that is under way */
};

struct making {
	pid_t pid; /* 0: no fork is under way */
	int out;   /* what it says */
	unsigned parent;
	uint64_t asked; /* its broker's number; 0: a line waits */
	unsigned number; /* the child's */
	char name[NAME_MAX_BYTES + 1], token[GUEST_FORK_TOKEN_BYTES + 1];
	int listener; /* for its guest, which may ask before it is known that the child is there */
	char place[PATH_BYTES];
	char answer[ANSWER_BYTES];
	size_t used;
};

struct door {
	struct fork_door_limits limits;
	struct machine machine[MACHINES];
	unsigned machines; /* the first is the one that umbra run made */
	struct line line[LINES];
	unsigned long connections;
	time_t begun[FORK_DOOR_CHILDREN]; /* of the forks, the last ones */
	unsigned forks, made, number;
	struct making making;
};

int fork_door_parse(const char *text, struct fork_door_limits *ret)
{
	char *end;
	unsigned long children = strtoul(text, &end, 10);
	unsigned long per_minute = FORK_DOOR_PER_MINUTE;

	if (end != text && *end == ',')
		per_minute = strtoul(end + 1, &end, 10);
	*ret = (struct fork_door_limits){ .children = (unsigned)children,
					  .per_minute = (unsigned)per_minute };
	return isdigit((unsigned char)*text) && !*end && children && per_minute &&
			       children <= FORK_DOOR_CHILDREN && per_minute <= FORK_DOOR_CHILDREN
		       ? 0
		       : complain(EXIT_USAGE, "not a number of children from 1 to 128", text,
				  "say for example --guest-forks 10, or 10,2 for two a minute");
}

/* ---- machines ---- */

/* Of a machine whose socket is there. -errno. */
static int listen_for(const char *socket, char place[PATH_BYTES])
{
	return (size_t)snprintf(place, PATH_BYTES, "%s_%u", socket, GUEST_FORK_PORT) < PATH_BYTES
		       ? name_listen_at(place)
		       : -ENAMETOOLONG;
}

/* listener: the machine's from now on, at `place`; -1: it has no socket. */
static int machine_add(struct door *door, const char *name, const char *token, pid_t broker,
		       int listener, const char *place)
{
	static const char hello[] = "{\"id\":1,\"do\":\"forks\"}\n";
	struct machine *machine = &door->machine[door->machines];

	*machine = (struct machine){ .listener = listener, .broker = -1 };
	machine->process = (int)syscall(SYS_pidfd_open, broker, 0);
	if (machine->process < 0)
		return -errno;
	snprintf(machine->name, sizeof(machine->name), "%s", name);
	snprintf(machine->token, sizeof(machine->token), "%s", token);
	snprintf(machine->place, sizeof(machine->place), "%s", place);
	machine->broker = name_connect(name);
	if (machine->broker >= 0)
		send(machine->broker, hello, sizeof(hello) - 1, MSG_NOSIGNAL);
	door->machines++;
	return 0;
}

static void listener_end(int listener, const char *place)
{
	if (listener < 0)
		return;
	close(listener);
	unlink(place);
}

static void leave_broker(struct machine *machine)
{
	if (machine->broker >= 0)
		close(machine->broker);
	machine->broker = -1;
}

static void machine_ended(struct machine *machine)
{
	leave_broker(machine);
	close(machine->process);
	machine->wish = 0;
	machine->process = -1;
	listener_end(machine->listener, machine->place);
	machine->listener = -1;
}

static bool any_lives(const struct door *door)
{
	unsigned n = 0;

	while (n < door->machines && door->machine[n].process < 0)
		n++;
	return n < door->machines;
}

/* ---- lines ---- */

static void line_end(struct line *line)
{
	close(line->fd);
	line->fd = -1;
}

__attribute__((format(printf, 2, 3))) static void line_say(struct line *line, const char *format,
							   ...)
{
	char text[GUEST_FORK_LINE_BYTES];
	va_list arguments;
	int bytes;

	va_start(arguments, format);
	bytes = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	send(line->fd, text, (size_t)bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	line_end(line);
}

static struct line *line_room(struct door *door)
{
	struct line *oldest = NULL;

	for (unsigned n = 0; n < LINES; n++) {
		struct line *line = &door->line[n];

		if (line->fd < 0)
			return line;
		if (!line->waits && (!oldest || line->number < oldest->number))
			oldest = line;
	}
	if (oldest)
		line_end(oldest);
	return oldest;
}

static void take_connection(struct door *door, unsigned machine)
{
	const int fd = accept4(door->machine[machine].listener, NULL, NULL,
			       SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct line *line = fd < 0 ? NULL : line_room(door);

	if (!line) {
		if (fd >= 0)
			close(fd);
		return;
	}
	*line = (struct line){ .fd = fd, .machine = machine, .number = ++door->connections };
}

/* ---- a fork ---- */

/* Which of its own errors a guest is told, and 0: it may. */
static int refusal(const struct door *door)
{
	const unsigned last = door->forks % FORK_DOOR_CHILDREN;
	const unsigned before =
		(last + FORK_DOOR_CHILDREN - door->limits.per_minute) % FORK_DOOR_CHILDREN;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (door->making.pid)
		return EBUSY;
	if (door->made >= door->limits.children)
		return EDQUOT;
	if (door->forks >= door->limits.per_minute &&
	    now.tv_sec - door->begun[before] < MINUTE_S)
		return EAGAIN;
	return 0;
}

static void note_begin(struct door *door)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	door->begun[door->forks++ % FORK_DOOR_CHILDREN] = now.tv_sec;
}

/* One that no machine has, after the first machine's. */
static int choose_name(struct door *door, char name[NAME_MAX_BYTES + 1])
{
	for (unsigned n = 0; n < NAMES_TRIED; n++) {
		const int bytes = snprintf(name, NAME_MAX_BYTES + 1, "%s-guest-%u",
					   door->machine[0].name, ++door->number);
		const int fd = bytes > NAME_MAX_BYTES ? -EINVAL : name_connect(name);

		if (fd == -ENOENT)
			return 0;
		if (fd < 0)
			return fd;
		close(fd);
	}
	return -EEXIST;
}

static _Noreturn void become_fork(const struct making *making, const char *parent, int out)
{
	char asked[48];
	char console[PATH_BYTES];
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	snprintf(asked, sizeof(asked), "%llu,%u", (unsigned long long)making->asked,
		 making->number);
	if (!name_console_path(making->name, console, sizeof(console)))
		execl("/proc/self/exe", "umbra", "fork", "--json", "--asked", asked, "--name",
		      making->name, "--console", console, parent, NULL);
	_exit(EXIT_FAULT);
}

/* Of a parent that has a socket: its child has one as well. 0 or -errno. */
static int making_listen(struct making *making, const struct machine *parent)
{
	char socket[PATH_BYTES];
	int error;

	making->listener = -1;
	if (!*parent->place)
		return 0;
	error = name_make_socket_place(making->name, socket, sizeof(socket));
	if (!error)
		making->listener = listen_for(socket, making->place);
	return !error && making->listener < 0 ? making->listener : error;
}

static int making_begin(struct door *door, unsigned parent, const char *token, uint64_t asked)
{
	struct making *making = &door->making;
	int out[2];
	int error = choose_name(door, making->name);

	if (!error)
		error = making_listen(making, &door->machine[parent]);
	if (error)
		return error;
	if (pipe2(out, O_CLOEXEC)) {
		error = -errno;
		listener_end(making->listener, making->place);
		return error;
	}
	note_begin(door);
	making->asked = asked;
	making->number = door->number;
	making->pid = fork();
	if (!making->pid)
		become_fork(making, door->machine[parent].name, out[1]);
	close(out[1]);
	if (making->pid < 0) {
		error = -errno;
		close(out[0]);
		listener_end(making->listener, making->place);
		making->pid = 0;
		return error;
	}
	making->out = out[0];
	making->parent = parent;
	making->used = 0;
	snprintf(making->token, sizeof(making->token), "%s", token);
	return 0;
}

/* What it says of the child that it has made: its broker; 0: it is not there. */
static pid_t broker_of(const struct making *making)
{
	json_t *all = json_loadb(making->answer, making->used, 0, NULL);
	const json_t *pid = json_object_get(json_array_get(all, 0), "pid");
	const pid_t broker = (pid_t)json_integer_value(pid);

	json_decref(all);
	return broker > 0 ? broker : 0;
}

/* What came of a request of its guest's kernel. */
static void tell_broker(const struct machine *machine, uint64_t asked, int error, unsigned child)
{
	char line[128];
	const int bytes = snprintf(line, sizeof(line),
				   "{\"id\":2,\"do\":\"forked\",\"number\":%llu,\"errno\":%d,"
				   "\"child\":%u}\n",
				   (unsigned long long)asked, error, child);

	if (machine->broker >= 0)
		send(machine->broker, line, (size_t)bytes, MSG_NOSIGNAL);
}

static void making_ended(struct door *door)
{
	struct making *making = &door->making;
	char console[PATH_BYTES];
	int status = 0;
	bool good;

	close(making->out);
	good = waitpid(making->pid, &status, 0) == making->pid && !status;
	making->pid = 0;
	if (!good && !name_console_path(making->name, console, sizeof(console)))
		unlink(console); /* of a machine that there is not */
	door->made += good;
	/* one that has ended already has nobody to ask */
	if (!good || machine_add(door, making->name, making->token, broker_of(making),
				 making->listener, making->place))
		listener_end(making->listener, making->place);
	if (making->asked)
		tell_broker(&door->machine[making->parent], making->asked, good ? 0 : EIO,
			    good ? making->number : 0);
	for (unsigned n = 0; n < LINES; n++) {
		struct line *line = &door->line[n];

		if (line->fd < 0 || !line->waits)
			continue;
		if (good)
			line_say(line, "parent %s\n", making->name);
		else
			line_say(line, "refused %d\n", EIO);
	}
}

static void hear_making(struct door *door)
{
	struct making *making = &door->making;
	const ssize_t got = read(making->out, making->answer + making->used,
				 sizeof(making->answer) - making->used);

	if (got > 0)
		making->used += (size_t)got;
	else if (!got || errno != EINTR)
		making_ended(door);
}

/* ---- what is asked ---- */

static bool is_token(const char *text)
{
	return strlen(text) == GUEST_FORK_TOKEN_BYTES &&
	       strspn(text, "0123456789abcdef") == GUEST_FORK_TOKEN_BYTES;
}

static void answer_fork(struct door *door, struct line *line, const char *token)
{
	int error = refusal(door);

	if (!error)
		error = -making_begin(door, line->machine, token, 0);
	if (error)
		line_say(line, "refused %d\n", error);
	else
		line->waits = true;
}

static void answer_outcome(const struct door *door, struct line *line, const char *token)
{
	if (door->making.pid && !strcmp(door->making.token, token)) {
		line_say(line, "wait\n");
		return;
	}
	for (unsigned n = 1; n < door->machines; n++)
		if (!strcmp(door->machine[n].token, token)) {
			line_say(line, "%s %s\n", n == line->machine ? "child" : "parent",
				 door->machine[n].name);
			return;
		}
	line_say(line, "unknown\n");
}

static void take_line(struct door *door, struct line *line)
{
	char *word = line->text;
	char *token = strchr(line->text, ' ');

	if (token)
		*token++ = 0;
	if (!token || !is_token(token))
		line_end(line);
	else if (!strcmp(word, "fork"))
		answer_fork(door, line, token);
	else if (!strcmp(word, "outcome"))
		answer_outcome(door, line, token);
	else
		line_end(line);
}

static void hear_line(struct door *door, struct line *line)
{
	const size_t room = sizeof(line->text) - 1 - line->used;
	const ssize_t got = recv(line->fd, line->text + line->used, room, MSG_DONTWAIT);
	char *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0 || line->waits) { /* gone, or says more than one line */
		line_end(line);
		return;
	}
	line->used += (size_t)got;
	end = memchr(line->text, '\n', line->used);
	if (end) {
		*end = 0;
		take_line(door, line);
	} else if (line->used == sizeof(line->text) - 1) {
		line_end(line);
	}
}

/* What its kernel wants, or no longer; of one that is under way its broker tells umbra fork. */
static void take_wish(struct door *door, unsigned number, const char *line, size_t bytes)
{
	struct machine *machine = &door->machine[number];
	json_t *said = json_loadb(line, bytes, 0, NULL);
	const json_int_t wanted = json_integer_value(json_object_get(said, "wanted"));
	const json_int_t unwanted = json_integer_value(json_object_get(said, "unwanted"));

	json_decref(said);
	if (wanted > 0)
		machine->wish = (uint64_t)wanted;
	else if (unwanted > 0 && machine->wish == (uint64_t)unwanted)
		machine->wish = 0;
}

/* Those that wait, until one is under way. */
static void grant_wishes(struct door *door)
{
	for (unsigned n = 0; n < door->machines && !door->making.pid; n++) {
		struct machine *machine = &door->machine[n];
		const uint64_t asked = machine->wish;
		int error;

		if (!asked)
			continue;
		machine->wish = 0;
		error = refusal(door);
		if (!error)
			error = -making_begin(door, n, "", asked);
		if (error)
			tell_broker(machine, asked, error, 0);
	}
}

static void hear_broker(struct door *door, unsigned number)
{
	struct machine *machine = &door->machine[number];
	const ssize_t got = recv(machine->broker, machine->said + machine->said_bytes,
				 SAID_BYTES - machine->said_bytes, MSG_DONTWAIT);
	char *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		leave_broker(machine);
		return;
	}
	machine->said_bytes += (size_t)got;
	while ((end = memchr(machine->said, '\n', machine->said_bytes))) {
		const size_t bytes = (size_t)(end + 1 - machine->said);

		take_wish(door, number, machine->said, bytes - 1);
		machine->said_bytes -= bytes;
		memmove(machine->said, end + 1, machine->said_bytes);
	}
	if (machine->said_bytes == SAID_BYTES)
		leave_broker(machine);
}

/* ---- its life ---- */

enum { POLL_PROCESS = 0, POLL_LISTENER = MACHINES, POLL_BROKER = 2 * MACHINES,
       POLL_LINE = 3 * MACHINES,
       POLL_MAKING = POLL_LINE + LINES, POLLS };

static void turn(struct door *door)
{
	struct pollfd fds[POLLS];

	for (unsigned n = 0; n < POLLS; n++)
		fds[n] = (struct pollfd){ .fd = -1, .events = POLLIN };
	for (unsigned n = 0; n < door->machines; n++) {
		fds[POLL_PROCESS + n].fd = door->machine[n].process;
		fds[POLL_LISTENER + n].fd = door->machine[n].listener;
		fds[POLL_BROKER + n].fd = door->machine[n].broker;
	}
	for (unsigned n = 0; n < LINES; n++)
		fds[POLL_LINE + n].fd = door->line[n].fd;
	fds[POLL_MAKING].fd = door->making.pid ? door->making.out : -1;
	if (poll(fds, POLLS, -1) < 0)
		return;
	for (unsigned n = 0; n < LINES; n++)
		if (fds[POLL_LINE + n].revents)
			hear_line(door, &door->line[n]);
	if (fds[POLL_MAKING].revents)
		hear_making(door);
	for (unsigned n = 0; n < MACHINES; n++) {
		if (fds[POLL_LISTENER + n].revents)
			take_connection(door, n);
		if (fds[POLL_BROKER + n].revents)
			hear_broker(door, n);
		if (fds[POLL_PROCESS + n].revents)
			machine_ended(&door->machine[n]);
	}
	grant_wishes(door);
}

/* Nothing of the machine's, and no terminal, stays with it: only *told, at another number. */
static void leave_all_but(int *told)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	dup3(*told, TOLD_FD, O_CLOEXEC);
	*told = TOLD_FD;
	syscall(SYS_close_range, TOLD_FD + 1, ~0u, 0);
	setsid();
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
}

static _Noreturn void serve(struct door *door, const char *name, const char *socket, pid_t broker,
			    int told)
{
	char place[PATH_BYTES] = "";
	int listener = -1;
	int32_t error = 0;

	leave_all_but(&told);
	for (unsigned n = 0; n < LINES; n++)
		door->line[n].fd = -1;
	if (*socket)
		listener = listen_for(socket, place);
	error = *socket && listener < 0 ? listener
					: machine_add(door, name, "", broker, listener, place);
	if (write(told, &error, sizeof(error)) != sizeof(error) || error)
		_exit(EXIT_FAULT);
	close(told);
	while (any_lives(door) || door->making.pid)
		turn(door);
	_exit(0);
}

/* Once it is there, so that the guest finds it from its first instruction on. */
int fork_door_begin(const char *name, const char *socket, struct fork_door_limits limits,
		    pid_t broker)
{
	struct door *door = calloc(1, sizeof(*door));
	int32_t error = -ECHILD;
	int told[2];
	pid_t pid;

	if (!door)
		return -ENOMEM;
	door->limits = limits;
	if (pipe2(told, O_CLOEXEC)) {
		free(door);
		return -errno;
	}
	pid = fork();
	if (!pid)
		serve(door, name, socket, broker, told[1]);
	close(told[1]);
	if (pid < 0)
		error = -errno;
	else if (read(told[0], &error, sizeof(error)) != sizeof(error))
		error = -ECHILD;
	close(told[0]);
	free(door);
	return error;
}
