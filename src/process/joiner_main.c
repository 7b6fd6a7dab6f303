/*
 * The joiner's main: joins one port of a machine to the user's hub, which it starts where there is
 * none, and joins it again when that has ended while the machine goes on. It keeps a list of calls,
 * and of the user's files his rules, which the hub has not: so it brings the hub these whenever
 * they change, and a connection to his agent. It maps nothing that a guest or the hub can write,
 * but for two words that it only writes.
 *
 *   hub -- WIRE_WINDOW {window} -> joiner -- line of the machine's -> machine (ipc/port_window.h)
 *
 * It makes windows, for the hub to give them to two machines, and takes all bytes out of those that
 * the hub has taken from them: the hub itself may do neither.
 *
 *   - Each joining has a number, `generation` (ipc/share_port.h): it is another one before the hub
 *     is told of the port.
 *   - A hub that ends again soon is joined again later, and later each time.
 *   - Rules that cannot be read are none: then nothing is allowed.
 *   - When it ends another one goes on (standby.h). A machine whose joiner is another one than
 *     before has no window but its own: it is told so first.
 *   - A window that was taken is ended by the hub, or after OLD_WINDOW_MS where that is gone.
 *   - A hub that does not answer ends it: who goes on sees whether the machine is there still.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "ipc/port_window.h"
#include "ipc/share_port.h"
#include "ipc/spawn.h"
#include "mains.h"
#include "meeting.h"
#include "plan.h"
#include "report.h"
#include "sanitized.h"
#include "share/hub_line.h"
#include "share/rules.h"
#include "standby.h"

enum {
	FIRST_DELAY_MS = 20,
	MOST_DELAY_MS = 5000,
	LONG_LIFE_S = 10,
	JOINING_MOST_S = 30,
	TELLING_BYTES = 4096,
	OLD_WINDOW_MS = 10000 /* as long as a hub waits for a machine to let go of a window */
};

struct joiner {
	const struct share_choice *choice;
	uint32_t *generation, *window_wanted;
	uint32_t count, window_number;
	int delay_ms, changes; /* inotify; -1: there is no folder for rules */
	/* what the machine has; and had before, until the hub should have ended it. -1: none */
	int window[SHARE_PARTS], old_window[SHARE_PARTS];
	int64_t old_until_ms;
	struct grants grants;
	struct standby standby;
};

static void wake_machine(void)
{
	ssize_t written = write(grant_fd(GRANT_PORT_ANSWER), &(uint64_t){ 1 }, 8);

	(void)written; /* a counter that is full wakes, too */
}

static void tell_machine(struct joiner *joiner)
{
	__atomic_store_n(joiner->generation, ++joiner->count, __ATOMIC_RELEASE);
	wake_machine();
}

/* ---- rules and agent ---- */

/* Of the folder: an editor replaces the file. */
static int watch_rules(const char *path)
{
	char folder[PLAN_PATH_BYTES];
	const char *end = strrchr(path, '/');
	int changes = end ? inotify_init1(IN_CLOEXEC | IN_NONBLOCK) : -1;

	if (changes < 0)
		return -1;
	memcpy(folder, path, (size_t)(end - path));
	folder[end - path] = 0;
	if (inotify_add_watch(changes, folder, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE) >= 0)
		return changes;
	close(changes);
	return -1;
}

static int connect_agent(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strncpy(at.sun_path, path, sizeof(at.sun_path) - 1);
	if (fd >= 0 && !connect(fd, (const struct sockaddr *)&at, sizeof(at)))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static int read_rules(int file, struct rules *ret)
{
	static char text[RULES_FILE_BYTES];
	ssize_t bytes = file < 0 ? 0 : pread(file, text, sizeof(text), 0);

	rules_parse(ret, text, bytes < 0 ? 0 : (size_t)bytes);
	return ret->agent[0] ? 0 : -ENOENT;
}

/* The hub's: 0, or -errno of the line. */
static int bring_agent(int line, const struct rules *rules)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_AGENT };
	int agent = connect_agent(rules->agent);
	int error = agent < 0 ? 0 : line_send(line, &message, &agent, 1);

	if (agent >= 0)
		close(agent);
	return error;
}

static int bring_rules(const struct joiner *joiner, int line, bool with_rules)
{
	static struct rules rules;
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_RULES };
	int file = open(joiner->choice->rules, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int error = with_rules ? line_send(line, &message, &file, file >= 0) : 0;

	if (!error && !read_rules(file, &rules))
		error = bring_agent(line, &rules);
	if (file >= 0)
		close(file);
	return error;
}

static void close_all(const int fds[WIRE_FDS])
{
	for (unsigned n = 0; n < WIRE_FDS; n++)
		if (fds[n] >= 0)
			close(fds[n]);
}

/* ---- windows ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whoever has it mapped has nothing; what is no window is left alone: its size is sealed. */
static void end_window(int window[SHARE_PARTS])
{
	for (unsigned n = 0; n < SHARE_PARTS; n++) {
		if (window[n] < 0)
			continue;
		if (ftruncate(window[n], 0))
			errno = 0;
		close(window[n]);
		window[n] = -1;
	}
}

/* fd -1: none. A machine that does not read loses what is sent. */
static void send_to_machine(const struct window_word *word, int fd)
{
	union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int))]; } control = {
		.bytes = { 0 }
	};
	struct iovec part = { .iov_base = (void *)(uintptr_t)word, .iov_len = sizeof(*word) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t sent;

	if (fd >= 0) {
		head.msg_control = &control;
		head.msg_controllen = sizeof(control);
		control.head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS,
						 .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	sent = sendmsg(grant_fd(GRANT_WINDOW_LINE), &head, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)sent;
}

/*
 * What the other side lends to be read is opened anew, for reading: no call makes a mapping of that
 * one that can be written.
 */
static int open_to_read(int fd)
{
	char path[sizeof("/proc/self/fd/") + 12];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* All parts or, where that cannot be had, nothing: then the machine has none, and says none. */
static void send_parts(const int window[SHARE_PARTS], uint32_t side, uint32_t number)
{
	const bool serves = side == SHARE_SIDE_SERVES;
	struct window_word word = { .number = number,
				    .parts = window[SHARE_PART_SERVES] < 0 ? 1 : SHARE_PARTS };
	const int own = window[serves ? SHARE_PART_SERVES : SHARE_PART_BINDS];
	const int others = window[serves ? SHARE_PART_BINDS : SHARE_PART_SERVES];
	const int read = word.parts == 1 ? -1 : open_to_read(others);
	const int fds[WINDOW_PARTS] = { [WINDOW_BOTH] = window[SHARE_PART_BOTH],
					[WINDOW_OWN] = own,
					[WINDOW_OTHERS] = read };

	for (; word.part < word.parts && (word.parts == 1 || read >= 0); word.part++)
		send_to_machine(&word, fds[word.part]);
	if (read >= 0)
		close(read);
}

/* The machine's: NULL: one of its own. */
static void give_window(struct joiner *joiner, const int *window, uint32_t number)
{
	const struct window_word none = { .number = number };

	if (window)
		send_parts(window, joiner->choice->join.side, number);
	else
		send_to_machine(&none, -1);
	joiner->window_number = number;
	__atomic_store_n(joiner->window_wanted, number, __ATOMIC_RELEASE);
	wake_machine();
}

/*
 * Which a hub that is gone may not have come to: but neither this machine nor the other one loses
 * what it has there yet before it has had the time to let go of it.
 */
static void end_old_window(struct joiner *joiner)
{
	if (joiner->old_window[0] >= 0 && now_ms() >= joiner->old_until_ms)
		end_window(joiner->old_window);
}

/* How long nothing has to be done by itself; -1: for ever. */
static int rest_ms(const struct joiner *joiner)
{
	const int64_t left = joiner->old_until_ms - now_ms();

	if (joiner->old_window[0] < 0)
		return -1;
	return left > 0 ? (int)left : 0;
}

/* What the hub sends is checked for being one, and kept for the next hub. */
static bool is_part(int fd, unsigned part)
{
	struct stat st;

	return fcntl(fd, F_GET_SEALS) >= 0 && !fstat(fd, &st) &&
	       st.st_size == (off_t)share_part_bytes(part);
}

/* All parts, the first one, or none. */
static bool is_window(const int fds[SHARE_PARTS])
{
	for (unsigned n = 0; n < SHARE_PARTS; n++)
		if (fds[n] >= 0 && !is_part(fds[n], n))
			return false;
	return (fds[0] >= 0 || fds[1] < 0) && (fds[1] < 0) == (fds[2] < 0);
}

static int take_window(struct joiner *joiner, int fds[SHARE_PARTS], uint32_t number)
{
	if (!is_window(fds))
		return -EBADMSG;
	if (joiner->window[0] >= 0) {
		end_window(joiner->old_window);
		memcpy(joiner->old_window, joiner->window, sizeof(joiner->window));
		joiner->old_until_ms = now_ms() + OLD_WINDOW_MS;
	}
	for (unsigned n = 0; n < SHARE_PARTS; n++) {
		joiner->window[n] = fds[n];
		fds[n] = -1;
	}
	give_window(joiner, joiner->window[0] < 0 ? NULL : joiner->window, number);
	return 0;
}

/*
 * Not one that nobody can make shorter: it is ended so. What is to be read only the hub will seal.
 * -1: the host has no room.
 */
static int make_part(unsigned part)
{
	const int seals = part == SHARE_PART_BOTH ? F_SEAL_SEAL | F_SEAL_GROW : F_SEAL_GROW;
	int fd = memfd_create("umbra-window", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && (ftruncate(fd, (off_t)share_part_bytes(part)) ||
			fcntl(fd, F_ADD_SEALS, seals))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int bring_window(int line, unsigned parts)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_WINDOW };
	int window[SHARE_PARTS] = { -1, -1, -1 };
	unsigned made = 0;
	int error = 0;

	parts = parts == SHARE_PARTS ? SHARE_PARTS : 1;
	while (made < parts && (window[made] = make_part(made)) >= 0)
		made++;
	if (made == parts)
		error = line_send(line, &message, window, parts);
	while (made)
		close(window[--made]);
	return error;
}

/* ---- joining ---- */

/* A line to the hub, which is started where there is none. -errno. */
static int reach_hub(const struct joiner *joiner)
{
	int line = line_connect(joiner->choice->hub);

	if (line != -ENOENT && line != -ECONNREFUSED)
		return line;
	line = meeting_start(joiner->choice->hub, ROLE_HUB, grant_fd(GRANT_PROGRAM));
	return line ? line : line_connect(joiner->choice->hub);
}

static int ask_to_join(struct joiner *joiner, int line)
{
	const int fds[WIRE_FDS] = { grant_fd(GRANT_PORT), grant_fd(GRANT_PORT_BELL),
				    grant_fd(GRANT_PORT_ANSWER), joiner->window[0],
				    joiner->window[1], joiner->window[2] };
	struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_JOIN,
					.join = joiner->choice->join };
	unsigned count = WIRE_JOIN_FDS;
	int none[WIRE_FDS];
	int error;

	while (count < WIRE_FDS && fds[count] >= 0)
		count++;
	message.join.window_number = joiner->window_number;
	message.join.least = WIRE_VERSION_LEAST;
	message.join.most = WIRE_VERSION;
	error = line_send(line, &message, fds, count);
	if (!error)
		error = line_receive(line, &message, none, true);
	if (error < 0)
		return error;
	close_all(none);
	if (message.kind != WIRE_JOINED)
		return -EBADMSG;
	return message.version ? (int)message.version : -EPROTONOSUPPORT;
}

/* Its place is the port's for a while when this process ends, and its machine does not. */
static int ask_to_hold(int line)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_HOLD };
	const int end = grant_fd(GRANT_END);

	return line_send(line, &message, &end, 1);
}

/* The line, once the hub has the port; -errno. */
static int join_once(struct joiner *joiner)
{
	int line = reach_hub(joiner);
	int error;

	if (line < 0)
		return line;
	error = bring_rules(joiner, line, true);
	if (!error) {
		tell_machine(joiner);
		error = ask_to_join(joiner, line);
	}
	if (error >= WIRE_VERSION_HOLDS)
		error = ask_to_hold(line);
	if (error >= 0)
		return line;
	close(line);
	return error;
}

/* A hub that ends just then has taken the line and nothing else: the next has the port. */
static int join(struct joiner *joiner)
{
	int line;

	alarm(JOINING_MOST_S);
	line = join_once(joiner);
	if (line == -EPIPE || line == -ECONNRESET)
		line = join_once(joiner);
	alarm(0);
	return line;
}

/* ---- its life ---- */

static int take_changes(const struct joiner *joiner, int line)
{
	_Alignas(struct inotify_event) char events[TELLING_BYTES];

	while (read(joiner->changes, events, sizeof(events)) > 0)
		;
	return bring_rules(joiner, line, true);
}

/* fds: what has come with it; -1: taken. 0, or -errno: the hub is of no use. */
static int take_message(struct joiner *joiner, int line, const struct wire_message *message,
			int fds[WIRE_FDS])
{
	switch (message->kind) {
	case WIRE_AGENT: return bring_rules(joiner, line, false); /* it has lost its agent */
	case WIRE_WANT: return bring_window(line, message->number);
	case WIRE_WINDOW: return take_window(joiner, fds, message->number);
	case WIRE_END: end_window(fds); return 0;
	default: return -EBADMSG;
	}
}

static int take_word(struct joiner *joiner, int line)
{
	struct wire_message message;
	int fds[WIRE_FDS];
	int got = line_receive(line, &message, fds, false);

	if (got > 0)
		got = take_message(joiner, line, &message, fds);
	close_all(fds);
	return got;
}

/* Until the machine is gone (true), or the hub. */
static bool stay(struct joiner *joiner, int line)
{
	int error = 0;

	while (!error) {
		struct pollfd polls[] = { { .fd = grant_fd(GRANT_END), .events = POLLIN },
					  { .fd = line, .events = POLLIN },
					  { .fd = joiner->changes, .events = POLLIN },
					  { .fd = joiner->standby.pidfd, .events = POLLIN } };

		if (poll(polls, 4, rest_ms(joiner)) < 0)
			continue;
		end_old_window(joiner);
		if (polls[3].revents)
			standby_keep(&joiner->standby);
		if (polls[0].revents)
			return true;
		if (polls[1].revents)
			error = take_word(joiner, line);
		if (!error && polls[2].revents)
			error = take_changes(joiner, line);
	}
	return false;
}

/* True: the machine is gone. */
static bool wait_ms(int timeout_ms)
{
	struct pollfd end = { .fd = grant_fd(GRANT_END), .events = POLLIN };

	while (poll(&end, 1, timeout_ms) < 0 && errno == EINTR)
		;
	return end.revents;
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void choose_delay(struct joiner *joiner, time_t lived_s)
{
	if (lived_s >= LONG_LIFE_S)
		joiner->delay_ms = FIRST_DELAY_MS;
	else if (joiner->delay_ms < MOST_DELAY_MS)
		joiner->delay_ms *= 2;
	assert(joiner->delay_ms >= FIRST_DELAY_MS && joiner->delay_ms < 2 * MOST_DELAY_MS);
}

static int complain_of_hub(const struct joiner *joiner, int error)
{
	if (error == -EPROTONOSUPPORT)
		return complain(EXIT_UNUSABLE, "the hub that runs is of another version",
				joiner->choice->join.instance, "end the machines that use it");
	return complain(EXIT_FAULT, strerror(-error), "joining the hub", "see umbra doctor");
}

/* It has told that it serves. */
static bool tell_ready(struct joiner *joiner)
{
	if (joiner->grants.fd[GRANT_READY] < 0)
		return true;
	if (write(grant_fd(GRANT_READY), "1", 1) != 1)
		return false;
	close(grant_fd(GRANT_READY));
	joiner->grants.fd[GRANT_READY] = -1;
	return true;
}

/* The exit code: not 0 where it could not begin. */
static int keep_joined(struct joiner *joiner)
{
	bool machine_is_gone = false;

	for (bool is_first = joiner->grants.fd[GRANT_READY] >= 0; !machine_is_gone;
	     is_first = false) {
		const time_t begun_s = now_s();
		int line = join(joiner);

		if (line < 0 && is_first)
			return complain_of_hub(joiner, line);
		if (!tell_ready(joiner))
			return EXIT_FAULT;
		standby_keep(&joiner->standby);
		if (line >= 0) {
			machine_is_gone = stay(joiner, line);
			close(line);
		}
		if (machine_is_gone)
			break;
		tell_machine(joiner);
		machine_is_gone = wait_ms(joiner->delay_ms);
		end_old_window(joiner);
		choose_delay(joiner, now_s() - begun_s);
	}
	return 0;
}

/* Of the user's files it keeps those beside his rules, and where the hub listens. */
static int give_up_rights(const struct share_choice *choice)
{
	struct lockdown_file files[2];
	unsigned count = 0;
	int error;

	for (unsigned n = 0; n < 2; n++) {
		files[count].access = n ? LOCKDOWN_READ_BENEATH : LOCKDOWN_MEET;
		files[count].fd = meeting_folder(n ? choice->rules : choice->hub);
		count += files[count].fd >= 0;
	}
	error = lockdown_to_start(ROLE_JOINER, ROLE_HUB, true, files, count);
	while (count)
		close(files[--count].fd);
	return error;
}

int joiner_main(void)
{
	struct joiner joiner = { .delay_ms = FIRST_DELAY_MS, .window = { -1, -1, -1 },
				 .old_window = { -1, -1, -1 } };
	struct share_memory *memory = mmap(NULL, SLOT_PAGE_BYTES, PROT_READ | PROT_WRITE,
					   MAP_SHARED, grant_fd(GRANT_PORT), 0);
	const struct plan *plan = plan_of_process();
	int error = 0;

	if (plan && plan->shares.count && !SANITIZED)
		error = give_up_rights(&plan->shares.port[plan->shares.mine]);
	grants_of_process(&joiner.grants);
	joiner.standby = (struct standby){ .role = ROLE_JOINER, .plan = plan,
					   .grants = &joiner.grants, .pidfd = -1 };
	if (!plan || !plan->shares.count || memory == MAP_FAILED)
		return complain(EXIT_USAGE, "it has no plan", "the joiner",
				"use umbra run: it starts the processes of a machine");
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "the joiner", "see umbra doctor");
	joiner.choice = &plan->shares.port[plan->shares.mine];
	joiner.generation = &memory->generation;
	joiner.window_wanted = &memory->window_wanted;
	/* what another joiner has said before, if there was one, is said anew */
	joiner.count = __atomic_load_n(joiner.generation, __ATOMIC_RELAXED);
	give_window(&joiner, NULL, __atomic_load_n(joiner.window_wanted, __ATOMIC_RELAXED) + 1);
	joiner.changes = watch_rules(joiner.choice->rules);
	return keep_joined(&joiner);
}
