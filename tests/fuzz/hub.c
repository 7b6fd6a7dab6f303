/*
 * Machines, and in half of the inputs whoever speaks at the hub's socket, that lie to the hub in
 * any way and order: words and heads in a port's memory, requests, slots, versions, windows,
 * descriptors; while time passes. After each act the hub holds what check_hub() says. Where only
 * machines lie, two ports that do not are served all the while: each of their packets comes once,
 * in order, as it was sent. No descriptor is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "abi/share.h"
#include "fuzz.h"
#include "share/hub_internal.h"
#include "share/hub_line.h"

enum { LIARS = 2, ENDS = LIARS + 2, STORE = LIARS, WEB, STEPS_MOST = 400, HONEST_BYTES = 64 };
enum { LINES_LIE = 1 };
enum step_kind {
	STEP_POKE,
	STEP_REQUEST,
	STEP_PACKET,
	STEP_OPEN,
	STEP_ACCEPT,
	STEP_HONEST,
	STEP_LEAVE,
	STEP_TIME,
	STEP_WINDOW,
	STEP_RULES,
	STEP_LINE,
	STEPS
};

struct step { uint8_t kind, which; uint16_t a; uint32_t b; };

/* A machine's end: its memory, and its joiner, which does what it is told. */
struct end {
	int line, memory_fd, bell, answer;
	struct share_memory *memory;
	struct slot_client client;
	uint64_t number;
	unsigned sent;
};

static struct hub *hub;
static struct end ends[ENDS];
static int64_t ahead_ms;
static bool lines_lie;
static uint64_t honest_sent, honest_answered, honest_come;

int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	(void)timeout_ms; /* time passes by steps alone */
	return __real_poll(fds, count, 0);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	if (clock != CLOCK_MONOTONIC)
		return __real_clock_gettime(clock, ret);
	*ret = (struct timespec){ .tv_sec = 1000 + ahead_ms / 1000,
				  .tv_nsec = ahead_ms % 1000 * 1000000 };
	return 0;
}

static void must(bool good)
{
	if (!good)
		abort();
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

static const char rules[] = "allow liar* offer,see,open,pass,lend liar0/*\n"
			    "allow store offer,pass,lend store/*\n"
			    "allow web see,open,pass,lend store/*\n";

static void bring_rules(const struct end *end, const void *text, size_t bytes)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_RULES };
	const int fd = memfd_create("rules", MFD_CLOEXEC);

	must(fd >= 0 && pwrite(fd, text, bytes, 0) == (ssize_t)bytes);
	line_send(end->line, &message, &fd, 1);
	close(fd);
}

static struct wire_message join_message(unsigned n)
{
	static const char *const names[ENDS] = { "liar0", "liar1", "store", "web" };
	struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_JOIN };

	message.join = (struct wire_join){ .least = WIRE_VERSION_LEAST, .most = WIRE_VERSION,
					   .side = n & 1 ? SHARE_BINDS : SHARE_SERVES };
	strcpy(message.join.machine, names[n]);
	strcpy(message.join.instance, n < LIARS ? "liar0/shelf" : "store/shelf");
	strcpy(message.join.class, "packet");
	return message;
}

static void begin_end(unsigned n)
{
	struct end *end = &ends[n];
	struct wire_message message = join_message(n);
	int pair[2];

	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	hub_add_line(hub, pair[0]);
	*end = (struct end){ .line = pair[1],
			     .memory_fd = memfd_create("port", MFD_CLOEXEC),
			     .bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
			     .answer = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) };
	must(!ftruncate(end->memory_fd, sizeof(*end->memory)));
	end->memory = mmap(NULL, sizeof(*end->memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			   end->memory_fd, 0);
	must(end->memory != MAP_FAILED);
	end->memory->side = message.join.side;
	end->memory->epoch = 7 + n;
	end->memory->generation = 1;
	end->client = (struct slot_client){ .queue = &end->memory->queue, .slots = SHARE_SLOTS,
					    .doorbell_fd = end->bell, .answer_fd = end->answer };
	bring_rules(end, rules, strlen(rules));
	line_send(end->line, &message, (int[]){ end->memory_fd, end->bell, end->answer }, 3);
	for (unsigned slot = 0; slot < SHARE_RECEIVE_SLOTS; slot++)
		slot_submit(&end->client, &(struct slot_request){ .slot = (uint16_t)slot,
								  .kind = SHARE_RECEIVE });
	end->memory->is_open = 1;
	end->memory->accepted = 1;
}

static void end_end(struct end *end)
{
	close_if(end->line);
	close(end->memory_fd);
	close(end->bell);
	close(end->answer);
	munmap(end->memory, sizeof(*end->memory));
}

/* ---- joiners, which do not lie here ---- */

static void bring_window(const struct end *end, unsigned parts)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_WINDOW };
	int window[SHARE_PARTS];

	for (unsigned n = 0; n < parts; n++) {
		window[n] = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		must(window[n] >= 0 && !ftruncate(window[n], (off_t)share_part_bytes(n)));
	}
	line_send(end->line, &message, window, parts);
	while (parts)
		close(window[--parts]);
}

static void hear(struct end *end, bool is_honest)
{
	struct wire_message message;
	int fds[WIRE_FDS];
	int got;

	while (end->line >= 0 && (got = line_receive(end->line, &message, fds, false))) {
		if (got < 0) {
			close(end->line);
			end->line = -1;
			return;
		}
		if (message.kind == WIRE_WANT)
			bring_window(end, message.number);
		else if (message.kind == WIRE_WINDOW && is_honest)
			end->memory->window_accepted = message.number;
		for (unsigned n = 0; n < WIRE_FDS; n++)
			close_if(fds[n]);
	}
}

/* ---- the two that do not lie ---- */

static void fill(uint8_t *to, uint64_t number)
{
	for (unsigned n = 0; n < HONEST_BYTES; n++)
		to[n] = (uint8_t)(number * 31 + n);
}

static void honest_send(void)
{
	struct end *web = &ends[WEB];
	struct share_packet packet = { .epoch = web->memory->epoch, .bytes = HONEST_BYTES };
	const unsigned slot = SHARE_RECEIVE_SLOTS + (unsigned)(honest_sent % SHARE_SEND_SLOTS);

	if (honest_sent - honest_answered == SHARE_SEND_SLOTS)
		return;
	packet.number = ++honest_sent;
	memcpy(web->memory->data[slot], &packet, sizeof(packet));
	fill(web->memory->data[slot] + sizeof(packet), packet.number);
	slot_submit(&web->client,
		    &(struct slot_request){ .slot = (uint16_t)slot, .kind = SHARE_SEND });
}

static void honest_take(void)
{
	struct end *store = &ends[STORE];
	uint8_t wanted[HONEST_BYTES];
	struct share_packet packet;
	struct slot_reply reply;
	int got;

	while ((got = slot_collect(&ends[WEB].client, &reply)) > 0) {
		must(reply.slot >= SHARE_RECEIVE_SLOTS && !reply.result);
		honest_answered++;
	}
	must(!got);
	while ((got = slot_collect(&store->client, &reply)) > 0) {
		must(reply.slot < SHARE_RECEIVE_SLOTS &&
		     reply.result == (int)sizeof(packet) + HONEST_BYTES);
		memcpy(&packet, store->memory->data[reply.slot], sizeof(packet));
		fill(wanted, ++honest_come);
		must(packet.number == honest_come &&
		     !memcmp(store->memory->data[reply.slot] + sizeof(packet), wanted,
			     HONEST_BYTES));
		slot_submit(&store->client,
			    &(struct slot_request){ .slot = (uint16_t)reply.slot,
						    .kind = SHARE_RECEIVE });
	}
	must(!got);
}

/* ---- the liars ---- */

static void poke(struct end *end, const struct step *step)
{
	/* all but the slots' data: words of the port, and both rings */
	const size_t words = offsetof(struct share_memory, data) / sizeof(uint32_t);

	((uint32_t *)(void *)end->memory)[step->a % words] = step->b;
}

static void request(struct end *end, const struct step *step)
{
	struct slot_requests *requests = &end->memory->queue.requests;

	requests->entry[end->client.submitted++ % SLOTS_MAX] =
		(struct slot_request){ .slot = step->a, .kind = (uint16_t)(step->b & 3) };
	requests->written = end->client.submitted;
}

/* Into the next slot that sends. */
static void send_packet(struct end *end, const struct step *step)
{
	const unsigned slot = SHARE_RECEIVE_SLOTS + end->sent++ % SHARE_SEND_SLOTS;
	const struct share_packet packet = {
		.epoch = end->memory->epoch + (step->a >> 14), .number = ++end->number,
		.kind = step->a % (SHARE_PACKET_KINDS + 1), .bytes = step->b,
		.id = step->b >> 8, .first = step->a >> 4, .pages = step->b >> 4,
	};

	memcpy(end->memory->data[slot], &packet, sizeof(packet));
	slot_submit(&end->client,
		    &(struct slot_request){ .slot = (uint16_t)slot, .kind = SHARE_SEND });
}

static void anew(unsigned n)
{
	end_end(&ends[n]);
	hub_turn(hub);
	begin_end(n);
}

/* A message that a joiner does not send, or not so, with descriptors of the wrong kinds. */
static void lie_on_line(struct end *end, const struct step *step, const uint8_t *rest, size_t bytes)
{
	struct wire_message message = join_message(step->which % ENDS);
	const int other = memfd_create("other", MFD_CLOEXEC);
	const int kinds[] = { end->memory_fd, end->bell, end->answer, other };
	int fds[WIRE_FDS];

	must(other >= 0 && !ftruncate(other, step->a & 16 ? sizeof(struct share_window) : step->a));
	message.kind = step->b % (WIRE_HOLD + 2);
	message.magic += !(step->b >> 8 & 31);
	if (step->b & 1 << 16)
		memcpy(&message.join, rest,
		       bytes < sizeof(message.join) ? bytes : sizeof(message.join));
	for (unsigned n = 0; n < WIRE_FDS; n++)
		fds[n] = kinds[(step->b >> (18 + 2 * n)) & 3];
	if (end->line >= 0)
		line_send(end->line, &message, fds, step->a % (WIRE_FDS + 1));
	close(other);
}

static void act(const struct step *step, const uint8_t *rest, size_t bytes)
{
	const unsigned n = step->which % LIARS;
	struct end *liar = &ends[n];

	switch (step->kind % STEPS) {
	case STEP_POKE: poke(liar, step); break;
	case STEP_REQUEST: request(liar, step); break;
	case STEP_PACKET: send_packet(liar, step); break;
	case STEP_OPEN: liar->memory->is_open = step->b & 3; break;
	case STEP_ACCEPT: liar->memory->accepted = liar->memory->generation; break;
	case STEP_LEAVE: anew(n); break;
	case STEP_TIME: ahead_ms += step->b % (HUB_PATIENCE_MS + 1000); break;
	case STEP_WINDOW:
		liar->memory->window_accepted = step->a & 1 ? step->b
							    : liar->memory->window_wanted;
		break;
	case STEP_RULES:
		if (lines_lie)
			bring_rules(liar, rest, bytes < 64 ? bytes : 64);
		break;
	case STEP_LINE:
		if (lines_lie)
			lie_on_line(liar, step, rest, bytes);
		break;
	default: honest_send(); break;
	}
}

static void turn(void)
{
	must(hub_turn(hub));
	check_hub(hub);
	for (unsigned n = 0; n < ENDS; n++)
		hear(&ends[n], n >= LIARS);
	if (!lines_lie)
		honest_take();
}

static void play(const uint8_t *data, size_t bytes)
{
	struct step step;

	for (unsigned n = 0; n < STEPS_MOST && bytes >= sizeof(step); n++) {
		memcpy(&step, data, sizeof(step));
		data += sizeof(step);
		bytes -= sizeof(step);
		act(&step, data, bytes);
		fuzz_message();
		turn();
	}
	for (unsigned n = 0; !lines_lie && honest_come < honest_sent && n < 1000; n++) {
		ahead_ms += 100;
		turn();
	}
	must(lines_lie || (honest_come == honest_sent && honest_answered == honest_sent));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const int first = dup(0);

	if (!bytes)
		return close(first);
	close(first);
	ahead_ms = 0;
	honest_sent = honest_answered = honest_come = 0;
	lines_lie = data[0] & LINES_LIE;
	hub = hub_create(-1, getpid());
	must(hub);
	for (unsigned n = 0; n < ENDS; n++)
		begin_end(n);
	for (unsigned n = 0; n < 4; n++)
		turn();
	play(data + 1, bytes - 1);
	for (unsigned n = 0; n < ENDS; n++)
		end_end(&ends[n]);
	hub_destroy(hub);
	must(dup(0) == first && !close(first));
	return 0;
}

static size_t put_step(uint8_t *to, enum step_kind kind, uint8_t which, uint16_t a, uint32_t b)
{
	const struct step step = { .kind = (uint8_t)kind, .which = which, .a = a, .b = b };

	memcpy(to, &step, sizeof(step));
	return sizeof(step);
}

/* Liars that behave, and pass packets, lend, go and come: what is then mutated. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	size_t used = 1;

	data[0] = (uint8_t)(n & LINES_LIE);
	for (unsigned k = 0; k < 12; k++) {
		const uint8_t which = (uint8_t)(k & 1);

		used += put_step(data + used, STEP_HONEST, 0, 0, 0);
		used += put_step(data + used, STEP_PACKET, which, (uint16_t)((n >> 1) + k), 100);
		if ((n + k) % 4 == 0)
			used += put_step(data + used, STEP_WINDOW, which, 0, 0);
		if ((n + k) % 5 == 1)
			used += put_step(data + used, STEP_TIME, 0, 0, 700 * k);
		if ((n + k) % 7 == 2)
			used += put_step(data + used, STEP_LEAVE, which, 0, 0);
		if ((n + k) % 3 == 1)
			used += put_step(data + used, STEP_REQUEST, which, (uint16_t)k, 0);
		if ((n + k) % 6 == 3)
			used += put_step(data + used, STEP_LINE, which, 3,
					 WIRE_JOIN + (k << 8) + (k << 18));
		if ((n + k) % 6 == 4)
			used += put_step(data + used, STEP_POKE, which, (uint16_t)(16 * k), k);
	}
	return used;
}
