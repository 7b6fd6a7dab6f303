/* See video.h. */
#include "video.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vmbus_layout.h"
#include "lib/archive.h"

enum kind {
	ASKS_VERSION = 1, SAYS_VERSION, SAYS_MEMORY, TAKES_MEMORY, SAYS_SITUATION,
	TAKES_SITUATION, POINTER_PLACE, POINTER_SHAPE, WANTS, DIRT,
	ASKS_RESOLUTIONS = 13, SAYS_RESOLUTIONS
};
enum { PIPE_DATA = 1, VERSION_3_2 = 2 << 16 | 3, VERSION_3_5 = 5 << 16 | 3 };
enum { DIRT_RECTANGLES = 255, EDID_BYTES = 128, RESOLUTIONS = 3, DEPTH_32 = 32, DEPTH_16 = 16 };

/* The pipe's words, then the message's own, whose length counts from there. */
struct head { uint32_t pipe, pipe_bytes, kind, bytes; };
_Static_assert(sizeof(struct head) == 16, "a head");

struct version { uint32_t version; uint8_t accepted, screens; } __attribute__((packed));
struct resolutions {
	uint8_t edid[EDID_BYTES], count, preferred, standard;
	struct { uint16_t width, height; } resolution[RESOLUTIONS];
} __attribute__((packed));
struct memory_place { uint64_t context; uint8_t specified; uint64_t gpa; } __attribute__((packed));
struct situation {
	uint64_t context;
	uint8_t screens, active;
	uint32_t offset;
	uint8_t depth_bits;
	uint32_t width, height, pitch_bytes;
} __attribute__((packed));
struct wants { uint8_t dirt, pointer_place, pointer_shape, situation; };
struct dirt { uint8_t screen, count; };

struct video {
	struct bus_service service;
	struct bus_channel *channel;
	const struct guest_memory *memory;
	uint32_t version; /* 0: not agreed upon */
	bool has_memory, has_picture;
	uint64_t memory_gpa;
	struct video_picture picture;
	uint64_t situations, dirt;
};

/*
 * What a monitor of 1024 by 768 pixels says of itself (EDID 1.3): its maker's letters, colours as
 * of sRGB, 640x480, 800x600 and 1024x768 at 60 Hz, the last of them in detail. The last byte makes
 * the sum 0.
 */
static const uint8_t edid[EDID_BYTES - 1] = {
	0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x55, 0xa2, 0x01, 0x00, 0, 0, 0, 0,
	1, 33, 1, 3, 0x80, 27, 20, 120, 0x0a, 0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26,
	0x0f, 0x50, 0x54, 0x21, 0x08, 0x00, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
	1, 1, 1, 1, 1, 1, 0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88,
	0x36, 0x00, 0x0e, 0xc8, 0x10, 0x00, 0x00, 0x18, 0, 0, 0, 0xfc, 0, 'U', 'm', 'b',
	'r', 'a', '\n', ' ', ' ', ' ', ' ', ' ', ' ', ' ', 0, 0, 0, 0x10, 0, 0,
	[EDID_BYTES - 20] = 0, [EDID_BYTES - 17] = 0x10,
};

static void check_video(const struct video *video)
{
	const struct video_picture *picture = &video->picture;

	assert(video->version || !video->has_memory);
	assert(video->has_memory || !video->has_picture);
	if (!video->has_picture)
		return;
	assert(picture->width && picture->width <= VIDEO_MOST_PIXELS);
	assert((uint64_t)picture->height * picture->pitch_bytes <= VIDEO_MEMORY_BYTES);
}

/* ---- answers ---- */

/* One that finds no room is lost: a guest that does not read its ring waits for nothing. */
static void say(struct video *video, enum kind kind, const void *body, size_t bytes)
{
	struct { struct head head; uint8_t body[sizeof(struct resolutions)]; } message;
	const uint32_t own_bytes = (uint32_t)(2 * sizeof(uint32_t) + bytes);

	assert(bytes <= sizeof(message.body));
	message.head = (struct head){
		.pipe = PIPE_DATA, .pipe_bytes = own_bytes, .kind = kind, .bytes = own_bytes
	};
	memcpy(message.body, body, bytes);
	bus_channel_send(video->channel, PACKET_INBAND, 0, &message, sizeof(message.head) + bytes);
}

static void forget(void *context)
{
	struct video *video = context;

	video->version = 0;
	video->has_memory = video->has_picture = false;
}

static void take_version(struct video *video, uint32_t version)
{
	const struct version answer = { .version = version,
					.accepted = version == VERSION_3_2 ||
						    version == VERSION_3_5,
					.screens = 1 };

	forget(video);
	if (answer.accepted)
		video->version = version;
	say(video, SAYS_VERSION, &answer, sizeof(answer));
}

static void say_resolutions(struct video *video)
{
	struct resolutions answer = {
		.count = RESOLUTIONS,
		.resolution = { { 1024, 768 }, { 800, 600 }, { 640, 480 } },
	};
	uint8_t sum = 0;

	memcpy(answer.edid, edid, sizeof(edid));
	for (unsigned n = 0; n < sizeof(edid); n++)
		sum = (uint8_t)(sum + edid[n]);
	answer.edid[EDID_BYTES - 1] = (uint8_t)-sum;
	say(video, SAYS_RESOLUTIONS, &answer, sizeof(answer));
}

/* The guest's own number comes back to it. Where it says none it has no picture. */
static void take_memory(struct video *video, const struct memory_place *place)
{
	video->has_picture = false;
	video->has_memory = video->version && place->specified &&
			    place->gpa <= UINT64_MAX - VIDEO_MEMORY_BYTES;
	video->memory_gpa = place->gpa;
	say(video, TAKES_MEMORY, &place->context, sizeof(place->context));
}

static bool is_picture(const struct situation *situation)
{
	const uint64_t row_bytes = (uint64_t)situation->width * situation->depth_bits / 8;

	return situation->screens && situation->active &&
	       (situation->depth_bits == DEPTH_32 || situation->depth_bits == DEPTH_16) &&
	       situation->width && situation->width <= VIDEO_MOST_PIXELS && situation->height &&
	       situation->height <= VIDEO_MOST_PIXELS && situation->pitch_bytes >= row_bytes &&
	       (uint64_t)situation->pitch_bytes * situation->height + situation->offset <=
		       VIDEO_MEMORY_BYTES;
}

/* What has changed it need not say. */
static void take_situation(struct video *video, const struct situation *situation)
{
	const struct wants nothing = { .dirt = 0 };
	const bool is_first = !video->situations++;

	video->has_picture = video->has_memory && is_picture(situation);
	video->picture = (struct video_picture){ .gpa = video->memory_gpa + situation->offset,
						 .width = situation->width,
						 .height = situation->height,
						 .pitch_bytes = situation->pitch_bytes,
						 .depth_bits = situation->depth_bits };
	say(video, TAKES_SITUATION, &situation->context, sizeof(situation->context));
	if (is_first)
		say(video, WANTS, &nothing, sizeof(nothing));
}

/* ---- packets ---- */

static bool take_dirt(struct video *video, const uint8_t *body, size_t bytes)
{
	enum { RECTANGLE_BYTES = 16 };
	struct dirt dirt;

	memcpy(&dirt, body, sizeof(dirt));
	video->dirt += dirt.count;
	return bytes - sizeof(dirt) >= (size_t)dirt.count * RECTANGLE_BYTES;
}

/* Of a message of the guest's: the least that it holds; 0: the guest says no such. */
static size_t least_bytes(uint32_t kind)
{
	switch (kind) {
	case ASKS_VERSION: return sizeof(uint32_t);
	case SAYS_MEMORY: return sizeof(struct memory_place);
	case SAYS_SITUATION: return sizeof(struct situation);
	case POINTER_PLACE: return 10;
	case POINTER_SHAPE: return 22;
	case DIRT: return sizeof(struct dirt);
	case ASKS_RESOLUTIONS: return 1;
	default: return 0;
	}
}

static int take(struct video *video, uint32_t kind, const uint8_t *body, size_t bytes)
{
	struct memory_place place;
	struct situation situation;
	uint32_t version;

	switch (kind) {
	case ASKS_VERSION:
		memcpy(&version, body, sizeof(version));
		take_version(video, version);
		return 0;
	case SAYS_MEMORY:
		memcpy(&place, body, sizeof(place));
		take_memory(video, &place);
		return 0;
	case SAYS_SITUATION:
		memcpy(&situation, body, sizeof(situation));
		take_situation(video, &situation);
		return 0;
	case ASKS_RESOLUTIONS: say_resolutions(video); return 0;
	case DIRT: return take_dirt(video, body, bytes) ? 0 : -EBADMSG;
	default: return 0; /* the pointer */
	}
}

static int packet(void *context, const struct bus_packet *received)
{
	struct video *video = context;
	struct head head;
	size_t bytes;
	int error;

	if (received->type != PACKET_INBAND || received->payload_bytes < sizeof(head))
		return -EBADMSG;
	memcpy(&head, received->payload, sizeof(head));
	bytes = received->payload_bytes - sizeof(head);
	if (head.pipe != PIPE_DATA || !least_bytes(head.kind) || bytes < least_bytes(head.kind))
		return -EBADMSG;
	error = take(video, head.kind, received->payload + sizeof(head), bytes);
	check_video(video);
	return error;
}

struct video *video_create(struct bus *bus, const struct guest_memory *memory)
{
	struct video *video = calloc(1, sizeof(*video));

	if (!video)
		return NULL;
	video->memory = memory;
	video->service = (struct bus_service){
		.type = GUID(0xda0a7802, 0xe377, 0x4aac, 0x8e, 0x77,
			     0x05, 0x58, 0xeb, 0x10, 0x73, 0xf8),
		.instance = GUID(0x5620e0c7, 0x8062, 0x4dce, 0xae, 0xb7,
				 0x52, 0x0c, 0x7e, 0xf7, 0x61, 0x71),
		.opened = forget, .closed = forget, .packet = packet,
		.offer_mmio_mib = VIDEO_MEMORY_MIB, .context = video,
	};
	video->channel = bus_offer(bus, &video->service);
	if (video->channel)
		return video;
	free(video);
	return NULL;
}

void video_destroy(struct video *video) { free(video); }

/* ---- who looks ---- */

int video_look(struct video *video, struct video_picture *ret)
{
	int error;

	bus_channel_lock(video->channel);
	error = video->has_picture ? 0 : -ENOTCONN;
	*ret = video->picture;
	check_video(video);
	bus_channel_unlock(video->channel);
	return error;
}

/* Five or six bits of a colour as eight. */
static uint8_t widen(unsigned value, unsigned bits)
{
	value <<= 8 - bits;
	return (uint8_t)(value | value >> bits);
}

static void pixel_16(uint8_t *to, const uint8_t *from)
{
	const unsigned pixel = from[0] | (unsigned)from[1] << 8;

	to[0] = widen(pixel >> 11, 5);
	to[1] = widen(pixel >> 5 & 63, 6);
	to[2] = widen(pixel & 31, 5);
}

static void pixel_32(uint8_t *to, const uint8_t *from)
{
	to[0] = from[2];
	to[1] = from[1];
	to[2] = from[0];
}

int video_row(const struct video *video, const struct video_picture *picture, uint32_t y,
	      uint8_t ret[VIDEO_ROW_BYTES])
{
	uint8_t row[VIDEO_MOST_PIXELS * DEPTH_32 / 8];
	const size_t pixel_bytes = picture->depth_bits / 8;
	int error;

	assert(y < picture->height && picture->width <= VIDEO_MOST_PIXELS);
	guest_memory_begin();
	error = guest_memory_read(video->memory, picture->gpa + (uint64_t)y * picture->pitch_bytes,
				  row, picture->width * pixel_bytes);
	for (uint32_t x = 0; x < picture->width && !error; x++) {
		if (picture->depth_bits == DEPTH_16)
			pixel_16(ret + 3 * (size_t)x, row + x * pixel_bytes);
		else
			pixel_32(ret + 3 * (size_t)x, row + x * pixel_bytes);
	}
	return error;
}

/* ---- the unit ---- */

static void unit_archive(struct archive *archive, void *self)
{
	struct video *video = self;
	struct video_picture *picture = &video->picture;
	struct situation situation;

	archive_u32(archive, &video->version);
	archive_bool(archive, &video->has_memory);
	archive_bool(archive, &video->has_picture);
	archive_u64(archive, &video->memory_gpa);
	archive_u64(archive, &picture->gpa);
	archive_u32(archive, &picture->width);
	archive_u32(archive, &picture->height);
	archive_u32(archive, &picture->pitch_bytes);
	archive_u8(archive, &picture->depth_bits);
	if (!archive->loading || archive->error)
		return;
	situation = (struct situation){ .screens = 1, .active = 1,
					.offset = (uint32_t)(picture->gpa - video->memory_gpa),
					.depth_bits = picture->depth_bits,
					.width = picture->width, .height = picture->height,
					.pitch_bytes = picture->pitch_bytes };
	archive_check(archive, !video->version || video->version == VERSION_3_2 ||
				       video->version == VERSION_3_5);
	archive_check(archive, video->version || !video->has_memory);
	archive_check(archive, video->has_memory || !video->has_picture);
	archive_check(archive, !video->has_memory ||
				       video->memory_gpa <= UINT64_MAX - VIDEO_MEMORY_BYTES);
	archive_check(archive, !video->has_picture ||
				       (picture->gpa - video->memory_gpa <= VIDEO_MEMORY_BYTES &&
					is_picture(&situation)));
	video->situations = video->has_picture;
}

static void unit_destroy(void *self) { video_destroy(self); }

static size_t unit_statistics(const void *self, char *text, size_t bytes)
{
	const struct video *video = self;
	int used = snprintf(text, bytes, "video: %lu situations, %lu rectangles\n",
			    video->situations, video->dirt);

	if (used < 0)
		return 0;
	return (size_t)used < bytes ? (size_t)used : bytes - 1;
}

const struct unit_ops video_unit = {
	.name = "video", .section = UNIT_SECTION('V', 'I', 'D', ' '), .destroy = unit_destroy,
	.archive = unit_archive, .statistics = unit_statistics,
};
