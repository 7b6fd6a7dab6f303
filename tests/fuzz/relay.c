/*
 * The relay between a machine process that says what it wants and programs of the host that do,
 * too. The input is a program of acts behind the beginning of a lawful one (which, and how far, its
 * sum says): a request of any slot with any message, programs that connect, write and go. The relay
 * waits in poll(), which is this file's: there the next act is done, and at their end the machine
 * is gone. Whatever they are, it ends as it may, and has a socket of nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "abi/agent_layout.h"
#include "fuzz.h"
#include "net/relay/relay.h"

enum { PROGRAMS = 6, ACTS_MOST = 200, GUEST_PORT = 6000, DESCRIPTORS = 256, SEEDS = 4 };
enum { HEARD_BYTES = 8000, LAWFUL_MOST = 16 };
enum act_kind { REQUEST, TAKE_ALL, CONNECT, WRITE, GO, ACCEPT, ACTS };

/* Of an act in the input; then its bytes. which: a slot, or a program. */
struct act { uint8_t kind, which; uint16_t bytes; uint32_t message, port; };

struct play {
	struct connection_memory *memory;
	struct relay_options options;
	const uint8_t *data, *later; /* later: what is done once the lawful acts are */
	size_t left, later_bytes;
	unsigned acts, lawful_acts;
	uint32_t submitted;
	int program[PROGRAMS], guest_listener;
};

static struct play play;

int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);

static void must(bool good)
{
	if (!good)
		abort();
}

static void submit(unsigned slot, const struct act *act, const uint8_t *bytes, size_t count)
{
	struct slot_requests *requests = &play.memory->queue.requests;
	struct connection_slot *to = &play.memory->slot[slot % CONNECTION_SLOTS];

	if (count > CONNECTION_BYTES)
		count = CONNECTION_BYTES;
	to->message = (struct connection_message){ .kind = act->message,
						   .port = act->port,
						   .bytes = act->bytes };
	memcpy(to->data, bytes, count);
	requests->entry[play.submitted % SLOTS_MAX] =
		(struct slot_request){ .slot = (uint16_t)slot, .kind = (uint16_t)act->message };
	__atomic_store_n(&requests->written, ++play.submitted, __ATOMIC_RELEASE);
}

static void take_all(void)
{
	static const struct act take = { .message = CONNECTION_TAKE };

	for (unsigned slot = 0; slot < CONNECTIONS; slot++)
		submit(slot, &take, (const uint8_t *)"", 0);
}

static void drop(unsigned n)
{
	if (play.program[n] >= 0)
		close(play.program[n]);
	play.program[n] = -1;
}

static void connect_program(unsigned n)
{
	const struct sockaddr_un at = { .sun_family = AF_UNIX, .sun_path = "s" };

	drop(n);
	play.program[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (connect(play.program[n], (const struct sockaddr *)&at, sizeof(at)))
		drop(n); /* too many wait already */
}

static void do_act(const struct act *act, const uint8_t *bytes)
{
	const unsigned n = act->which % PROGRAMS;
	uint8_t heard[HEARD_BYTES];

	/* who goes with something unread has not heard the end */
	for (unsigned k = 0; k < PROGRAMS; k++)
		while (play.program[k] >= 0 && recv(play.program[k], heard, sizeof(heard), 0) > 0)
			;
	switch (act->kind % ACTS) {
	case REQUEST: submit(act->which, act, bytes, act->bytes); break;
	case TAKE_ALL: take_all(); break;
	case CONNECT: connect_program(n); break;
	case WRITE:
		if (play.program[n] >= 0)
			send(play.program[n], bytes, act->bytes, MSG_NOSIGNAL);
		break;
	case GO: drop(n); break;
	default:
		drop(n);
		play.program[n] = accept4(play.guest_listener, NULL, NULL, SOCK_NONBLOCK);
	}
}

/* False: there is none left. */
static bool do_next(void)
{
	struct act act;

	if (play.later && (play.acts == play.lawful_acts || !play.left)) {
		play.data = play.later;
		play.left = play.later_bytes;
		play.later = NULL;
	}
	if (play.left < sizeof(act) || play.acts++ == ACTS_MOST)
		return false;
	memcpy(&act, play.data, sizeof(act));
	play.data += sizeof(act);
	play.left -= sizeof(act);
	if (act.bytes > play.left)
		act.bytes = (uint16_t)play.left;
	do_act(&act, play.data);
	play.data += act.bytes;
	play.left -= act.bytes;
	return true;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	const bool goes_on = do_next();
	const int got = __real_poll(fds, count, 0);

	(void)timeout_ms;
	if (!goes_on)
		fds[0].revents = POLLHUP;
	return got;
}

static int listen_at(const char *name)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(at.sun_path, name);
	must(!bind(fd, (const struct sockaddr *)&at, sizeof(at)) && !listen(fd, PROGRAMS));
	return fd;
}

static char place[] = "/tmp/umbra-fuzz-XXXXXX";

static void remove_place(void)
{
	unlink("s");
	unlink("s_6000");
	rmdir(place);
}

/* Once: two who listen, in a folder of their own. */
static void make_place(void)
{
	if (play.memory)
		return;
	must(mkdtemp(place) && !chdir(place));
	play.memory = mmap(NULL, sizeof(*play.memory), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(play.memory != MAP_FAILED);
	play.options = (struct relay_options){ .memory = play.memory,
					       .doorbell_fd = eventfd(0, EFD_NONBLOCK),
					       .answer_fd = eventfd(0, EFD_NONBLOCK),
					       .listener_fd = listen_at("s"),
					       .end_fd = eventfd(0, 0),
					       .name = "s" };
	play.guest_listener = listen_at("s_6000");
	must(!atexit(remove_place));
	for (unsigned n = 0; n < PROGRAMS; n++)
		play.program[n] = -1;
}

static void note_descriptors(bool is_open[DESCRIPTORS])
{
	for (int fd = 0; fd < DESCRIPTORS; fd++)
		is_open[fd] = fcntl(fd, F_GETFD) >= 0;
}

/* The relay's process ends here, with its sockets, which are no more than it has lines. */
static void close_others(const bool was_open[DESCRIPTORS])
{
	unsigned count = 0;

	for (int fd = 0; fd < DESCRIPTORS; fd++) {
		must(!was_open[fd] || fcntl(fd, F_GETFD) >= 0);
		count += !was_open[fd] && !close(fd);
	}
	must(count <= CONNECTIONS);
}

/* Who has connected, and was not served: nothing of the last input is left. */
static void forget_all(void)
{
	int fd;

	for (unsigned n = 0; n < PROGRAMS; n++)
		drop(n);
	while ((fd = accept(play.options.listener_fd, NULL, NULL)) >= 0)
		close(fd);
	while ((fd = accept(play.guest_listener, NULL, NULL)) >= 0)
		close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t lawful[FUZZ_MAX_BYTES];
	bool was_open[DESCRIPTORS];
	unsigned sum = 0;
	int got;

	make_place();
	note_descriptors(was_open);
	memset(&play.memory->queue, 0, sizeof(play.memory->queue));
	play.memory->generation = play.memory->accepted = 1;
	play.data = lawful;
	for (size_t n = 0; n < bytes; n++)
		sum += data[n];
	play.left = fuzz_seed(sum, lawful);
	play.later = data;
	play.later_bytes = bytes;
	play.acts = play.submitted = 0;
	play.lawful_acts = sum / SEEDS % LAWFUL_MOST;
	got = relay_serve(&play.options);
	must(!got || got == -EBADMSG);
	forget_all();
	close_others(was_open);
	return 0;
}

/* ---- seeds ---- */

static void add(uint8_t *data, size_t *used, struct act act, const void *bytes)
{
	memcpy(data + *used, &act, sizeof(act));
	memcpy(data + *used + sizeof(act), bytes, act.bytes);
	*used += sizeof(act) + act.bytes;
}

static void add_message(uint8_t *data, size_t *used, unsigned connection, uint32_t kind,
			const void *bytes, size_t count)
{
	const struct act act = { .kind = REQUEST,
				 .which = (uint8_t)(CONNECTIONS + connection),
				 .bytes = (uint16_t)count,
				 .message = kind,
				 .port = GUEST_PORT };

	add(data, used, act, bytes);
}

static void add_program(uint8_t *data, size_t *used, enum act_kind kind, const void *bytes,
			size_t count)
{
	add(data, used, (struct act){ .kind = (uint8_t)kind, .bytes = (uint16_t)count }, bytes);
}

static void add_take(uint8_t *data, size_t *used, uint8_t slot)
{
	add(data, used, (struct act){ .kind = REQUEST, .which = slot, .message = CONNECTION_TAKE },
	    "");
}

/* A program that asks the agent for another; it is over, or is not. */
static void add_exec(uint8_t *data, size_t *used, uint32_t again)
{
	struct { struct agent_frame head; struct agent_exec exec; char name[4]; } exec = {
		.head = { .kind = AGENT_EXEC, .bytes = 16 },
		.exec = { .arguments = 1 },
		.name = "abc",
	};
	const struct { struct agent_frame head; struct agent_exited exited; } end = {
		.head = { .kind = AGENT_EXITED, .bytes = 8 }, .exited = { .again = again }
	};

	add_program(data, used, WRITE, &exec, sizeof(exec));
	add_take(data, used, 0);
	add_message(data, used, 0, CONNECTION_DATA, &end, sizeof(end));
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char greeting[] = "CONNECT 50111\n";
	size_t used = 0;

	add_program(data, &used, TAKE_ALL, "", 0);
	if (n % SEEDS == 3) { /* the guest's */
		add_message(data, &used, CONNECTIONS_OF_HOST, CONNECTION_CONNECT, "", 0);
		add_message(data, &used, CONNECTIONS_OF_HOST, CONNECTION_DATA, "abc", 3);
		add_message(data, &used, CONNECTIONS_OF_HOST, CONNECTION_GONE, "", 0);
		return used;
	}
	add_program(data, &used, CONNECT, "", 0);
	add_program(data, &used, WRITE, greeting, strlen(greeting));
	add_program(data, &used, WRITE, "", 0);
	add_take(data, &used, 0);
	add_message(data, &used, 0, CONNECTION_OPENED, "", 0);
	add_exec(data, &used, n % SEEDS != 2);
	add_program(data, &used, GO, "", 0);
	if (n % SEEDS == 1) { /* who comes next has it, too */
		add_program(data, &used, CONNECT, "", 0);
		add_program(data, &used, WRITE, greeting, strlen(greeting));
		add_exec(data, &used, 1);
	}
	add_message(data, &used, 0, CONNECTION_FINISHED, "", 0);
	add_message(data, &used, 0, CONNECTION_GONE, "", 0);
	return used;
}
