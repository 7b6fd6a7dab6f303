/*
 * The two sides of a card's slots, and who is woken: by a frame for the guest, not by each that it
 * has sent; and nobody while somebody looks by himself.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "net/port.h"

enum { FRAME_BYTES = 60, SENT = NET_SLOTS - NET_RECEIVE_SLOTS };

static int failures;

struct card {
	struct net_card_memory *memory;
	struct slot_client client;
	struct net_port port;
	int doorbell[2], answer[2];
};

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

static bool is_rung(int fd)
{
	uint64_t count[SLOT_RINGS];

	return read(fd, count, sizeof(count)) > 0;
}

/* Both have begun, and the device's side sleeps. */
static void card_make(struct card *card)
{
	struct net_sent none;

	card->memory = mmap(NULL, sizeof(*card->memory), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (card->memory == MAP_FAILED || pipe2(card->doorbell, O_NONBLOCK | O_CLOEXEC) ||
	    pipe2(card->answer, O_NONBLOCK | O_CLOEXEC))
		exit(EXIT_FAILURE);
	card->memory->generation = card->memory->accepted = 1;
	card->client = (struct slot_client){ .queue = &card->memory->queue,
					     .slots = NET_SLOTS,
					     .doorbell_fd = card->doorbell[1],
					     .answer_fd = card->answer[0] };
	net_port_init(&card->port, card->memory, card->doorbell[0], card->answer[1]);
	for (unsigned n = 0; n < NET_RECEIVE_SLOTS; n++)
		slot_submit(&card->client, &(struct slot_request){ .slot = (uint16_t)n,
								   .kind = NET_RECEIVE });
	expect("no frame is there", !net_port_take(&card->port, &none));
	is_rung(card->answer[0]);
	card->memory->queue.replies.sleeps = 1;
}

/* The guest sends a frame, which is taken. */
static void send_one(struct card *card, unsigned number)
{
	const unsigned slot = NET_RECEIVE_SLOTS + number;
	struct net_frame *frame = (struct net_frame *)(void *)card->memory->data[slot];
	struct net_sent sent;

	*frame = (struct net_frame){ .bytes = FRAME_BYTES };
	slot_submit(&card->client,
		    &(struct slot_request){ .slot = (uint16_t)slot, .kind = NET_SEND });
	if (net_port_take(&card->port, &sent) != 1)
		exit(EXIT_FAILURE);
	net_port_sent(&card->port, &sent);
	net_port_tell(&card->port);
}

static void put_one(struct card *card)
{
	const uint8_t data[FRAME_BYTES] = { 0 };

	net_port_put(&card->port, &(struct net_frame){ .bytes = FRAME_BYTES }, data);
	net_port_tell(&card->port);
}

static void test_sent(struct card *card)
{
	unsigned sent = 0;
	struct slot_reply reply;
	unsigned seen = 0;

	send_one(card, sent++);
	expect("a frame that was sent wakes nobody", !is_rung(card->answer[0]));
	while (sent < SENT && card->memory->queue.replies.sleeps)
		send_one(card, sent++);
	expect("some of them do, long before all slots are used",
	       is_rung(card->answer[0]) && sent <= SENT / 2);
	while (slot_collect(&card->client, &reply) > 0)
		seen++;
	expect("and all of them are told", seen == sent);
}

static void test_watched(struct card *card)
{
	struct slot_client *const clients[] = { &card->client };
	struct slot_reply reply;

	card->memory->queue.replies.sleeps = 1;
	put_one(card);
	expect("a frame for the guest wakes who sleeps", is_rung(card->answer[0]));
	card->memory->queue.replies.sleeps = 1;
	slot_clients_watch(clients, 1);
	put_one(card);
	expect("and nobody while another one looks", !is_rung(card->answer[0]));
	expect("who finds it", slot_has_reply(&card->client));
	expect("and hears of it when he goes", slot_clients_unwatch(clients, 1));
	while (slot_collect(&card->client, &reply) > 0)
		;
	expect("unless he has taken it", !slot_clients_unwatch(clients, 1));
	put_one(card);
	expect("then it wakes again", is_rung(card->answer[0]));
}

/* As while a machine is paused, or stands still. */
static void test_not_accepted(struct card *card)
{
	struct brief_wait brief = { 0 };
	struct net_port next;
	struct net_sent none;

	card->memory->generation++;
	net_port_init(&next, card->memory, card->doorbell[0], card->answer[1]);
	expect("a server that is not accepted yet takes nothing", !net_port_take(&next, &none));
	expect("and sleeps, though the one before it was asked for something",
	       slot_server_has_request(&next.slots) && !net_port_looks_again(&next, &brief));
	card->memory->accepted = card->memory->generation;
	net_port_take(&next, &none);
	expect("until it is", net_port_looks_again(&next, &brief));
}

int main(void)
{
	struct card card;

	card_make(&card);
	test_sent(&card);
	test_watched(&card);
	test_not_accepted(&card);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
