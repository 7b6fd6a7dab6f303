/* See utility.h. */
#include "utility.h"

#include <stdlib.h>

#include "ic_frame.h"
#include "lib/archive.h"

enum { TIME_SYNC = 1, TIME_SAMPLE = 2, TEXT_BYTES = 2048, BEATS_TO_LOSE = 5, TICK_SECONDS = 2 };

struct beat { uint64_t sequence; uint32_t reserved[8]; };
/* The driver looks at whether all of it is there. */
struct shutdown { uint32_t reason, timeout_s, flags; uint8_t text[TEXT_BYTES]; };
struct sample {
	uint64_t utc_100ns, reference_100ns;
	uint8_t flags, leap, stratum, reserved[3];
} __attribute__((packed));

static const struct ic_kind kinds[UTILITY_KINDS] = {
	[UTILITY_SHUTDOWN] = {
		.type = GUID(0x0e0b6031, 0x5213, 0x4934,
			     0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb),
		.instance = GUID(0xb6650ff7, 0x33bc, 0x4840,
				 0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93),
		.message = IC_SHUTDOWN, .versions = { { 3, 0 }, { 1, 0 } }, .count = 2,
	},
	[UTILITY_HEARTBEAT] = {
		.type = GUID(0x57164f39, 0x9115, 0x4e78,
			     0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d),
		.instance = GUID(0xfd149e91, 0x82e0, 0x4a7d,
				 0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0),
		.message = IC_HEARTBEAT, .versions = { { 3, 0 }, { 1, 0 } }, .count = 2,
	},
	[UTILITY_TIME] = {
		.type = GUID(0x9527e630, 0xd0ae, 0x497b,
			     0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf),
		.instance = GUID(0x2dd1ce17, 0x079e, 0x403c,
				 0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee),
		.message = IC_TIME, .versions = { { 4, 0 } }, .count = 1,
	},
};

struct utility {
	struct bus_service service;
	struct ic_frame frame;
	const struct utility_clock *clock;
	enum utility_kind kind;
	uint64_t sequence;
	unsigned unanswered; /* beats */
	bool beaten; /* one was answered */
	bool is_behind; /* the guest's time of day, since the machine stood, or was saved */
};

static void opened(void *context)
{
	struct utility *utility = context;

	utility->beaten = false;
	utility->unanswered = 0;
	ic_begin(&utility->frame);
}

/* 0 or -errno: its ring is full. */
static int send_time(struct utility *utility, uint8_t flags)
{
	const struct sample sample = {
		.utc_100ns = utility->clock->utc_100ns(utility->clock->context),
		.reference_100ns = utility->clock->reference_100ns(utility->clock->context),
		.flags = flags
	};

	return ic_send(&utility->frame, IC_TIME, &sample, sizeof(sample));
}

static void beat_answered(struct utility *utility)
{
	utility->unanswered = 0;
	utility->beaten = true;
}

static int packet(void *context, const struct bus_packet *received)
{
	struct utility *utility = context;
	struct ic_answer answer;
	int event = ic_take(&utility->frame, received, &answer);

	if (event < 0)
		return event;
	if (event == IC_READY && utility->kind == UTILITY_TIME)
		send_time(utility, TIME_SYNC);
	if (event == IC_ANSWERED && utility->kind == UTILITY_HEARTBEAT)
		beat_answered(utility);
	return 0;
}

static void closed(void *context) { ic_end(&((struct utility *)context)->frame); }

struct utility *utility_create(struct bus *bus, enum utility_kind kind,
			       const struct utility_clock *clock)
{
	struct utility *utility = calloc(1, sizeof(*utility));

	if (!utility)
		return NULL;
	utility->kind = kind;
	utility->frame.kind = &kinds[kind];
	utility->clock = clock;
	utility->service = (struct bus_service){ .type = kinds[kind].type,
						 .instance = kinds[kind].instance,
						 .opened = opened,
						 .closed = closed,
						 .packet = packet,
						 .context = utility };
	utility->frame.channel = bus_offer(bus, &utility->service);
	if (utility->frame.channel)
		return utility;
	free(utility);
	return NULL;
}

void utility_destroy(struct utility *utility) { free(utility); }

bool utility_shut_down(struct utility *utility)
{
	static const struct shutdown now = { .flags = 0 };
	bool asked;

	bus_channel_lock(utility->frame.channel);
	asked = utility->frame.ready && !ic_send(&utility->frame, IC_SHUTDOWN, &now, sizeof(now));
	bus_channel_unlock(utility->frame.channel);
	return asked;
}

void utility_tick(struct utility *utility)
{
	struct beat beat = { 0 };

	bus_channel_lock(utility->frame.channel);
	if (utility->frame.ready && utility->kind == UTILITY_HEARTBEAT) {
		beat.sequence = ++utility->sequence;
		utility->unanswered += utility->unanswered < BEATS_TO_LOSE;
		ic_send(&utility->frame, IC_HEARTBEAT, &beat, sizeof(beat));
	} else if (utility->frame.ready && utility->kind == UTILITY_TIME) {
		utility->is_behind &=
			send_time(utility, utility->is_behind ? TIME_SYNC : TIME_SAMPLE) != 0;
	}
	bus_channel_unlock(utility->frame.channel);
}

/* Unknown until the first beat is answered or the fifth is not; later good until five are not. */
static enum utility_health heartbeat_health(const struct utility *utility)
{
	if (!utility->frame.ready)
		return HEALTH_UNKNOWN;
	if (utility->unanswered >= BEATS_TO_LOSE)
		return HEALTH_LOST;
	return utility->beaten ? HEALTH_GOOD : HEALTH_UNKNOWN;
}

enum utility_health utility_health(struct utility *utility)
{
	enum utility_health health;

	bus_channel_lock(utility->frame.channel);
	health = heartbeat_health(utility);
	bus_channel_unlock(utility->frame.channel);
	return health;
}

/* ---- saved state ---- */

void utility_archive(struct archive *archive, struct utility *utility)
{
	uint32_t unanswered = utility->unanswered;

	ic_archive(archive, &utility->frame);
	archive_u64(archive, &utility->sequence);
	archive_u32(archive, &unanswered);
	archive_bool(archive, &utility->beaten);
	archive_check(archive, unanswered <= BEATS_TO_LOSE);
	utility->unanswered = unanswered;
}

/* ---- the unit ---- */

static void unit_archive(struct archive *archive, void *self) { utility_archive(archive, self); }

static void unit_destroy(void *self) { utility_destroy(self); }

/* No tick comes meanwhile. */
static void unit_restored(void *self)
{
	struct utility *utility = self;

	utility->is_behind = utility->kind == UTILITY_TIME;
}

static void unit_stood(void *self, uint64_t ns)
{
	(void)ns;
	unit_restored(self);
}

static void unit_tick(void *self, unsigned seconds)
{
	const struct utility *utility = self;

	if (utility->is_behind || seconds % TICK_SECONDS == 0)
		utility_tick(self);
}

const struct unit_ops utility_unit = {
	.name = "integration component", .section = UNIT_SECTION('I', 'C', ' ', ' '),
	.numbered = true, .destroy = unit_destroy,
	.archive = unit_archive, .restored = unit_restored, .stood = unit_stood,
	.tick = unit_tick,
};
