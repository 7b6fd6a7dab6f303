/*
 * Several children of one moment. NAME's broker has one process forked, which stands and never
 * runs; of that this process is the broker, and has its forker make the children, one after the
 * other, while NAME goes on.
 *
 *    NAME's broker      this process          who stands, its forker        a child, its broker
 *    fork, one kit <--  what NAME is to do
 *    pid, pidfd -->
 *                       next kit, a byte  ->  fork(2) ------------------->  takes its kit
 *                       pid  <--------------  (credentials)                 copies code
 *                       an event  ----------------------------------------  runs once it is told
 *                       a byte  <-----------------------------------------  needs nothing more
 *                       forks  ------------------------------------------>  adopts it
 *
 *   - There are no more than two kits at a time: the next is made while a child begins.
 *   - Who stands is taken for lost, as every machine process: what is heard of him is who the
 *     kernel says that somebody is, and one byte.
 *   - A child runs once this process has a descriptor of it: its number is waited for by whoever is
 *     its parent, and would be another's after its end.
 *   - Nobody is waited for without end: what says nothing for MOST_MS is taken for lost, and ends.
 *   - He is ended here; otherwise he ends with his forker, and that with this process.
 *   - When no child comes of it NAME goes on, whatever it was to do.
 */
#include "fork_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"
#include "ipc/lockdown.h"
#include "ipc/spawn.h"

enum { MOST_MS = 30000 };

struct standing {
	struct child_kit kit;
	struct child process;
	pid_t forker;
};

/* What NAME does while who stands is made. */
static const char *parent_until_then(const struct fork_command *command)
{
	return strcmp(command->parent, "end") ? command->parent : "hold";
}

/* Whoever speaks on its kit's socket; -errno: it is gone, or silent. */
static pid_t wait_for_word(const struct standing *standing)
{
	struct pollfd fds[] = { { .fd = standing->kit.kit, .events = POLLIN },
				{ .fd = standing->process.pidfd, .events = POLLIN } };
	pid_t who = -EAGAIN;

	while (who == -EAGAIN) {
		const int ready = poll(fds, 2, MOST_MS);

		if (ready < 0 && errno != EINTR)
			return -errno;
		if (!ready)
			return -ETIMEDOUT;
		who = forker_hear(standing->kit.kit);
		if (who == -EAGAIN && fds[1].revents)
			return -ECHILD;
	}
	return who;
}

/* The first who speaks is his forker. 0, *ret_error or the exit code. */
static int stand(struct fork_command *command, struct standing *standing, int *ret_error)
{
	int code = fork_kit_make_still(command, FORKED_TO_STAND, &standing->kit);

	if (!code)
		*ret_error = fork_send(command, &standing->kit, parent_until_then(command));
	if (!code && !*ret_error)
		*ret_error = fork_take(command, &standing->process);
	if (code || *ret_error)
		return code;
	standing->forker = wait_for_word(standing);
	if (standing->forker < 0)
		*ret_error = standing->forker;
	return 0;
}

static int ask_for(const struct standing *standing, struct child_kit *kit)
{
	int fd[GRANTS];
	int error;

	fork_kit_grants(kit->fd, kit->nets.plan.count, kit->ports.count, fd);
	error = forker_ask(standing->kit.ask, standing->kit.kit, fd);
	fork_kit_sent(kit);
	return error;
}

/* That it needs nothing of who stands any more. 0 or -errno. */
static int hear_ready(int line)
{
	struct pollfd ready = { .fd = line, .events = POLLIN };
	uint8_t byte;
	int count;

	do
		count = poll(&ready, 1, MOST_MS);
	while (count < 0 && errno == EINTR);
	if (count <= 0)
		return count ? -errno : -ETIMEDOUT;
	return read(line, &byte, 1) == 1 ? 0 : -ECHILD;
}

/* Once it needs nothing of who stands any more. 0 or -errno. */
static int take(const struct standing *standing, const struct child_kit *kit, struct child *child)
{
	const pid_t who = wait_for_word(standing);
	const uint64_t go = 1;

	if (who < 0)
		return who;
	if (who == standing->forker)
		return -EAGAIN;
	child->pid = who;
	child->pidfd = (int)syscall(SYS_pidfd_open, who, 0);
	if (child->pidfd < 0)
		return errno == ESRCH ? -ECHILD : -errno;
	if (write(kit->fd[KIT_TO_MACHINE], &go, sizeof(go)) != sizeof(go))
		return -errno;
	return hear_ready(kit->fd[KIT_READY_HERE]);
}

/* The kit of the n-th child, if there is one. 0 or the exit code. */
static int make_kit(struct fork_command *command, unsigned n, struct child_kit kits[2])
{
	return n < command->count ? fork_child_make_kit(command, &command->child[n],
							FORKED_TO_RUN_WHEN_TOLD, &kits[n % 2])
				  : 0;
}

static int make_children(struct fork_command *command, const struct standing *standing,
			 unsigned *ret_made, int *ret_error)
{
	struct brokers_start start;
	struct child_kit kits[2];
	int code = brokers_begin(&start);
	int failed;

	if (code)
		return code;
	code = make_kit(command, 0, kits);
	start.room = lockdown_make_room(ROLE_BROKER, &start.room_line);
	for (unsigned n = 0; n < command->count && !code; n++) {
		struct child_kit *kit = &kits[n % 2];
		int next;

		*ret_error = ask_for(standing, kit);
		next = make_kit(command, n + 1, kits);
		if (!*ret_error)
			*ret_error = take(standing, kit, &command->child[n]);
		if (*ret_error) {
			fork_child_end(&command->child[n]);
			break;
		}
		code = fork_child_start_broker(command, &command->child[n], kit, &start);
		*ret_made += !code;
		fork_kit_close(kit);
		code = code ? code : next;
	}
	failed = brokers_end(&start, command);
	return code ? code : failed;
}

/* What NAME is to do when there are children. */
static int settle_parent(const struct fork_command *command, unsigned made)
{
	if (!strcmp(command->parent, "end"))
		return fork_ask(command, made ? "kill" : "resume");
	if (!strcmp(command->parent, "suspend") && !made)
		return fork_ask(command, "resume");
	return 0;
}

int fork_many(struct fork_command *command, unsigned *ret_made, int *ret_error)
{
	struct standing standing = { .process.pidfd = -1 };
	int error;
	int code = stand(command, &standing, ret_error);

	if (code || *ret_error) {
		fork_child_end(&standing.process);
		return code;
	}
	code = fork_disks_freeze(&command->disks);
	if (!code)
		code = make_children(command, &standing, ret_made, ret_error);
	error = settle_parent(command, *ret_made);
	if (!*ret_error)
		*ret_error = error;
	fork_child_end(&standing.process);
	fork_kit_close(&standing.kit);
	close(standing.process.pidfd);
	return code;
}
