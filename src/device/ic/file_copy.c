/* See file_copy.h. */
#include "file_copy.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ic_frame.h"
#include "lib/archive.h"

enum { BEGIN = 0, PIECE = 1, COMPLETE = 2, CANCEL = 3 };
enum { REPLACES = 1, MAKES_FOLDERS = 2, ANSWER_SECONDS = 20 };
/* What the guest's driver and daemon answer. */
#define STATUS_EXISTS 0x80070050u
#define STATUS_NO_SPACE 0x80070070u

struct order { uint32_t operation; uint8_t service[2][16]; };
struct begin {
	struct order order;
	uint16_t name[FILE_COPY_NAME_BYTES], folder[FILE_COPY_NAME_BYTES];
	uint32_t flags;
	uint64_t bytes;
} __attribute__((packed));
struct piece {
	struct order order;
	uint32_t reserved;
	uint64_t offset;
	uint32_t bytes;
	uint8_t data[FILE_COPY_PIECE_BYTES];
} __attribute__((packed));
_Static_assert(sizeof(struct begin) == 1088 && offsetof(struct piece, data) == 52, "messages");

enum state { STATE_IDLE, STATE_BEGINS, STATE_OPEN, STATE_ENDS, STATES };

static const struct ic_kind kind = {
	.type = GUID(0x34d14be3, 0xdee4, 0x41c8, 0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92),
	.instance = GUID(0xeb765408, 0x105f, 0x49b6, 0xb4, 0xaa,
			 0xc1, 0x23, 0xb6, 0x4d, 0x17, 0xd4),
	.message = IC_FILE, .versions = { { 1, 1 } }, .count = 1,
};

struct file_copy {
	struct bus_service service;
	struct ic_frame frame;
	const struct file_copy_host *host;
	enum state state;
	uint64_t offset, bytes; /* of the file: where the next piece goes, and its length */
	uint32_t piece_bytes;   /* of the one that was asked */
	unsigned idle_seconds;
	bool told; /* who asked has heard */
	struct piece piece; /* as it is sent */
};

static void check_file_copy(const struct file_copy *copy)
{
	assert(copy->state < STATES && copy->offset <= copy->bytes);
	assert(copy->piece_bytes <= copy->bytes - copy->offset);
	assert(copy->state == STATE_OPEN || !copy->piece_bytes);
}

static void tell(struct file_copy *copy, int error)
{
	if (!copy->told)
		copy->host->answered(copy->host->context, error);
	copy->told = true;
}

static void become_idle(struct file_copy *copy)
{
	copy->state = STATE_IDLE;
	copy->offset = copy->bytes = copy->piece_bytes = 0;
}

static int ask_order(struct file_copy *copy, uint32_t operation)
{
	const struct order order = { .operation = operation };

	return ic_ask(&copy->frame, IC_FILE, &order, sizeof(order));
}

/* With nobody who waits for it. A ring without room is tried again each second. */
static void give_up(struct file_copy *copy)
{
	copy->told = true;
	copy->idle_seconds = FILE_COPY_IDLE_SECONDS;
	copy->piece_bytes = 0;
	if (ask_order(copy, CANCEL))
		copy->state = STATE_OPEN;
	else
		copy->state = STATE_ENDS;
}

static int error_of(uint32_t status)
{
	switch (status) {
	case 0: return 0;
	case STATUS_EXISTS: return -EEXIST;
	case STATUS_NO_SPACE: return -ENOSPC;
	default: return -EIO;
	}
}

static void answered(struct file_copy *copy, uint32_t status)
{
	const int error = error_of(status);
	const enum state before = copy->state;

	copy->idle_seconds = 0;
	tell(copy, error);
	if (before == STATE_ENDS || (before == STATE_BEGINS && error)) {
		become_idle(copy);
		return;
	}
	if (error) {
		give_up(copy);
		return;
	}
	copy->state = STATE_OPEN;
	copy->offset += copy->piece_bytes;
	copy->piece_bytes = 0;
}

/* ---- the service ---- */

static void opened(void *context)
{
	struct file_copy *copy = context;

	become_idle(copy);
	ic_begin(&copy->frame);
}

static void closed(void *context)
{
	struct file_copy *copy = context;

	ic_end(&copy->frame);
	tell(copy, -ENOTCONN);
	become_idle(copy);
}

static int packet(void *context, const struct bus_packet *received)
{
	struct file_copy *copy = context;
	const bool was_asked = copy->frame.asked;
	struct ic_answer answer;
	int event = ic_take(&copy->frame, received, &answer);

	if (event == IC_ANSWERED && was_asked)
		answered(copy, answer.status);
	check_file_copy(copy);
	return event < 0 ? event : 0;
}

struct file_copy *file_copy_create(struct bus *bus, const struct file_copy_host *host)
{
	struct file_copy *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return NULL;
	copy->host = host;
	copy->told = true;
	copy->frame.kind = &kind;
	copy->service = (struct bus_service){ .type = kind.type,
					      .instance = kind.instance,
					      .opened = opened,
					      .closed = closed,
					      .packet = packet,
					      .context = copy };
	copy->frame.channel = bus_offer(bus, &copy->service);
	if (copy->frame.channel)
		return copy;
	free(copy);
	return NULL;
}

void file_copy_destroy(struct file_copy *copy) { free(copy); }

/* ---- who copies ---- */

/* Bytes of a character of one to three, of which the rest follow it; 0: it is none. */
static unsigned character_bytes(const char *text, uint16_t *ret_unit)
{
	const uint8_t *at = (const uint8_t *)text;
	unsigned bytes = 1;
	unsigned value = at[0];

	if (at[0] >= 0xe0 && at[0] < 0xf0) {
		bytes = 3;
		value &= 0x0f;
	} else if (at[0] >= 0xc2 && at[0] < 0xe0) {
		bytes = 2;
		value &= 0x1f;
	} else if (at[0] >= 0x80) {
		return 0;
	}
	for (unsigned n = 1; n < bytes; n++) {
		if ((at[n] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (at[n] & 0x3f);
	}
	*ret_unit = (uint16_t)value;
	return (bytes == 3 && value < 0x800) || (value >= 0xd800 && value < 0xe000) ? 0 : bytes;
}

/* With its end. */
static int put_text(uint16_t to[FILE_COPY_NAME_BYTES], const char *text)
{
	unsigned units = 0;

	for (; *text; units++) {
		uint16_t unit = 0;
		const unsigned bytes = character_bytes(text, &unit);

		if (!bytes)
			return -EILSEQ;
		if (units == FILE_COPY_NAME_BYTES - 1)
			return -ENAMETOOLONG;
		to[units] = unit;
		text += bytes;
	}
	to[units] = 0;
	return 0;
}

static int may_ask(const struct file_copy *copy, bool begins)
{
	if (!copy->frame.ready)
		return -ENOTCONN;
	if (copy->frame.asked)
		return -EBUSY;
	if (begins)
		return copy->state == STATE_IDLE ? 0 : -EBUSY;
	return copy->state == STATE_OPEN ? 0 : -EBADF;
}

int file_copy_begin(struct file_copy *copy, const char *folder, const char *name, uint64_t bytes,
		    bool replaces)
{
	struct begin begin = { .order.operation = BEGIN,
			       .flags = MAKES_FOLDERS | (replaces ? REPLACES : 0),
			       .bytes = bytes };
	uint16_t folder_units[FILE_COPY_NAME_BYTES] = { 0 };
	uint16_t name_units[FILE_COPY_NAME_BYTES] = { 0 };
	int error = put_text(folder_units, folder);

	if (!error)
		error = put_text(name_units, name);
	if (error)
		return error;
	memcpy(begin.folder, folder_units, sizeof(folder_units));
	memcpy(begin.name, name_units, sizeof(name_units));
	bus_channel_lock(copy->frame.channel);
	guest_memory_begin();
	error = may_ask(copy, true);
	if (!error)
		error = ic_ask(&copy->frame, IC_FILE, &begin, sizeof(begin));
	if (!error) {
		copy->state = STATE_BEGINS;
		copy->offset = 0;
		copy->bytes = bytes;
		copy->told = false;
	}
	check_file_copy(copy);
	bus_channel_unlock(copy->frame.channel);
	return error;
}

static int ask_piece(struct file_copy *copy, const uint8_t *data, size_t bytes)
{
	int error;

	if (!bytes || bytes > sizeof(copy->piece.data) || bytes > copy->bytes - copy->offset)
		return -EINVAL;
	copy->piece = (struct piece){ .order.operation = PIECE,
				      .offset = copy->offset,
				      .bytes = (uint32_t)bytes };
	memcpy(copy->piece.data, data, bytes);
	error = ic_ask(&copy->frame, IC_FILE, &copy->piece,
		       offsetof(struct piece, data) + bytes);
	copy->piece_bytes = error ? 0 : (uint32_t)bytes;
	return error;
}

int file_copy_piece(struct file_copy *copy, const uint8_t *data, size_t bytes)
{
	int error;

	bus_channel_lock(copy->frame.channel);
	guest_memory_begin();
	error = may_ask(copy, false);
	if (!error)
		error = ask_piece(copy, data, bytes);
	if (!error)
		copy->told = false;
	check_file_copy(copy);
	bus_channel_unlock(copy->frame.channel);
	return error;
}

int file_copy_end(struct file_copy *copy, bool is_complete)
{
	int error;

	bus_channel_lock(copy->frame.channel);
	guest_memory_begin();
	error = may_ask(copy, false);
	if (!error && is_complete && copy->offset != copy->bytes)
		error = -EINVAL;
	if (!error)
		error = ask_order(copy, is_complete ? COMPLETE : CANCEL);
	if (!error) {
		copy->state = STATE_ENDS;
		copy->told = false;
	}
	check_file_copy(copy);
	bus_channel_unlock(copy->frame.channel);
	return error;
}

/* ---- the unit ---- */

static void unit_tick(void *self, unsigned seconds)
{
	struct file_copy *copy = self;

	(void)seconds;
	bus_channel_lock(copy->frame.channel);
	guest_memory_begin();
	if (copy->frame.asked && ++copy->frame.asked_seconds > ANSWER_SECONDS) {
		ic_give_up(&copy->frame);
		tell(copy, -ETIMEDOUT);
		become_idle(copy);
	} else if (copy->state == STATE_OPEN && !copy->frame.asked &&
		   ++copy->idle_seconds > FILE_COPY_IDLE_SECONDS) {
		give_up(copy);
	}
	check_file_copy(copy);
	bus_channel_unlock(copy->frame.channel);
}

/* Who copies stays behind: what the guest has of the file is given up by who goes on. */
static void unit_archive(struct archive *archive, void *self)
{
	struct file_copy *copy = self;
	bool is_open = copy->state != STATE_IDLE;

	ic_archive(archive, &copy->frame);
	archive_bool(archive, &is_open);
	if (!archive->loading || archive->error)
		return;
	become_idle(copy);
	copy->told = true;
	if (copy->frame.asked)
		ic_give_up(&copy->frame);
	copy->idle_seconds = FILE_COPY_IDLE_SECONDS;
	copy->state = is_open ? STATE_OPEN : STATE_IDLE;
}

/* Who asked has the other machine answer. */
static void unit_forked(void *self) { ((struct file_copy *)self)->told = true; }

static void unit_destroy(void *self) { file_copy_destroy(self); }

const struct unit_ops file_copy_unit = {
	.name = "file copy", .section = UNIT_SECTION('F', 'C', 'P', 'Y'), .later = true,
	.destroy = unit_destroy, .archive = unit_archive, .tick = unit_tick,
	.forked = unit_forked,
};
