/* Inside the network card; the lock and the invariants are network.h's. */
#pragma once

#include "abi/nvsp.h"
#include "abi/rndis.h"
#include "network.h"

enum {
	/* One of them has the longest frame, with its RNDIS head. */
	SECTION_BYTES = 68 << 10,
	SECTIONS = 512,
	/* These are for answers alone. */
	SECTIONS_OF_ANSWERS = 4,
	SEND_SECTION_BYTES = 6144,
	BUFFER_MOST_BYTES = 32 << 20,
	PACKET_FRAMES = 16,
	ANSWERS = 8,
	ANSWER_BYTES = 384,
	/* of an RNDIS message with a frame: its head and a checksum's info */
	RECEIVED_HEAD_BYTES = 60,
	/* of its channels */
	NETWORK_QUEUES = BUS_SUBS + 1,
	SCALE_ENTRIES = 128,
	SCALE_KEY_BYTES = 40,
};

enum slot_state { SLOT_FREE, SLOT_SERVERS, SLOT_WAITS, SLOT_STATES };
enum section_state { SECTION_FREE, SECTION_FIRST, SECTION_NEXT };

/* Pages that the guest has named for frames; gfn NULL: it has not. */
struct network_buffer {
	uint32_t gpadl, bytes;
	const uint64_t *gfn;
};

/* of a section: who has it, and which is the next of the same packet (or SECTIONS) */
struct section {
	uint8_t state;
	uint16_t next;
};

/* What it shall do with frames that the guest receives. */
struct network_offloads {
	bool ipv4, tcp_ipv4, udp_ipv4, tcp_ipv6, udp_ipv6; /* says that checksums are right */
	bool coalesces_ipv4, coalesces_ipv6; /* takes segments that are longer than its MTU */
};

/* By which channel a frame comes (scale.c); entries 0: by the first. */
struct network_scale {
	uint32_t entries, kinds;
	uint8_t queue[SCALE_ENTRIES];
	uint8_t key[SCALE_KEY_BYTES];
};

/* One of the card's channels: 0 the first, others are sub-channels. */
struct network_queue {
	struct network *network;
	unsigned number;
	/* invariant 4 */
	bool owed;
	uint64_t owed_transaction;
	struct nvsp_message owed_message;
};

/* Of a card with another address, of which the guest is yet to hear (renewal.c). */
struct network_renewal {
	bool due;
	/* when it was told of its link, by the monotonic clock; when it has acted upon that; and
	 * until when it matters what it goes on sending */
	uint64_t told_ms, settled_ms, patience_ms;
	bool is_made;      /* the guest's driver has begun, and is through: it has set a filter */
	uint64_t heard_ms; /* when it sent something last, or it was due */
};

struct network_counters {
	uint64_t sent, sent_bytes, received, received_bytes;
	uint64_t send_dropped, send_bad, receive_dropped, receive_no_buffer, server_failed, links;
};

struct answer {
	uint32_t bytes;
	uint8_t data[ANSWER_BYTES];
};

struct network {
	struct network_queue queue[NETWORK_QUEUES];
	struct bus_service service[NETWORK_QUEUES];
	unsigned queues; /* that the guest may have */
	struct bus_channel *channel;
	struct net_card_memory *memory;
	struct slot_client *client;
	unsigned number;
	uint8_t mac[NET_MAC_BYTES];
	bool paused;

	/* the server's life: of the generations, which is known, and whether its link is up */
	uint32_t generation, serving;
	bool is_up, cut_off;
	struct network_renewal renewal;
	bool held;   /* its link is down until the guest has let the old card go */
	bool taken;  /* the old one is taken away: nothing is delivered there any more */

	/* what the guest has agreed upon */
	uint32_t version; /* 0: none */
	uint32_t mtu, filter;
	bool initialized; /* RNDIS */
	bool told_up; /* what the guest knows of the link */
	struct network_buffer receive, send;
	struct network_offloads offloads;
	struct network_scale scale;

	/* invariant 1 */
	uint8_t slot[NET_SLOTS];
	unsigned send_free;
	uint8_t send_stack[NET_SLOTS];
	/* slots with frames for the guest, in their order */
	unsigned waiting_first, waiting;
	struct net_frame frame[NET_RECEIVE_SLOTS]; /* copies of their heads */
	uint8_t wait[NET_RECEIVE_SLOTS];
	uint8_t comes_by[NET_RECEIVE_SLOTS]; /* the queue of each */
	uint32_t cut_bytes; /* of the first of them, when it is cut: what was delivered */
	bool submitted;

	/* invariant 2 */
	unsigned sections, sections_free;
	uint16_t section_stack[SECTIONS];
	struct section section[SECTIONS];

	/* invariant 4 */
	unsigned answer_first, answers;
	struct answer answer[ANSWERS];

	struct network_counters counters;
};

/* Where a message lies: `bytes` from `at` of the ranges, which follow each other. */
struct network_source {
	const struct bus_range *range;
	unsigned ranges;
};

/* ---- network.c ---- */

/* A packet of the guest's has been done with: the completion, or it is owed. */
void network_complete(struct network_queue *queue, uint64_t transaction,
		      const struct nvsp_message *message);
/* 0 or -EFAULT. at + bytes lies in the ranges. */
int network_read(struct network *network, const struct network_source *source, uint32_t at,
		 void *to, uint32_t bytes);

/* Until a server begins no slot is free. */
void network_without_server(struct network *network);

/* ---- renewal.c ---- */

void renewal_link_told(struct network_renewal *renewal);
/* The guest has opened the card, or sent a packet. */
void renewal_heard(struct network_renewal *renewal);
/* It has sent frames, or a message of RNDIS. */
void renewal_sent(struct network_renewal *renewal);
/* The guest's time stood still for so long: unless it has been told since. */
void renewal_stood(struct network_renewal *renewal, uint64_t ns);
void renewal_archive(struct archive *archive, struct network *network);

/* ---- transmit.c ---- */

/*
 * NVSP_SUCCESS or what is wrong with the messages in the ranges, of which there are so many bytes.
 */
enum nvsp_status network_transmit(struct network *network, const struct network_source *source,
				  uint32_t bytes);

/* ---- receive.c ---- */

/* With pages or without: all sections are free. */
void network_set_receive_buffer(struct network *network, const struct network_buffer *buffer);
/* Frames and answers that wait, as far as there is room. */
void network_deliver(struct network *network);
/* The guest has done with a packet. 0 or -EBADMSG. */
int network_delivered(struct network *network, uint64_t transaction);
/* A frame has come in this slot. */
void network_received(struct network *network, unsigned slot);
/* To the server: an empty slot for a frame. */
void network_submit_receive(struct network *network, unsigned slot);

/* ---- rndis.c ---- */

/* A control message; -EBADMSG: it is none. */
int network_control(struct network *network, const uint8_t *message, uint32_t bytes);
/* The guest hears that the link is up or down, once it can. */
void network_tell_link(struct network *network);

/* ---- scale.c ---- */

/* Which queue a frame shall come by; data may change meanwhile. */
unsigned scale_queue(const struct network *network, const struct net_frame *frame,
		     const uint8_t *data);
/* What the guest sets; the RNDIS status. */
uint32_t scale_set(struct network *network, const uint8_t *data, uint32_t bytes);
void scale_archive(struct archive *archive, struct network *network);

/* ---- offload.c ---- */

/* What the guest wants done with the head of a frame that it sends. */
struct offload_wish {
	uint32_t checksum; /* RNDIS_SEND_* */
	uint32_t mss; /* 0: it is not to be cut */
	uint32_t transport_at;
};
/*
 * head: the first head_bytes of a frame of frame->bytes. Sets what frame says of it, and writes
 * sums of pseudo headers and the like; frame->bytes becomes less where the frame was padded. False:
 * the frame is not what the wish says.
 */
bool offload_send(const struct offload_wish *wish, uint8_t *head, uint32_t head_bytes,
		  struct net_frame *frame);
/* Heads of Ethernet with a tag, IP with options and TCP with options lie in so many bytes. */
enum { OFFLOAD_HEAD_BYTES = 192 };
/*
 * A segment of a frame that is to be cut, from byte `done` of what TCP carries. head becomes the
 * segment's heads, of *ret_head_bytes; *ret_bytes of the frame follow, which lie behind the frame's
 * own heads and `done`. with_sum: its checksum is written as well. False: the frame has no such
 * heads. data, the frame, may change meanwhile.
 */
bool offload_cut(const struct net_frame *frame, const uint8_t *data, uint32_t done, bool with_sum,
		 uint8_t head[OFFLOAD_HEAD_BYTES], uint32_t *ret_head_bytes, uint32_t *ret_bytes);
/* What the guest is told of its checksums: RNDIS_RECEIVED_*. */
uint32_t offload_receive_info(const struct network_offloads *offloads,
			      const struct net_frame *frame);
