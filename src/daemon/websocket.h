/*
 * Frames of WebSockets (RFC 6455), the server's side: heads are understood and made, nothing is
 * read or written here.
 *
 *   - A client's frame is masked, has no reserved bits, and at most WEBSOCKET_FRAME_BYTES of data;
 *     a control frame has at most 125 and is whole. Everything else ends the connection.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WEBSOCKET_FRAME_BYTES = 1 << 16, WEBSOCKET_HEAD_BYTES = 14, WEBSOCKET_ACCEPT_BYTES = 29 };
enum websocket_code {
	WEBSOCKET_MORE = 0,
	WEBSOCKET_TEXT = 1,
	WEBSOCKET_BINARY = 2,
	WEBSOCKET_CLOSE = 8,
	WEBSOCKET_PING = 9,
	WEBSOCKET_PONG = 10
};

struct websocket_head {
	enum websocket_code code;
	bool is_last;
	uint32_t bytes; /* of data, which follow */
	uint8_t mask[4];
};

/* Bytes of the head; 0: it is not whole yet; -EBADMSG, -EFBIG. */
int websocket_parse(const uint8_t *data, size_t bytes, struct websocket_head *ret);
void websocket_unmask(const struct websocket_head *head, uint8_t *data);
/* Of a whole frame; how many bytes the head has. */
size_t websocket_make_head(uint8_t head[WEBSOCKET_HEAD_BYTES], enum websocket_code code,
			   size_t bytes);
/* What is answered to Sec-WebSocket-Key. False: it is none. */
bool websocket_accept(const char *key, char accept[WEBSOCKET_ACCEPT_BYTES]);
