/* See record.h. */
#include "record.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const uint8_t head[] = { RECORD_DATA, 3, 3 };

void record_begin(struct record_way *way, const struct record_keys *keys)
{
	gcm_begin(&way->gcm, keys->key);
	way->keys = *keys;
}

/* Of the next record. False: there is none. */
static bool take_nonce(struct record_way *way, uint8_t ret[GCM_NONCE_BYTES])
{
	const uint64_t number = __builtin_bswap64(way->keys.number);
	uint8_t last[sizeof(number)];

	if (way->keys.number >= RECORDS_MOST)
		return false;
	memcpy(ret, way->keys.nonce, GCM_NONCE_BYTES);
	memcpy(last, &number, sizeof(last));
	for (unsigned n = 0; n < sizeof(last); n++)
		ret[GCM_NONCE_BYTES - sizeof(last) + n] ^= last[n];
	way->keys.number++;
	return true;
}

int record_seal(struct record_way *way, enum record_kind kind, const void *data, size_t bytes,
		uint8_t *to)
{
	const size_t sealed = bytes + 1 + GCM_TAG_BYTES;
	uint8_t *const inside = to + RECORD_HEAD_BYTES;
	uint8_t nonce[GCM_NONCE_BYTES];

	assert(bytes <= RECORD_DATA_BYTES);
	if (!take_nonce(way, nonce))
		return -EMSGSIZE;
	memcpy(to, head, sizeof(head));
	to[3] = (uint8_t)(sealed >> 8);
	to[4] = (uint8_t)sealed;
	memcpy(inside, data, bytes);
	inside[bytes] = (uint8_t)kind;
	gcm_seal(&way->gcm, nonce, to, RECORD_HEAD_BYTES, inside, bytes + 1, inside + bytes + 1);
	return 0;
}

int record_bytes(const uint8_t *from, size_t bytes)
{
	int sealed;

	if (bytes < RECORD_HEAD_BYTES)
		return 0;
	sealed = from[3] << 8 | from[4];
	return !memcmp(from, head, sizeof(head)) && sealed > GCM_TAG_BYTES &&
			       sealed <= RECORD_MOST_BYTES - RECORD_HEAD_BYTES
		       ? RECORD_HEAD_BYTES + sealed
		       : -EBADMSG;
}

int record_open(struct record_way *way, uint8_t *record, size_t bytes, size_t *ret_bytes)
{
	uint8_t *const inside = record + RECORD_HEAD_BYTES;
	size_t left = bytes - RECORD_HEAD_BYTES - GCM_TAG_BYTES;
	uint8_t nonce[GCM_NONCE_BYTES];

	assert((int)bytes == record_bytes(record, bytes));
	if (!take_nonce(way, nonce))
		return -EMSGSIZE;
	if (!gcm_open(&way->gcm, nonce, record, RECORD_HEAD_BYTES, inside, left, inside + left))
		return -EBADMSG;
	while (left && !inside[left - 1]) /* zeros behind what it is */
		left--;
	if (!left || left - 1 > RECORD_DATA_BYTES)
		return -EBADMSG;
	*ret_bytes = left - 1;
	return inside[left - 1];
}
