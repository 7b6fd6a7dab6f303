/*
 * Receive side scaling: by which of the card's channels a frame comes. The guest gives a table of
 * channels and a key; the hash of a frame's addresses and ports (Toeplitz) chooses an entry. Frames
 * of one connection so come by one channel, in their order. A channel that is not open has none:
 * its frames come by the first.
 */
#include <string.h>

#include "lib/archive.h"
#include "network_internal.h"

enum {
	ETHERNET_BYTES = 14,
	TAG_BYTES = 4,
	IPV4_LEAST_BYTES = 20,
	IPV6_BYTES = 40,
	PORTS_BYTES = 4,
	PROTOCOL_TCP = 6,
	/* two addresses of IPv6, and two ports */
	TUPLE_BYTES = 36,
	HEAD_BYTES = ETHERNET_BYTES + TAG_BYTES + 60 + PORTS_BYTES,
};

/* ---- the hash ---- */

struct tuple {
	uint8_t data[TUPLE_BYTES];
	unsigned bytes;
};

static uint16_t big_endian(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static void tuple_add(struct tuple *tuple, const uint8_t *from, unsigned bytes)
{
	memcpy(tuple->data + tuple->bytes, from, bytes);
	tuple->bytes += bytes;
}

static void take_ipv4(const struct network_scale *scale, const uint8_t *ip, unsigned bytes,
		      struct tuple *ret)
{
	const unsigned head_bytes = (ip[0] & 15) * 4u;
	const bool is_whole = !(big_endian(ip + 6) & 0x3fff);
	const bool has_ports = ip[9] == PROTOCOL_TCP && is_whole &&
			       head_bytes >= IPV4_LEAST_BYTES && bytes >= head_bytes + PORTS_BYTES;

	if (!(scale->kinds & (NDIS_HASH_IPV4 | NDIS_HASH_TCP_IPV4)))
		return;
	tuple_add(ret, ip + 12, 8);
	if (has_ports && scale->kinds & NDIS_HASH_TCP_IPV4)
		tuple_add(ret, ip + head_bytes, PORTS_BYTES);
}

static void take_ipv6(const struct network_scale *scale, const uint8_t *ip, unsigned bytes,
		      struct tuple *ret)
{
	if (!(scale->kinds & (NDIS_HASH_IPV6 | NDIS_HASH_TCP_IPV6)))
		return;
	tuple_add(ret, ip + 8, 32);
	if (ip[6] == PROTOCOL_TCP && scale->kinds & NDIS_HASH_TCP_IPV6 &&
	    bytes >= IPV6_BYTES + PORTS_BYTES)
		tuple_add(ret, ip + IPV6_BYTES, PORTS_BYTES);
}

/* What of a frame's head is summed up; nothing of other protocols. */
static struct tuple tuple_of(const struct network_scale *scale, const uint8_t *head, unsigned bytes)
{
	struct tuple tuple = { .bytes = 0 };
	const bool has_tag = bytes >= ETHERNET_BYTES + TAG_BYTES && big_endian(head + 12) == 0x8100;
	const unsigned at = ETHERNET_BYTES + (has_tag ? TAG_BYTES : 0);
	uint16_t type;

	if (bytes < at + IPV4_LEAST_BYTES)
		return tuple;
	type = big_endian(head + at - 2);
	if (type == 0x0800)
		take_ipv4(scale, head + at, bytes - at, &tuple);
	else if (type == 0x86dd && bytes >= at + IPV6_BYTES)
		take_ipv6(scale, head + at, bytes - at, &tuple);
	return tuple;
}

/* Of each bit that is set the 32 bits of the key from there on. */
static uint32_t toeplitz(const uint8_t key[SCALE_KEY_BYTES], const struct tuple *tuple)
{
	uint64_t window = 0;
	uint32_t hash = 0;

	for (unsigned n = 0; n < 4; n++)
		window = window << 8 | key[n];
	for (unsigned n = 0; n < tuple->bytes; n++) {
		window = window << 8 | key[n + 4];
		for (unsigned bit = 0; bit < 8; bit++)
			if (tuple->data[n] & 0x80 >> bit)
				hash ^= (uint32_t)(window >> (8 - bit));
	}
	return hash;
}

unsigned scale_queue(const struct network *network, const struct net_frame *frame,
		     const uint8_t *data)
{
	const struct network_scale *scale = &network->scale;
	uint8_t head[HEAD_BYTES];
	const uint32_t bytes = frame->bytes < HEAD_BYTES ? frame->bytes : HEAD_BYTES;
	struct tuple tuple;

	if (!scale->entries)
		return 0;
	memcpy(head, data, bytes);
	tuple = tuple_of(scale, head, bytes);
	if (!tuple.bytes)
		return 0;
	return scale->queue[toeplitz(scale->key, &tuple) % scale->entries];
}

/* ---- what the guest sets ---- */

/* False: it lies not in the object, or names a channel that the card cannot have. */
static bool take_table(const struct network *network, const uint8_t *data, uint32_t bytes,
		       const struct ndis_scale_parameters *wish, struct network_scale *ret)
{
	const uint32_t entries = wish->table_bytes / sizeof(uint32_t);

	if (!entries || entries > SCALE_ENTRIES ||
	    (uint64_t)wish->table_offset + wish->table_bytes > bytes)
		return false;
	for (uint32_t n = 0; n < entries; n++) {
		uint32_t queue;

		memcpy(&queue, data + wish->table_offset + n * sizeof(queue), sizeof(queue));
		if (queue >= network->queues)
			return false;
		ret->queue[n] = (uint8_t)queue;
	}
	ret->entries = entries;
	return true;
}

static bool take_key(const uint8_t *data, uint32_t bytes, const struct ndis_scale_parameters *wish,
		     struct network_scale *ret)
{
	if (wish->key_bytes != SCALE_KEY_BYTES ||
	    (uint64_t)wish->key_offset + SCALE_KEY_BYTES > bytes)
		return false;
	memcpy(ret->key, data + wish->key_offset, SCALE_KEY_BYTES);
	return true;
}

uint32_t scale_set(struct network *network, const uint8_t *data, uint32_t bytes)
{
	struct ndis_scale_parameters wish;
	struct network_scale scale = network->scale;

	if (bytes < sizeof(wish))
		return RNDIS_INVALID_DATA;
	memcpy(&wish, data, sizeof(wish));
	if (wish.flags & NDIS_SCALE_OFF || !wish.hash) {
		network->scale.entries = 0;
		return RNDIS_SUCCESS;
	}
	if (!(wish.flags & NDIS_SCALE_SAME_HASH))
		scale.kinds = wish.hash;
	if (!(wish.flags & NDIS_SCALE_SAME_TABLE) &&
	    !take_table(network, data, bytes, &wish, &scale))
		return RNDIS_INVALID_DATA;
	if (!(wish.flags & NDIS_SCALE_SAME_KEY) && !take_key(data, bytes, &wish, &scale))
		return RNDIS_INVALID_DATA;
	network->scale = scale;
	return RNDIS_SUCCESS;
}

void scale_archive(struct archive *archive, struct network *network)
{
	struct network_scale *scale = &network->scale;

	archive_u32(archive, &scale->entries);
	archive_u32(archive, &scale->kinds);
	archive_bytes(archive, scale->key, sizeof(scale->key));
	if (!archive_check(archive, scale->entries <= SCALE_ENTRIES)) {
		scale->entries = 0;
		return;
	}
	for (unsigned n = 0; n < scale->entries; n++) {
		archive_u8(archive, &scale->queue[n]);
		if (!archive_check(archive, scale->queue[n] < network->queues))
			scale->queue[n] = 0;
	}
}
