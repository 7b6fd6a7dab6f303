/* See keyboard.h. */
#include "keyboard.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"

enum { ASKS_VERSION = 1, SAYS_VERSION = 2, STROKE = 3, LIGHTS = 4 };
enum { VERSION_1_0 = 1 << 16, ACCEPTED = 1 };
enum { IS_BREAK = 2, IS_E0 = 4, IS_E1 = 8 };
enum { PREFIX_E0 = 0xe0, PREFIX_E1 = 0xe1, BREAK = 0x80 };

/* Of both directions; the second word is a version, whether it is accepted, or lights. */
struct words { uint32_t kind, value; };
struct stroke { uint32_t kind; uint16_t code, reserved; uint32_t flags; };
_Static_assert(sizeof(struct stroke) == 12, "a stroke");

struct keyboard {
	struct bus_service service;
	struct bus_channel *channel;
	bool accepted;
	struct stroke waiting[KEYBOARD_STROKES];
	unsigned first, used;
	uint64_t strokes;
};

static void check_keyboard(const struct keyboard *keyboard)
{
	assert(keyboard->first < KEYBOARD_STROKES && keyboard->used <= KEYBOARD_STROKES);
	assert(keyboard->accepted || !keyboard->used);
}

/* As many as there is room for in the guest's ring. */
static void send_strokes(struct keyboard *keyboard)
{
	while (keyboard->used) {
		const struct stroke *stroke = &keyboard->waiting[keyboard->first];

		if (bus_channel_send(keyboard->channel, PACKET_INBAND, 0, stroke, sizeof(*stroke)))
			return;
		keyboard->first = (keyboard->first + 1) % KEYBOARD_STROKES;
		keyboard->used--;
		keyboard->strokes++;
	}
}

/* ---- the service ---- */

static void forget(void *context)
{
	struct keyboard *keyboard = context;

	keyboard->accepted = false;
	keyboard->first = keyboard->used = 0;
}

static void room(void *context) { send_strokes(context); }

/* A guest that is not told asks again: its ring had no room. */
static void answer_version(struct keyboard *keyboard, uint32_t version)
{
	const struct words answer = { .kind = SAYS_VERSION,
				      .value = version == VERSION_1_0 ? ACCEPTED : 0 };

	forget(keyboard);
	if (!bus_channel_send(keyboard->channel, PACKET_INBAND, 0, &answer, sizeof(answer)))
		keyboard->accepted = answer.value;
}

static int packet(void *context, const struct bus_packet *received)
{
	struct keyboard *keyboard = context;
	struct words said;

	if (received->type != PACKET_INBAND || received->payload_bytes < sizeof(said))
		return -EBADMSG;
	memcpy(&said, received->payload, sizeof(said));
	if (said.kind != ASKS_VERSION && said.kind != LIGHTS)
		return -EBADMSG;
	if (received->flags & PACKET_WANTS_COMPLETION)
		bus_channel_send(keyboard->channel, PACKET_COMPLETION, received->transaction, "",
				 0);
	if (said.kind == ASKS_VERSION)
		answer_version(keyboard, said.value);
	check_keyboard(keyboard);
	return 0;
}

struct keyboard *keyboard_create(struct bus *bus)
{
	struct keyboard *keyboard = calloc(1, sizeof(*keyboard));

	if (!keyboard)
		return NULL;
	keyboard->service = (struct bus_service){
		.type = GUID(0xf912ad6d, 0x2b17, 0x48ea, 0xbd, 0x65,
			     0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84),
		.instance = GUID(0xd34b2567, 0xb9b6, 0x42b9, 0x87, 0x78,
				 0x0a, 0x4e, 0xc0, 0xb9, 0x55, 0xbf),
		.opened = forget, .closed = forget, .packet = packet, .room = room,
		.context = keyboard,
	};
	keyboard->channel = bus_offer(bus, &keyboard->service);
	if (keyboard->channel)
		return keyboard;
	free(keyboard);
	return NULL;
}

void keyboard_destroy(struct keyboard *keyboard) { free(keyboard); }

/* ---- what is typed ---- */

/* How many bytes of codes are one stroke, in *ret; 0: they are none. */
static size_t parse_stroke(const uint8_t *codes, size_t bytes, struct stroke *ret)
{
	const bool has_prefix = codes[0] == PREFIX_E0 || codes[0] == PREFIX_E1;
	const uint8_t code = bytes > has_prefix ? codes[has_prefix] : 0;

	*ret = (struct stroke){ .kind = STROKE,
				.code = code & (BREAK - 1),
				.flags = code & BREAK ? IS_BREAK : 0 };
	if (has_prefix)
		ret->flags |= codes[0] == PREFIX_E0 ? IS_E0 : IS_E1;
	return ret->code ? 1 + (size_t)has_prefix : 0;
}

static int add_strokes(struct keyboard *keyboard, const uint8_t *codes, size_t bytes)
{
	unsigned used = keyboard->used;

	while (bytes) {
		struct stroke *place =
			&keyboard->waiting[(keyboard->first + used) % KEYBOARD_STROKES];
		size_t taken;

		if (used == KEYBOARD_STROKES)
			return -EAGAIN;
		taken = parse_stroke(codes, bytes, place);
		if (!taken)
			return -EINVAL;
		codes += taken;
		bytes -= taken;
		used++;
	}
	keyboard->used = used;
	return 0;
}

int keyboard_type(struct keyboard *keyboard, const uint8_t *codes, size_t bytes)
{
	int error = -ENOTCONN;

	bus_channel_lock(keyboard->channel);
	if (keyboard->accepted)
		error = add_strokes(keyboard, codes, bytes);
	if (!error) {
		guest_memory_begin();
		send_strokes(keyboard);
	}
	check_keyboard(keyboard);
	bus_channel_unlock(keyboard->channel);
	return error;
}

/* ---- the unit ---- */

/* Keys that wait stay behind: nobody presses them twice. */
static void unit_archive(struct archive *archive, void *self)
{
	archive_bool(archive, &((struct keyboard *)self)->accepted);
}

/* The parent presses what waits. */
static void unit_forked(void *self) { ((struct keyboard *)self)->used = 0; }

static void unit_destroy(void *self) { keyboard_destroy(self); }

static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	const struct keyboard *keyboard = self;
	int used = snprintf(text, bytes, "keyboard: %lu strokes\n", keyboard->strokes);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

const struct unit_ops keyboard_unit = {
	.name = "keyboard", .section = UNIT_SECTION('K', 'B', 'D', ' '), .later = true,
	.destroy = unit_destroy, .forked = unit_forked, .archive = unit_archive,
	.statistics = unit_statistics,
};
