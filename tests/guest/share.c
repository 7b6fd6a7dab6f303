/*
 * Both ends of a channel to another machine (abi/share.h): the one that serves sends back what it
 * gets until it is told to end; the one that binds sends packets of every length, some at once, and
 * compares. sharing.sh runs the two.
 */
#include "abi/share.h"
#include "vmbus.h"

enum { PACKETS = 240, AHEAD = 2, LAST = 0x656e64, OFFER_PACKET = 0x2c6f3f52 };

struct message_out { struct share_data head; uint8_t bytes[SHARE_DATA_MAX_BYTES]; };

static struct channel ch;
static _Alignas(8) uint8_t got[SHARE_MESSAGE_BYTES];
static bool peer_is_there;

static void ask_version(uint32_t least, uint32_t most, struct share_version_answer *ret)
{
	/* as long as the shortest message */
	struct share_version ask = { .head.kind = SHARE_VERSION, .least = least, .most = most };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &ask, sizeof(ask), NULL, 0);
	check("an answer", channel_get(&ch, &head, ret, sizeof(*ret)));
	check_equal("which completes", head.type, PACKET_COMPLETION);
	check_equal("what was asked", head.transaction, ch.transaction);
}

static void put(const void *data, uint32_t bytes)
{
	static struct message_out out;

	out.head = (struct share_data){ .head.kind = SHARE_DATA, .bytes = bytes };
	for (uint32_t n = 0; n < bytes; n++)
		out.bytes[n] = ((const uint8_t *)data)[n];
	channel_put(&ch, PACKET_INBAND, &out, (uint32_t)sizeof(out.head) + bytes, NULL, 0);
}

/* The next packet of the other end's; its bytes follow the head. False: the other end is gone. */
static bool take(struct share_data **ret, unsigned *ret_done)
{
	const uint64_t until = rdtsc() + 200000000000ull;

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
		} else {
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

static void serve(void)
{
	struct share_data *data;
	unsigned served = 0;
	unsigned done = 0;

	while (take(&data, &done)) {
		const uint32_t *word = (const uint32_t *)(const void *)(data + 1);

		if (*word == LAST)
			break;
		put(data + 1, data->bytes);
		served++;
	}
	check_equal("packets served", served, PACKETS);
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
	ask_version(SHARE_1_0 + 1, SHARE_1_0 + 9, &answer);
	check_equal("no version that both have", answer.head.status, SHARE_NO_VERSION);
	ask_version(1, SHARE_1_0 + 9, &answer);
	check_equal("the version", answer.version, SHARE_1_0);
	peer_is_there = answer.peer_is_there;
	wait_for_peer();
	if (answer.side == SHARE_SERVES)
		serve();
	else
		use();
	finish();
}
