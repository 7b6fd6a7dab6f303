/*
 * What a machine that serves a disk is asked (docs/sharing.md): bytes of SHARE_DATA on a channel of
 * the class `disk`, little-endian. Who asks is Umbra (device/share/disk_proxy.h), which shows the
 * disk to its own guest; who serves is a guest.
 *
 *   proxy                          server
 *   SHARE_DISK_HELLO          -->
 *                             <--  SHARE_DISK_WELCOME: a version that both have, what the disk is;
 *                                  version 0: none
 *   SHARE_DISK_REQUEST        -->  data of a write are in the read-only window from page `first`
 *                                  on (1.1: in the window)
 *                             <--  SHARE_DISK_DONE: those of a read are in the window
 *
 *   - Requests have numbers, each another, and a request that was not answered is asked again with
 *     its own after the next hello: whoever serves goes on with the same `session`, and answers
 *     what it has done already without doing it again. Numbers below `oldest` are not asked again,
 *     and none is SHARE_DISK_SPAN or more above it.
 *   - Each hello begins another `round`. A server has finished, or left, what it was asked in
 *     earlier rounds when it answers a hello, and passes over requests of another round than the
 *     last. A hello may come twice, with one round: it is answered each time.
 *   - A write is durable once a later flush is answered.
 *   - A read or write is of at most SHARE_DISK_MAX_BYTES, in pages that follow each other; before
 *     version 1.3 of SHARE_DISK_1_2_MAX_BYTES.
 *   - The window may be taken away at any time. A server keeps the window's word (abi/share.h) of
 *     when a hello came, and what it finds in the window is that round's only while the word is the
 *     same, and not 0. So it copies what is to be written, looks at the word, and then writes; it
 *     copies what it has read, looks, and then counts it as done. What it finds otherwise it
 *     leaves: it is not done, not recorded and not answered, and is asked again. A read that was
 *     done in another window is done again, since its bytes went with that.
 */
#pragma once

#include <stdint.h>

#include "guid_layout.h"

/* The class of such a channel, as an offer's type has it. */
#define SHARE_DISK_TYPE \
	GUID(0x2c6f3f53, 0x7d0e, 0x4a0b, 0x9b, 0x5c, 0x55, 0x4d, 0x42, 0x52, 0x41, 0x02)

enum {
	SHARE_DISK_1_0 = 0x10000, /* without the window's word; nobody speaks it any more */
	SHARE_DISK_1_1 = 0x10001,
	SHARE_DISK_1_2 = 0x10002,
	SHARE_DISK_1_3 = 0x10003,
	SHARE_DISK_SPAN = 64,
	SHARE_DISK_REQUESTS = 4, /* at once */
	SHARE_DISK_MAX_BYTES = 1048576,
	SHARE_DISK_1_2_MAX_BYTES = 262144,
};

enum share_disk_kind {
	SHARE_DISK_HELLO = 1,
	SHARE_DISK_WELCOME,
	SHARE_DISK_REQUEST,
	SHARE_DISK_DONE
};
enum share_disk_act { SHARE_DISK_READ, SHARE_DISK_WRITE, SHARE_DISK_ZERO, SHARE_DISK_FLUSH };
enum share_disk_status { SHARE_DISK_GOOD, SHARE_DISK_FAILED, SHARE_DISK_NO_SPACE };
enum share_disk_flag { SHARE_DISK_READ_ONLY = 1 };

struct share_disk_hello { uint32_t kind, least, most, round; uint64_t session; };
struct share_disk_welcome {
	uint32_t kind, version, round, flags;
	uint64_t size_bytes;
	uint32_t sector_bytes, physical_bytes;
	uint8_t id[16]; /* of this disk, and of no other */
};
struct share_disk_request {
	uint32_t kind, round, act, first;
	uint64_t number, oldest, offset, bytes;
};
struct share_disk_done { uint32_t kind, status; uint64_t number; };
