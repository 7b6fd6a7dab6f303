/* See backup.h. */
#include "backup.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "ic_frame.h"
#include "lib/archive.h"

enum { FREEZE = 5, THAW = 6, ANSWER_SECONDS = 60 };

struct message { uint8_t operation, reserved[7]; uint32_t flags; };
_Static_assert(sizeof(struct message) == 12, "a message");

enum state { STATE_IDLE, STATE_FREEZING, STATE_FROZEN, STATE_THAWING, STATES };

static const struct ic_kind kind = {
	.type = GUID(0x35fa2e29, 0xea23, 0x4236, 0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40),
	.instance = GUID(0x2450ee40, 0x33bf, 0x4fbd, 0x89, 0x2e,
			 0x9f, 0xb0, 0x6e, 0x92, 0x14, 0xcf),
	.message = IC_BACKUP, .versions = { { 5, 0 } }, .count = 1,
};

struct backup {
	struct bus_service service;
	struct ic_frame frame;
	const struct backup_host *host;
	enum state state;
	unsigned frozen_seconds;
	bool told; /* who asked has heard */
	bool unwanted; /* while it freezes: it is to thaw as soon as it has */
};

static void check_backup(const struct backup *backup)
{
	assert(backup->state < STATES);
	assert(backup->state == STATE_FREEZING || backup->state == STATE_THAWING ||
	       !backup->frame.asked);
}

static void tell(struct backup *backup, int error)
{
	if (!backup->told)
		backup->host->answered(backup->host->context, error);
	backup->told = true;
}

static int ask(struct backup *backup, uint8_t operation)
{
	const struct message message = { .operation = operation };

	backup->state = operation == FREEZE ? STATE_FREEZING : STATE_THAWING;
	return ic_ask(&backup->frame, IC_BACKUP, &message, sizeof(message));
}

/* With nobody who waits for it. A ring without room is tried again each second. */
static void thaw(struct backup *backup)
{
	backup->told = true;
	if (ask(backup, THAW)) {
		backup->state = STATE_FROZEN;
		backup->frozen_seconds = BACKUP_FROZEN_SECONDS;
	}
}

static void failed(struct backup *backup, int error)
{
	const bool was_freezing = backup->state == STATE_FREEZING;

	tell(backup, error);
	if (was_freezing)
		thaw(backup);
	else
		backup->state = STATE_IDLE;
}

static void answered(struct backup *backup, const struct ic_answer *answer)
{
	if (answer->status) {
		failed(backup, -EIO);
		return;
	}
	backup->frozen_seconds = 0;
	backup->state = backup->state == STATE_FREEZING ? STATE_FROZEN : STATE_IDLE;
	tell(backup, 0);
	if (backup->state == STATE_FROZEN && backup->unwanted)
		thaw(backup);
}

/* ---- the service ---- */

static void opened(void *context) { ic_begin(&((struct backup *)context)->frame); }

/* A guest whose driver is gone has thawed, or has ended. */
static void closed(void *context)
{
	struct backup *backup = context;

	ic_end(&backup->frame);
	if (backup->state == STATE_FREEZING || backup->state == STATE_THAWING)
		tell(backup, -ENOTCONN);
	backup->state = STATE_IDLE;
}

static int packet(void *context, const struct bus_packet *received)
{
	struct backup *backup = context;
	const bool was_asked = backup->frame.asked;
	struct ic_answer answer;
	int event = ic_take(&backup->frame, received, &answer);

	if (event == IC_ANSWERED && was_asked)
		answered(backup, &answer);
	check_backup(backup);
	return event < 0 ? event : 0;
}

struct backup *backup_create(struct bus *bus, const struct backup_host *host)
{
	struct backup *backup = calloc(1, sizeof(*backup));

	if (!backup)
		return NULL;
	backup->host = host;
	backup->told = true;
	backup->frame.kind = &kind;
	backup->service = (struct bus_service){ .type = kind.type,
						.instance = kind.instance,
						.opened = opened,
						.closed = closed,
						.packet = packet,
						.context = backup };
	backup->frame.channel = bus_offer(bus, &backup->service);
	if (backup->frame.channel)
		return backup;
	free(backup);
	return NULL;
}

void backup_destroy(struct backup *backup) { free(backup); }

static int may_ask(struct backup *backup, bool freeze)
{
	if (!backup->frame.ready)
		return -ENOTCONN;
	if (backup->state == STATE_FREEZING && !freeze)
		backup->unwanted = true;
	if (backup->frame.asked)
		return -EBUSY;
	return (backup->state == STATE_FROZEN) == freeze ? -EALREADY : 0;
}

static int ask_for_user(struct backup *backup, bool freeze)
{
	const enum state before = backup->state;
	int error = ask(backup, freeze ? FREEZE : THAW);

	if (error)
		backup->state = before;
	else
		backup->told = backup->unwanted = false;
	return error;
}

int backup_ask(struct backup *backup, bool freeze)
{
	int error;

	bus_channel_lock(backup->frame.channel);
	error = may_ask(backup, freeze);
	if (!error)
		error = ask_for_user(backup, freeze);
	check_backup(backup);
	bus_channel_unlock(backup->frame.channel);
	return error;
}

void backup_tick(struct backup *backup)
{
	bus_channel_lock(backup->frame.channel);
	if (backup->frame.asked && ++backup->frame.asked_seconds > ANSWER_SECONDS) {
		ic_give_up(&backup->frame);
		failed(backup, -ETIMEDOUT);
	} else if (backup->state == STATE_FROZEN &&
		   ++backup->frozen_seconds > BACKUP_FROZEN_SECONDS) {
		thaw(backup);
	}
	check_backup(backup);
	bus_channel_unlock(backup->frame.channel);
}

/* ---- the unit ---- */

/* What is frozen is thawed by who goes on: its asker is not there. */
static void unit_archive(struct archive *archive, void *self)
{
	struct backup *backup = self;
	uint8_t state = backup->state;

	ic_archive(archive, &backup->frame);
	archive_u8(archive, &state);
	if (backup->frame.asked)
		ic_give_up(&backup->frame);
	backup->state = STATE_IDLE;
	if (state != STATE_IDLE) {
		backup->state = STATE_FROZEN;
		backup->frozen_seconds = BACKUP_FROZEN_SECONDS;
	}
}

/* Who asked has the other machine answer. */
static void unit_forked(void *self) { ((struct backup *)self)->told = true; }

static void unit_destroy(void *self) { backup_destroy(self); }

static void unit_tick(void *self, unsigned seconds)
{
	(void)seconds;
	backup_tick(self);
}

const struct unit_ops backup_unit = {
	.name = "backup", .section = UNIT_SECTION('V', 'S', 'S', ' '),
	.destroy = unit_destroy, .archive = unit_archive, .tick = unit_tick, .forked = unit_forked,
};
