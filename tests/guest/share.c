/*
 * Both ends of a channel to another machine (abi/share.h): the one that serves sends back what it
 * gets until it is told to end; the one that binds sends packets of every length, some at once, and
 * compares. sharing.sh runs the two.
 */
#include "abi/share.h"
#include "guest/umbra_channel.h"
#include "vmbus.h"

enum { PACKETS = 240, AHEAD = 2, LAST = 0x656e64, LENT_WORDS = 0x6c656e74,
       READ_WORDS = 0x6c656e76, PAGES = 5,
       OFFER_PACKET = 0x2c6f3f52 };

struct message_out { struct share_data head; uint8_t bytes[SHARE_DATA_MAX_BYTES]; };

static struct channel ch;
static _Alignas(8) uint8_t got[SHARE_MESSAGE_BYTES];
#define WINDOW_GVA 0x1000000000ull
#define WORD_GVA 0x1100000000ull
#define READ_ONLY_GVA 0x1200000000ull
#define WINDOW_PAGES 256
static bool peer_is_there;
static uint64_t window_gpa, read_only_gpa;
/* what the other end has sent before this one has asked all that it asks */
static _Alignas(8) uint8_t early[AHEAD + 1][SHARE_MESSAGE_BYTES];
static unsigned early_kept, early_taken;

static bool hear(struct vmbus_packet *head)
{
	const bool there = channel_get(&ch, head, got, sizeof(got));

	check("an answer", there);
	return there;
}

/* News of the other end, which the next answer has, too, are passed over; data is not. */
static void keep_early(void)
{
	if (((const struct share_head *)(const void *)got)->kind != SHARE_DATA)
		return;
	check("no more than it sends at once", early_kept <= AHEAD);
	for (uint32_t n = 0; n < sizeof(got) && early_kept <= AHEAD; n++)
		early[early_kept][n] = got[n];
	early_kept++;
}

static void ask_version(uint32_t least, uint32_t most, struct share_version_answer *ret)
{
	/* as long as the shortest message */
	struct share_version ask = { .head.kind = SHARE_VERSION, .least = least, .most = most };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &ask, sizeof(ask), NULL, 0);
	while (hear(&head) && head.type != PACKET_COMPLETION)
		keep_early();
	*ret = *(struct share_version_answer *)(void *)got;
	check_equal("which completes", head.type, PACKET_COMPLETION);
	check_equal("what was asked", head.transaction, ch.transaction);
}

static void put_about(uint32_t lend, const void *data, uint32_t bytes)
{
	static struct message_out out;

	out.head = (struct share_data){ .head.kind = SHARE_DATA, .bytes = bytes, .lend = lend };
	for (uint32_t n = 0; n < bytes; n++)
		out.bytes[n] = ((const uint8_t *)data)[n];
	channel_put(&ch, PACKET_INBAND, &out, (uint32_t)sizeof(out.head) + bytes, NULL, 0);
}

static void put(const void *data, uint32_t bytes) { put_about(0, data, bytes); }

/* The next packet of the other end's; its bytes follow the head. False: the other end is gone. */
static bool take(struct share_data **ret, unsigned *ret_done)
{
	const uint64_t until = rdtsc() + 300000000000ull;

	if (early_taken < early_kept && early_taken <= AHEAD) {
		*ret = (struct share_data *)(void *)early[early_taken++];
		return true;
	}
	while (rdtsc() < until) {
		struct share_head *head = (struct share_head *)(void *)got;
		struct vmbus_packet packet;

		if (!channel_get(&ch, &packet, got, sizeof(got)))
			continue;
		if (packet.type == PACKET_COMPLETION) {
			*ret_done += head->kind == SHARE_DATA && head->status == SHARE_DONE;
		} else if (head->kind == SHARE_PEER) {
			peer_is_there = ((struct share_peer *)(void *)got)->is_there;
			if (!peer_is_there)
				return false;
		} else if (head->kind == SHARE_DATA) {
			*ret = (struct share_data *)(void *)got;
			return true;
		}
	}
	return false;
}

static void wait_for_peer(void)
{
	while (!peer_is_there) {
		struct vmbus_packet packet;

		if (channel_get(&ch, &packet, got, sizeof(got)))
			peer_is_there = ((struct share_peer *)(void *)got)->is_there;
	}
}

static uint32_t length_of(unsigned n) { return 8 + n * 1301u % (SHARE_DATA_MAX_BYTES - 8); }

/* ---- pages ---- */

/* The next message of this kind, completion or not; others are passed over. */
static bool expect_message(uint32_t kind)
{
	const uint64_t until = rdtsc() + 300000000000ull;

	while (rdtsc() < until) {
		struct vmbus_packet packet;

		const struct share_head *head = (const struct share_head *)(void *)got;

		if (!channel_get(&ch, &packet, got, sizeof(got)))
			continue;
		if (head->kind == kind)
			return true;
		if (head->kind == SHARE_PEER)
			return false;
	}
	return false;
}

static void signal_host(void *context) { channel_signal(context); }

/* The same channel as libumbra has it, where `ch` is now. */
static struct umbra_channel libumbra(void)
{
	return (struct umbra_channel){ .send = ch.send, .receive = ch.receive,
				       .send_bytes = ch.ring_bytes, .receive_bytes = ch.ring_bytes,
				       .written = ch.written, .read = ch.read,
				       .signal = signal_host, .context = &ch };
}

/* What libumbra has put, again where the ring was full. */
static bool is_put(const struct umbra_channel *channel, int status)
{
	ch.written = channel->written;
	if (status != UMBRA_CHANNEL_DONE && status != UMBRA_CHANNEL_FULL)
		check("libumbra puts it", false);
	return status != UMBRA_CHANNEL_FULL;
}

static void ask_about(uint32_t kind, uint32_t id, uint32_t flags)
{
	struct umbra_channel channel = libumbra();
	const uint64_t transaction = ++ch.transaction;
	int status;

	do
		status = kind == SHARE_END
				 ? umbra_share_end(&channel, transaction, id, flags)
				 : umbra_share_release(&channel, transaction, id);
	while (!is_put(&channel, status));
}

/* The status that came, and *ret where it was good. */
static uint32_t lend(void *pages, uint32_t bytes, uint32_t flags, struct share_lent *ret)
{
	const struct share_lend ask = { .head.kind = SHARE_LEND, .flags = flags };

	channel_put(&ch, PACKET_GPA_DIRECT, &ask, sizeof(ask), pages, bytes);
	if (!expect_message(SHARE_LEND))
		return ~0u;
	*ret = *(struct share_lent *)(void *)got;
	return ret->head.status;
}

/* Whole pages, by libumbra, in the order in which they lie. */
static uint32_t lend_pages(void *pages, uint32_t count, uint32_t flags, struct share_lent *ret)
{
	struct umbra_channel channel = libumbra();
	const uint64_t transaction = ++ch.transaction;
	uint64_t gfn[PAGES];

	for (uint32_t n = 0; n < count; n++)
		gfn[n] = gpa(pages) / PAGE_BYTES + n;
	while (!is_put(&channel, umbra_share_lend(&channel, transaction, gfn, count, flags)))
		;
	if (!expect_message(SHARE_LEND))
		return ~0u;
	*ret = *(struct share_lent *)(void *)got;
	return ret->head.status;
}

static uint64_t end_status(uint32_t id, uint32_t flags)
{
	ask_about(SHARE_END, id, flags);
	return expect_message(SHARE_END) ? ((struct share_head *)(void *)got)->status : ~0ull;
}

static bool words_are(const uint64_t *page, uint64_t first)
{
	for (unsigned n = 0; n < 512; n++)
		if (page[n] != first + n)
			return false;
	return true;
}

static void set_words(uint64_t *page, uint64_t first)
{
	for (unsigned n = 0; n < 512; n++)
		page[n] = first + n;
}

/* What the other end has lent: looked at, changed, and released. */
static void serve_pages(const struct share_data *data)
{
	const struct share_lent *lent = (const struct share_lent *)(const void *)(data + 1);
	const uint32_t id = data->lend;
	const uint32_t first = lent->first;
	const uint64_t words = lent->head.status;
	unsigned right = 0;

	for (uint32_t n = 0; n < PAGES; n++) {
		uint64_t *page = (uint64_t *)(uintptr_t)(WINDOW_GVA + PAGE_BYTES * n);

		map_page((uintptr_t)page, window_gpa + PAGE_BYTES * (first + n), PAGE_P | PAGE_W);
		invlpg((uintptr_t)page);
		right += words_are(page, words + 1000 * n);
		set_words(page, words + 1000 * n + 7);
	}
	check_equal("the other machine's pages in the window", right, PAGES);
	map_page(WORD_GVA, window_gpa + PAGE_BYTES * WINDOW_PAGES, PAGE_P | PAGE_W);
	check("which has a number", *(volatile uint64_t *)(uintptr_t)WORD_GVA);
	ask_about(SHARE_RELEASE, id, 0);
}

static void write_to(void *argument) { *(volatile uint64_t *)argument = 1; }
static void lock_at(void *argument)
{
	__asm__ volatile("lock incq %0" : "+m"(*(uint64_t *)argument));
}

/* Pages that are to be read: what this guest writes there never happens. */
static void read_pages(const struct share_data *data)
{
	const struct share_lent *lent = (const struct share_lent *)(const void *)(data + 1);
	const uint32_t id = data->lend;
	const uint64_t words = lent->head.status;
	const uint64_t gpa = read_only_gpa + PAGE_BYTES * (uint64_t)lent->first;
	uint64_t *page = (uint64_t *)(uintptr_t)READ_ONLY_GVA;

	map_page(READ_ONLY_GVA, gpa, PAGE_P | PAGE_W);
	invlpg(READ_ONLY_GVA);
	check("what is lent to be read is read", words_are(page, words));
	check_equal("a store there", try_code(write_to, page), 13);
	check_equal("a locked access", try_code(lock_at, page + 3), 13);
	check("a call's output there", umbra_call(&hv, 0x8001, 0, gpa) != 0);
	check("nothing has changed", words_are(page, words));
	ask_about(SHARE_RELEASE, id, 0);
}

/* After they were taken back: what is still there is nobody's, and is not theirs. */
static void serve_after(void)
{
	uint64_t *page = (uint64_t *)(uintptr_t)WINDOW_GVA;
	bool zero = true;

	for (unsigned n = 0; n < 512; n++)
		zero = zero && !page[n];
	check("what was revoked is zeros", zero);
	set_words(page, 666);
}

static void point_to(const struct share_lent *lent, uint32_t kind, uint64_t words)
{
	struct share_lent message = *lent;

	message.head.kind = kind;
	message.head.status = (uint32_t)words;
	put_about(lent->id, &message, sizeof(message));
}

static void wait_for_words(const uint64_t *page, uint64_t first)
{
	const uint64_t until = rdtsc() + 300000000000ull;

	while (!words_are(page, first) && rdtsc() < until)
		__asm__ volatile("" : : : "memory");
}

static void wrong_lends(uint64_t *pages)
{
	struct share_lent lent;

	check_equal("not whole pages", lend((uint8_t *)pages + 8, PAGE_BYTES, 0, &lent),
		    SHARE_NO_PAGES);
	check_equal("part of a page", lend(pages, PAGE_BYTES - 96, 0, &lent), SHARE_NO_PAGES);
	check_equal("no pages", lend(pages, 0, 0, &lent), SHARE_NO_PAGES);
	check_equal("the window itself",
		    lend((void *)(uintptr_t)window_gpa, PAGE_BYTES, 0, &lent), SHARE_NO_PAGES);
	check_equal("an end of nothing", end_status(12345, 0), SHARE_NO_LEND);
	ask_about(SHARE_RELEASE, 77, 0);
	put_about(4711, pages, 8);
	check("data about nothing", expect_message(SHARE_DATA) &&
					    ((struct share_head *)(void *)got)->status ==
						    SHARE_NO_LEND);
}

static bool report_cold(const void *first, unsigned count)
{
	static _Alignas(16) uint64_t input[2];

	input[0] = 2; /* cold, to be discarded */
	input[1] = gpa(first) | (count - 1);
	return umbra_call(&hv, umbra_rep(0x8003, 1), gpa(input), 0) == 1ull << 32;
}

static void use_pages(void)
{
	uint64_t *pages = new_pages(PAGES + 1);
	struct share_lent lent, again;
	bool good = true;

	for (uint32_t n = 0; n < PAGES; n++)
		set_words(pages + 512 * n, 5000 + 1000 * n);
	wrong_lends(pages);
	check_equal("pages are lent", lend_pages(pages, PAGES, 0, &lent), SHARE_DONE);
	check_equal("all of them", lent.pages, PAGES);
	check("they are what they were", words_are(pages, 5000));
	check("they are reported", report_cold(pages, PAGES));
	check("and not given back", words_are(pages, 5000) && words_are(pages + 512, 6000));
	check_equal("not twice", lend(pages + 512, PAGE_BYTES, 0, &again), SHARE_NO_PAGES);
	point_to(&lent, LENT_WORDS, 5000);
	for (uint32_t n = 0; n < PAGES; n++) {
		wait_for_words(pages + 512 * n, 5007 + 1000 * n);
		good = good && words_are(pages + 512 * n, 5007 + 1000 * n);
	}
	check("what the other machine has written is here", good);
	check_equal("they come back", end_status(lent.id, 0), SHARE_DONE);
	check("as they were left", words_are(pages, 5007));
	check_equal("lent once more", lend_pages(pages, PAGES, 0, &lent), SHARE_DONE);
	set_words(pages, 42);
	check_equal("and revoked", end_status(lent.id, SHARE_NOW), SHARE_DONE);
	put_about(0, &(struct share_lent){ .head.kind = LENT_WORDS + 1 }, sizeof(lent));
	check("the other machine has looked", expect_message(SHARE_DATA));
	check("the other machine has looked, and answered", expect_message(SHARE_DATA));
	check("its writing is not here", words_are(pages, 42));
	check_equal("lent to be read", lend_pages(pages + 512, 1, SHARE_READ_ONLY, &lent),
		    SHARE_DONE);
	check_equal("in another place", lent.flags, SHARE_READ_ONLY);
	set_words(pages + 512, 7000);
	point_to(&lent, READ_WORDS, 7000);
	check_equal("which comes back when it was read", end_status(lent.id, 0), SHARE_DONE);
	check("as it was", words_are(pages + 512, 7000));
	check_equal("lent for one access", lend_pages(pages, 1, SHARE_ONCE, &lent), SHARE_DONE);
}

static void serve(void)
{
	struct share_data *data;
	unsigned served = 0;
	unsigned done = 0;

	while (take(&data, &done)) {
		const uint32_t *word = (const uint32_t *)(const void *)(data + 1);

		if (*word == LAST)
			break;
		if (*word == LENT_WORDS || *word == READ_WORDS) {
			if (*word == LENT_WORDS)
				serve_pages(data);
			else
				read_pages(data);
			continue;
		}
		if (*word == LENT_WORDS + 1)
			serve_after();
		put(data + 1, data->bytes);
		served++;
	}
	check_equal("packets served", served, PACKETS + 1);
}

static bool is_echo(const struct share_data *data, unsigned n)
{
	const uint8_t *bytes = (const uint8_t *)(data + 1);
	const uint32_t *word = (const uint32_t *)(const void *)bytes;

	if (data->bytes != length_of(n) || word[0] != n)
		return false;
	for (uint32_t at = 8; at < data->bytes; at++)
		if (bytes[at] != (uint8_t)(at * 7 + n))
			return false;
	return true;
}

static void send_numbered(unsigned n)
{
	static _Alignas(8) uint8_t bytes[SHARE_DATA_MAX_BYTES];

	*(uint32_t *)(void *)bytes = n;
	for (uint32_t at = 8; at < length_of(n); at++)
		bytes[at] = (uint8_t)(at * 7 + n);
	put(bytes, length_of(n));
}

/* So many packets are under way at once: no more than the rings hold of the longest. */
static void use(void)
{
	static const uint64_t last = LAST;
	struct share_data *data;
	unsigned right = 0;
	unsigned done = 0;

	for (unsigned n = 0; n < PACKETS + AHEAD; n++) {
		if (n < PACKETS)
			send_numbered(n);
		if (n >= AHEAD)
			right += take(&data, &done) && is_echo(data, n - AHEAD);
	}
	check_equal("echoes, each once and in order", right, PACKETS);
	check_equal("completions", done, PACKETS);
	use_pages();
	put(&last, sizeof(last));
	check("the other end goes", !take(&data, &done));
}

void test_main(void)
{
	struct share_version_answer answer;
	struct vmbus_offer offer;

	hv_open();
	bus_prepare();
	check("contact", bus_contact(VMBUS_5_3));
	bus_offers(OFFER_PACKET, &offer);
	check_equal("the class", *(const uint32_t *)(const void *)offer.type.byte, OFFER_PACKET);
	check_equal("opened", channel_open(&ch, &offer, 0xe1e10), 0);
	ask_version(SHARE_1_2 + 1, SHARE_1_2 + 9, &answer);
	check_equal("no version that both have", answer.head.status, SHARE_NO_VERSION);
	ask_version(1, SHARE_1_0, &answer);
	check_equal("an older version", answer.version, SHARE_1_0);
	ask_version(1, SHARE_1_2 + 9, &answer);
	check_equal("the version", answer.version, SHARE_1_2);
	peer_is_there = answer.peer_is_there;
	window_gpa = answer.window_gpa;
	read_only_gpa = answer.read_only_gpa;
	check_equal("pages of the window", answer.window_pages, WINDOW_PAGES);
	map_page(WINDOW_GVA, window_gpa, PAGE_P | PAGE_W);
	wait_for_peer();
	if (answer.side == SHARE_SERVES)
		serve();
	else
		use();
	finish();
}
