/* See port.h. */
#include "port.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The guest's side sends as long as it knows of some more free slots. */
enum { UNTOLD_MOST = 16 };

void net_port_init(struct net_port *port, struct net_card_memory *memory, int doorbell_fd,
		   int answer_fd)
{
	assert(memory && doorbell_fd >= 0 && answer_fd >= 0);
	*port = (struct net_port){
		.memory = memory,
		.generation = __atomic_load_n(&memory->generation, __ATOMIC_ACQUIRE),
		.slots = { .queue = &memory->queue,
			   .slots = NET_SLOTS,
			   .doorbell_fd = doorbell_fd,
			   .answer_fd = answer_fd },
	};
}

/* The link is up once the guest's side knows that there is another server. */
static bool has_begun(struct net_port *port)
{
	ssize_t written;

	if (port->begun)
		return true;
	if (__atomic_load_n(&port->memory->accepted, __ATOMIC_ACQUIRE) != port->generation)
		return false;
	port->begun = true;
	__atomic_store_n(&port->memory->serving, port->generation, __ATOMIC_RELEASE);
	written = write(port->slots.answer_fd, &(uint64_t){ 1 }, 8);
	(void)written; /* a counter that is full wakes, too */
	return true;
}

static int take_empty(struct net_port *port, unsigned slot)
{
	if (slot >= NET_RECEIVE_SLOTS)
		return -EBADMSG;
	assert(port->empty < NET_RECEIVE_SLOTS);
	port->empty_slot[(port->empty_first + port->empty++) % NET_RECEIVE_SLOTS] = (uint8_t)slot;
	return 0;
}

static int take_sent(struct net_port *port, unsigned slot, struct net_sent *ret)
{
	uint8_t *data = port->memory->data[slot];

	if (slot < NET_RECEIVE_SLOTS)
		return -EBADMSG;
	memcpy(&ret->frame, data, sizeof(ret->frame));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (!net_frame_is_sound(&ret->frame))
		return -EBADMSG;
	ret->slot = slot;
	ret->data = data + sizeof(ret->frame);
	return 1;
}

int net_port_take(struct net_port *port, struct net_sent *ret)
{
	struct slot_request request;
	int got;

	if (!has_begun(port))
		return 0;
	while ((got = slot_take(&port->slots, &request)) > 0) {
		if (request.kind == NET_SEND)
			return take_sent(port, request.slot, ret);
		if (request.kind != NET_RECEIVE || take_empty(port, request.slot))
			return -EBADMSG;
	}
	return got;
}

void net_port_sent(struct net_port *port, const struct net_sent *sent)
{
	assert(sent->slot >= NET_RECEIVE_SLOTS && sent->slot < NET_SLOTS);
	if (++port->untold < UNTOLD_MOST) {
		slot_answer_later(&port->slots, sent->slot, 0);
		return;
	}
	port->untold = 0;
	slot_answer(&port->slots, sent->slot, 0);
}

void net_port_tell(struct net_port *port)
{
	if (port->slots.answers)
		port->untold = 0;
	slot_tell(&port->slots);
}

uint8_t *net_port_next(struct net_port *port)
{
	assert(port->empty);
	return port->memory->data[port->empty_slot[port->empty_first]] + sizeof(struct net_frame);
}

void net_port_put_next(struct net_port *port, const struct net_frame *frame)
{
	const unsigned slot = port->empty_slot[port->empty_first];

	assert(slot < NET_RECEIVE_SLOTS && port->empty_first < NET_RECEIVE_SLOTS);
	assert(port->empty && net_frame_is_sound(frame));
	memcpy(port->memory->data[slot], frame, sizeof(*frame));
	port->empty_first = (port->empty_first + 1) % NET_RECEIVE_SLOTS;
	port->empty--;
	slot_answer(&port->slots, slot, (int32_t)frame->bytes);
}

void net_port_put(struct net_port *port, const struct net_frame *frame, const void *data)
{
	assert(frame->bytes <= NET_FRAME_BYTES);
	memcpy(net_port_next(port), data, frame->bytes);
	net_port_put_next(port, frame);
}

bool net_port_looks_again(struct net_port *port, struct brief_wait *brief)
{
	/* what is there is the server's before this one; who accepts this one rings */
	if (!port->begun)
		return false;
	if (slot_server_has_request(&port->slots)) {
		brief_wait_found(brief);
		return true;
	}
	return brief_wait_looks(brief) || !slot_server_may_sleep(&port->slots);
}
