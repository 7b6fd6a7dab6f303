/*
 * The broker's part of forks, with machine processes that lie and askers that go away. The test
 * plays the forker, what it forks, and the disk process.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "control/machine_control.h"
#include "ipc/forker.h"
#include "process/layer.h"

enum { LINE_BYTES = 1024, QUIET_MS = 300, WAIT_MS = 60000 };

static int failures;
static struct sockaddr_un address;
static int ask_sockets[2], kit_sockets[2], layers[2];

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

/* ---- machines ---- */

static int32_t told; /* what it says when it shall stand still */

static int says_it_stands(struct client *client)
{
	static uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind, bytes;
	uint64_t count;

	while (read(client->event_in, &count, 8) == 8)
		while (ring_get(&client->from_broker, &kind, data, &bytes) > 0)
			if (kind == RECORD_FORK)
				ring_put(&client->to_broker, RECORD_FORK_READY, &told,
					 sizeof(told));
	return 1;
}

static int wish_ends[2]; /* what it hears of its wish */

/* It wishes to be forked when it is told of its memory. */
static int wishes_and_stands(struct client *client)
{
	static uint8_t data[RING_RECORD_MAX_BYTES];
	const uint32_t wanted = 1;
	uint32_t kind, bytes;
	uint64_t count;

	while (read(client->event_in, &count, 8) == 8)
		while (ring_get(&client->from_broker, &kind, data, &bytes) > 0)
			if (kind == RECORD_MEMORY)
				ring_put(&client->to_broker, RECORD_WANT_FORK, &wanted,
					 sizeof(wanted));
			else if (kind == RECORD_FORK)
				ring_put(&client->to_broker, RECORD_FORK_READY, &told,
					 sizeof(told));
			else if (kind == RECORD_FORK_ENDED &&
				 write(wish_ends[1], data, bytes) != (ssize_t)bytes)
				return 1;
	return 1;
}

static int is_deaf[2], may_hear[2];

/* There is no room for what it could be told, until the test says so. */
static int hears_nothing_yet(struct client *client)
{
	char byte;

	client->memory->to_machine.tail = client->memory->to_machine.head - RING_BYTES;
	if (write(is_deaf[1], "", 1) != 1 || read(may_hear[0], &byte, 1) != 1)
		return 1;
	client->memory->to_machine.tail = client->memory->to_machine.head;
	return says_it_stands(client);
}

static int heard[2], may_stand[2]; /* kinds of records; a byte: it says that it stands */
static bool stands_late, is_never_saved;

/* It says what it hears, and is saved at once. */
static int says_what_it_hears(struct client *client)
{
	static uint8_t data[RING_RECORD_MAX_BYTES];
	const int32_t saved = 0;
	uint32_t kind, bytes;
	uint64_t count;
	char byte;

	while (read(client->event_in, &count, 8) == 8)
		while (ring_get(&client->from_broker, &kind, data, &bytes) > 0) {
			if (write(heard[1], &kind, sizeof(kind)) != sizeof(kind))
				return 1;
			if (kind == RECORD_SAVE && !is_never_saved)
				ring_put(&client->to_broker, RECORD_SAVE_ENDED, &saved,
					 sizeof(saved));
			if (kind != RECORD_FORK)
				continue;
			if (stands_late && read(may_stand[0], &byte, 1) != 1)
				return 1;
			ring_put(&client->to_broker, RECORD_FORK_READY, &told, sizeof(told));
		}
	return 1;
}

static bool it_hears(uint32_t want)
{
	struct pollfd comes = { .fd = heard[0], .events = POLLIN };
	uint32_t kind = 0;

	return poll(&comes, 1, WAIT_MS) == 1 &&
	       read(heard[0], &kind, sizeof(kind)) == sizeof(kind) && kind == want;
}

/* Perhaps before what was forked of it has copied all. */
static bool it_is_resumed(void)
{
	struct pollfd comes = { .fd = heard[0], .events = POLLIN };
	uint32_t kind = 0;

	if (poll(&comes, 1, WAIT_MS) != 1 || read(heard[0], &kind, sizeof(kind)) != sizeof(kind))
		return false;
	return kind == RECORD_RESUME || (kind == RECORD_GO_ON && it_hears(RECORD_RESUME));
}

static bool it_hears_nothing(void)
{
	struct pollfd comes = { .fd = heard[0], .events = POLLIN };

	return poll(&comes, 1, QUIET_MS) == 0;
}

/* ---- a broker in a process of its own ---- */

/* The disk process's last word comes when the machine is gone. */
static int settles_at_the_end(const struct helper_ends *ends)
{
	const struct layer_answer settled = { .news = LAYER_SETTLED };
	char byte;

	if (write(ends->ready_fd, "", 1) != 1 || read(ends->end_fd, &byte, 1))
		return 1;
	return write(layers[1], &settled, sizeof(settled)) != sizeof(settled);
}

static bool door_comes;
static unsigned answer_ms; /* as long as an answer may take */
static unsigned step_ms; /* 0: as long as it may take */
static unsigned door_ms; /* 0: it is waited for as long as it may take */
static int (*machine_runs)(struct client *);
static int has_begun[2];

static int machine_begins(struct client *client)
{
	return write(has_begun[1], "", 1) == 1 ? machine_runs(client) : 1;
}

/* Behind the grants and the helpers, whose numbers the broker takes. */
static void make_high_pipe(int ret[2])
{
	enum { HIGH_FD = 400 };
	int low[2];

	if (pipe(low))
		exit(2);
	for (unsigned n = 0; n < 2; n++) {
		ret[n] = fcntl(low[n], F_DUPFD, HIGH_FD);
		close(low[n]);
	}
}

/*
 * Until there is a machine process: it is a copy here, and would keep what a peer has brought
 * before, where one of the product executes its program and has its grants alone.
 */
static pid_t start(int (*machine)(struct client *), int32_t stands)
{
	struct harness harness = { .machine = machine_begins, .console_fd = -1, .description = "" };
	static struct broker_end end;
	char byte;
	pid_t pid;

	told = stands;
	machine_runs = machine;
	unlink(address.sun_path);
	harness.control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (harness.control_fd < 0 ||
	    bind(harness.control_fd, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(harness.control_fd, 4) || forker_make_sockets(ask_sockets, kit_sockets) ||
	    layer_make_socket(layers))
		exit(2);
	pid = fork();
	if (!pid) {
		harness.helper = settles_at_the_end;
		harness.fork_ask_fd = ask_sockets[0];
		harness.fork_kit_fd = kit_sockets[0];
		harness.layers_fd = layers[0];
		harness.door_comes = door_comes;
		harness.door_ms = door_ms;
		harness.fork_step_ms = step_ms;
		harness.answer_ms = answer_ms;
		_exit(harness_run(&harness, &end) ? 99 : (int)end.outcome);
	}
	close(harness.control_fd);
	close(ask_sockets[0]);
	close(kit_sockets[0]);
	close(layers[0]);
	expect("the forker begins", write(kit_sockets[1], "", 1) == 1);
	expect("the machine begins", read(has_begun[0], &byte, 1) == 1);
	return pid;
}

static void finish(const char *what, pid_t broker, enum broker_outcome outcome)
{
	int status = 0;

	waitpid(broker, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != (int)outcome)
		printf("     status %#x\n", (unsigned)status);
	expect(what, WIFEXITED(status) && WEXITSTATUS(status) == (int)outcome);
	close(ask_sockets[1]);
	close(kit_sockets[1]);
	close(layers[1]);
}

/* ---- who asks ---- */

static FILE *connect_to(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		exit(2);
	return fdopen(fd, "r");
}

static void ask_with(FILE *peer, const char *line, const int *fds, unsigned count)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(KIT_FDS * sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(count * sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec vector = { .iov_base = (void *)(uintptr_t)line, .iov_len = strlen(line) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	if (count) {
		message.msg_control = &ancillary;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		memcpy(CMSG_DATA(&ancillary.head), fds, count * sizeof(int));
	}
	if (sendmsg(fileno(peer), &message, MSG_NOSIGNAL) < 0)
		printf("     %s", line);
}

static bool hears(FILE *peer, const char *want)
{
	char line[LINE_BYTES] = "";
	bool good = fgets(line, sizeof(line), peer) && strstr(line, want);

	if (!good)
		printf("     '%s', not '%s'\n", line, want);
	return good;
}

static bool answers(FILE *peer, const char *verb, const char *want)
{
	char line[LINE_BYTES];

	snprintf(line, sizeof(line), "{\"do\":\"%s\"}\n", verb);
	ask_with(peer, line, NULL, 0);
	return hears(peer, want);
}

/* Its own end of a pipe of which the broker has got the other: gone when nobody else has that. */
static bool is_closed(int fd)
{
	struct pollfd end = { .fd = fd, .events = POLLIN };
	bool closed = poll(&end, 1, WAIT_MS) == 1 && end.revents & POLLHUP;

	close(fd);
	return closed;
}

/* The writing end of what tells that it is ready; *held: as is_closed() takes it, of another. */
static int bring_kit(FILE *peer, int *held)
{
	int fds[KIT_FDS], ready[2], holding[2];

	if (pipe2(ready, O_CLOEXEC) || pipe2(holding, O_CLOEXEC))
		exit(2);
	for (unsigned n = 0; n < KIT_FDS; n++)
		fds[n] = holding[1];
	fds[KIT_READY] = ready[1];
	fds[KIT_READY_HERE] = ready[0];
	ask_with(peer, "{\"do\":\"kit\"}\n", fds, KIT_FDS);
	expect("a kit", hears(peer, "\"ok\":true"));
	close(ready[0]);
	close(holding[1]);
	*held = holding[0];
	return ready[1];
}

static int bring_layer(FILE *peer)
{
	int file[2];

	if (pipe2(file, O_CLOEXEC))
		exit(2);
	ask_with(peer, "{\"do\":\"layer\",\"disk\":0,\"file\":\"/layer\"}\n", &file[1], 1);
	expect("a layer", hears(peer, "\"ok\":true"));
	close(file[1]);
	return file[0];
}

static void ask_fork(FILE *peer, const char *parent)
{
	char line[LINE_BYTES];

	snprintf(line, sizeof(line), "{\"do\":\"fork\",\"parent\":\"%s\"}\n", parent);
	ask_with(peer, line, NULL, 0);
}

static void kill_it(void)
{
	FILE *peer = connect_to();

	expect("kill", answers(peer, "kill", "\"ok\":true"));
	fclose(peer);
}

/* ---- the forker's and the disk process's side ---- */

static bool hears_layer(void)
{
	struct layer_ask ask;

	return read(layers[1], &ask, sizeof(ask)) == sizeof(ask);
}

static void put_layer_on(int32_t error)
{
	const struct layer_answer on = { .news = LAYER_ON, .error = error };

	expect("the disk process is asked",
	       hears_layer() && write(layers[1], &on, sizeof(on)) == sizeof(on));
}

/* What was forked: it says so, and no more. */
static pid_t fork_child_that_copies(void)
{
	pid_t child = fork();

	if (child)
		return child;
	if (write(kit_sockets[1], "", 1) == 1)
		pause();
	_exit(1);
}

/* It says so, and that it needs its parent no more. */
static pid_t fork_child(int ready)
{
	pid_t child = fork();

	if (child)
		return child;
	if (write(kit_sockets[1], "", 1) == 1 && write(ready, "", 1) == 1)
		pause();
	_exit(1);
}

static void end_child(pid_t child, int ready)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(ready);
}

/* ---- what is tested ---- */

static void lying_machines(void)
{
	static const int32_t lies[] = { 1, INT_MIN, -CONTROL_ERRNO_MAX - 1 };

	for (unsigned n = 0; n < sizeof(lies) / sizeof(lies[0]); n++) {
		pid_t broker = start(says_it_stands, lies[n]);
		FILE *peer = connect_to();
		int held;
		int ready = bring_kit(peer, &held);

		ask_fork(peer, "keep");
		finish("a machine that cannot stand, by no error", broker, BROKER_RUBBISH);
		fclose(peer);
		close(held);
		close(ready);
	}
}

static void lying_disk(void)
{
	pid_t broker = start(says_it_stands, 0);
	FILE *peer = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);
	pid_t child;
	char byte;

	ask_fork(peer, "keep");
	put_layer_on(INT_MIN);
	expect("the forker is asked meanwhile", read(ask_sockets[1], &byte, 1) == 1);
	child = fork_child(ready);
	expect("what a disk process says that is no error", hears(peer, "\"errno\":74"));
	kill_it();
	finish("the broker is not harmed", broker, BROKER_STOPPED);
	end_child(child, ready);
	fclose(peer);
	close(file);
	close(held);
}

/* Fewer children than were asked for are none; then those that there can be are brought again. */
static void too_many_kits(void)
{
	pid_t broker = start(says_it_stands, 0);
	FILE *peer = connect_to();
	static int held[FORK_CHILDREN + 1], ready[FORK_CHILDREN + 1];
	bool are_closed = true;
	int kept, last;
	char byte;

	for (unsigned n = 0; n <= FORK_CHILDREN; n++)
		ready[n] = bring_kit(peer, &held[n]);
	ask_fork(peer, "keep");
	expect("too many kits for one moment", hears(peer, "\"errno\":24"));
	for (unsigned n = 0; n <= FORK_CHILDREN; n++) {
		are_closed &= is_closed(held[n]);
		close(ready[n]);
	}
	expect("none of them is anybody's", are_closed);
	last = bring_kit(peer, &kept);
	ask_fork(peer, "keep");
	expect("one that comes afterwards is", read(ask_sockets[1], &byte, 1) == 1);
	kill_it();
	finish("more kits than a fork can have", broker, BROKER_STOPPED);
	fclose(peer);
	close(kept);
	close(last);
}

/* Its answer would come from the child, whose broker has not asked. */
static void while_it_freezes(void)
{
	pid_t broker = start(says_it_stands, 0);
	FILE *freezer = connect_to();
	FILE *peer = connect_to();
	int held;
	int ready = bring_kit(peer, &held);

	ask_with(freezer, "{\"do\":\"freeze\"}\n", NULL, 0);
	expect("a freeze that is not answered yet", answers(freezer, "info", "\"ok\":true"));
	ask_fork(peer, "keep");
	expect("no fork meanwhile", hears(peer, "\"errno\":16"));
	expect("the kit is nobody's", is_closed(held));
	kill_it();
	finish("a fork while the guest freezes", broker, BROKER_STOPPED);
	fclose(freezer);
	fclose(peer);
	close(ready);
}

/* Who may only advise holds nothing back from others. */
static void narrowing(void)
{
	pid_t broker = start(says_it_stands, 0);
	FILE *peer = connect_to();
	FILE *other = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);

	expect("narrow", answers(peer, "narrow", "\"ok\":true"));
	expect("the layer's file is nobody's", is_closed(file));
	expect("nor is the kit anybody's", is_closed(held));
	file = bring_layer(other);
	kill_it();
	finish("one that was narrowed with a layer", broker, BROKER_STOPPED);
	fclose(peer);
	fclose(other);
	close(file);
	close(ready);
}

static void refusal(void)
{
	pid_t broker = start(says_it_stands, -EBUSY);
	FILE *peer = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);

	ask_fork(peer, "keep");
	expect("a machine that refuses", hears(peer, "\"errno\":16"));
	expect("the layer's file is nobody's", is_closed(file));
	expect("nor is the kit anybody's", is_closed(held));
	kill_it();
	finish("a machine that was not forked", broker, BROKER_STOPPED);
	fclose(peer);
	close(ready);
}

/* Whoever has brought layers forks it, or hangs up. */
static void layers_of_another(void)
{
	pid_t broker = start(says_it_stands, 0);
	FILE *peer = connect_to();
	FILE *other = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(other);

	ask_fork(peer, "keep");
	expect("another has brought layers", hears(peer, "\"errno\":16"));
	expect("the kit is nobody's", is_closed(held));
	kill_it();
	finish("one with layers of another", broker, BROKER_STOPPED);
	fclose(peer);
	fclose(other);
	close(file);
	close(ready);
}

/* The number of the layer's file is another's meanwhile. */
static void hanging_up_at_layers(void)
{
	pid_t broker = start(says_it_stands, 0);
	FILE *peer = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);
	FILE *other;

	ask_fork(peer, "keep");
	expect("the disk process is asked", hears_layer());
	other = connect_to();
	expect("another is heard", answers(other, "info", "\"ok\":true"));
	fclose(peer);
	expect("who asked goes away, and the other is still heard",
	       answers(other, "info", "\"ok\":true") && answers(other, "info", "\"ok\":true"));
	expect("and can kill", answers(other, "kill", "\"ok\":true"));
	finish("an asker that goes away in between", broker, BROKER_STOPPED);
	fclose(other);
	close(file);
	close(held);
	close(ready);
}

/* Before the machine could be told. */
static void hanging_up_at_once(void)
{
	pid_t broker = start(hears_nothing_yet, 0);
	FILE *peer = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	FILE *other;
	char byte;

	expect("it hears nothing", read(is_deaf[0], &byte, 1) == 1);
	ask_fork(peer, "keep");
	other = connect_to();
	expect("it is to be forked", answers(other, "save", "\"errno\":16"));
	fclose(peer);
	expect("the kit is nobody's", is_closed(held));
	expect("it hears again", write(may_hear[1], "", 1) == 1);
	close(ready);
	ready = bring_kit(other, &held);
	ask_fork(other, "keep");
	expect("the next one may ask: its forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	kill_it();
	finish("an asker that goes away at once", broker, BROKER_STOPPED);
	fclose(other);
}

/* The first child is nobody's; the second is not made, and the parent is not ended. */
static void hanging_up_at_children(void)
{
	pid_t broker = start(says_it_stands, 0), child;
	FILE *peer = connect_to();
	FILE *other = connect_to();
	int held[2], ready[2];
	char byte;

	for (unsigned n = 0; n < 2; n++)
		ready[n] = bring_kit(peer, &held[n]);
	ask_fork(peer, "end");
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	fclose(peer);
	expect("another is heard", answers(other, "info", "\"ok\":true"));
	child = fork_child(ready[0]);
	expect("the second kit is nobody's", is_closed(held[1]));
	expect("the parent goes on", answers(other, "info", "\"ok\":true"));
	expect("and can be killed", answers(other, "kill", "\"ok\":true"));
	finish("an asker that does not take its child", broker, BROKER_STOPPED);
	end_child(child, ready[0]);
	fclose(other);
	close(held[0]);
	close(ready[1]);
}

/* Neither whoever asks nor its parent waits for a child that is lost. */
static void child_without_a_word(void)
{
	FILE *peer;
	pid_t broker, child;
	int held, ready;
	char byte;

	step_ms = 500;
	broker = start(says_it_stands, 0);
	step_ms = 0;
	peer = connect_to();
	ready = bring_kit(peer, &held);
	ask_fork(peer, "keep");
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	child = fork_child_that_copies();
	expect("a child that never says that it is ready", hears(peer, "\"errno\":110"));
	end_child(child, ready);
	close(held);
	ready = bring_kit(peer, &held);
	ask_fork(peer, "keep");
	expect("the forker is asked again", read(ask_sockets[1], &byte, 1) == 1);
	child = fork_child(ready);
	expect("a child that says so", hears(peer, "\"child\":0"));
	kill_it();
	finish("a child without a word", broker, BROKER_STOPPED);
	end_child(child, ready);
	fclose(peer);
	close(held);
}

static bool is_asked(void)
{
	struct pollfd asked = { .fd = ask_sockets[1], .events = POLLIN };

	return poll(&asked, 1, QUIET_MS) == 1;
}

/* Of a broker that waits for no step of a fork for long. */
static pid_t start_impatient(void)
{
	pid_t broker;

	step_ms = QUIET_MS;
	broker = start(says_what_it_hears, 0);
	step_ms = 0;
	return broker;
}

/* Until the forker is asked. What the child says READY by. */
static int ask_fork_with_layer(FILE *peer, int *ret_held, int *ret_file)
{
	const int ready = bring_kit(peer, ret_held);
	char byte;

	*ret_file = bring_layer(peer);
	ask_fork(peer, "keep");
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	return ready;
}

/* It is stopped, say: its machine goes on, and is not forked any more. What it makes later ends. */
static void forker_without_a_word(void)
{
	FILE *peer;
	pid_t broker;
	int held, ready;
	char byte;

	broker = start_impatient();
	peer = connect_to();
	ready = bring_kit(peer, &held);
	ask_fork(peer, "end");
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	expect("a forker that never says a word", hears(peer, "\"errno\":3"));
	expect("its machine goes on", it_hears(RECORD_FORK) && it_hears(RECORD_RESUME));
	close(held); /* is with the forker */
	close(ready);
	ready = bring_kit(peer, &held);
	ask_fork(peer, "keep");
	expect("it is not forked any more", hears(peer, "\"errno\":3"));
	expect("its kit is nobody's", is_closed(held));
	close(ready);
	expect("nor is the forker asked", !is_asked());
	expect("what it says now nobody hears", write(kit_sockets[1], "", 1) == 1);
	expect("it goes on again", it_hears(RECORD_FORK) && it_hears(RECORD_RESUME) &&
					   answers(peer, "info", "\"ok\":true"));
	kill_it();
	finish("a forker without a word", broker, BROKER_STOPPED);
	fclose(peer);
}

/* Who asks does not wait for it; it goes on once it stands, and then can be forked. */
static void machine_that_does_not_stand(void)
{
	FILE *peer, *other;
	pid_t broker;
	int held, ready, file;
	char byte;

	stands_late = true;
	broker = start_impatient();
	peer = connect_to();
	ready = bring_kit(peer, &held);
	file = bring_layer(peer);
	ask_fork(peer, "end");
	expect("a machine that does not stand", hears(peer, "\"errno\":110"));
	expect("the layer's file is nobody's", is_closed(file));
	expect("nor is the kit anybody's", is_closed(held));
	expect("nobody waits for layers", answers(peer, "info", "\"ok\":true"));
	expect("nor for registers", answers(peer, "registers", "\"errno\":16"));
	close(ready);
	other = connect_to();
	ready = bring_kit(other, &held);
	ask_fork(other, "keep");
	expect("it is still waited for", hears(other, "\"errno\":16"));
	expect("it stands at last", write(may_stand[1], "", 1) == 1);
	expect("and goes on", it_hears(RECORD_FORK) && it_hears(RECORD_RESUME));
	close(held);
	close(ready);
	ready = bring_kit(other, &held);
	ask_fork(other, "keep");
	expect("then it is forked", write(may_stand[1], "", 1) == 1 &&
					    read(ask_sockets[1], &byte, 1) == 1);
	stands_late = false;
	kill_it();
	finish("a machine that stood late", broker, BROKER_STOPPED);
	expect("it had heard so", it_hears(RECORD_FORK));
	fclose(peer);
	fclose(other);
	close(held);
	close(ready);
}

/* It can be looked at while it stands still, as nobody copies it any more. */
static void machine_that_stays_standing(void)
{
	pid_t broker = start(says_what_it_hears, 0);
	FILE *peer = connect_to();

	expect("it stands still", answers(peer, "pause", "\"children\":0") &&
					  it_hears(RECORD_FORK));
	ask_with(peer, "{\"do\":\"registers\"}\n", NULL, 0);
	expect("and is asked for registers", it_hears(RECORD_LOOK));
	kill_it();
	finish("a machine that stays standing", broker, BROKER_STOPPED);
	fclose(peer);
}

/* Nobody waits for its answers without end; another who asks the same does so for as long. */
static void machine_that_answers_nothing(void)
{
	static const struct {
		const char *line;
		uint32_t heard[2];
		const char *again;
	} asks[] = {
		{ "{\"do\":\"registers\"}\n", { RECORD_LOOK }, "\"errno\":110" },
		{ "{\"do\":\"type\",\"codes\":\"1e\"}\n", { RECORD_TYPE }, "\"errno\":16" },
		{ "{\"do\":\"freeze\"}\n", { RECORD_FREEZE, RECORD_THAW }, "\"errno\":16" },
		{ "{\"do\":\"save\"}\n", { RECORD_SAVE }, "\"errno\":16" },
	};

	for (size_t n = 0; n < sizeof(asks) / sizeof(asks[0]); n++) {
		pid_t broker;
		FILE *peer;

		answer_ms = QUIET_MS;
		is_never_saved = true;
		broker = start(says_what_it_hears, 0);
		is_never_saved = false;
		answer_ms = 0;
		peer = connect_to();
		printf("     %s", asks[n].line);
		ask_with(peer, asks[n].line, NULL, 0);
		expect("it is asked", it_hears(asks[n].heard[0]));
		expect("and does not answer", hears(peer, "\"errno\":110"));
		ask_with(peer, asks[n].line, NULL, 0);
		expect("nor the next time", hears(peer, asks[n].again));
		expect("it hears the rest", !asks[n].heard[1] || it_hears(asks[n].heard[1]));
		expect("another is heard", answers(peer, "info", "\"ok\":true"));
		kill_it();
		finish("a machine that answers nothing", broker, BROKER_STOPPED);
		fclose(peer);
	}
}

/* Nor does whoever asks wait for disks: they may do it yet, and the machine stands. */
static void disks_without_a_word(void)
{
	FILE *peer;
	pid_t broker, child;
	int held, ready, file;

	broker = start_impatient();
	peer = connect_to();
	ready = ask_fork_with_layer(peer, &held, &file);
	child = fork_child(ready);
	expect("disks that never say a word", hears(peer, "\"errno\":62"));
	close(held); /* is with the child */
	expect("what they may do yet is known", answers(peer, "info", "\"layering\":true"));
	end_child(child, ready);
	put_layer_on(0);
	expect("then it goes on", it_hears(RECORD_FORK) && it_hears(RECORD_RESUME));
	expect("and nothing is to come", answers(peer, "info", "\"process\":"));
	kill_it();
	finish("disks without a word", broker, BROKER_STOPPED);
	fclose(peer);
	close(file);
}

/* What is beneath them is waited for as well, and for longer. */
static void disks_that_do_not_settle(void)
{
	const struct layer_answer settled = { .news = LAYER_SETTLED };
	FILE *peer;
	pid_t broker, child;
	int held, ready, file;

	broker = start_impatient();
	peer = connect_to();
	ready = ask_fork_with_layer(peer, &held, &file);
	put_layer_on(0);
	child = fork_child(ready);
	close(held);
	expect("it is there", hears(peer, "\"child\":0"));
	expect("the machine goes on", it_hears(RECORD_FORK) && it_is_resumed());
	expect("a disk that does not settle", hears(peer, "\"errno\":115"));
	end_child(child, ready);
	ask_with(peer, "{\"do\":\"save\"}\n", NULL, 0);
	expect("it is not saved before", hears(peer, "\"errno\":16"));
	expect("it settles at last", write(layers[1], &settled, sizeof(settled)) ==
					     sizeof(settled));
	while (!answers(peer, "pause", "\"children\":0"))
		;
	expect("then it can stand", it_hears(RECORD_FORK));
	kill_it();
	finish("disks that do not settle", broker, BROKER_STOPPED);
	fclose(peer);
	close(file);
}

/* As of a fork; also for a saver that is gone before. */
static void save_without_a_word(bool is_gone)
{
	FILE *peer;
	pid_t broker;
	int held, ready, file;

	broker = start_impatient();
	peer = connect_to();
	file = bring_layer(peer);
	ask_with(peer, "{\"do\":\"save\"}\n", NULL, 0);
	expect("the disk process is asked", hears_layer());
	if (is_gone) {
		fclose(peer);
		peer = connect_to();
		expect("another is heard", answers(peer, "info", "\"ok\":true"));
	} else {
		expect("disks that never say a word", hears(peer, "\"errno\":62"));
	}
	expect("what they may do yet is known", answers(peer, "info", "\"layering\":true"));
	ready = bring_kit(peer, &held);
	ask_fork(peer, "keep");
	expect("it is still waited for", hears(peer, "\"errno\":16"));
	expect("its layers are on, and settled",
	       write(layers[1], &(struct layer_answer){ .news = LAYER_ON },
		     sizeof(struct layer_answer)) == sizeof(struct layer_answer) &&
		       write(layers[1], &(struct layer_answer){ .news = LAYER_SETTLED },
			     sizeof(struct layer_answer)) == sizeof(struct layer_answer));
	expect("it goes on", it_hears(RECORD_SAVE) && it_hears(RECORD_RESUME));
	kill_it();
	finish("a save without a word", broker, BROKER_STOPPED);
	fclose(peer);
	close(file);
	close(held);
	close(ready);
}

/* Who may have it forked is killed once a fork has begun: the guest hears of its child. */
static void door_that_is_gone(bool before_its_end)
{
	pid_t broker = start(wishes_and_stands, 0);
	pid_t child;
	FILE *door = connect_to();
	FILE *peer = connect_to();
	struct record_fork_ended ended = { .error = 1 };
	int held;
	int ready;
	char byte;

	expect("a door", answers(door, "forks", "\"ok\":true"));
	ready = bring_kit(peer, &held);
	ask_with(peer, "{\"do\":\"memory\",\"bytes\":1}\n", NULL, 0);
	expect("it is wanted", hears(peer, "\"ok\":true") && hears(door, "\"wanted\":1"));
	ask_with(peer, "{\"do\":\"fork\",\"asked\":1,\"number\":9}\n", NULL, 0);
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	if (before_its_end) {
		fclose(door);
		door = connect_to();
		expect("none comes into its place", answers(door, "forks", "\"errno\":16"));
	}
	child = fork_child(ready);
	expect("the child", hears(peer, "\"child\":0") && hears(peer, "\"children\":1"));
	shutdown(fileno(door), SHUT_RDWR); /* which the child has, too */
	fclose(door);
	expect("the guest hears which",
	       read(wish_ends[0], &ended, sizeof(ended)) == sizeof(ended) && !ended.error &&
		       ended.child == 9);
	kill_it();
	finish("a door that is gone", broker, BROKER_STOPPED);
	end_child(child, ready);
	fclose(peer);
	close(held);
}

/* Before a fork has begun: there is no child. */
static void door_that_is_gone_before(void)
{
	pid_t broker = start(wishes_and_stands, 0);
	FILE *door = connect_to();
	FILE *peer = connect_to();
	FILE *other = connect_to();
	struct record_fork_ended ended = { .error = 1 };
	const struct {
		const char *line;
		const char *want;
	} refused[] = {
		{ "{\"do\":\"fork\",\"asked\":1}\n", "\"errno\":22" },
		{ "{\"do\":\"fork\",\"asked\":2,\"number\":9}\n", "\"errno\":125" },
	};
	int held;
	int ready;

	expect("a door", answers(door, "forks", "\"ok\":true"));
	ask_with(peer, "{\"do\":\"memory\",\"bytes\":1}\n", NULL, 0);
	expect("it is wanted", hears(peer, "\"ok\":true") && hears(door, "\"wanted\":1"));
	for (size_t n = 0; n < sizeof(refused) / sizeof(refused[0]); n++) {
		ready = bring_kit(peer, &held);
		ask_with(peer, refused[n].line, NULL, 0);
		expect("not the fork that was asked for", hears(peer, refused[n].want));
		expect("its kit is nobody's", is_closed(held));
		close(ready);
	}
	fclose(door);
	expect("no child", read(wish_ends[0], &ended, sizeof(ended)) == sizeof(ended) &&
				   ended.error == -EIO && !ended.child);
	expect("it goes on", answers(other, "info", "\"ok\":true"));
	kill_it();
	finish("a door that is gone before", broker, BROKER_STOPPED);
	fclose(peer);
	fclose(other);
}

/* A child's guest asks before whoever may have it forked has come: it waits; else it is refused. */
static void door_that_comes(bool comes)
{
	struct pollfd told_end = { .fd = wish_ends[0], .events = POLLIN };
	struct record_fork_ended ended = { .error = 1 };
	pid_t broker;
	FILE *peer;
	FILE *door;

	door_comes = comes;
	broker = start(wishes_and_stands, 0);
	door_comes = false;
	peer = connect_to();
	door = connect_to();
	ask_with(peer, "{\"do\":\"memory\",\"bytes\":1}\n", NULL, 0);
	expect("it wants to be forked", hears(peer, "\"ok\":true"));
	if (comes)
		expect("it is not refused", poll(&told_end, 1, QUIET_MS) == 0);
	else
		expect("it is refused",
		       read(wish_ends[0], &ended, sizeof(ended)) == sizeof(ended) &&
			       ended.error == -EPERM);
	ask_with(door, "{\"do\":\"forks\"}\n", NULL, 0);
	expect("a door", !comes || hears(door, "\"wanted\":1"));
	expect("it may", hears(door, "\"ok\":true"));
	kill_it();
	finish("a door that comes", broker, BROKER_STOPPED);
	fclose(peer);
	fclose(door);
}

/* It was killed on its way: a guest that asks meanwhile, or afterwards, is told so. */
static void door_that_never_comes(void)
{
	struct record_fork_ended ended = { .error = 1 };
	pid_t broker;
	FILE *peer;
	FILE *door;

	door_comes = true;
	door_ms = QUIET_MS;
	broker = start(wishes_and_stands, 0);
	door_comes = false;
	door_ms = 0;
	peer = connect_to();
	for (unsigned n = 0; n < 2; n++) {
		ask_with(peer, "{\"do\":\"memory\",\"bytes\":1}\n", NULL, 0);
		expect("it wants to be forked", hears(peer, "\"ok\":true"));
		expect("it is refused",
		       read(wish_ends[0], &ended, sizeof(ended)) == sizeof(ended) &&
			       ended.error == -EPERM);
	}
	door = connect_to();
	expect("one that comes late may", answers(door, "forks", "\"ok\":true"));
	kill_it();
	finish("a door that never comes", broker, BROKER_STOPPED);
	fclose(peer);
	fclose(door);
}

/* A child that is there before its disks have layers: nobody hears of it, until they have. */
static void child_before_its_layers(void)
{
	pid_t broker = start(says_it_stands, 0), child;
	FILE *peer = connect_to();
	struct pollfd told_child = { .fd = fileno(peer), .events = POLLIN };
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);
	char byte;

	ask_fork(peer, "keep");
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	child = fork_child(ready);
	expect("nobody hears of it", poll(&told_child, 1, QUIET_MS) == 0);
	put_layer_on(0);
	expect("the child", hears(peer, "\"child\":0"));
	kill_it();
	finish("a child before its layers", broker, BROKER_STOPPED);
	end_child(child, ready);
	fclose(peer);
	close(file);
	close(held);
}

/* Of its machine that hears nothing of it and waits, or goes on, but for its code. */
static void while_the_child_copies(const char *parent, bool goes_on)
{
	pid_t broker = start(says_what_it_hears, 0);
	FILE *peer = connect_to();
	FILE *other;
	pid_t child;
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);
	char byte;

	ask_fork(peer, parent);
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1 && it_hears(RECORD_FORK));
	child = fork_child_that_copies();
	expect("nobody goes on before disks have layers", it_hears_nothing());
	put_layer_on(0);
	expect(parent, goes_on ? it_hears(RECORD_GO_ON) : it_hears_nothing());
	other = connect_to();
	expect("it is not to hear anything else", answers(other, "freeze", "\"errno\":16"));
	expect("nor does it", it_hears_nothing());
	expect("its code is copied", write(ready, "", 1) == 1 && hears(peer, "\"child\":0"));
	if (goes_on)
		expect("it hears so", it_hears(RECORD_RESUME));
	kill_it();
	finish("while the child copies", broker, BROKER_STOPPED);
	end_child(child, ready);
	fclose(peer);
	fclose(other);
	close(file);
	close(held);
}

/* One that ends while it copies: what goes on already is told that nobody reads its code. */
static void child_that_ends_while_it_copies(void)
{
	pid_t broker = start(says_what_it_hears, 0);
	FILE *peer = connect_to();
	pid_t child;
	int held;
	int ready = bring_kit(peer, &held);
	char byte;

	ask_fork(peer, "keep");
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1 && it_hears(RECORD_FORK));
	child = fork_child_that_copies();
	expect("the machine goes on", it_hears(RECORD_GO_ON));
	expect("its kit is taken", recv(kit_sockets[1], &byte, 1, 0) == 1);
	end_child(child, ready);
	expect("a child that ends then", hears(peer, "\"errno\":10") && it_hears(RECORD_RESUME));
	kill_it();
	finish("a child that ends while it copies", broker, BROKER_STOPPED);
	fclose(peer);
	close(held);
}

static void settled_at_the_end(void)
{
	pid_t broker = start(says_it_stands, 0), child;
	FILE *peer = connect_to();
	int held;
	int ready = bring_kit(peer, &held);
	int file = bring_layer(peer);
	char byte;

	ask_fork(peer, "end");
	put_layer_on(0);
	expect("the forker is asked", read(ask_sockets[1], &byte, 1) == 1);
	child = fork_child(ready);
	expect("the child", hears(peer, "\"child\":0"));
	expect("its disk is settled after the parent's end", hears(peer, "\"children\":1"));
	finish("a machine that ends when it is forked", broker, BROKER_STOPPED);
	end_child(child, ready);
	fclose(peer);
	close(file);
	close(held);
}

int main(void)
{
	address.sun_family = AF_UNIX;
	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/umbra-forks-test-%d",
		 (int)getpid());
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ .rlim_cur = FORK_FDS, .rlim_max = FORK_FDS });
	alarm(300);
	make_high_pipe(has_begun);
	make_high_pipe(wish_ends);
	make_high_pipe(heard);
	make_high_pipe(may_stand);
	if (pipe(is_deaf) || pipe(may_hear))
		return 2;
	lying_machines();
	lying_disk();
	refusal();
	too_many_kits();
	while_it_freezes();
	narrowing();
	layers_of_another();
	hanging_up_at_layers();
	hanging_up_at_once();
	hanging_up_at_children();
	child_without_a_word();
	forker_without_a_word();
	machine_that_does_not_stand();
	machine_that_stays_standing();
	machine_that_answers_nothing();
	disks_without_a_word();
	disks_that_do_not_settle();
	save_without_a_word(false);
	save_without_a_word(true);
	child_before_its_layers();
	while_the_child_copies("keep", true);
	while_the_child_copies("suspend", false);
	child_that_ends_while_it_copies();
	settled_at_the_end();
	door_that_is_gone(true);
	door_that_is_gone(false);
	door_that_is_gone_before();
	door_that_comes(true);
	door_that_comes(false);
	door_that_never_comes();
	unlink(address.sun_path);
	return failures != 0;
}
