/*
 * What a network card does with the heads of frames (device/netvsp/offload.c): sums that are right
 * once they are completed, segments that put together are the frame, and heads that lie.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/netvsp/network_internal.h"
#include "lib/checksum.h"

enum { IP_AT = 14, FRAME_BYTES = 9000, ROUNDS = 4000 };

static int failures;
static uint8_t frame[FRAME_BYTES], built[FRAME_BYTES];

static void expect(const char *what, bool got)
{
	if (got)
		return;
	printf("FAIL %s\n", what);
	failures++;
}

static uint32_t word(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static void put(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

struct shape { bool is_ipv4, is_tcp, is_tagged; uint32_t bytes, ip_at, transport_at, data_at; };

/* A frame of random bytes with heads that make sense. */
static struct shape make(uint32_t bytes, unsigned kind)
{
	struct shape shape = {
		.is_ipv4 = kind & 1, .is_tcp = kind & 2, .is_tagged = kind & 4, .bytes = bytes
	};
	const uint32_t options = shape.is_ipv4 ? (kind >> 3 & 3) * 4 : 0;

	for (uint32_t n = 0; n < bytes; n++)
		frame[n] = (uint8_t)rand();
	shape.ip_at = IP_AT + (shape.is_tagged ? 4 : 0);
	shape.transport_at = shape.ip_at + (shape.is_ipv4 ? 20 + options : 40);
	shape.data_at = shape.transport_at + (shape.is_tcp ? 20 + (kind >> 5 & 7) * 4 : 8);
	if (shape.is_tagged)
		put(frame + 12, 0x8100);
	put(frame + shape.ip_at - 2, shape.is_ipv4 ? 0x0800 : 0x86dd);
	frame[shape.ip_at] = shape.is_ipv4 ? (uint8_t)(0x45 + options / 4) : 0x60;
	if (shape.is_ipv4) {
		put(frame + shape.ip_at + 2, bytes - shape.ip_at);
		put(frame + shape.ip_at + 6, 0);
		frame[shape.ip_at + 9] = shape.is_tcp ? 6 : 17;
	} else {
		put(frame + shape.ip_at + 4, bytes - shape.ip_at - 40);
		frame[shape.ip_at + 6] = shape.is_tcp ? 6 : 17;
	}
	if (shape.is_tcp)
		frame[shape.transport_at + 12] =
			(uint8_t)((shape.data_at - shape.transport_at) / 4 << 4);
	else
		put(frame + shape.transport_at + 4, bytes - shape.transport_at);
	return shape;
}

/* By the book: whether the sums of a frame are right. */
static bool sums_are_right(const uint8_t *data, uint32_t bytes, const struct shape *shape)
{
	uint32_t sum = (shape->is_tcp ? 6u : 17u) + bytes - shape->transport_at;

	if (shape->is_ipv4) {
		if (checksum_fold(checksum_add(data + shape->ip_at,
					       shape->transport_at - shape->ip_at, 0)) != 0xffff)
			return false;
		for (uint32_t n = 0; n < 8; n += 2)
			sum += word(data + shape->ip_at + 12 + n);
	} else {
		for (uint32_t n = 0; n < 32; n += 2)
			sum += word(data + shape->ip_at + 8 + n);
	}
	for (uint32_t n = shape->transport_at; n < bytes; n += 2)
		sum += n + 1 < bytes ? word(data + n) : (uint32_t)data[n] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static void sends(unsigned round)
{
	const struct shape shape = make(200 + (uint32_t)rand() % 1000, round);
	const struct offload_wish wish = {
		.checksum = (shape.is_tcp ? RNDIS_SEND_TCP : RNDIS_SEND_UDP) | RNDIS_SEND_IP_HEADER,
		.transport_at = shape.transport_at
	};
	struct net_frame metadata = { .bytes = shape.bytes };

	expect("a frame to be summed up",
	       offload_send(&wish, frame, OFFLOAD_HEAD_BYTES, &metadata));
	expect("its end", metadata.bytes == shape.bytes && net_frame_is_sound(&metadata));
	expect("whose sum is missing",
	       metadata.flags & NET_CHECKSUM_MISSING && metadata.checksum_at == shape.transport_at);
	net_frame_complete_checksum(&metadata, frame);
	expect("a sum that was completed", sums_are_right(frame, metadata.bytes, &shape));
}

/* Each segment on its own, and their data together. */
static void segments(const struct net_frame *metadata, const struct shape *shape)
{
	uint32_t done = 0;
	uint32_t count = 0;
	uint32_t sequence = word(frame + shape->transport_at + 4) << 16 |
			    word(frame + shape->transport_at + 6);

	while (shape->data_at + done < metadata->bytes) {
		uint32_t heads_bytes;
		uint32_t bytes;
		uint8_t *tcp = built + shape->transport_at;

		if (!offload_cut(metadata, frame, done, true, built, &heads_bytes, &bytes)) {
			expect("a segment", false);
			return;
		}
		memcpy(built + heads_bytes, frame + shape->data_at + done, bytes);
		expect("its heads",
		       heads_bytes == shape->data_at && bytes && bytes <= metadata->mss);
		expect("its sums", sums_are_right(built, heads_bytes + bytes, shape));
		expect("its sequence number",
		       (word(tcp + 4) << 16 | word(tcp + 6)) == sequence + done);
		expect("FIN and PUSH in the last alone",
		       !(tcp[13] & 9) == (done + bytes + shape->data_at < metadata->bytes) ||
			       !(frame[shape->transport_at + 13] & 9));
		done += bytes;
		count++;
	}
	expect("all of it", done + shape->data_at == metadata->bytes &&
				    count == (metadata->bytes - shape->data_at + metadata->mss -
					      1) / metadata->mss);
	expect("no more of it", !offload_cut(metadata, frame, done, true, built, &count, &done));
}

static void cuts(unsigned round)
{
	const struct shape shape = make(3000 + (uint32_t)rand() % 6000, round | 2);
	const struct offload_wish wish = { .mss = 100 + (uint32_t)rand() % 1400,
					   .transport_at = shape.transport_at };
	struct net_frame metadata = { .bytes = shape.bytes };

	put(frame + shape.ip_at + (shape.is_ipv4 ? 2 : 4), 0); /* as drivers leave it */
	expect("a frame to be cut", offload_send(&wish, frame, OFFLOAD_HEAD_BYTES, &metadata));
	expect("a large one", metadata.flags & NET_LARGE && metadata.mss == wish.mss &&
				      net_frame_is_sound(&metadata));
	segments(&metadata, &shape);
	net_frame_complete_checksum(&metadata, frame);
	expect("all of it as one", sums_are_right(frame, metadata.bytes, &shape));
}

/* Padding is not part of a packet. */
static void padding(void)
{
	const struct shape shape = make(100, 3);
	const struct offload_wish wish = { .checksum = RNDIS_SEND_TCP };
	struct net_frame metadata = { .bytes = 100 };

	put(frame + shape.ip_at + 2, 60);
	expect("padding",
	       offload_send(&wish, frame, 100, &metadata) && metadata.bytes == IP_AT + 60);
}

static bool is_refused(uint32_t at, uint8_t value, const struct offload_wish *wish, unsigned kind)
{
	struct net_frame metadata = { .bytes = 100 };

	make(100, kind);
	frame[at] = value;
	return !offload_send(wish, frame, 100, &metadata);
}

static void lies(void)
{
	const struct offload_wish tcp = { .checksum = RNDIS_SEND_TCP };
	const struct offload_wish late = { .checksum = RNDIS_SEND_TCP, .transport_at = 90 };
	const struct net_frame small = { .bytes = 13 };
	const struct net_frame huge = { .bytes = NET_FRAME_BYTES + 1 };
	const struct net_frame outside = { .bytes = 100,
					   .flags = NET_CHECKSUM_MISSING,
					   .checksum_at = 90,
					   .checksum_offset = 9 };
	const struct net_frame no_mss = { .bytes = 100,
					  .flags = NET_LARGE | NET_TCP,
					  .checksum_at = 34 };

	expect("neither IPv4 nor 6", is_refused(12, 9, &tcp, 3));
	expect("another version", is_refused(IP_AT, 0x65, &tcp, 3));
	expect("a head of 16 bytes", is_refused(IP_AT, 0x44, &tcp, 3));
	expect("longer than the frame", is_refused(IP_AT + 2, 1, &tcp, 3));
	expect("shorter than its head", is_refused(IP_AT + 3, 19, &tcp, 3));
	expect("IPv6 that is longer", is_refused(IP_AT + 4, 1, &tcp, 2));
	expect("IPv6 whose transport is late", is_refused(0, 0, &late, 2));
	expect("a short frame", !net_frame_is_sound(&small));
	expect("a long frame", !net_frame_is_sound(&huge));
	expect("a sum outside", !net_frame_is_sound(&outside));
	expect("segments of nothing", !net_frame_is_sound(&no_mss));
}

/* Heads of any bytes: nothing outside is touched (sanitizers look), and what is said is sound. */
static void rubbish(void)
{
	const struct offload_wish wish = { .checksum = (uint32_t)rand() & 28,
					   .mss = rand() % 3 ? 0 : (uint32_t)rand() % 2000,
					   .transport_at = (uint32_t)rand() % 1024 };
	const uint32_t bytes = NET_HEAD_BYTES + (uint32_t)rand() % 400;
	uint8_t *data = malloc(bytes);
	struct net_frame metadata = { .bytes = bytes };
	uint8_t head[OFFLOAD_HEAD_BYTES];
	uint32_t some;
	uint32_t more;

	make(FRAME_BYTES, (unsigned)rand());
	for (unsigned n = 0; n < 4; n++)
		frame[rand() % 80] = (uint8_t)rand();
	memcpy(data, frame, bytes);
	if (offload_send(&wish, data, bytes < OFFLOAD_HEAD_BYTES ? bytes : OFFLOAD_HEAD_BYTES,
			 &metadata))
		expect("rubbish is sound", net_frame_is_sound(&metadata));
	metadata = (struct net_frame){ .bytes = bytes,
				       .flags = NET_LARGE | NET_TCP,
				       .mss = 1,
				       .checksum_at = (uint16_t)((uint32_t)rand() % bytes) };
	if (net_frame_is_sound(&metadata))
		offload_cut(&metadata, data, (uint32_t)rand() % bytes, true, head, &some, &more);
	free(data);
}

int main(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		srand(round);
		sends(round);
		cuts(round);
		rubbish();
	}
	padding();
	lies();
	printf("%d rounds, %d failures\n", ROUNDS, failures);
	return failures != 0;
}
