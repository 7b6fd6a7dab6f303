/*
 * A disk that is served behind TCP, on another host (docs/sharing.md): what abi/share_disk.h says,
 * in frames on a connection that keeps them secret and whole (src/wire). Who asks is the far end of
 * the hub here (cli/far_reach.c), which has the requests of a proxy; who answers is there
 * (cli/far_serve.c).
 *
 *   head: magic, bytes of the message, bytes of data   message   data
 *
 *   hello, request (of a write: its data)      -->
 *                                              <--  welcome, done (of a read: its data)
 *
 *   - Both sides are hostile to each other: a frame is checked whole before any of it is used.
 *   - What is done has a record of the last SHARE_DISK_SPAN numbers of a session: a request that is
 *     asked again is answered from it, and not done again; but a read, which changes nothing.
 *     Whoever asks for another session begins another record.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "abi/share_disk.h"

enum { FAR_HEAD_BYTES = 16, FAR_DATA_MAX_BYTES = SHARE_DISK_1_2_MAX_BYTES };
/* Whose requests a frame holds. */
enum { FAR_DISK_MOST = SHARE_DISK_1_2 };
enum far_side { FAR_ASKS, FAR_ANSWERS };

union far_message {
	uint32_t kind;
	struct share_disk_hello hello;
	struct share_disk_welcome welcome;
	struct share_disk_request request;
	struct share_disk_done done;
};
struct far_head { uint32_t magic, message_bytes, data_bytes, reserved; };

/* Of a message of this kind; 0: there is none. */
uint32_t far_message_bytes(uint32_t kind);
void far_put_head(uint32_t message_bytes, uint32_t data_bytes, uint8_t to[FAR_HEAD_BYTES]);
/* 0 or -EBADMSG: then nothing that follows can be found. */
int far_take_head(const uint8_t from[FAR_HEAD_BYTES], struct far_head *ret);
/* What `from` says, with so many bytes of data. 0 or -EBADMSG. */
int far_check(const struct far_head *head, const union far_message *message, enum far_side from);

/* ---- what is done ---- */

struct far_done { uint64_t number; uint32_t status; };
struct far_record {
	bool is_there;
	uint64_t session;
	struct far_done done[SHARE_DISK_SPAN];
};
enum far_found { FAR_NEW, FAR_KNOWN, FAR_PAST };

void far_record_begin(struct far_record *record, uint64_t session);
/* Known: *ret_status; past: of a number that nobody may ask for, or ask for any more. */
enum far_found far_record_find(const struct far_record *record,
			       const struct share_disk_request *request, uint32_t *ret_status);
void far_record_put(struct far_record *record, uint64_t number, uint32_t status);
