/*
 * The end that binds a channel to another machine (abi/share.h), which is forked or saved
 * meanwhile: that machine goes on as if nothing had been, each packet once and in order; in what
 * was forked or restored what is under way completes, once, as nobody's, what was lent is its own,
 * and the channel is taken away and offered again. Where it was restored at a port of its own the
 * channel stays, and whoever serves there comes. sharing-forked.sh and sharing-saved.sh run it
 * beside guest-share, and sharing-packets.py, where it may lend nothing, with one of another host.
 */
#include "abi/share.h"
#include "vmbus.h"

enum { PACKETS = 241, AHEAD = 2, LAST = 0x656e64, OFFER_PACKET = 0x2c6f3f52, WORDS = 512 };
#define GENERATION ((volatile uint64_t *)0xf0000)
#define PATIENCE_TSC 300000000000ull

static struct channel ch;
static _Alignas(8) uint8_t got[SHARE_MESSAGE_BYTES];
static uint64_t born[2];
static struct vmbus_offer offer;
static uint64_t *page;
/* sent and not answered; answered; echoes that came right, and in order */
static unsigned under_way, done, failed, echoes;
static bool peer_is_there;

static bool is_child(void) { return GENERATION[0] != born[0] || GENERATION[1] != born[1]; }

static void put(uint32_t word)
{
	struct { struct share_data head; uint32_t word[2]; } out = {
		.head = { .head.kind = SHARE_DATA, .bytes = 8 }, .word = { word, word * 7 }
	};

	channel_put(&ch, PACKET_INBAND, &out, sizeof(out), NULL, 0);
	under_way++;
}

static void take_data(void)
{
	const struct share_data *data = (const struct share_data *)(void *)got;
	const uint32_t *word = (const uint32_t *)(const void *)(data + 1);

	echoes += data->bytes == 8 && word[0] == echoes && word[1] == echoes * 7;
}

/* What has come, if anything. */
static void hear(void)
{
	const struct share_head *head = (const struct share_head *)(void *)got;
	struct vmbus_packet packet;

	if (!channel_get(&ch, &packet, got, sizeof(got)))
		return;
	if (head->kind == SHARE_PEER)
		peer_is_there = ((const struct share_peer *)(void *)got)->is_there;
	else if (head->kind == SHARE_DATA && packet.type != PACKET_COMPLETION)
		take_data();
	if (packet.type != PACKET_COMPLETION)
		return;
	under_way--;
	done += head->status == SHARE_DONE;
	failed += head->status != SHARE_DONE;
}

static uint32_t ask(const void *message, uint32_t bytes, void *pages, uint32_t page_bytes,
		    uint32_t kind)
{
	const uint64_t until = rdtsc() + PATIENCE_TSC;

	channel_put(&ch, page_bytes ? PACKET_GPA_DIRECT : PACKET_INBAND, message, bytes, pages,
		    page_bytes);
	while (rdtsc() < until) {
		const struct share_head *head = (const struct share_head *)(void *)got;
		struct vmbus_packet packet;

		if (channel_get(&ch, &packet, got, sizeof(got)) &&
		    packet.type == PACKET_COMPLETION && head->kind == kind)
			return head->status;
	}
	return ~0u;
}

static struct share_version_answer open_channel(uint32_t gpadl)
{
	const struct share_version version = { .head.kind = SHARE_VERSION, .least = SHARE_1_2,
					       .most = SHARE_1_2 };
	struct share_version_answer answer;

	check_equal("opened", channel_open(&ch, &offer, gpadl), 0);
	check_equal("a version", ask(&version, sizeof(version), NULL, 0, SHARE_VERSION),
		    SHARE_DONE);
	answer = *(struct share_version_answer *)(void *)got;
	peer_is_there = answer.peer_is_there;
	return answer;
}

static bool words_are(uint64_t first)
{
	for (unsigned n = 0; n < WORDS; n++)
		if (page[n] != first + n)
			return false;
	return true;
}

static void set_words(uint64_t first)
{
	for (unsigned n = 0; n < WORDS; n++)
		page[n] = first + n;
}

/* ---- what was forked, or restored ---- */

/* It has a port: who serves there has come. False: the host has something to say. */
static bool has_peer(void)
{
	const uint64_t until = rdtsc() + PATIENCE_TSC;

	while (!peer_is_there && bus_is_quiet() && rdtsc() < until)
		for (unsigned n = 0; n < 1000 && !peer_is_there; n++)
			hear();
	return peer_is_there;
}

static _Noreturn void be_joined(void)
{
	const uint64_t until = rdtsc() + PATIENCE_TSC;

	done = failed = echoes = 0;
	put(0);
	while ((under_way || !echoes) && rdtsc() < until)
		hear();
	check_equal("who serves anew has what is sent", done, 1);
	check_equal("and sends it back", echoes, 1);
	put(LAST);
	while (peer_is_there && rdtsc() < until)
		hear();
	check("and goes", !peer_is_there);
	finish();
}

/* For as long as it is left alone. */
static _Noreturn void wait_for_peer(void)
{
	while (!peer_is_there)
		hear();
	be_joined();
}

static void be_child(unsigned sent)
{
	struct { struct vmbus_head head; uint32_t relid; } release = {
		.head.kind = VMBUS_RELID_RELEASED, .relid = ch.relid
	};
	const uint64_t until = rdtsc() + PATIENCE_TSC;
	const struct vmbus_offer *again;
	bool is_alone;

	while ((under_way || peer_is_there) && rdtsc() < until)
		hear();
	check_equal("each that was under way is answered", done + failed, sent);
	check("nobody is there", !peer_is_there);
	check("what was lent is as it was", words_are(9000));
	set_words(1);
	check("and its own", words_are(1));
	if (has_peer())
		be_joined();
	check("the channel is taken away", bus_expect(VMBUS_RESCIND) != NULL);
	bus_post_on(VMBUS_CONNECTION, &release, sizeof(release));
	again = bus_expect(VMBUS_OFFER);
	check("and offered again", again != NULL);
	if (!again)
		finish();
	offer = *again;
	is_alone = !open_channel(0xe1e20).peer_is_there;
	if (has_input()) /* it is told that it has a port */
		wait_for_peer();
	check("where nobody is", is_alone);
	failed = 0;
	put(5);
	while (under_way && rdtsc() < until)
		hear();
	check_equal("who sends hears so", failed, 1);
	check("what was lent stays its own", words_are(1));
	finish();
}

void test_main(void)
{
	const struct share_lend lend = { .head.kind = SHARE_LEND };
	const uint64_t until = rdtsc() + 2 * PATIENCE_TSC;
	struct share_lend end = { .head.kind = SHARE_END };
	unsigned sent = 0;
	uint32_t status;

	hv_open();
	born[0] = GENERATION[0];
	born[1] = GENERATION[1];
	bus_prepare();
	check("contact", bus_contact(VMBUS_5_3));
	bus_offers(OFFER_PACKET, &offer);
	open_channel(0xe1e10);
	while (!peer_is_there)
		hear();
	page = new_pages(1);
	set_words(9000);
	status = ask(&lend, sizeof(lend), page, PAGE_BYTES, SHARE_LEND);
	check("a page is lent, or may not be", status == SHARE_DONE || status == SHARE_REFUSED);
	end.id = ((const struct share_lent *)(void *)got)->id;
	while ((echoes < PACKETS || under_way) && rdtsc() < until) {
		if (sent < PACKETS && sent - echoes < AHEAD)
			put(sent++);
		hear();
		if (is_child())
			be_child(sent);
	}
	check_equal("echoes, each once and in order", echoes, PACKETS);
	check_equal("completions", done, PACKETS);
	if (status == SHARE_DONE)
		check_equal("the page comes back", ask(&end, sizeof(end), NULL, 0, SHARE_END),
			    SHARE_DONE);
	check("as it was", words_are(9000));
	put(LAST);
	while (peer_is_there && rdtsc() < until)
		hear();
	check("the other end goes", !peer_is_there);
	finish();
}
