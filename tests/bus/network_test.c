/*
 * A network card whose server is not there yet, or is lost: what is saved before one has begun is
 * loaded before one has begun, and one that answers without end does not hold up the thread that
 * collects for all devices. A card that was forked with another address is taken away and offered
 * anew, once.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi/nvsp.h"
#include "device/netvsp/network.h"
#include "fake_guest.h"
#include "ipc/net_card.h"
#include "lib/archive.h"

enum { SAVED_BYTES = 1 << 16, MOST_S = 60, TURNS = 100, CARD_RELID = FAKE_CHANNELS + 1 };

struct card {
	struct fake fake;
	struct net_card_memory *memory;
	struct slot_client client;
	struct network *network;
	bool stopped;
};

static int failures;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

static void card_create(struct card *card)
{
	fake_create(&card->fake, 1);
	card->memory = mmap(NULL, sizeof(*card->memory), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	card->client = (struct slot_client){ .queue = &card->memory->queue,
					     .slots = NET_SLOTS,
					     .doorbell_fd = eventfd(0, EFD_NONBLOCK),
					     .answer_fd = eventfd(0, EFD_NONBLOCK) };
	card->network = network_create(card->fake.bus, 0, card->memory, &card->client);
	card->stopped = false;
}

static void card_destroy(struct card *card)
{
	network_destroy(card->network);
	munmap(card->memory, sizeof(*card->memory));
	close(card->client.doorbell_fd);
	close(card->client.answer_fd);
	fake_destroy(&card->fake);
}

static void saved_before_it_begins(void)
{
	static uint8_t saved[SAVED_BYTES];
	static struct card parent, child;
	struct archive archive = archive_save_to(saved, sizeof(saved));
	size_t bytes;

	card_create(&parent);
	card_create(&child);
	network_archive(&archive, parent.network);
	bytes = archive.used;
	expect("a card without a server is saved", !archive.error);
	archive = archive_load_from(saved, bytes);
	network_archive(&archive, child.network);
	expect("and loaded into one without", !archive.error && archive_check_end(&archive));
	card_destroy(&parent);
	card_destroy(&child);
}

/* Of slot 0, that it was empty: whatever the card does with that, the next is there. */
static void *answer_without_end(void *context)
{
	struct card *card = context;
	uint32_t written = 0;

	while (!__atomic_load_n(&card->stopped, __ATOMIC_RELAXED))
		if (written - __atomic_load_n(&card->client.collected, __ATOMIC_RELAXED) <
		    NET_SLOTS / 2)
			__atomic_store_n(&card->memory->queue.replies.written, ++written,
					 __ATOMIC_RELEASE);
	return NULL;
}

static void answered_without_end(void)
{
	static struct card card;
	pthread_t server;
	uint32_t most = 0;

	card_create(&card);
	card.memory->generation = card.memory->serving = 1;
	network_collect(card.network);
	if (pthread_create(&server, NULL, answer_without_end, &card))
		exit(1);
	alarm(MOST_S);
	for (unsigned n = 0; n < TURNS || !most; n++) {
		const uint32_t before = card.client.collected;

		network_collect(card.network);
		if (card.client.collected - before > most)
			most = card.client.collected - before;
	}
	alarm(0);
	__atomic_store_n(&card.stopped, true, __ATOMIC_RELAXED);
	pthread_join(server, NULL);
	expect("of a server that answers without end a turn takes no more than there are slots",
	       most && most <= NET_SLOTS);
	card_destroy(&card);
}

static void fork_card(struct card *card)
{
	network_pause(card->network);
	network_forked(card->network);
	network_resume(card->network);
	network_renew(card->network);
}

/* A word of the control page of one of the card's rings, of the one to the guest or from it. */
static uint32_t *ring_word(struct card *card, bool to_guest, unsigned word)
{
	uint8_t *ring = card->fake.memory.ram + FAKE_RINGS_GPA +
			fake_rings(CARD_RELID) * FAKE_STRIDE +
			(to_guest ? FAKE_RING_PAGES * GUEST_PAGE_BYTES : 0);

	return (uint32_t *)(void *)(ring + word);
}

/* A packet that wants to be completed, as a driver sends it, into the ring; the host hears it. */
static void send_init(struct card *card)
{
	const struct nvsp_message message = { .kind = NVSP_INIT,
					      .init = { .least = NVSP_1, .most = NVSP_5 } };
	const struct vmbus_packet head = {
		.type = PACKET_INBAND,
		.data_units = sizeof(head) / 8,
		.units = (sizeof(head) + NVSP_MESSAGE_BYTES + 7) / 8,
		.flags = PACKET_WANTS_COMPLETION,
		.transaction = 1,
	};
	uint32_t *written = ring_word(card, false, RING_WRITE_INDEX);
	uint8_t *data = (uint8_t *)ring_word(card, false, GUEST_PAGE_BYTES) + *written;

	memcpy(data, &head, sizeof(head));
	memcpy(data + sizeof(head), &message, NVSP_MESSAGE_BYTES);
	*written += 8u * head.units + 8;
	bus_event(card->fake.bus, VMBUS_CONNECTION_CHANNEL + CARD_RELID, 0);
	bus_run(card->fake.bus);
}

enum { BEGIN_US = 5100000 };

/* What Linux waits for, for ever, once it has been told that the card is taken away. */
static void not_while_something_is_under_way(void)
{
	static struct card card;
	uint32_t written;

	card_create(&card);
	fake_contact(&card.fake);
	fake_open(&card.fake, CARD_RELID);
	send_init(&card);
	expect("a packet is completed", *ring_word(&card, true, RING_WRITE_INDEX));
	card.memory->mac[0] = 8;
	fork_card(&card);
	expect("a card stays whose guest has not heard of a completion",
	       !network_renew(card.network) && card.fake.last_kind != VMBUS_RESCIND);
	*ring_word(&card, true, RING_READ_INDEX) = *ring_word(&card, true, RING_WRITE_INDEX);
	written = *ring_word(&card, false, RING_WRITE_INDEX);
	*ring_word(&card, false, RING_WRITE_INDEX) = written + 64;
	expect("and one that has sent what was not taken",
	       !network_renew(card.network) && card.fake.last_kind != VMBUS_RESCIND);
	*ring_word(&card, false, RING_WRITE_INDEX) = written;
	expect("and one whose driver is in the middle of its begin",
	       !network_renew(card.network) && card.fake.last_kind != VMBUS_RESCIND);
	usleep(BEGIN_US);
	expect("when nothing has come for seconds it is taken away",
	       network_renew(card.network) && card.fake.last_kind == VMBUS_RESCIND);
	check_bus(card.fake.bus);
	card_destroy(&card);
}

static bool releases(struct card *card, uint32_t relid)
{
	const struct vmbus_relid released = { .head.kind = VMBUS_RELID_RELEASED, .relid = relid };
	const uint32_t before = card->fake.posted;

	fake_message(&card->fake, &released, sizeof(released));
	return card->fake.posted != before;
}

static void forked_with_another_address(void)
{
	static struct card card;
	uint32_t before;

	card_create(&card);
	card.memory->mac[0] = 2;
	fork_card(&card);
	expect("of a guest that has not asked for offers nothing is taken away",
	       !card.fake.posted);
	fake_contact(&card.fake);
	fake_open(&card.fake, CARD_RELID);
	before = card.fake.posted;
	fork_card(&card);
	expect("a card with its address stays", card.fake.posted == before);
	expect("and is not let go of", !releases(&card, CARD_RELID));
	card.memory->mac[0] = 4;
	fork_card(&card);
	usleep(BEGIN_US);
	expect("one with another is taken away",
	       network_renew(card.network) && card.fake.last_kind == VMBUS_RESCIND);
	expect("others are not let go of", !releases(&card, 1));
	expect("it is offered when it was", releases(&card, CARD_RELID) &&
						    card.fake.last_kind == VMBUS_OFFER);
	expect("once", !releases(&card, CARD_RELID));
	fake_open(&card.fake, CARD_RELID);
	expect("and can be opened again",
	       card.fake.last_kind == VMBUS_OPEN_RESULT && !card.fake.last_status);
	card.memory->mac[0] = 6;
	fork_card(&card);
	fake_contact(&card.fake);
	expect("who connects anew has no card to let go of", !releases(&card, CARD_RELID));
	check_bus(card.fake.bus);
	card_destroy(&card);
}

/* The card is freed first, as a machine's units are: under ASan a bus that called it is seen. */
static void freed_with_pages(void)
{
	static struct card card;
	struct {
		struct vmbus_gpadl_header header;
		uint64_t gfn;
	} __attribute__((packed))
	gpadl = { .header = { .head = { VMBUS_GPADL_HEADER, 0 },
			      .relid = CARD_RELID,
			      .gpadl = 77,
			      .range_bytes = 16,
			      .ranges = 1,
			      .bytes = GUEST_PAGE_BYTES },
		  .gfn = 1 };

	card_create(&card);
	fake_contact(&card.fake);
	fake_message(&card.fake, &gpadl, sizeof(gpadl));
	expect("a card whose pages are named is freed before its bus",
	       bus_holds_pages(card.fake.bus, 1, 1));
	card_destroy(&card);
}

int main(void)
{
	freed_with_pages();
	forked_with_another_address();
	not_while_something_is_under_way();
	saved_before_it_begins();
	answered_without_end();
	return failures != 0;
}
