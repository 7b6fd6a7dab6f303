/* See websocket.h. */
#include "websocket.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum {
	SHORT_BYTES = 125,
	LENGTH_16 = 126,
	LENGTH_64 = 127,
	KEY_BYTES = 24, /* 16 bytes in base64 */
	SHA1_BYTES = 20
};

static bool is_control(const struct websocket_head *head) { return head->code >= WEBSOCKET_CLOSE; }

static bool is_code(unsigned code)
{
	return code <= WEBSOCKET_BINARY || (code >= WEBSOCKET_CLOSE && code <= WEBSOCKET_PONG);
}

static uint64_t big_endian(const uint8_t *data, unsigned bytes)
{
	uint64_t number = 0;

	for (unsigned n = 0; n < bytes; n++)
		number = number << 8 | data[n];
	return number;
}

int websocket_parse(const uint8_t *data, size_t bytes, struct websocket_head *ret)
{
	unsigned extended = 0;
	uint64_t length;

	if (bytes < 2)
		return 0;
	if (data[0] & 0x70 || !is_code(data[0] & 15) || !(data[1] & 0x80))
		return -EBADMSG;
	length = data[1] & 127;
	if (length == LENGTH_16)
		extended = 2;
	else if (length == LENGTH_64)
		extended = 8;
	if (bytes < 2 + extended + sizeof(ret->mask))
		return 0;
	if (extended)
		length = big_endian(data + 2, extended);
	ret->code = (enum websocket_code)(data[0] & 15);
	ret->is_last = data[0] & 0x80;
	memcpy(ret->mask, data + 2 + extended, sizeof(ret->mask));
	if (length > WEBSOCKET_FRAME_BYTES)
		return -EFBIG;
	ret->bytes = (uint32_t)length;
	if (is_control(ret) && (length > SHORT_BYTES || !ret->is_last))
		return -EBADMSG;
	assert(2 + extended + sizeof(ret->mask) <= bytes && ret->bytes <= WEBSOCKET_FRAME_BYTES);
	return (int)(2 + extended + sizeof(ret->mask));
}

void websocket_unmask(const struct websocket_head *head, uint8_t *data)
{
	for (uint32_t n = 0; n < head->bytes; n++)
		data[n] ^= head->mask[n % sizeof(head->mask)];
}

size_t websocket_make_head(uint8_t head[WEBSOCKET_HEAD_BYTES], enum websocket_code code,
			   size_t bytes)
{
	unsigned extended = 0;

	assert(is_code(code) && (code < WEBSOCKET_CLOSE || bytes <= SHORT_BYTES));
	head[0] = (uint8_t)(0x80 | code);
	head[1] = (uint8_t)bytes;
	if (bytes > UINT16_MAX) {
		head[1] = LENGTH_64;
		extended = 8;
	} else if (bytes > SHORT_BYTES) {
		head[1] = LENGTH_16;
		extended = 2;
	}
	for (unsigned n = 0; n < extended; n++)
		head[2 + n] = (uint8_t)((uint64_t)bytes >> (8 * (extended - 1 - n)));
	return 2 + extended;
}

bool websocket_accept(const char *key, char accept[WEBSOCKET_ACCEPT_BYTES])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */
	char text[KEY_BYTES + sizeof(guid)];
	uint8_t digest[SHA1_BYTES];

	if (strlen(key) != KEY_BYTES)
		return false;
	snprintf(text, sizeof(text), "%s%s", key, guid);
	if (gnutls_hash_fast(GNUTLS_DIG_SHA1, text, strlen(text), digest))
		return false;
	return sodium_bin2base64(accept, WEBSOCKET_ACCEPT_BYTES, digest, sizeof(digest),
				 sodium_base64_VARIANT_ORIGINAL);
}
