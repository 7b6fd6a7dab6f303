/*
 * The proxy of a served disk, whose guest, hub and server are this test: a request keeps its number
 * and its bytes while its window is taken away and another one comes, what was answered in between
 * counts for nothing, and what was lost is said again. Prints TAP.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "../bus/fake_guest.h"

#include "abi/share_disk.h"
#include "device/share/disk_proxy_internal.h"
#include "device/share/lender.h"
#include "lib/archive.h"

enum {
	RELID = FAKE_CHANNELS + 1,
	RING_BYTES = (FAKE_RING_PAGES - 1) * GUEST_PAGE_BYTES,
	PATIENCE_MS = 20000,
	STEP_MS = 5,
	SECTOR = 512,
	DATA_GFN = 0x90,
	WRITE_10 = 0x2a,
	READ_10 = 0x28,
	DISK_BYTES = 1 << 20
};

/* What the hub was given last of a kind, and its slot. */
struct said { bool is_there; unsigned slot; uint8_t bytes[SHARE_PACKET_MAX_BYTES]; };

struct bench {
	struct fake fake;
	struct share_memory *memory;
	struct port_window window;
	struct slot_client client;
	struct lender *lender;
	struct disk_proxy *proxy;
	uint32_t written;
	int line;
	/* the hub's */
	struct slot_server hub;
	unsigned receives;
	uint8_t receive[SHARE_SLOTS];
	struct said ask, hello, request;
	uint64_t number;
};

static struct bench bench;
static uint32_t version = SHARE_DISK_1_2;
static uint32_t window_parts = WINDOW_PARTS;
static uint8_t (*only)[SLOT_PAGE_BYTES];
static unsigned checks, bad;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

static void *own(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

/* ---- the guest ---- */

static uint8_t *ring(bool to_guest)
{
	return bench.fake.memory.ram + FAKE_RINGS_GPA + (RELID - 1) * FAKE_STRIDE +
	       (to_guest ? FAKE_RING_PAGES * GUEST_PAGE_BYTES : 0);
}

static uint32_t heard(void)
{
	uint32_t at;

	memcpy(&at, ring(true) + RING_WRITE_INDEX, sizeof(at));
	return at;
}

static void put(const struct vstor_packet *request, uint32_t data_bytes)
{
	uint8_t packet[512];
	const uint32_t bytes =
		fake_packet(packet, ++bench.fake.now, request, DATA_GFN, 0, data_bytes);

	for (uint32_t n = 0; n < bytes; n++)
		(ring(false) + GUEST_PAGE_BYTES)[(bench.written + n) % RING_BYTES] = packet[n];
	bench.written = (bench.written + bytes) % RING_BYTES;
	memcpy(ring(false) + RING_WRITE_INDEX, &bench.written, sizeof(bench.written));
	bus_event(bench.fake.bus, VMBUS_CONNECTION_CHANNEL + RELID, 0);
	bus_run(bench.fake.bus);
}

static void transfer(uint8_t operation, uint8_t sector)
{
	struct vstor_packet packet = {
		.operation = VSTOR_EXECUTE,
		.body.srb = { .cdb_bytes = 10,
			      .direction = operation == READ_10 ? SRB_DIRECTION_READ
								: SRB_DIRECTION_WRITE,
			      .data_bytes = SECTOR },
	};

	packet.body.srb.cdb_or_sense[0] = operation;
	packet.body.srb.cdb_or_sense[5] = sector;
	packet.body.srb.cdb_or_sense[8] = 1;
	put(&packet, SECTOR);
}

static uint8_t *data(void) { return bench.fake.memory.ram + DATA_GFN * GUEST_PAGE_BYTES; }

/* ---- the hub and the server ---- */

static void take_sent(const struct slot_request *request)
{
	const uint8_t *bytes = bench.memory->data[request->slot];
	struct share_packet packet;
	struct said *said = &bench.ask;
	uint32_t kind = 0;

	memcpy(&packet, bytes, sizeof(packet));
	if (packet.kind == SHARE_PACKET_DATA) {
		memcpy(&kind, bytes + sizeof(packet), sizeof(kind));
		said = kind == SHARE_DISK_HELLO ? &bench.hello : &bench.request;
		slot_answer(&bench.hub, request->slot, 0);
	}
	*said = (struct said){ .is_there = true, .slot = request->slot };
	memcpy(said->bytes, bytes + sizeof(packet), packet.bytes);
}

static void turn(void)
{
	struct slot_request request;

	disk_proxy_collect(bench.proxy);
	while (slot_take(&bench.hub, &request) > 0)
		if (request.kind == SHARE_RECEIVE)
			bench.receive[bench.receives++] = (uint8_t)request.slot;
		else
			take_sent(&request);
	disk_proxy_collect(bench.proxy);
}

/* Until it has come, and been taken for the next. */
static bool comes(struct said *said)
{
	for (int waited = 0; !said->is_there && waited < PATIENCE_MS; waited += STEP_MS) {
		turn();
		poll(NULL, 0, said->is_there ? 0 : STEP_MS);
	}
	if (!said->is_there)
		return false;
	said->is_there = false;
	return true;
}

static void answer_ask(int result)
{
	slot_answer(&bench.hub, bench.ask.slot, result);
	turn();
}

static void say(const void *message, uint32_t bytes)
{
	const unsigned slot = bench.receive[--bench.receives];
	const struct share_packet packet = { .epoch = 1, .number = ++bench.number,
					     .bytes = bytes };
	uint8_t *to = bench.memory->data[slot];

	memcpy(to, &packet, sizeof(packet));
	memcpy(to + sizeof(packet), message, bytes);
	slot_answer(&bench.hub, slot, (int32_t)(sizeof(packet) + bytes));
	turn();
}

static uint32_t round_of_hello(void)
{
	struct share_disk_hello hello;

	memcpy(&hello, bench.hello.bytes, sizeof(hello));
	return hello.round;
}

static void welcome(void)
{
	const struct share_disk_welcome said = { .kind = SHARE_DISK_WELCOME,
						 .version = version,
						 .round = round_of_hello(),
						 .size_bytes = DISK_BYTES,
						 .sector_bytes = SECTOR,
						 .physical_bytes = SECTOR };

	say(&said, sizeof(said));
}

static void done(uint64_t number)
{
	const struct share_disk_done said = { .kind = SHARE_DISK_DONE, .number = number };

	say(&said, sizeof(said));
}

static struct share_disk_request asked(void)
{
	struct share_disk_request request;

	memcpy(&request, bench.request.bytes, sizeof(request));
	return request;
}

static void put_word(struct window_word word, int fd)
{
	union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int))]; } control = {
		.head = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
			  .cmsg_len = CMSG_LEN(sizeof(int)) },
	};
	struct iovec part = { .iov_base = (void *)(uintptr_t)&word, .iov_len = sizeof(word) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		head.msg_control = &control;
		head.msg_controllen = sizeof(control);
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	if (sendmsg(bench.line, &head, 0) != sizeof(word))
		abort();
}

/* As the joiner does; no parts: it is taken away. */
static void give(const int fds[WINDOW_PARTS], uint32_t parts)
{
	struct window_word word = { .number = bench.memory->window_wanted + 1, .parts = parts };

	for (; word.part < parts || !word.part; word.part++)
		put_word(word, parts ? fds[word.part] : -1);
	bench.memory->window_wanted = word.number;
	turn();
}

static void take_away(void) { give(NULL, 0); }

/* What the server sees of a part. */
static void *make_part(unsigned part, int *ret_fd)
{
	const int made = memfd_create("window", 0);
	const int fd = fcntl(made, F_DUPFD, 20); /* the lowest is for what comes */
	const size_t bytes = share_part_bytes(part);
	void *at;

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		abort();
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(made);
	if (at == MAP_FAILED)
		abort();
	*ret_fd = fd;
	return at;
}

/* And of the window; what it only reads is in `only`. */
static struct share_window *give_new(void)
{
	int fds[WINDOW_PARTS];
	struct share_window *window = make_part(SHARE_PART_BOTH, &fds[WINDOW_BOTH]);

	only = make_part(SHARE_PART_BINDS, &fds[WINDOW_OWN]);
	munmap(make_part(SHARE_PART_SERVES, &fds[WINDOW_OTHERS]), WINDOW_HALF_BYTES);
	give(fds, window_parts);
	for (unsigned n = 0; n < WINDOW_PARTS; n++)
		close(fds[n]);
	return window;
}

/* Where the server finds what is to be written. */
static const uint8_t *written(const struct share_window *window)
{
	return version == SHARE_DISK_1_1 ? window->page[1][asked().first] : only[asked().first];
}

/* ---- what is tested ---- */

static void changed(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}

static void make_bench(void)
{
	int line[2];

	fake_create(&bench.fake, 1000000000);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line))
		abort();
	bench.line = line[0];
	bench.memory = own(sizeof(*bench.memory));
	bench.memory->side = SHARE_SIDE_BINDS;
	bench.memory->class = SHARE_CLASS_DISK;
	bench.memory->epoch = 7;
	bench.client = (struct slot_client){ .queue = &bench.memory->queue, .slots = SHARE_SLOTS,
					     .doorbell_fd = eventfd(0, EFD_NONBLOCK),
					     .answer_fd = eventfd(0, EFD_NONBLOCK) };
	bench.hub = (struct slot_server){ .queue = &bench.memory->queue, .slots = SHARE_SLOTS,
					  .doorbell_fd = bench.client.doorbell_fd,
					  .answer_fd = bench.client.answer_fd };
	bench.lender = lender_create(&bench.fake.memory, changed, NULL);
	if (!port_window_make(&bench.window, line[1]))
		abort();
	bench.proxy = disk_proxy_create(bench.fake.bus, 0, bench.memory, &bench.window,
					&bench.client, &bench.client, bench.lender);
	close(WINDOW_RECEIVED_FD);
	fake_contact(&bench.fake);
	fake_open(&bench.fake, RELID);
	put(&(struct vstor_packet){ .operation = VSTOR_BEGIN }, 0);
	put(&(struct vstor_packet){ .operation = VSTOR_QUERY_VERSION,
				    .body.version.version = VSTOR_6_2 }, 0);
	put(&(struct vstor_packet){ .operation = VSTOR_END }, 0);
	bench.memory->generation = 1;
	turn();
}

/* A server that is there: until it has been asked whether it is a disk. */
static struct share_window *begin(uint32_t word)
{
	struct share_window *window = NULL;

	bench.memory->peer_is_there = word;
	check("the hub is asked first", comes(&bench.ask) && !bench.hello.is_there);
	if (!bench.window.is_shared)
		window = give_new();
	answer_ask(0);
	check("then the server is", comes(&bench.hello));
	return window;
}

static void taken_under_way(uint8_t operation)
{
	struct share_window *window = begin(bench.memory->peer_is_there + 1);
	const uint32_t before = heard();
	uint64_t number;

	welcome();
	memset(data(), 'w', SECTOR);
	transfer(operation, 3);
	check("a request is sent", comes(&bench.request) && asked().offset == 3 * SECTOR);
	number = asked().number;
	check("with its bytes in the window",
	      operation == READ_10 || written(window)[5] == 'w');
	check("and what is only read nowhere else",
	      version == SHARE_DISK_1_1 || window->page[1][asked().first][5] != 'w');
	take_away();
	done(number);
	check("what is answered after the window counts for nothing", heard() == before);
	check("who may lend is asked", comes(&bench.ask));
	answer_ask(-EPERM);
	done(number);
	check("and what is answered later", heard() == before);
	check("it is asked again each second", comes(&bench.ask) && !bench.hello.is_there);
	munmap(window, sizeof(*window));
	window = give_new();
	answer_ask(0);
	check("then the server is", comes(&bench.hello) && !bench.request.is_there);
	done(number);
	check("what it answers before its welcome is of before", heard() == before);
	welcome();
	check("it is asked by the same number", comes(&bench.request) && asked().number == number);
	check("in this round", asked().round == round_of_hello());
	check("with the same bytes",
	      operation == READ_10 || written(window)[5] == 'w');
	memset(window->page[1][asked().first], 'r', SECTOR);
	done(number);
	check("now it is answered", heard() != before);
	check("with what was read", operation != READ_10 || data()[SECTOR - 1] == 'r');
	done(number);
	take_away();
	munmap(window, sizeof(*window));
}

static void hello_is_lost(void)
{
	struct share_window *window = begin(bench.memory->peer_is_there + 1);
	const uint32_t round = round_of_hello();

	check("a hello that nobody answers comes again", comes(&bench.hello));
	check("of the same round", round_of_hello() == round);
	welcome();
	welcome();
	transfer(WRITE_10, 1);
	check("one that is answered twice is one", comes(&bench.request));
	done(asked().number);
	munmap(window, sizeof(*window));
}

/* A hub that answers nothing has all slots; the proxy goes on when one is free. */
static void no_slots(void)
{
	unsigned held = 0;
	uint8_t slots[SHARE_SLOTS];

	do {
		bench.ask.is_there = false;
		bench.memory->peer_is_there++;
		turn();
		if (bench.ask.is_there)
			slots[held++] = (uint8_t)bench.ask.slot;
	} while (bench.ask.is_there);
	check("all slots are with the hub", held > SHARE_SEND_SLOTS / 2);
	for (unsigned n = 0; n < held; n++)
		slot_answer(&bench.hub, slots[n], -ENOTCONN);
	turn();
	check("it asks again when they are free", comes(&bench.ask));
	answer_ask(0);
	check("and the server", comes(&bench.hello));
}

/* What is saved with this number as its last one, loaded again: 0 or -EBADMSG. */
static int load_last_number(uint64_t number)
{
	static uint8_t saved[16 << 20];
	struct archive archive = archive_save_to(saved, sizeof(saved));

	disk_proxy_stand(bench.proxy);
	bench.proxy->last_number = number;
	disk_proxy_archive(&archive, bench.proxy);
	if (archive.error)
		return archive.error;
	archive = archive_load_from(saved, archive.used);
	disk_proxy_archive(&archive, bench.proxy);
	return archive.error;
}

/* Of a saved machine that lies: the numbers of its next requests would be small ones. */
static void numbers_come_round(void)
{
	check("a last number is loaded", !load_last_number(INT64_MAX));
	check("one behind which numbers come round is not",
	      load_last_number(UINT64_MAX - 1) == -EBADMSG);
}

int main(void)
{
	make_bench();
	taken_under_way(WRITE_10);
	taken_under_way(READ_10);
	version = SHARE_DISK_1_1; /* a server of an earlier version, and then a hub, too */
	taken_under_way(WRITE_10);
	window_parts = 1;
	taken_under_way(WRITE_10);
	hello_is_lost();
	no_slots();
	numbers_come_round();
	fake_destroy(&bench.fake);
	disk_proxy_destroy(bench.proxy);
	lender_destroy(bench.lender);
	printf("1..%u\n", checks);
	return bad != 0;
}
