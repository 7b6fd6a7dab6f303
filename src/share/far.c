/* See far.h. */
#include "far.h"

#include <errno.h>
#include <string.h>

#define MAGIC 0x66617231u

uint32_t far_message_bytes(uint32_t kind)
{
	switch (kind) {
	case SHARE_DISK_HELLO: return sizeof(struct share_disk_hello);
	case SHARE_DISK_WELCOME: return sizeof(struct share_disk_welcome);
	case SHARE_DISK_REQUEST: return sizeof(struct share_disk_request);
	case SHARE_DISK_DONE: return sizeof(struct share_disk_done);
	default: return 0;
	}
}

void far_put_head(uint32_t message_bytes, uint32_t data_bytes, uint8_t to[FAR_HEAD_BYTES])
{
	const struct far_head head = { .magic = MAGIC, .message_bytes = message_bytes,
				       .data_bytes = data_bytes };

	_Static_assert(sizeof(head) == FAR_HEAD_BYTES, "a head");
	memcpy(to, &head, sizeof(head));
}

int far_take_head(const uint8_t from[FAR_HEAD_BYTES], struct far_head *ret)
{
	memcpy(ret, from, sizeof(*ret));
	if (ret->magic != MAGIC || ret->reserved || ret->data_bytes > FAR_DATA_MAX_BYTES ||
	    ret->message_bytes < sizeof(uint32_t) ||
	    ret->message_bytes > sizeof(union far_message))
		return -EBADMSG;
	return 0;
}

static bool request_is_sound(const struct share_disk_request *request, uint32_t data_bytes)
{
	const bool has_data = request->act == SHARE_DISK_READ || request->act == SHARE_DISK_WRITE;

	if (request->act > SHARE_DISK_FLUSH || !request->number ||
	    request->offset > INT64_MAX || request->bytes > INT64_MAX - request->offset)
		return false;
	if (has_data && request->bytes > FAR_DATA_MAX_BYTES)
		return false;
	return data_bytes == (request->act == SHARE_DISK_WRITE ? request->bytes : 0);
}

int far_check(const struct far_head *head, const union far_message *message, enum far_side from)
{
	bool is_sound = false;

	if (head->message_bytes != far_message_bytes(message->kind))
		return -EBADMSG;
	if (message->kind == SHARE_DISK_HELLO)
		is_sound = from == FAR_ASKS && !head->data_bytes;
	else if (message->kind == SHARE_DISK_REQUEST)
		is_sound = from == FAR_ASKS &&
			   request_is_sound(&message->request, head->data_bytes);
	else if (message->kind == SHARE_DISK_WELCOME)
		is_sound = from == FAR_ANSWERS && !head->data_bytes;
	else
		is_sound = from == FAR_ANSWERS &&
			   (!message->done.status || !head->data_bytes);
	return is_sound ? 0 : -EBADMSG;
}

/* ---- what is done ---- */

void far_record_begin(struct far_record *record, uint64_t session)
{
	if (record->is_there && record->session == session)
		return;
	*record = (struct far_record){ .is_there = true, .session = session };
}

enum far_found far_record_find(const struct far_record *record,
			       const struct share_disk_request *request, uint32_t *ret_status)
{
	const struct far_done *done = &record->done[request->number % SHARE_DISK_SPAN];

	if (!record->is_there || request->number < request->oldest ||
	    request->number - request->oldest >= SHARE_DISK_SPAN || done->number > request->number)
		return FAR_PAST;
	if (done->number != request->number)
		return FAR_NEW;
	*ret_status = done->status;
	return FAR_KNOWN;
}

void far_record_put(struct far_record *record, uint64_t number, uint32_t status)
{
	record->done[number % SHARE_DISK_SPAN] = (struct far_done){ .number = number,
								    .status = status };
}
