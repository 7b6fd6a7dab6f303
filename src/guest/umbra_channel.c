/* See umbra_channel.h. Nothing here may call libc: loops copy. */
#include "umbra_channel.h"

#include "abi/share.h"
#include "abi/vmbus_layout.h"

enum { PAGE_BYTES = 4096, UNIT = 8, PAGES_MOST = 512 };

static volatile uint32_t *word_of(uint8_t *ring, uint32_t word)
{
	return (volatile uint32_t *)(void *)(ring + word);
}

static uint32_t load(uint8_t *ring, uint32_t word)
{
	return __atomic_load_n(word_of(ring, word), __ATOMIC_ACQUIRE);
}

static uint32_t up_to_unit(uint32_t bytes) { return (bytes + UNIT - 1) / UNIT * UNIT; }

/* ---- to the host ---- */

static uint32_t put_bytes(const struct umbra_channel *channel, uint32_t at, const void *from,
			  uint32_t bytes)
{
	uint8_t *data = channel->send + PAGE_BYTES;

	for (uint32_t n = 0; n < bytes; n++) {
		data[at] = ((const uint8_t *)from)[n];
		at = at + 1 == channel->send_bytes ? 0 : at + 1;
	}
	return at;
}

/* The head, what it names, the payload, padding, and where it began. */
static void lay_packet(struct umbra_channel *channel, const struct vmbus_packet *head,
		       const struct umbra_pages *pages, uint32_t page_count, const void *payload,
		       uint32_t bytes)
{
	const uint64_t footer = (uint64_t)channel->written << 32;
	const uint64_t padding = 0;
	uint32_t at = put_bytes(channel, channel->written, head, sizeof(*head));

	if (pages) {
		const uint32_t range[4] = { 0, 1, pages->bytes, pages->offset };

		at = put_bytes(channel, at, range, sizeof(range));
		at = put_bytes(channel, at, pages->gfn, page_count * sizeof(*pages->gfn));
	}
	at = put_bytes(channel, at, payload, bytes);
	at = put_bytes(channel, at, &padding, up_to_unit(bytes) - bytes);
	channel->written = put_bytes(channel, at, &footer, sizeof(footer));
}

/* Who takes packets says that he needs no signal; who has stopped to has taken all before. */
static void tell_host(struct umbra_channel *channel, uint32_t before)
{
	__atomic_store_n(word_of(channel->send, RING_WRITE_INDEX), channel->written,
			 __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!load(channel->send, RING_INTERRUPT_MASK) &&
	    load(channel->send, RING_READ_INDEX) == before)
		channel->signal(channel->context);
}

int umbra_channel_put(struct umbra_channel *channel, const struct umbra_packet *packet,
		      const struct umbra_pages *pages, const void *payload, uint32_t bytes)
{
	const uint32_t before = channel->written;
	const uint32_t read = load(channel->send, RING_READ_INDEX);
	uint32_t page_count = 0;
	uint32_t head_bytes = sizeof(struct vmbus_packet);
	uint32_t whole, used;
	struct vmbus_packet head;

	if (pages) {
		page_count = (pages->offset + pages->bytes + PAGE_BYTES - 1) / PAGE_BYTES;
		head_bytes += 4 * sizeof(uint32_t) + page_count * sizeof(uint64_t);
	}
	if (page_count > PAGES_MOST || bytes > channel->send_bytes / 2)
		return UMBRA_CHANNEL_LONG;
	if (read >= channel->send_bytes || read % UNIT)
		return UMBRA_CHANNEL_BROKEN;
	whole = head_bytes + up_to_unit(bytes) + PACKET_FOOTER_BYTES;
	if (whole >= channel->send_bytes)
		return UMBRA_CHANNEL_LONG;
	used = before >= read ? before - read : before + channel->send_bytes - read;
	if (channel->send_bytes - used <= whole)
		return UMBRA_CHANNEL_FULL;
	head = (struct vmbus_packet){
		.type = packet->type, .flags = packet->flags,
		.data_units = (uint16_t)(head_bytes / UNIT),
		.units = (uint16_t)((head_bytes + up_to_unit(bytes)) / UNIT),
		.transaction = packet->transaction,
	};
	lay_packet(channel, &head, pages, page_count, payload, bytes);
	tell_host(channel, before);
	return UMBRA_CHANNEL_DONE;
}

/* ---- from the host ---- */

static uint32_t get_bytes(const struct umbra_channel *channel, uint32_t at, void *to,
			  uint32_t bytes)
{
	const uint8_t *data = channel->receive + PAGE_BYTES;

	for (uint32_t n = 0; n < bytes; n++) {
		((uint8_t *)to)[n] = data[at];
		at = at + 1 == channel->receive_bytes ? 0 : at + 1;
	}
	return at;
}

static uint32_t forward(const struct umbra_channel *channel, uint32_t at, uint32_t bytes)
{
	return (uint32_t)(((uint64_t)at + bytes) % channel->receive_bytes);
}

/* The room of a packet goes back to the host, who may wait for it. */
static void give_back(struct umbra_channel *channel, uint32_t bytes)
{
	channel->read = forward(channel, channel->read, bytes);
	__atomic_store_n(word_of(channel->receive, RING_READ_INDEX), channel->read,
			 __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (load(channel->receive, RING_PENDING_BYTES))
		channel->signal(channel->context);
}

bool umbra_channel_has_packet(const struct umbra_channel *channel)
{
	return load(channel->receive, RING_WRITE_INDEX) != channel->read;
}

int umbra_channel_get(struct umbra_channel *channel, struct umbra_packet *ret, void *to,
		      uint32_t room)
{
	const uint32_t written = load(channel->receive, RING_WRITE_INDEX);
	uint32_t there, whole, begins, bytes;
	struct vmbus_packet head;

	if (written == channel->read)
		return UMBRA_CHANNEL_NONE;
	if (written >= channel->receive_bytes || written % UNIT)
		return UMBRA_CHANNEL_BROKEN;
	there = written > channel->read ? written - channel->read
					: written + channel->receive_bytes - channel->read;
	if (there < sizeof(head) + PACKET_FOOTER_BYTES)
		return UMBRA_CHANNEL_BROKEN;
	get_bytes(channel, channel->read, &head, sizeof(head));
	whole = (uint32_t)head.units * UNIT + PACKET_FOOTER_BYTES;
	begins = (uint32_t)head.data_units * UNIT;
	if (whole > there || begins < sizeof(head) || begins > whole - PACKET_FOOTER_BYTES)
		return UMBRA_CHANNEL_BROKEN;
	bytes = whole - PACKET_FOOTER_BYTES - begins;
	if (bytes <= room)
		get_bytes(channel, forward(channel, channel->read, begins), to, bytes);
	*ret = (struct umbra_packet){ .type = head.type, .flags = head.flags,
				      .transaction = head.transaction };
	give_back(channel, whole);
	return bytes <= room ? (int)bytes : UMBRA_CHANNEL_LONG;
}

void umbra_channel_want_interrupts(struct umbra_channel *channel, bool wants)
{
	__atomic_store_n(word_of(channel->receive, RING_INTERRUPT_MASK), wants ? 0u : 1u,
			 __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- messages to another machine ---- */

static struct umbra_packet inband(uint64_t transaction)
{
	return (struct umbra_packet){ .type = PACKET_INBAND,
				      .flags = transaction ? PACKET_WANTS_COMPLETION : 0,
				      .transaction = transaction };
}

int umbra_share_ask_version(struct umbra_channel *channel, uint64_t transaction)
{
	const struct share_version ask = { .head.kind = SHARE_VERSION, .least = SHARE_1_1,
					   .most = SHARE_1_2 };
	const struct umbra_packet packet = inband(transaction);

	return umbra_channel_put(channel, &packet, NULL, &ask, sizeof(ask));
}

int umbra_share_send(struct umbra_channel *channel, uint64_t transaction, uint32_t lend,
		     const void *data, uint32_t bytes)
{
	struct { struct share_data head; uint8_t bytes[SHARE_DATA_MAX_BYTES]; } message;
	const struct umbra_packet packet = inband(transaction);

	if (bytes > SHARE_DATA_MAX_BYTES)
		return UMBRA_CHANNEL_LONG;
	message.head = (struct share_data){ .head.kind = SHARE_DATA, .bytes = bytes, .lend = lend };
	for (uint32_t n = 0; n < bytes; n++)
		message.bytes[n] = ((const uint8_t *)data)[n];
	return umbra_channel_put(channel, &packet, NULL, &message,
				 (uint32_t)sizeof(message.head) + bytes);
}

static int put_about(struct umbra_channel *channel, uint64_t transaction, uint32_t kind,
		     uint32_t lend, uint32_t flags)
{
	const struct share_lend ask = { .head.kind = kind, .id = lend, .flags = flags };
	const struct umbra_packet packet = inband(transaction);

	return umbra_channel_put(channel, &packet, NULL, &ask, sizeof(ask));
}

int umbra_share_lend(struct umbra_channel *channel, uint64_t transaction, const uint64_t *gfn,
		     uint32_t pages, uint32_t flags)
{
	const struct share_lend ask = { .head.kind = SHARE_LEND, .flags = flags };
	const struct umbra_pages named = { .gfn = gfn, .bytes = pages * PAGE_BYTES };
	struct umbra_packet packet = inband(transaction);

	if (!pages || pages > PAGES_MOST)
		return UMBRA_CHANNEL_LONG;
	packet.type = PACKET_GPA_DIRECT;
	return umbra_channel_put(channel, &packet, &named, &ask, sizeof(ask));
}

int umbra_share_release(struct umbra_channel *channel, uint64_t transaction, uint32_t lend)
{
	return put_about(channel, transaction, SHARE_RELEASE, lend, 0);
}

int umbra_share_end(struct umbra_channel *channel, uint64_t transaction, uint32_t lend,
		    uint32_t flags)
{
	return put_about(channel, transaction, SHARE_END, lend, flags);
}
