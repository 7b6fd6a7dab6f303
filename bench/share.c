/*
 * What channels between machines cost here, each beside a floor of the same run, in turns, least of
 * ROUNDS:
 *
 *   ring     64-byte packets, a guest's thread and the device's, with all that the bus checks;
 *            beside a ring of two threads in which nothing is checked
 *   access   to pages in a standing window: the count of it begins and ends
 *   bulk     what one machine has lent, copied by the other's process; beside memcpy
 *   revoke   of pages that nobody accesses any more, until they are the machine's alone
 *   agent    a decision of a policy agent that answers at once, asked over its socket; and one that
 *            was kept
 *
 *     share-bench [ROUNDS]
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "../tests/bus/fake_guest.h"

#include "abi/share.h"
#include "device/share/lend_table.h"
#include "ipc/spawn.h"
#include "share/agent.h"

enum {
	PACKETS = 50000,
	PAYLOAD_BYTES = 64,
	PACKET_BYTES = 16 + PAYLOAD_BYTES + 8,
	RING_PAGES = 12,
	RING_BYTES = (RING_PAGES - 1) * GUEST_PAGE_BYTES,
	RINGS_GPA = 0x40000,
	PLAIN_ENTRIES = 512,
	ACCESSES = 1000000,
	BULK_BYTES = SHARE_WINDOW_PAGES * SLOT_PAGE_BYTES,
	BULK_TIMES = 64,
	DECISIONS = 200,
	NOT_MEASURED_S = 1000,
	RAM_PAGES = 2 * SHARE_WINDOW_PAGES,
	DEFAULT_ROUNDS = 7
};

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void less(double *least, double took)
{
	if (!*least || took < *least)
		*least = took;
}

static void on_processor(unsigned n)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(n % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Busy for a while, then not: the host has others. */
static void wait_a_little(unsigned *turns)
{
	if (++*turns % 1024 == 0)
		sched_yield();
	else
		__builtin_ia32_pause();
}

/* ---- the bus's ring ---- */

static struct fake fake;
static struct bus_channel *channel;
static uint64_t received, sum;

static uint32_t *ring_word(unsigned word)
{
	return (uint32_t *)(void *)(fake.memory.ram + RINGS_GPA + word);
}

static void nothing(void *context) { (void)context; }

static int take_packet(void *context, const struct bus_packet *packet)
{
	uint64_t word;

	(void)context;
	if (packet->payload_bytes < PAYLOAD_BYTES)
		abort();
	memcpy(&word, packet->payload, sizeof(word));
	sum += word;
	received++;
	return 0;
}

static void put_words(uint8_t *data, uint32_t *at, const uint64_t *words, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		memcpy(data + *at, &words[n], sizeof(*words));
		*at = *at + 8 == RING_BYTES ? 0 : *at + 8;
	}
}

/* As a driver does. */
static void *guest(void *context)
{
	uint8_t *data = fake.memory.ram + RINGS_GPA + GUEST_PAGE_BYTES;
	const struct vmbus_packet head = { .type = PACKET_INBAND, .data_units = 2,
					   .units = (16 + PAYLOAD_BYTES) / 8 };
	uint64_t words[PACKET_BYTES / 8] = { 0 };
	uint32_t at = __atomic_load_n(ring_word(RING_WRITE_INDEX), __ATOMIC_RELAXED);
	unsigned turns = 0;

	(void)context;
	on_processor(1);
	memcpy(words, &head, sizeof(head));
	for (uint64_t n = 0; n < PACKETS; n++) {
		uint32_t taken;

		words[2] = n;
		do {
			taken = __atomic_load_n(ring_word(RING_READ_INDEX), __ATOMIC_ACQUIRE);
			if ((at + RING_BYTES - taken) % RING_BYTES + PACKET_BYTES < RING_BYTES)
				break;
			wait_a_little(&turns);
		} while (true);
		put_words(data, &at, words, PACKET_BYTES / 8);
		__atomic_store_n(ring_word(RING_WRITE_INDEX), at, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void open_ring(void)
{
	static const struct bus_service service = {
		.type = SHARE_PACKET_TYPE, .instance = SHARE_INSTANCE(7), .opened = nothing,
		.closed = nothing, .packet = take_packet
	};
	enum { RELID = FAKE_CHANNELS + 1 };
	struct {
		struct vmbus_gpadl_header header;
		uint64_t gfn[2 * RING_PAGES];
	} __attribute__((packed)) gpadl = {
		.header = { .head = { VMBUS_GPADL_HEADER, 0 }, .relid = RELID, .gpadl = RELID,
			    .range_bytes = 8 + 16 * RING_PAGES, .ranges = 1,
			    .bytes = 2 * RING_PAGES * GUEST_PAGE_BYTES } };
	const struct vmbus_open open = { .head.kind = VMBUS_OPEN, .relid = RELID, .gpadl = RELID,
					 .host_ring_page = RING_PAGES };

	fake_create(&fake, UINT64_MAX / 2);
	channel = bus_offer(fake.bus, &service);
	fake_contact(&fake);
	for (unsigned n = 0; n < 2 * RING_PAGES; n++)
		gpadl.gfn[n] = RINGS_GPA / GUEST_PAGE_BYTES + n;
	fake_message(&fake, &gpadl, sizeof(gpadl));
	fake_message(&fake, &open, sizeof(open));
}

static double by_bus(void)
{
	unsigned turns = 0;
	pthread_t thread;
	double begin;

	received = 0;
	begin = now_s();
	pthread_create(&thread, NULL, guest, NULL);
	while (received < PACKETS) {
		const uint64_t before = received;

		bus_channel_run(channel);
		if (received == before)
			wait_a_little(&turns);
	}
	begin = now_s() - begin;
	pthread_join(thread, NULL);
	return begin;
}

/* ---- a ring in which nothing is checked ---- */

static struct {
	_Alignas(64) uint32_t written;
	_Alignas(64) uint32_t taken;
	_Alignas(64) uint8_t entry[PLAIN_ENTRIES][PAYLOAD_BYTES];
} plain;

static void *plain_writer(void *context)
{
	uint64_t words[PAYLOAD_BYTES / 8] = { 0 };
	unsigned turns = 0;

	(void)context;
	on_processor(1);
	for (uint32_t n = 0; n < PACKETS; n++) {
		words[0] = n;
		while (n - __atomic_load_n(&plain.taken, __ATOMIC_ACQUIRE) == PLAIN_ENTRIES)
			wait_a_little(&turns);
		memcpy(plain.entry[n % PLAIN_ENTRIES], words, sizeof(words));
		__atomic_store_n(&plain.written, n + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static double by_plain_ring(void)
{
	uint8_t copy[PAYLOAD_BYTES];
	unsigned turns = 0;
	pthread_t thread;
	double begin;

	plain.written = plain.taken = 0;
	begin = now_s();
	pthread_create(&thread, NULL, plain_writer, NULL);
	for (uint32_t n = 0; n < PACKETS; n++) {
		uint64_t word;

		while (__atomic_load_n(&plain.written, __ATOMIC_ACQUIRE) == n)
			wait_a_little(&turns);
		memcpy(copy, plain.entry[n % PLAIN_ENTRIES], sizeof(copy));
		memcpy(&word, copy, sizeof(word));
		sum += word;
		__atomic_store_n(&plain.taken, n + 1, __ATOMIC_RELEASE);
	}
	begin = now_s() - begin;
	pthread_join(thread, NULL);
	return begin;
}

/* ---- pages ---- */

static struct guest_memory memory;
static struct share_window *window, *seen; /* the lender's, and the other process's */
static struct lend_table table;
static uint8_t *to, *from;

static void written(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}

static void *map(size_t bytes, int fd)
{
	const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

static void make_pages(void)
{
	const int fd = spawn_share("window", sizeof(*window));

	window = map(sizeof(*window), fd);
	seen = map(sizeof(*seen), fd);
	to = map(BULK_BYTES, -1);
	from = map(BULK_BYTES, -1);
	memset(to, 1, BULK_BYTES);
	memset(from, 2, BULK_BYTES);
	guest_memory_init(&memory,
			  map(guest_memory_footprint_bytes(RAM_PAGES * GUEST_PAGE_BYTES), -1),
			  RAM_PAGES * GUEST_PAGE_BYTES, RAM_PAGES * GUEST_PAGE_BYTES);
	memory.window_bytes = SHARE_WINDOW_PAGES * GUEST_PAGE_BYTES;
	memset(memory.ram, 3, RAM_PAGES * GUEST_PAGE_BYTES);
	table = (struct lend_table){ .lender = lender_create(&memory, written, NULL),
				     .half[0].page = window->page[0] };
}

static struct lend *lend_pages(uint32_t pages)
{
	struct lend *lend = lend_ask(&table, pages, false);

	if (!lend)
		abort();
	for (uint32_t n = 0; n < pages; n++)
		lend_frames(&table, lend)[n] = n;
	if (lend_begin(&table, lend))
		abort();
	return lend;
}

/* What the device does of SHARE_DATA with a number, and of SHARE_RELEASE. */
static double by_accesses(void)
{
	const uint32_t id = lend_pages(1)->id;
	double begin = now_s();

	for (unsigned n = 0; n < ACCESSES; n++)
		if (!lend_use(lend_find(&table, id)) || lend_release(lend_find(&table, id)))
			abort();
	begin = now_s() - begin;
	lend_end(&table, lend_find(&table, id));
	return begin / ACCESSES;
}

static double by_memcpy(const uint8_t *source)
{
	const double begin = now_s();

	for (unsigned n = 0; n < BULK_TIMES; n++) {
		memcpy(to, source, BULK_BYTES);
		__asm__ volatile("" ::: "memory");
	}
	return now_s() - begin;
}

static double by_lent_pages(void)
{
	struct lend *lend = lend_pages(SHARE_WINDOW_PAGES);
	double took;

	memcpy(to, seen->page[0], BULK_BYTES); /* its pages are mapped there */
	took = by_memcpy(seen->page[0][0]);
	lend_end(&table, lend);
	return took;
}

static double by_revoking(uint32_t pages)
{
	struct lend *lend = lend_pages(pages);
	const double begin = now_s();

	lend_end(&table, lend);
	return now_s() - begin;
}

/* ---- a policy agent ---- */

static void *answer_all(void *context)
{
	const int fd = *(const int *)context;
	char asked[512], answer[64];
	ssize_t bytes;

	while ((bytes = read(fd, asked, sizeof(asked) - 1)) > 0) {
		asked[bytes] = 0;
		snprintf(answer, sizeof(answer), "%lu allow\n", strtoul(asked + 4, NULL, 10));
		if (write(fd, answer, strlen(answer)) < 0)
			return NULL;
	}
	return NULL;
}

/* lifetime_ms 0: nothing is kept. A host that lets the agent wait for too long has not measured. */
static double by_asking(uint32_t lifetime_ms)
{
	const struct question question = { .act = ACT_PASS, .machine = "web",
					   .instance = "store/shelf", .class = "packet" };
	struct agent *agent = agent_create();
	char reason[AGENT_REASON_BYTES];
	pthread_t thread;
	bool good = true;
	double begin;
	int pair[2];

	if (!agent || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		abort();
	agent_set(agent, pair[0]);
	pthread_create(&thread, NULL, answer_all, &pair[1]);
	begin = now_s();
	for (int64_t n = 0; n < DECISIONS && good; n++)
		good = agent_decide(agent, &question, lifetime_ms, 1, reason) == RULE_ALLOW;
	begin = now_s() - begin;
	agent_destroy(agent);
	pthread_join(thread, NULL);
	close(pair[1]);
	return good ? begin / DECISIONS : NOT_MEASURED_S;
}

int main(int argc, char **argv)
{
	const unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : DEFAULT_ROUNDS;
	static const uint32_t pages[3] = { 1, 16, SHARE_WINDOW_PAGES };
	struct {
		double bus, plain_ring, access, lent, copied, revoked[3], asked, kept;
	} least = { 0 };

	open_ring();
	make_pages();
	on_processor(0);
	for (unsigned n = 0; n < rounds; n++) {
		less(&least.bus, by_bus());
		less(&least.plain_ring, by_plain_ring());
		less(&least.access, by_accesses());
		less(&least.copied, by_memcpy(from));
		less(&least.lent, by_lent_pages());
		less(&least.asked, by_asking(0));
		less(&least.kept, by_asking(UINT32_MAX));
		for (unsigned k = 0; k < 3; k++)
			less(&least.revoked[k], by_revoking(pages[k]));
	}
	printf("ring, %u bytes: %.2f million packets a second, unchecked %.2f: %.0f %%\n",
	       PAYLOAD_BYTES, PACKETS / least.bus / 1e6, PACKETS / least.plain_ring / 1e6,
	       least.plain_ring / least.bus * 1e2);
	printf("access in a standing window: %.1f ns\n", least.access * 1e9);
	printf("bulk: %.2f GB/s, memcpy %.2f: %.0f %%\n",
	       (double)BULK_BYTES * BULK_TIMES / least.lent / 1e9,
	       (double)BULK_BYTES * BULK_TIMES / least.copied / 1e9,
	       least.copied / least.lent * 1e2);
	for (unsigned k = 0; k < 3; k++)
		printf("revoke %u pages: %.1f us\n", pages[k], least.revoked[k] * 1e6);
	printf("agent: a decision %.1f us, one that was kept %.2f us\n", least.asked * 1e6,
	       least.kept * 1e6);
	return !sum;
}
