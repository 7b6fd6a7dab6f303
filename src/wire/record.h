/*
 * Records of TLS 1.3 (RFC 8446, 5.2) with AES-128-GCM, once hands are shaken: whoever has asked
 * umbra-wire for a connection seals and opens them himself from then on, so that nobody has to be
 * woken between him and the other side.
 *
 *   u8 kind 23, 0x0303, u16 length, big-endian: the first five, which the tag covers as well
 *   what is sealed: data, u8 kind of what it is, any zeros;  tag
 *
 *   - A direction's number goes up by one with each record, and is used once with its key.
 *   - Of a record that somebody else has made, or changed, or sent again, nothing is used but its
 *     length.
 *   - No more than RECORDS_MOST have one key: then the connection is as one that was lost, and is
 *     made anew. A wish for other keys ends it in the same way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gcm.h"

enum {
	RECORD_HEAD_BYTES = 5,
	RECORD_DATA_BYTES = 16 << 10, /* of one, at most */
	RECORD_MORE_BYTES = RECORD_HEAD_BYTES + 1 + GCM_TAG_BYTES, /* beside its data */
	RECORD_MOST_BYTES = RECORD_HEAD_BYTES + RECORD_DATA_BYTES + 256, /* that may come */
	RECORDS_MOST = 1 << 24,
};

enum record_kind { RECORD_ALERT = 21, RECORD_DATA = 23 };

/* As umbra-wire says them, of one direction. */
struct record_keys { uint8_t key[GCM_KEY_BYTES], nonce[GCM_NONCE_BYTES]; uint64_t number; };

struct record_way {
	struct gcm gcm;
	struct record_keys keys; /* number: of the next record */
};

void record_begin(struct record_way *way, const struct record_keys *keys);
/* To `to`, of bytes + RECORD_MORE_BYTES. 0; -EMSGSIZE: too many have this key. */
int record_seal(struct record_way *way, enum record_kind kind, const void *data, size_t bytes,
		uint8_t *to);
/* How long the record is that begins so; 0: not all of its head is there; -EBADMSG. */
int record_bytes(const uint8_t *from, size_t bytes);
/*
 * One whole record, in place: its data are *ret_bytes from record + RECORD_HEAD_BYTES on. Its kind;
 * -EBADMSG; -EMSGSIZE.
 */
int record_open(struct record_way *way, uint8_t *record, size_t bytes, size_t *ret_bytes);
