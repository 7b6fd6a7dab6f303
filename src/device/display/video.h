/*
 * A screen on a channel of the bus (SynthVid, hyperv_fb): the guest says where its picture is in
 * its memory and how it is laid out; whoever wants to see it reads it there.
 *
 *   opened -> version -> resolutions -> where the memory is -> the situation: size, depth, pitch
 *
 * No copy is kept, and the guest is not asked to say what has changed: what is shown is what is
 * there when somebody looks.
 *
 *  1. A picture lies within VIDEO_MEMORY_BYTES from where the guest has said, its rows within it:
 *     what does not is no picture, and the one before is none any more.
 *  2. Its memory is read by guest_memory_read() alone, a row at a time, and may change under it.
 *
 * Lock: the channel's. Versions: 3.2, 3.5. Left out: the pointer, more than one screen; what the
 * guest says of them is checked for its length.
 */
#pragma once

#include "vmbus/vmbus.h"

enum {
	VIDEO_MEMORY_MIB = 4,
	VIDEO_MEMORY_BYTES = VIDEO_MEMORY_MIB << 20,
	VIDEO_MOST_PIXELS = 2048, /* of a side */
	VIDEO_ROW_BYTES = 3 * VIDEO_MOST_PIXELS
};

struct video;

struct video_picture { uint64_t gpa; uint32_t width, height, pitch_bytes; uint8_t depth_bits; };

/* The unit: a struct video. */
extern const struct unit_ops video_unit;

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct video *video_create(struct bus *bus, const struct guest_memory *memory);
void video_destroy(struct video *video);
/* 0; -ENOTCONN: no driver has said where its picture is. */
int video_look(struct video *video, struct video_picture *ret);
/*
 * Row y of a picture, 3 bytes of red, green and blue for each pixel. 0; -EFAULT: it is not in the
 * guest's memory.
 */
int video_row(const struct video *video, const struct video_picture *picture, uint32_t y,
	      uint8_t ret[VIDEO_ROW_BYTES]);
