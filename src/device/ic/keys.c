/* See keys.h. */
#include "keys.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ic_frame.h"
#include "lib/archive.h"

enum { SET = 1, ENUMERATE = 3 };
enum { POOL_EXTERNAL = 0, POOL_GUEST = 1, POOL_AUTO = 2 };
enum {
	TEXT_TYPE = 1, KEY_BYTES = 512, VALUE_BYTES = 2048, KEYS_MOST = 64, REST_BYTES = 7426,
	PATIENCE_SECONDS = 90, AGAIN_SECONDS = 60, FIRST_PRINTABLE = 0x20, LAST_PRINTABLE = 0x7e
};

struct value {
	uint32_t type, key_bytes, value_bytes;
	uint8_t key[KEY_BYTES], value[VALUE_BYTES]; /* UTF-16 */
} __attribute__((packed));
/* The driver looks at whether all of it is there. */
struct message {
	uint8_t operation, pool;
	uint16_t reserved;
	union {
		struct value set;
		struct { uint32_t index; struct value value; } __attribute__((packed)) listed;
		uint8_t whole[REST_BYTES];
	};
} __attribute__((packed));
_Static_assert(sizeof(struct message) == 7430, "a message");

enum step { STEP_IDLE, STEP_GIVING, STEP_LISTING, STEPS };

static const struct ic_kind kind = {
	.type = GUID(0xa9a0f4e7, 0x5a45, 0x4d96, 0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6),
	.instance = GUID(0x242ff919, 0x07db, 0x4180, 0x9c, 0x2e,
			 0xb8, 0x6c, 0xb6, 0x8c, 0x8c, 0x55),
	.message = IC_KEYS, .versions = { { 4, 0 }, { 3, 0 } }, .count = 2,
};

struct keys {
	struct bus_service service;
	struct ic_frame frame;
	const struct keys_host *host;
	enum step step;
	const char *given; /* what is still to be given */
	uint8_t pool;
	uint32_t index;
	unsigned idle_seconds;
	uint64_t changes;
	char said[KEYS_TEXT_BYTES];
	char listed[KEYS_TEXT_BYTES]; /* so far */
	size_t listed_bytes;
};

static void check_keys(const struct keys *keys)
{
	assert(keys->step < STEPS);
	assert(keys->listed_bytes < sizeof(keys->listed) && !keys->listed[keys->listed_bytes]);
	assert(keys->index <= KEYS_MOST);
}

/* ---- text ---- */

/* Up to `end`. The bytes of it with its end; a character more than fits is left out. */
static uint32_t put_text(uint8_t *to, size_t room, const char *from, const char *end)
{
	uint32_t used = 0;

	for (; from < end && used + 4 <= room; from++) {
		to[used++] = (uint8_t)*from;
		to[used++] = 0;
	}
	return used + 2;
}

/* False: there is no room for it. */
static bool add_byte(struct keys *keys, char byte)
{
	if (keys->listed_bytes + 1 >= sizeof(keys->listed))
		return false;
	keys->listed[keys->listed_bytes++] = byte;
	keys->listed[keys->listed_bytes] = 0;
	return true;
}

static bool add_text(struct keys *keys, const uint8_t *from, uint32_t bytes, char no)
{
	bool fits = true;

	for (uint32_t n = 0; n + 1 < bytes && fits; n += 2) {
		uint32_t unit = from[n] | (uint32_t)from[n + 1] << 8;

		if (!unit)
			break;
		if (unit < FIRST_PRINTABLE || unit > LAST_PRINTABLE || unit == (uint32_t)no)
			unit = '?';
		fits = add_byte(keys, (char)unit);
	}
	return fits;
}

/* A line that does not fit as a whole is none. */
static void add_line(struct keys *keys, const struct value *value)
{
	const size_t before = keys->listed_bytes;

	if (value->key_bytes > KEY_BYTES || value->value_bytes > VALUE_BYTES)
		return;
	if (add_text(keys, value->key, value->key_bytes, '=') && add_byte(keys, '=') &&
	    add_text(keys, value->value, value->value_bytes, 0) && add_byte(keys, '\n'))
		return;
	keys->listed_bytes = before;
	keys->listed[before] = 0;
}

/* ---- what is asked ---- */

static void give_next(struct keys *keys)
{
	struct message message = { .operation = SET, .pool = POOL_EXTERNAL };
	const char *end = strchr(keys->given, '\n');
	const char *middle = strchr(keys->given, '=');

	assert(end && middle && middle < end);
	message.set.type = TEXT_TYPE;
	message.set.key_bytes = put_text(message.set.key, KEY_BYTES, keys->given, middle);
	message.set.value_bytes = put_text(message.set.value, VALUE_BYTES, middle + 1, end);
	keys->given = end + 1;
	ic_ask(&keys->frame, IC_KEYS, &message, sizeof(message));
}

static void list_next(struct keys *keys)
{
	struct message message = { .operation = ENUMERATE, .pool = keys->pool };

	message.listed.index = keys->index;
	ic_ask(&keys->frame, IC_KEYS, &message, sizeof(message));
}

static void begin_list(struct keys *keys)
{
	keys->step = STEP_LISTING;
	keys->pool = POOL_AUTO;
	keys->index = 0;
	keys->listed_bytes = 0;
	keys->listed[0] = 0;
	list_next(keys);
}

static void end_list(struct keys *keys)
{
	const bool is_new = strcmp(keys->said, keys->listed);

	keys->step = STEP_IDLE;
	keys->idle_seconds = 0;
	memcpy(keys->said, keys->listed, sizeof(keys->said));
	keys->changes += is_new;
	if (is_new)
		keys->host->changed(keys->host->context);
}

static void give_or_list(struct keys *keys)
{
	keys->step = STEP_GIVING;
	if (*keys->given)
		give_next(keys);
	else
		begin_list(keys);
}

/* Any failure is a list's end. */
static void listed(struct keys *keys, const struct ic_answer *answer)
{
	struct message message;

	if (!answer->status && answer->bytes >= sizeof(message) && keys->index < KEYS_MOST) {
		memcpy(&message, answer->data, sizeof(message));
		add_line(keys, &message.listed.value);
		keys->index++;
	} else if (keys->pool == POOL_AUTO) {
		keys->pool = POOL_GUEST;
		keys->index = 0;
	} else {
		end_list(keys);
		return;
	}
	list_next(keys);
}

static void answered(struct keys *keys, const struct ic_answer *answer)
{
	if (keys->step == STEP_GIVING)
		give_or_list(keys);
	else if (keys->step == STEP_LISTING)
		listed(keys, answer);
	check_keys(keys);
}

/* ---- the service ---- */

static void opened(void *context)
{
	struct keys *keys = context;

	keys->step = STEP_IDLE;
	keys->idle_seconds = 0;
	ic_begin(&keys->frame);
}

static void closed(void *context)
{
	struct keys *keys = context;

	keys->step = STEP_IDLE;
	ic_end(&keys->frame);
}

static int packet(void *context, const struct bus_packet *received)
{
	struct keys *keys = context;
	struct ic_answer answer;
	const bool was_asked = keys->frame.asked;
	int event = ic_take(&keys->frame, received, &answer);

	if (event == IC_READY) {
		keys->given = keys->host->given;
		give_or_list(keys);
	}
	if (event == IC_ANSWERED && was_asked)
		answered(keys, &answer);
	return event < 0 ? event : 0;
}

struct keys *keys_create(struct bus *bus, const struct keys_host *host)
{
	struct keys *keys = calloc(1, sizeof(*keys));

	if (!keys)
		return NULL;
	keys->host = host;
	keys->given = "";
	keys->frame.kind = &kind;
	keys->service = (struct bus_service){ .type = kind.type,
					      .instance = kind.instance,
					      .opened = opened,
					      .closed = closed,
					      .packet = packet,
					      .context = keys };
	keys->frame.channel = bus_offer(bus, &keys->service);
	if (keys->frame.channel)
		return keys;
	free(keys);
	return NULL;
}

void keys_destroy(struct keys *keys) { free(keys); }

void keys_tick(struct keys *keys)
{
	bus_channel_lock(keys->frame.channel);
	if (keys->frame.asked && ++keys->frame.asked_seconds > PATIENCE_SECONDS) {
		ic_give_up(&keys->frame);
		keys->step = STEP_IDLE;
		keys->idle_seconds = 0;
	}
	/* a question that had no room in the ring leaves a step without one */
	if (keys->frame.ready && !keys->frame.asked && ++keys->idle_seconds > AGAIN_SECONDS)
		begin_list(keys);
	bus_channel_unlock(keys->frame.channel);
}

uint64_t keys_changes(struct keys *keys)
{
	uint64_t changes;

	bus_channel_lock(keys->frame.channel);
	changes = keys->changes;
	bus_channel_unlock(keys->frame.channel);
	return changes;
}

void keys_read(struct keys *keys, char ret[KEYS_TEXT_BYTES])
{
	bus_channel_lock(keys->frame.channel);
	memcpy(ret, keys->said, KEYS_TEXT_BYTES);
	bus_channel_unlock(keys->frame.channel);
}

/* ---- the unit ---- */

/* What it has asked is asked again, a minute later; what was said is asked for then. */
static void unit_archive(struct archive *archive, void *self)
{
	struct keys *keys = self;

	ic_archive(archive, &keys->frame);
	if (keys->frame.asked)
		ic_give_up(&keys->frame);
	keys->step = STEP_IDLE;
}

static void unit_destroy(void *self) { keys_destroy(self); }

static void unit_tick(void *self, unsigned seconds)
{
	(void)seconds;
	keys_tick(self);
}

const struct unit_ops keys_unit = {
	.name = "keys and values", .section = UNIT_SECTION('K', 'E', 'Y', 'S'),
	.destroy = unit_destroy, .archive = unit_archive, .tick = unit_tick,
};
