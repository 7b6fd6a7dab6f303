/*
 * A hub with ports that behave, and ports that lie: about versions, sizes, slots, lengths and
 * numbers. Whoever lies is left alone; the others go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "abi/share.h"
#include "ipc/share_port.h"
#include "ipc/spawn.h"
#include "share/hub.h"
#include "share/hub_internal.h"
#include "share/hub_line.h"

enum { WAIT_MS = 20000, STEP_MS = 1 };

/*
 * How far the hub's clock is before the host's: what waits for HUB_PATIENCE_MS is brought to its
 * end by patience_ends(), and seen to when the hub looks next.
 */
static atomic_long clock_ahead_s;

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	int failed = __real_clock_gettime(clock, ret);

	if (!failed && clock == CLOCK_MONOTONIC)
		ret->tv_sec += atomic_load(&clock_ahead_s);
	return failed;
}

static void patience_ends(void)
{
	atomic_fetch_add(&clock_ahead_s, HUB_PATIENCE_MS / 1000 + 1);
}

static int failures;
static char path[] = "/tmp/umbra-hub-XXXXXX/s";

/* A machine's end, as its device and its joiner have it. */
struct end {
	int line, memory_fd, bell, answer;
	int window; /* which its machine has; -1: none of others' */
	int part[2]; /* its other parts */
	uint32_t most; /* of its joiner's versions; 0: this one */
	bool is_deaf; /* its machine does not say that it has another one */
	uint64_t ended; /* which window was to be ended, the last */
	unsigned agents; /* how often another one was asked for */
	struct share_memory *memory;
	struct slot_client client;
	uint64_t number;
	unsigned sent;
	unsigned hears; /* SHARE_HEARS_LATER: that what it sends was delivered */
};

static struct end store, web;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

static void bring_rules(int line, const char *text)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_RULES };
	int fd = memfd_create("rules", 0);

	if (pwrite(fd, text, strlen(text), 0) < 0 || line_send(line, &message, &fd, 1))
		abort();
	close(fd);
}

static const char all[] = "allow * offer,see,open,pass,lend */*\n";

static void make_end(struct end *end, uint32_t side)
{
	*end = (struct end){ .line = line_connect(path),
			     .memory_fd = spawn_share("port", sizeof(struct share_memory)),
			     .bell = eventfd(0, EFD_NONBLOCK), .answer = eventfd(0, EFD_NONBLOCK),
			     .window = -1, .part = { -1, -1 } };
	end->memory = mmap(NULL, sizeof(*end->memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			   end->memory_fd, 0);
	if (end->line < 0 || end->memory == MAP_FAILED)
		abort();
	end->memory->side = side;
	end->memory->generation = 1;
	end->client = (struct slot_client){ .queue = &end->memory->queue, .slots = SHARE_SLOTS,
					    .doorbell_fd = end->bell, .answer_fd = end->answer };
}

static struct wire_message join_message(const char *machine, uint32_t side)
{
	struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_JOIN };

	message.join = (struct wire_join){ .least = WIRE_VERSION_LEAST, .most = WIRE_VERSION,
					   .side = side };
	strcpy(message.join.machine, machine);
	strcpy(message.join.instance, "store/shelf");
	strcpy(message.join.class, "packet");
	return message;
}

/* The version that was agreed upon; 0; -errno: the line was closed. */
static int join(const struct end *end, struct wire_message *message)
{
	const int fds[] = { end->memory_fd, end->bell, end->answer, end->window };
	int none[WIRE_FDS];
	int got = line_send(end->line, message, fds, end->window < 0 ? 3 : 4);

	if (!got)
		got = line_receive(end->line, message, none, true);
	return got < 0 ? got : (int)message->version;
}

static void submit(struct end *end, unsigned slot, unsigned kind)
{
	const struct slot_request request = { .slot = (uint16_t)slot, .kind = (uint16_t)kind,
					      .target = (uint16_t)end->hears };

	slot_submit(&end->client, &request);
	slot_kick(&end->client);
}

static void begin(struct end *end)
{
	for (unsigned n = 0; n < SHARE_RECEIVE_SLOTS; n++)
		submit(end, n, SHARE_RECEIVE);
	end->memory->is_open = 1;
	__atomic_store_n(&end->memory->accepted, end->memory->generation, __ATOMIC_RELEASE);
	if (write(end->bell, &(uint64_t){ 1 }, 8) != 8)
		abort();
}

/* most: of its joiner's versions; 0: as many as there are. */
static void connect_as(struct end *end, const char *machine, uint32_t side, uint32_t most)
{
	struct wire_message message = join_message(machine, side);

	make_end(end, side);
	end->most = most;
	if (most)
		message.join.most = most;
	bring_rules(end->line, all);
	if (join(end, &message) != (most ? (int)most : WIRE_VERSION))
		abort();
	begin(end);
}

static void connect_end(struct end *end, const char *machine, uint32_t side)
{
	connect_as(end, machine, side, 0);
}

static void close_window(struct end *end)
{
	const int fds[] = { end->window, end->part[0], end->part[1] };

	for (unsigned n = 0; n < SHARE_PARTS; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	end->window = end->part[0] = end->part[1] = -1;
}

static void leave_all_but_line(struct end *end)
{
	close(end->memory_fd);
	close(end->bell);
	close(end->answer);
	close_window(end);
	munmap(end->memory, sizeof(*end->memory));
	end->line = -1;
}

static void leave(struct end *end)
{
	close(end->line);
	leave_all_but_line(end);
}

static void put_raw(struct end *end, uint64_t number, uint32_t bytes, uint8_t mark)
{
	const unsigned slot = SHARE_RECEIVE_SLOTS + end->sent++ % SHARE_SEND_SLOTS;
	const struct share_packet packet = { .epoch = 1, .number = number, .bytes = bytes };
	uint8_t *data = end->memory->data[slot];

	memcpy(data, &packet, sizeof(packet));
	memset(data + sizeof(packet), mark, SHARE_PACKET_MAX_BYTES);
	submit(end, slot, SHARE_SEND);
}

static void put(struct end *end, uint8_t mark) { put_raw(end, ++end->number, 100, mark); }

/* ---- windows, as a joiner and its machine have them ---- */

static uint64_t inode_of(int fd)
{
	struct stat st;

	return fd < 0 || fstat(fd, &st) ? 0 : st.st_ino;
}

/* One of an earlier version knows of one part. */
static void bring_window(const struct end *end, unsigned parts)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_WINDOW };
	int window[SHARE_PARTS];

	if (end->most)
		parts = 1;
	for (unsigned n = 0; n < parts; n++) {
		window[n] = memfd_create("window", MFD_ALLOW_SEALING);
		if (ftruncate(window[n], (off_t)share_part_bytes(n)))
			abort();
	}
	if (line_send(end->line, &message, window, parts))
		abort();
	while (parts)
		close(window[--parts]);
}

static void take_window(struct end *end, const int fds[SHARE_PARTS], uint32_t number)
{
	close_window(end);
	end->window = fds[0];
	end->part[0] = fds[1];
	end->part[1] = fds[2];
	if (end->is_deaf)
		return;
	__atomic_store_n(&end->memory->window_accepted, number, __ATOMIC_RELEASE);
	if (write(end->bell, &(uint64_t){ 1 }, 8) != 8)
		abort();
}

/* What the hub has said to its joiner. */
static void hear(struct end *end)
{
	struct wire_message message;
	int fds[WIRE_FDS];

	while (line_receive(end->line, &message, fds, false) > 0)
		switch (message.kind) {
		case WIRE_WANT: bring_window(end, message.number); break;
		case WIRE_WINDOW: take_window(end, fds, message.number); break;
		case WIRE_AGENT: end->agents++; break;
		case WIRE_END:
			end->ended = inode_of(fds[0]);
			for (unsigned n = 0; n < WIRE_FDS && fds[n] >= 0; n++) {
				if (ftruncate(fds[n], 0))
					abort();
				close(fds[n]);
			}
			break;
		default: abort();
		}
}

/* The next reply; false: none came. */
static bool next_reply(struct end *end, struct slot_reply *ret, int timeout_ms)
{
	int got;

	end->memory->queue.replies.sleeps = 1;
	for (int waited = 0; !(got = slot_collect(&end->client, ret)) && waited < timeout_ms;
	     waited += STEP_MS) {
		hear(&store);
		hear(&web);
		if (end != &store && end != &web)
			hear(end);
		poll(NULL, 0, STEP_MS);
	}
	return got > 0;
}

/* The mark of the next packet that comes; -1: none. What was sent is answered in between. */
static int take(struct end *end, int timeout_ms)
{
	struct slot_reply reply;

	while (next_reply(end, &reply, timeout_ms))
		if (reply.slot < SHARE_RECEIVE_SLOTS && reply.result > 0) {
			int mark = end->memory->data[reply.slot][sizeof(struct share_packet)];

			submit(end, reply.slot, SHARE_RECEIVE);
			return mark;
		}
	return -1;
}

/* What was sent last. */
static bool is_answered(struct end *end)
{
	struct slot_reply reply;

	return next_reply(end, &reply, WAIT_MS) && reply.slot >= SHARE_RECEIVE_SLOTS &&
	       !reply.result;
}

static bool sees_peer(const struct end *end, bool wanted)
{
	for (int waited = 0; waited < WAIT_MS; waited += STEP_MS) {
		if (!__atomic_load_n(&end->memory->peer_is_there, __ATOMIC_ACQUIRE) == !wanted)
			return true;
		poll(NULL, 0, STEP_MS);
	}
	return false;
}

static bool line_is_closed(int line)
{
	struct pollfd waiting = { .fd = line, .events = POLLIN };
	struct wire_message message;
	int none[WIRE_FDS];

	for (int n = 0; n < 4; n++) {
		int got;

		if (poll(&waiting, 1, WAIT_MS) <= 0)
			return false;
		got = line_receive(line, &message, none, false);
		if (got < 0)
			return true;
	}
	return false;
}

/* ---- what has to work ---- */

static void packets_pass(void)
{
	unsigned right = 0;

	for (unsigned n = 0; n < 500; n++) {
		put(&web, (uint8_t)n);
		right += take(&store, WAIT_MS) == (uint8_t)n && is_answered(&web);
	}
	expect("packets pass", right == 500);
	put(&store, 77);
	expect("and back", take(&web, WAIT_MS) == 77 && is_answered(&store));
}

/* Who does not sleep, and looks for replies alone before it will, is woken all the same. */
static bool is_woken(const struct end *end)
{
	struct pollfd answer = { .fd = end->answer, .events = POLLIN };

	return poll(&answer, 1, WAIT_MS) > 0;
}

static void be_awake(struct end *end)
{
	uint64_t rung;

	if (read(end->answer, &rung, sizeof(rung)) < 0 && errno != EAGAIN)
		abort();
	__atomic_store_n(&end->memory->queue.replies.sleeps, 0, __ATOMIC_SEQ_CST);
}

/* When the second one is answered, whoever had to be woken for the first one was. */
static void delivered_quietly(void)
{
	struct pollfd answer = { .fd = web.answer, .events = POLLIN };
	bool passes = true;

	be_awake(&web);
	web.hears = SHARE_HEARS_LATER;
	for (unsigned n = 0; n < 2; n++) {
		put(&web, (uint8_t)n);
		passes &= take(&store, WAIT_MS) == (int)n && is_answered(&web);
	}
	passes &= !poll(&answer, 1, 0);
	expect("who need not hear that it was delivered is not woken", passes);
	web.hears = SHARE_HEARS_AT_ONCE;
	put(&web, 3);
	passes = take(&store, WAIT_MS) == 3 && is_answered(&web);
	expect("who has to is", passes && is_woken(&web));
	be_awake(&web);
}

static void rules_change(void)
{
	const uint32_t word = store.memory->peer_is_there;

	be_awake(&store);
	bring_rules(web.line, "allow store offer,pass store/shelf\n");
	expect("who may not open it any more is parted", sees_peer(&store, false));
	expect("which wakes who does not sleep", is_woken(&store));
	be_awake(&store);
	bring_rules(web.line, all);
	expect("and joined when it may", sees_peer(&store, true) && sees_peer(&web, true));
	expect("which wakes who does not sleep, too", is_woken(&store));
	expect("that the two were parted can be seen", store.memory->peer_is_there != word);
	bring_rules(web.line, "allow * offer,see,open */*\nallow store pass *\n");
	put(&web, 5);
	expect("what no rule lets pass waits", take(&store, 100) == -1);
	bring_rules(web.line, all);
	expect("until one does", take(&store, WAIT_MS) == 5 && is_answered(&web));
}

/* ---- what has to fail ---- */

/* Each: an end that joins and is joined with `store`, and then does something wrong. */
static void bad_kind(struct end *end) { submit(end, 0, SHARE_SEND); }
static void bad_send_kind(struct end *end) { submit(end, SHARE_SLOTS - 1, SHARE_RECEIVE); }
static void slot_twice(struct end *end) { submit(end, 5, SHARE_RECEIVE); }
static void too_many(struct end *end)
{
	__atomic_store_n(&end->memory->queue.requests.written, 9999, __ATOMIC_RELEASE);
	slot_kick(&end->client);
}
static void slot_beyond(struct end *end)
{
	end->memory->queue.requests.entry[end->client.submitted % SLOTS_MAX].slot = 60000;
	end->client.submitted++;
	__atomic_store_n(&end->memory->queue.requests.written, end->client.submitted,
			 __ATOMIC_RELEASE);
	slot_kick(&end->client);
}
static void unknown_packet(struct end *end)
{
	const unsigned slot = SHARE_RECEIVE_SLOTS + end->sent++ % SHARE_SEND_SLOTS;
	const struct share_packet packet = { .epoch = 1, .number = 1,
					     .kind = SHARE_PACKET_KINDS };

	memcpy(end->memory->data[slot], &packet, sizeof(packet));
	submit(end, slot, SHARE_SEND);
}
static void long_packet(struct end *end)
{
	put_raw(end, ++end->number, SHARE_PACKET_MAX_BYTES + 1, 1);
}
static void longest_packet(struct end *end) { put_raw(end, ++end->number, UINT32_MAX, 1); }

static void liars(void)
{
	static const struct { const char *what; void (*act)(struct end *end); } acts[] = {
		{ "a packet in a slot that receives", bad_kind },
		{ "an empty slot that sends", bad_send_kind },
		{ "a slot that it has given", slot_twice },
		{ "more requests than slots", too_many },
		{ "a slot that there is not", slot_beyond },
		{ "a packet longer than a slot", long_packet },
		{ "the longest packet", longest_packet },
		{ "a packet of a kind that there is not", unknown_packet },
	};

	for (size_t n = 0; n < sizeof(acts) / sizeof(acts[0]); n++) {
		struct end liar;

		connect_end(&liar, "liar", SHARE_BINDS);
		if (!sees_peer(&liar, true))
			expect("joined", false);
		acts[n].act(&liar);
		expect(acts[n].what, line_is_closed(liar.line) && sees_peer(&store, false));
		leave(&liar);
	}
}

static void wrong_joins(void)
{
	struct wire_message messages[6];
	struct end end;

	for (unsigned n = 0; n < 6; n++)
		messages[n] = join_message("liar", SHARE_BINDS);
	messages[0].join.least = messages[0].join.most = WIRE_VERSION + 1;
	messages[1].join.least = messages[1].join.most = 0;
	messages[2].join.side = 7;
	memset(messages[3].join.machine, 'a', sizeof(messages[3].join.machine));
	messages[4].magic = 1;
	messages[5].kind = 99;
	for (unsigned n = 0; n < 6; n++) {
		int got;

		make_end(&end, SHARE_BINDS);
		got = join(&end, &messages[n]);
		expect(n < 2 ? "a version that it has not" : "a message that is wrong",
		       n < 2 ? !got : got < 0);
		leave(&end);
	}
	make_end(&end, SHARE_BINDS);
	close(end.memory_fd);
	end.memory_fd = spawn_share("short", SLOT_PAGE_BYTES);
	messages[0] = join_message("liar", SHARE_BINDS);
	expect("memory that is too short", join(&end, &messages[0]) < 0);
	leave(&end);
}

static void nobody_there(void)
{
	struct slot_reply reply;

	put(&store, 1);
	expect("a packet for nobody comes back",
	       next_reply(&store, &reply, WAIT_MS) && reply.slot >= SHARE_RECEIVE_SLOTS &&
		       reply.result < 0);
}

/* Whether pages may be lent, the hub says, and nobody else hears of it. */
static void say_ask(struct end *end, uint32_t flags)
{
	const unsigned slot = SHARE_RECEIVE_SLOTS + end->sent++ % SHARE_SEND_SLOTS;
	const struct share_packet packet = { .epoch = 1, .number = ++end->number,
					     .kind = SHARE_PACKET_ASK,
					     .flags = flags };

	memcpy(end->memory->data[slot], &packet, sizeof(packet));
	submit(end, slot, SHARE_SEND);
}

static int hear_answer(struct end *end)
{
	struct slot_reply reply;

	return next_reply(end, &reply, WAIT_MS) ? reply.result : -1;
}

static int ask_as(struct end *end, uint32_t flags)
{
	say_ask(end, flags);
	return hear_answer(end);
}

/* Rules come another way than questions do, and may come behind them: it asks again. */
static bool is_told_as(struct end *end, uint32_t flags, int wanted)
{
	for (int waited = 0; waited < WAIT_MS; waited += STEP_MS) {
		if (ask_as(end, flags) == wanted)
			return true;
		poll(NULL, 0, STEP_MS);
	}
	return false;
}

static bool may_lend(struct end *end) { return is_told_as(end, 0, 0); }
static bool may_not_lend(struct end *end) { return is_told_as(end, 0, -EPERM); }
static bool may_lend_to_read(struct end *end) { return is_told_as(end, SHARE_PACKET_READ_ONLY, 0); }

static const char none_lends[] = "allow * offer,see,open,pass */*\n";

/* Both have the same one, or none. */
static bool have_window(bool wanted)
{
	for (int waited = 0; waited < WAIT_MS; waited += STEP_MS) {
		hear(&store);
		hear(&web);
		if (wanted == (store.window >= 0) && wanted == (web.window >= 0))
			return inode_of(store.window) == inode_of(web.window);
		poll(NULL, 0, STEP_MS);
	}
	return false;
}

static bool is_ended(uint64_t window)
{
	for (int waited = 0; waited < WAIT_MS; waited += STEP_MS) {
		hear(&store);
		hear(&web);
		if (store.ended == window || web.ended == window)
			return true;
		poll(NULL, 0, STEP_MS);
	}
	return false;
}

static void lending(void)
{
	uint64_t window;
	uint64_t next;

	hear(&store);
	hear(&web);
	expect("nobody has a window who has not asked to lend", store.window < 0 && web.window < 0);
	bring_rules(web.line, none_lends);
	expect("none may, where no rule says so", may_not_lend(&web));
	expect("and none has one", have_window(false));
	bring_rules(web.line, all);
	expect("pages may be lent", may_lend(&web));
	expect("then both have one", have_window(true));
	window = inode_of(web.window);
	expect("and keep it", may_lend(&store) && inode_of(web.window) == window);
	bring_rules(web.line, none_lends);
	expect("it is taken from both with the rule", have_window(false));
	expect("and ended", is_ended(window));
	expect("of which the other end hears nothing", take(&store, 50) == -1);
	bring_rules(web.line, all);
	expect("another rule", may_lend(&web) && have_window(true));
	next = inode_of(store.window);
	expect("makes another one", next && next != window);
	web.is_deaf = true;
	bring_rules(web.line, "allow store offer,pass store/shelf\n");
	expect("who is parted has none", have_window(false));
	patience_ends();
	expect("who does not say so loses it, too", is_ended(next));
	web.is_deaf = false;
	bring_rules(web.line, all);
	expect("and is joined again", sees_peer(&store, true) && sees_peer(&web, true));
}

static uint64_t parts_of(const struct end *end)
{
	return (end->window >= 0) + (end->part[0] >= 0) + (end->part[1] >= 0);
}

static bool is_sealed(int fd)
{
	const int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && seals & F_SEAL_FUTURE_WRITE && seals & F_SEAL_SEAL;
}

static void lending_to_read(void)
{
	bring_rules(web.line, "allow * offer,see,open,pass */*\nallow web lend-ro */*\n");
	expect("who may lend what is read may not lend else", may_not_lend(&web));
	expect("nor the other one so", is_told_as(&store, SHARE_PACKET_READ_ONLY, -EPERM));
	expect("but may lend that", may_lend_to_read(&web) && have_window(true));
	expect("in a window of three parts", parts_of(&web) == SHARE_PARTS &&
						     parts_of(&store) == SHARE_PARTS);
	expect("of which two are nobody's to write any more but who has",
	       is_sealed(web.part[0]) && is_sealed(store.part[1]) && !is_sealed(web.window));
	bring_rules(web.line, "allow * offer,see,open,pass */*\nallow web lend */*\n");
	expect("who may lend may lend so, too", may_lend_to_read(&web) && have_window(true));
	bring_rules(web.line, none_lends);
	expect("and it is taken with the rule", have_window(false));
	bring_rules(web.line, all);
}

/* A machine that was started by an earlier version. */
static void older_joiner(void)
{
	leave(&web);
	connect_as(&web, "web", SHARE_BINDS, WIRE_VERSION_PARTS - 1);
	expect("one of an earlier version", sees_peer(&store, true) && sees_peer(&web, true));
	expect("lends", may_lend(&web) && have_window(true));
	expect("in a window of one part", parts_of(&web) == 1 && parts_of(&store) == 1);
	leave(&web);
	connect_end(&web, "web", SHARE_BINDS);
	expect("which goes with it", sees_peer(&store, true) && have_window(false));
	patience_ends();
}

/* Says with which it comes again, while the hub has it taken from it. */
static void comes_with_lost(void)
{
	struct wire_message message = join_message("again", SHARE_BINDS);
	struct end again;
	uint64_t window;
	int kept;

	expect("two have one again", may_lend(&web) && have_window(true));
	kept = dup(web.window);
	window = inode_of(kept);
	web.is_deaf = true;
	bring_rules(web.line, none_lends);
	expect("it is taken", have_window(false));
	web.is_deaf = false;
	make_end(&again, SHARE_BINDS);
	again.window = kept;
	message.join.window_number = 7;
	expect("another life of its joiner joins with it", join(&again, &message) == WIRE_VERSION);
	for (int waited = 0; waited < WAIT_MS && again.window >= 0; waited += STEP_MS) {
		hear(&again);
		poll(NULL, 0, STEP_MS);
	}
	expect("and is told that it has none, before it is ended",
	       again.window < 0 && !again.ended && again.memory->window_accepted == 8);
	leave(&again);
	patience_ends();
	expect("as it is", is_ended(window));
	bring_rules(web.line, all);
}

/* A machine that never says that it has the window has the other one wait, and no more. */
static void deaf_machine(void)
{
	web.is_deaf = true;
	say_ask(&store, 0);
	expect("both are given one", have_window(true));
	patience_ends();
	expect("who waits for one that does not come to it is told",
	       hear_answer(&store) == -ENOTCONN);
	web.is_deaf = false;
	expect("and has nothing", have_window(false));
}

/* More than a second's share, of a rate that gives less than one in a millisecond. */
static void slow_rate(void)
{
	unsigned came = 0;

	bring_rules(web.line, "allow * offer,see,open */*\nallow * pass */* requests 20\n");
	for (unsigned n = 0; n < 25; n++) {
		put(&web, (uint8_t)n);
		came += take(&store, WAIT_MS) == (uint8_t)n && is_answered(&web);
	}
	expect("a slow rate lets all pass in its time", came == 25);
	bring_rules(web.line, all);
}

/* Another agent, and the end that is asked for it; NULL: nobody is. */
static struct end *wait_for_wish(void)
{
	store.agents = web.agents = 0;
	for (int waited = 0; waited < WAIT_MS; waited += STEP_MS) {
		hear(&store);
		hear(&web);
		if (store.agents || web.agents)
			return store.agents ? &store : &web;
		poll(NULL, 0, STEP_MS);
	}
	return NULL;
}

static void *allow_all(void *context)
{
	const int fd = *(int *)context;
	char line[512];
	char answer[64];
	unsigned long number;
	ssize_t got;

	while ((got = recv(fd, line, sizeof(line) - 1, 0)) > 0) {
		line[got] = 0;
		if (sscanf(line, "ask %lu", &number) != 1 ||
		    snprintf(answer, sizeof(answer), "%lu allow\n", number) < 0 ||
		    send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
			break;
	}
	return NULL;
}

/* What is asked does not answer once: another one is wanted, and asked from then on. */
static void agents(void)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_AGENT };
	struct end *asked;
	pthread_t thread;
	int silent[2];
	int good[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, silent) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, good))
		abort();
	line_send(web.line, &message, &silent[0], 1);
	bring_rules(web.line, "ask * offer,see,open,pass */*\nagent /nowhere 100\n");
	expect("an agent that is silent allows nothing", sees_peer(&store, false));
	asked = wait_for_wish();
	expect("another one is asked for", asked);
	expect("again while there is none", wait_for_wish());
	pthread_create(&thread, NULL, allow_all, &good[1]);
	line_send(asked ? asked->line : web.line, &message, &good[0], 1);
	close(good[0]);
	expect("and is asked", sees_peer(&store, true));
	bring_rules(web.line, all);
	shutdown(good[1], SHUT_RDWR);
	pthread_join(thread, NULL);
	close(good[1]);
	close(silent[0]);
	close(silent[1]);
}

static void *serve(void *context)
{
	hub_serve(*(int *)context, getpid());
	return NULL;
}

/* ---- a joiner dies ---- */

/* Once a line that begins now is served, the hub has seen what was closed before. */
static void wait_for_turns(void)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_SHOW };
	int line = line_connect(path);
	struct pollfd said = { .fd = line, .events = POLLIN };

	if (line_send(line, &message, NULL, 0) || poll(&said, 1, WAIT_MS) != 1)
		abort();
	close(line);
}

static void lose_joiner(struct end *end, int machine)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_HOLD };

	if (line_send(end->line, &message, &machine, 1))
		abort();
	close(end->line);
	end->line = -1;
	wait_for_turns();
}

/* As the next joiner does, and the device of a machine that goes on. */
static bool joins_again(struct end *end, const char *machine, uint32_t side)
{
	struct wire_message message = join_message(machine, side);

	end->line = line_connect(path);
	end->memory->generation++;
	if (join(end, &message) != WIRE_VERSION)
		return false;
	slot_restart(&end->client);
	begin(end);
	return true;
}

static void joiner_dies(void)
{
	const uint32_t of_web = store.memory->peer_is_there, of_store = web.memory->peer_is_there;
	int machine[2];

	if (pipe(machine))
		abort();
	lose_joiner(&web, machine[0]);
	put(&store, 55);
	wait_for_turns();
	expect("what is sent to a port without a joiner waits", take(&web, STEP_MS) == -1);
	expect("another one joins", joins_again(&web, "web", SHARE_BINDS));
	expect("and it comes", take(&web, WAIT_MS) == 55 && is_answered(&store));
	expect("of which neither end has heard", of_web && of_store &&
	       store.memory->peer_is_there == of_web && web.memory->peer_is_there == of_store);
	packets_pass();
	lose_joiner(&web, machine[0]);
	expect("a place is held", store.memory->peer_is_there == of_web);
	patience_ends();
	expect("for a while", sees_peer(&store, false));
	leave_all_but_line(&web);
	connect_end(&web, "web", SHARE_BINDS);
	expect("another life of the machine joins", sees_peer(&store, true));
	lose_joiner(&web, machine[0]);
	close(machine[1]);
	expect("of a machine that ends nothing is held", sees_peer(&store, false));
	close(machine[0]);
	leave_all_but_line(&web);
	connect_end(&web, "web", SHARE_BINDS);
	expect("and the next one joins", sees_peer(&store, true));
}

int main(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	pthread_t thread;
	int listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);

	*strrchr(path, '/') = 0;
	if (!mkdtemp(path))
		abort();
	path[strlen(path)] = '/';
	strcpy(at.sun_path, path);
	if (bind(listen_fd, (const struct sockaddr *)&at, sizeof(at)) || listen(listen_fd, 8))
		abort();
	pthread_create(&thread, NULL, serve, &listen_fd);
	connect_end(&store, "store", SHARE_SERVES);
	connect_end(&web, "web", SHARE_BINDS);
	expect("two ends see each other", sees_peer(&store, true) && sees_peer(&web, true));
	packets_pass();
	delivered_quietly();
	rules_change();
	lending();
	lending_to_read();
	older_joiner();
	comes_with_lost();
	deaf_machine();
	slow_rate();
	packets_pass();
	agents();
	packets_pass();
	joiner_dies();
	packets_pass();
	leave(&web);
	expect("one that goes is seen to", sees_peer(&store, false));
	nobody_there();
	wrong_joins();
	liars();
	connect_end(&web, "web", SHARE_BINDS);
	expect("the others go on", sees_peer(&store, true));
	packets_pass();
	unlink(path);
	*strrchr(path, '/') = 0;
	rmdir(path);
	return failures != 0;
}
