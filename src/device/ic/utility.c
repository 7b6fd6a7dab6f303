/* See utility.h. */
#include "utility.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"

enum { TYPE_NEGOTIATE = 0, TYPE_HEARTBEAT = 1, TYPE_SHUTDOWN = 3, TYPE_TIME = 4 };
enum { FLAG_TRANSACTION = 1, FLAG_REQUEST = 2, FLAG_RESPONSE = 4 };
enum {
	TIME_SYNC = 1, TIME_SAMPLE = 2, TEXT_BYTES = 2048, VERSIONS = 2, BEATS_TO_LOSE = 5,
	TICK_SECONDS = 2
};

struct version { uint16_t major, minor; };
/* The pipe's words, then the message's head. */
struct head {
	uint32_t pipe_flags, pipe_bytes;
	struct version framework;
	uint16_t type;
	struct version message;
	uint16_t bytes; /* of what follows */
	uint32_t status;
	uint8_t transaction, flags;
	uint16_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct head) == 28, "a head");

struct negotiation {
	uint16_t frameworks, messages;
	uint32_t reserved;
	struct version version[2 * VERSIONS];
};
struct beat { uint64_t sequence; uint32_t reserved[8]; };
/* The driver looks at whether all of it is there. */
struct shutdown { uint32_t reason, timeout_s, flags; uint8_t text[TEXT_BYTES]; };
struct sample {
	uint64_t utc_100ns, reference_100ns;
	uint8_t flags, leap, stratum, reserved[3];
} __attribute__((packed));

static const struct {
	struct guid type, instance;
	uint16_t message;
	struct version versions[VERSIONS];
	unsigned count;
} kinds[UTILITY_KINDS] = {
	[UTILITY_SHUTDOWN] = {
		.type = GUID(0x0e0b6031, 0x5213, 0x4934,
			     0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb),
		.instance = GUID(0xb6650ff7, 0x33bc, 0x4840,
				 0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93),
		.message = TYPE_SHUTDOWN, .versions = { { 3, 0 }, { 1, 0 } }, .count = 2,
	},
	[UTILITY_HEARTBEAT] = {
		.type = GUID(0x57164f39, 0x9115, 0x4e78,
			     0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d),
		.instance = GUID(0xfd149e91, 0x82e0, 0x4a7d,
				 0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0),
		.message = TYPE_HEARTBEAT, .versions = { { 3, 0 }, { 1, 0 } }, .count = 2,
	},
	[UTILITY_TIME] = {
		.type = GUID(0x9527e630, 0xd0ae, 0x497b,
			     0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf),
		.instance = GUID(0x2dd1ce17, 0x079e, 0x403c,
				 0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee),
		.message = TYPE_TIME, .versions = { { 4, 0 } }, .count = 1,
	},
};
static const struct version frameworks[VERSIONS] = { { 3, 0 }, { 1, 0 } };

struct utility {
	struct bus_service service;
	struct bus_channel *channel;
	const struct utility_clock *clock;
	enum utility_kind kind;
	bool ready;
	struct version framework, message;
	uint8_t transaction;
	uint64_t sequence;
	unsigned unanswered; /* beats */
	bool beaten; /* one was answered */
};

static int utility_send(struct utility *utility, uint16_t type, const void *data, size_t bytes)
{
	uint8_t packet[sizeof(struct head) + sizeof(struct shutdown)];
	const struct head head = { .pipe_flags = 1,
				   .pipe_bytes = (uint32_t)(sizeof(head) - 8 + bytes),
				   .framework = utility->framework,
				   .type = type,
				   .message = utility->message,
				   .bytes = (uint16_t)bytes,
				   .transaction = ++utility->transaction,
				   .flags = FLAG_TRANSACTION | FLAG_REQUEST };

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + sizeof(head), data, bytes);
	return bus_channel_send(utility->channel, PACKET_INBAND, utility->transaction, packet,
				sizeof(head) + bytes);
}

static void opened(void *context)
{
	struct utility *utility = context;
	struct negotiation negotiation = { .frameworks = VERSIONS,
					   .messages = (uint16_t)kinds[utility->kind].count };

	utility->ready = utility->beaten = false;
	utility->unanswered = 0;
	utility->framework = frameworks[0];
	utility->message = kinds[utility->kind].versions[0];
	memcpy(negotiation.version, frameworks, sizeof(frameworks));
	memcpy(negotiation.version + VERSIONS, kinds[utility->kind].versions,
	       sizeof(struct version) * kinds[utility->kind].count);
	utility_send(utility, TYPE_NEGOTIATE, &negotiation,
		     sizeof(negotiation) -
			     sizeof(struct version) * (VERSIONS - kinds[utility->kind].count));
}

static void send_time(struct utility *utility, uint8_t flags)
{
	const struct sample sample = {
		.utc_100ns = utility->clock->utc_100ns(utility->clock->context),
		.reference_100ns = utility->clock->reference_100ns(utility->clock->context),
		.flags = flags
	};

	utility_send(utility, TYPE_TIME, &sample, sizeof(sample));
}

static bool is_offered(const struct version *list, unsigned count, struct version version)
{
	for (unsigned n = 0; n < count; n++)
		if (list[n].major == version.major && list[n].minor == version.minor)
			return true;
	return false;
}

/*
 * One of each, of those that were offered; another answer says that the guest knows none, and then
 * nobody is there.
 */
static void negotiated(struct utility *utility, const uint8_t *data, size_t bytes)
{
	struct {
		uint16_t frameworks, messages;
		uint32_t reserved;
		struct version version[2];
	} negotiate;

	if (bytes < sizeof(negotiate) || utility->ready)
		return;
	memcpy(&negotiate, data, sizeof(negotiate));
	if (negotiate.frameworks != 1 || negotiate.messages != 1 ||
	    !is_offered(frameworks, VERSIONS, negotiate.version[0]) ||
	    !is_offered(kinds[utility->kind].versions, kinds[utility->kind].count,
			negotiate.version[1]))
		return;
	utility->framework = negotiate.version[0];
	utility->message = negotiate.version[1];
	utility->ready = true;
	if (utility->kind == UTILITY_TIME)
		send_time(utility, TIME_SYNC);
}

static void beat_answered(struct utility *utility)
{
	utility->unanswered = 0;
	utility->beaten = true;
}

static int packet(void *context, const struct bus_packet *received)
{
	struct utility *utility = context;
	struct head head;

	if (received->type != PACKET_INBAND || received->payload_bytes < sizeof(head))
		return -EBADMSG;
	memcpy(&head, received->payload, sizeof(head));
	if (head.flags & FLAG_RESPONSE && head.type == TYPE_NEGOTIATE)
		negotiated(utility, received->payload + sizeof(head),
			   received->payload_bytes - sizeof(head));
	else if (head.flags & FLAG_RESPONSE && head.type == TYPE_HEARTBEAT && utility->ready)
		beat_answered(utility);
	return 0;
}

static void closed(void *context) { ((struct utility *)context)->ready = false; }

struct utility *utility_create(struct bus *bus, enum utility_kind kind,
			       const struct utility_clock *clock)
{
	struct utility *utility = calloc(1, sizeof(*utility));

	if (!utility)
		return NULL;
	utility->kind = kind;
	utility->clock = clock;
	utility->service = (struct bus_service){ .type = kinds[kind].type,
						 .instance = kinds[kind].instance,
						 .opened = opened,
						 .closed = closed,
						 .packet = packet,
						 .context = utility };
	utility->channel = bus_offer(bus, &utility->service);
	if (utility->channel)
		return utility;
	free(utility);
	return NULL;
}

void utility_destroy(struct utility *utility) { free(utility); }

bool utility_shut_down(struct utility *utility)
{
	static const struct shutdown now = { .flags = 0 };
	bool asked;

	bus_channel_lock(utility->channel);
	asked = utility->ready && !utility_send(utility, TYPE_SHUTDOWN, &now, sizeof(now));
	bus_channel_unlock(utility->channel);
	return asked;
}

void utility_tick(struct utility *utility)
{
	struct beat beat = { 0 };

	bus_channel_lock(utility->channel);
	if (utility->ready && utility->kind == UTILITY_HEARTBEAT) {
		beat.sequence = ++utility->sequence;
		utility->unanswered += utility->unanswered < BEATS_TO_LOSE;
		utility_send(utility, TYPE_HEARTBEAT, &beat, sizeof(beat));
	} else if (utility->ready && utility->kind == UTILITY_TIME) {
		send_time(utility, TIME_SAMPLE);
	}
	bus_channel_unlock(utility->channel);
}

/* Unknown until the first beat is answered or the fifth is not; later good until five are not. */
static enum utility_health heartbeat_health(const struct utility *utility)
{
	if (!utility->ready)
		return HEALTH_UNKNOWN;
	if (utility->unanswered >= BEATS_TO_LOSE)
		return HEALTH_LOST;
	return utility->beaten ? HEALTH_GOOD : HEALTH_UNKNOWN;
}

enum utility_health utility_health(struct utility *utility)
{
	enum utility_health health;

	bus_channel_lock(utility->channel);
	health = heartbeat_health(utility);
	bus_channel_unlock(utility->channel);
	return health;
}

/* ---- saved state ---- */

static void version_archive(struct archive *archive, struct version *version)
{
	archive_u16(archive, &version->major);
	archive_u16(archive, &version->minor);
}

void utility_archive(struct archive *archive, struct utility *utility)
{
	uint32_t unanswered = utility->unanswered;

	archive_bool(archive, &utility->ready);
	version_archive(archive, &utility->framework);
	version_archive(archive, &utility->message);
	archive_u8(archive, &utility->transaction);
	archive_u64(archive, &utility->sequence);
	archive_u32(archive, &unanswered);
	archive_bool(archive, &utility->beaten);
	archive_check(archive, unanswered <= BEATS_TO_LOSE);
	archive_check(archive,
		      !utility->ready || is_offered(frameworks, VERSIONS, utility->framework));
	archive_check(archive,
		      !utility->ready || is_offered(kinds[utility->kind].versions,
						    kinds[utility->kind].count, utility->message));
	utility->unanswered = unanswered;
}

/* ---- the unit ---- */

static void unit_archive(struct archive *archive, void *self) { utility_archive(archive, self); }

static void unit_destroy(void *self) { utility_destroy(self); }

static void unit_tick(void *self, unsigned seconds)
{
	if (seconds % TICK_SECONDS == 0)
		utility_tick(self);
}

const struct unit_ops utility_unit = {
	.name = "integration component", .section = UNIT_SECTION('I', 'C', ' ', ' '),
	.numbered = true, .destroy = unit_destroy,
	.archive = unit_archive, .tick = unit_tick,
};
