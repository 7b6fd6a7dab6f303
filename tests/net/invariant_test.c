/*
 * The invariants of the switch, a conversation, the lines of a relay and of frames that wait, each
 * broken: check_*() sees it.
 */
#include <string.h>

#include "../lib/caught.h"
#include "net/relay/relay_internal.h"
#include "net/switch/switch_internal.h"
#include "net/user/waiting.h"

static struct hub *hub_in(void *hub) { return hub; }
static void check_switch_of(void *hub) { check_switch(hub); }
static void port_not_counted(void *hub) { hub_in(hub)->ports--; }
static void nobody_has_joined(void *hub) { hub_in(hub)->port[5].has_joined = true; }
static void address_twice(void *hub)
{
	memcpy(hub_in(hub)->port[1].mac, hub_in(hub)->port[0].mac, NET_MAC_BYTES);
}
static void waits_for_itself(void *hub) { hub_in(hub)->port[0].to = 0; }
static void waits_for_nobody(void *hub) { hub_in(hub)->port[0].to = 5; }
static void waits_beyond_the_last(void *hub) { hub_in(hub)->port[0].to = SWITCH_PORTS; }
static void waits_with_nothing(void *hub) { hub_in(hub)->port[0].bytes = 0; }
static void waits_with_too_much(void *hub)
{
	hub_in(hub)->port[0].bytes = sizeof(struct message) + 1;
}
static void turn_twice(void *hub) { hub_in(hub)->port[1].turn = hub_in(hub)->port[0].turn; }
static void turn_of_the_future(void *hub) { hub_in(hub)->port[0].turn = 9; }
static void waits_before_it_joined(void *hub) { hub_in(hub)->port[1].has_joined = false; }
static void behind_the_last(void *hub) { hub_in(hub)->top = 2; }
static void nobody_is_the_last(void *hub) { hub_in(hub)->top = 4; }
static void waited_less_than_nothing(void *hub) { hub_in(hub)->port[2].stalled_us = -1; }

static const struct spoiling of_switch[] = {
	{ "a port that is not counted", port_not_counted },
	{ "nobody who has joined", nobody_has_joined },
	{ "an address twice", address_twice },
	{ "one that waits for itself", waits_for_itself },
	{ "one that waits for nobody", waits_for_nobody },
	{ "one that waits for a port that there is not", waits_beyond_the_last },
	{ "one that waits with nothing", waits_with_nothing },
	{ "one that waits with more than a frame", waits_with_too_much },
	{ "a turn twice", turn_twice },
	{ "a turn that was not given yet", turn_of_the_future },
	{ "one that waits before it has joined", waits_before_it_joined },
	{ "one that has waited less than nothing", waited_less_than_nothing },
	{ "a port behind the last", behind_the_last },
	{ "nobody as the last", nobody_is_the_last },
};

static struct conversation *of(void *conversation) { return conversation; }
static void check_conversation_of(void *conversation) { check_conversation(conversation); }
static void more_than_a_head(void *conversation)
{
	of(conversation)->asks.head_bytes = sizeof(struct agent_frame) + 1;
}
static void left_of_half_a_head(void *conversation)
{
	of(conversation)->asks.head_bytes = 1;
	of(conversation)->asks.left_bytes = 1;
}
static void more_left_than_it_has(void *conversation)
{
	of(conversation)->answers.left_bytes = of(conversation)->answers.head.bytes + 1;
}
static void asked_without_a_head(void *conversation) { of(conversation)->asks.head_bytes = 0; }
static void answered_by_another(void *conversation)
{
	of(conversation)->answers.head.kind = AGENT_EXITED + 1;
}
static void answered_in_part(void *conversation) { of(conversation)->answers.left_bytes = 1; }
static void answered_for_good(void *conversation) { of(conversation)->exited.again = 0; }

static const struct spoiling of_conversation[] = {
	{ "more of a head than there is", more_than_a_head },
	{ "what is left of half a head", left_of_half_a_head },
	{ "more left than the head says", more_left_than_it_has },
	{ "what was asked without a head", asked_without_a_head },
	{ "an answer that is another frame", answered_by_another },
	{ "an answer that is not whole", answered_in_part },
	{ "an answer that is the agent's last", answered_for_good },
};

/* ---- a relay: a line of the host's that is joined, one kept, one over; one of the guest's ---- */

enum { JOINED, KEPT, ENDED, GUESTS = CONNECTIONS_OF_HOST };

static struct relay_line *line_in(void *relay, unsigned n)
{
	return &((struct relay *)relay)->line[n];
}
static void check_relay_of(void *relay) { check_relay(relay); }
static void joined_without_a_socket(void *relay) { line_in(relay, JOINED)->fd = -1; }
static void free_with_a_socket(void *relay) { line_in(relay, 9)->fd = 9; }
static void free_that_has_finished(void *relay) { line_in(relay, 9)->host_finished = true; }
static void greets_without_a_slot(void *relay)
{
	line_in(relay, 9)->state = LINE_GREETS;
	line_in(relay, 9)->fd = 9;
}
static void guest_that_asks(void *relay) { line_in(relay, GUESTS)->state = LINE_ASKS; }
static void connect_that_was_not_said(void *relay) { line_in(relay, JOINED)->wants_connect = true; }
static void holds_more_than_a_slot(void *relay) { line_in(relay, JOINED)->held_at++; }
static void holds_for_who_is_over(void *relay) { line_in(relay, ENDED)->held_bytes = 1; }
static void both_have_finished(void *relay)
{
	line_in(relay, JOINED)->host_finished = true;
	line_in(relay, JOINED)->guest_finished = true;
}
static void kept_of_another_port(void *relay) { line_in(relay, KEPT)->port++; }
static void kept_that_the_guest_has_left(void *relay)
{
	line_in(relay, KEPT)->guest_finished = true;
}
static void too_many_kept(void *relay)
{
	for (unsigned n = 10; n < 10 + RELAY_KEPT_MOST; n++)
		*line_in(relay, n) = *line_in(relay, KEPT);
}
static void gone_and_joined(void *relay) { line_in(relay, GUESTS)->heard_gone = true; }
static void gone_on_both_sides(void *relay) { line_in(relay, ENDED)->heard_gone = true; }
static void over_and_silent(void *relay)
{
	line_in(relay, ENDED)->said_gone = false;
	line_in(relay, ENDED)->has_empty = true;
}

static const struct spoiling of_relay[] = {
	{ "who is joined without a socket", joined_without_a_socket },
	{ "a line that is free with a socket", free_with_a_socket },
	{ "one that is free and has finished", free_that_has_finished },
	{ "one that greets without its slot", greets_without_a_slot },
	{ "one of the guest's that asks as the host's do", guest_that_asks },
	{ "a CONNECT that was not said", connect_that_was_not_said },
	{ "more data held than a slot has", holds_more_than_a_slot },
	{ "data held for who is over", holds_for_who_is_over },
	{ "both sides finished, and joined", both_have_finished },
	{ "one kept that is not the agent's", kept_of_another_port },
	{ "one kept that the guest has left", kept_that_the_guest_has_left },
	{ "more kept than may be", too_many_kept },
	{ "GONE heard of who is joined", gone_and_joined },
	{ "GONE said and heard, and not free", gone_on_both_sides },
	{ "one that is over, could say GONE and has not", over_and_silent },
};

static unsigned of_a_relay(void)
{
	static struct relay relay;

	for (unsigned n = 0; n < CONNECTIONS; n++)
		relay.line[n].fd = -1;
	relay.line[JOINED].state = relay.line[GUESTS].state = LINE_JOINED;
	relay.line[JOINED].fd = relay.line[GUESTS].fd = 7;
	relay.line[JOINED].held_at = 1;
	relay.line[JOINED].held_bytes = CONNECTION_BYTES - 1;
	relay.line[KEPT].state = LINE_KEPT;
	relay.line[KEPT].port = AGENT_PORT;
	relay.line[ENDED].state = LINE_OVER;
	relay.line[ENDED].said_gone = true;
	return CAUGHT_MISSED("relay", check_relay_of, &relay, of_relay);
}

/* ---- frames that wait ---- */

static struct waiting *waiting_in(void *waiting) { return waiting; }
static void check_waiting_of(void *waiting) { check_waiting(waiting); }
static void more_bytes_than_frames(void *waiting) { waiting_in(waiting)->bytes++; }
static void fewer_bytes_than_frames(void *waiting) { waiting_in(waiting)->bytes--; }
static void end_before_the_last(void *waiting)
{
	waiting_in(waiting)->end = &waiting_in(waiting)->first->next;
}
static void frame_of_nothing(void *waiting)
{
	waiting_in(waiting)->bytes -= waiting_in(waiting)->first->frame.bytes;
	waiting_in(waiting)->first->frame.bytes = 0;
}
static void none_and_an_end_elsewhere(void *waiting)
{
	waiting_in(waiting)->first = NULL;
	waiting_in(waiting)->bytes = 0;
}

static const struct spoiling of_waiting[] = {
	{ "more bytes than the frames have", more_bytes_than_frames },
	{ "fewer bytes than the frames have", fewer_bytes_than_frames },
	{ "an end before the last", end_before_the_last },
	{ "a frame of nothing", frame_of_nothing },
	{ "no frame, and an end elsewhere", none_and_an_end_elsewhere },
};

static unsigned of_frames_that_wait(void)
{
	static const uint8_t data[NET_FRAME_BYTES];
	const struct net_frame frame = { .bytes = NET_FRAME_BYTES };
	struct waiting waiting;
	unsigned missed;

	waiting_init(&waiting);
	for (unsigned n = 0; n < WAITING_BYTES / NET_FRAME_BYTES + 2; n++)
		waiting_add(&waiting, &frame, data); /* those that there is no room for are lost */
	missed = CAUGHT_MISSED("waiting", check_waiting_of, &waiting, of_waiting);
	while (waiting.first)
		waiting_drop(&waiting);
	check_waiting(&waiting);
	return missed;
}

int main(void)
{
	static struct hub hub = { .ports = 3, .top = 3, .turns = 2 };
	struct conversation conversation = { .asked = AGENT_EXEC, .is_answered = true };
	unsigned missed;

	for (unsigned n = 0; n < SWITCH_PORTS; n++)
		hub.port[n] = (struct port){ .fd = NOBODY, .to = NOBODY };
	for (uint8_t n = 0; n < 3; n++)
		hub.port[n] = (struct port){ .fd = n, .has_joined = true, .mac = { 2, n },
					     .to = NOBODY };
	for (unsigned n = 0; n < 2; n++) {
		hub.port[n].to = 2;
		hub.port[n].turn = n + 1;
		hub.port[n].bytes = sizeof(struct net_frame) + 60;
	}
	conversation.asks.head_bytes = sizeof(struct agent_frame);
	conversation.answers.head_bytes = sizeof(struct agent_frame);
	conversation.answers.head = (struct agent_frame){ .kind = AGENT_EXITED,
							  .bytes = sizeof(struct agent_exited) };
	conversation.exited.again = 1;
	missed = CAUGHT_MISSED("switch", check_switch_of, &hub, of_switch) +
		 CAUGHT_MISSED("conversation", check_conversation_of, &conversation,
			       of_conversation);
	missed += of_a_relay();
	missed += of_frames_that_wait();
	return missed != 0;
}
