/* Frames of a disk of another host, and what is recorded; the first byte says whose they are. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "share/far.h"

static void take_request(struct far_record *record, const struct share_disk_request *request)
{
	uint32_t status = 0;
	enum far_found found = far_record_find(record, request, &status);

	if (request->act > SHARE_DISK_FLUSH || request->offset + request->bytes < request->offset)
		abort();
	if (found != FAR_NEW)
		return;
	far_record_put(record, request->number, 1);
	if (far_record_find(record, request, &status) != FAR_KNOWN || status != 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const enum far_side from = bytes && data[0] & 1 ? FAR_ANSWERS : FAR_ASKS;
	struct far_record record = { .is_there = false };
	size_t at = 1;

	while (bytes >= at + FAR_HEAD_BYTES) {
		union far_message message = { .kind = 0 };
		struct far_head head;

		if (far_take_head(data + at, &head))
			break;
		at += FAR_HEAD_BYTES;
		if (bytes - at < head.message_bytes)
			break;
		memcpy(&message, data + at, head.message_bytes);
		at += head.message_bytes;
		fuzz_message();
		if (far_check(&head, &message, from))
			break;
		if (message.kind == SHARE_DISK_HELLO)
			far_record_begin(&record, message.hello.session);
		else if (message.kind == SHARE_DISK_REQUEST)
			take_request(&record, &message.request);
		if (head.data_bytes > FAR_DATA_MAX_BYTES || bytes - at < head.data_bytes)
			break;
		at += head.data_bytes;
	}
	return 0;
}

static size_t put(uint8_t *to, const void *message, uint32_t bytes, uint32_t data_bytes)
{
	far_put_head(bytes, data_bytes, to);
	memcpy(to + FAR_HEAD_BYTES, message, bytes);
	memset(to + FAR_HEAD_BYTES + bytes, 7, data_bytes);
	return FAR_HEAD_BYTES + bytes + data_bytes;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const struct share_disk_hello hello = { .kind = SHARE_DISK_HELLO, .round = 1,
						.least = SHARE_DISK_1_1, .most = SHARE_DISK_1_1 };
	const struct share_disk_welcome welcome = { .kind = SHARE_DISK_WELCOME, .round = 1 };
	const struct share_disk_done done = { .kind = SHARE_DISK_DONE, .number = 1 };
	size_t used = 1;

	data[0] = (uint8_t)n;
	if (n & 1) {
		used += put(data + used, &welcome, sizeof(welcome), 0);
		return used + put(data + used, &done, sizeof(done), n % 600);
	}
	used += put(data + used, &hello, sizeof(hello), 0);
	for (unsigned k = 1; k < 8; k++) {
		const struct share_disk_request request = { .kind = SHARE_DISK_REQUEST,
							    .round = 1, .number = k, .oldest = 1,
							    .act = k % 4, .bytes = 16 };

		used += put(data + used, &request, sizeof(request), k % 4 == 1 ? 16 : 0);
	}
	return used;
}
