/* See sealed.h. */
#include "sealed.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/check.h"

/* RFC 8446, 6: a level, what it is. */
enum { ALERT_BYTES = 2, ALERT_WARNING = 1, ALERT_END = 0 };
enum {
	ALERT_BAD_CERTIFICATE = 42,
	ALERT_UNSUPPORTED_CERTIFICATE = 43,
	ALERT_CERTIFICATE_EXPIRED = 45,
	ALERT_CERTIFICATE_UNKNOWN = 46,
	ALERT_UNKNOWN_AUTHORITY = 48,
	ALERT_CERTIFICATE_REQUIRED = 116
};

bool wire_send(int socket, const void *from, size_t bytes)
{
	const uint8_t *at = from;

	while (bytes) {
		ssize_t n = send(socket, at, bytes, MSG_NOSIGNAL);

		if (n <= 0 && errno != EINTR)
			return false;
		at += n > 0 ? n : 0;
		bytes -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

bool wire_receive(int socket, void *to, size_t bytes)
{
	uint8_t *at = to;

	while (bytes) {
		ssize_t n = recv(socket, at, bytes, 0);

		if (n <= 0 && (!n || errno != EINTR))
			return false;
		at += n > 0 ? n : 0;
		bytes -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

void check_wire_sealed(const struct wire_sealed *sealed)
{
	assert(sealed->data + sealed->data_bytes <= sealed->next);
	assert(sealed->next <= sealed->end && sealed->end <= sizeof(sealed->in));
}

struct wire_sealed *wire_sealed_make(const struct wire_keys *keys)
{
	struct wire_sealed *sealed = aligned_alloc(_Alignof(struct wire_sealed), sizeof(*sealed));

	if (!sealed)
		return NULL;
	sealed->was_refused = false;
	sealed->data = sealed->data_bytes = sealed->next = sealed->end = 0;
	record_begin(&sealed->from, &keys->from);
	record_begin(&sealed->to, &keys->to);
	return sealed;
}

struct wire_keys wire_sealed_keys(const struct wire_sealed *sealed)
{
	return (struct wire_keys){ .from = sealed->from.keys, .to = sealed->to.keys };
}

/* ---- what is said ---- */

bool wire_sealed_send(struct wire_sealed *sealed, int socket, const void *from, size_t bytes)
{
	const uint8_t *at = from;

	while (bytes) {
		size_t used = 0;

		for (unsigned n = 0; n < SEALED_RECORDS && bytes; n++) {
			const size_t part = bytes < RECORD_DATA_BYTES ? bytes : RECORD_DATA_BYTES;

			if (record_seal(&sealed->to, RECORD_DATA, at, part, sealed->out + used))
				return false;
			used += part + RECORD_MORE_BYTES;
			at += part;
			bytes -= part;
		}
		if (!wire_send(socket, sealed->out, used))
			return false;
	}
	return true;
}

size_t wire_sealed_seal(struct wire_sealed *sealed, const void *from, size_t bytes)
{
	return record_seal(&sealed->to, RECORD_DATA, from, bytes, sealed->out)
		       ? 0
		       : bytes + RECORD_MORE_BYTES;
}

/* ---- what comes ---- */

bool wire_sealed_read(struct wire_sealed *sealed, int socket)
{
	ssize_t got;

	assert(!sealed->data_bytes); /* else they would lie in its way */
	memmove(sealed->in, sealed->in + sealed->next, sealed->end - sealed->next);
	sealed->end -= sealed->next;
	sealed->data = sealed->next = 0;
	do
		got = read(socket, sealed->in + sealed->end, sizeof(sealed->in) - sealed->end);
	while (got < 0 && errno == EINTR);
	sealed->end += got > 0 ? (size_t)got : 0;
	CHECK(check_wire_sealed(sealed));
	return got > 0;
}

/* As record_bytes(); 0: not all of it is there. */
static int next_bytes(const struct wire_sealed *sealed)
{
	const size_t there = sealed->end - sealed->next;
	const int bytes = record_bytes(sealed->in + sealed->next, there);

	return bytes > 0 && (size_t)bytes > there ? 0 : bytes;
}

/* A client has shaken hands before its certificate is looked at. */
static bool is_refusal(const uint8_t *alert, size_t bytes)
{
	if (bytes != ALERT_BYTES)
		return false;
	switch (alert[1]) {
	case ALERT_BAD_CERTIFICATE: case ALERT_UNSUPPORTED_CERTIFICATE:
	case ALERT_CERTIFICATE_EXPIRED: case ALERT_CERTIFICATE_UNKNOWN:
	case ALERT_UNKNOWN_AUTHORITY: case ALERT_CERTIFICATE_REQUIRED: return true;
	default: return false;
	}
}

/* The data of the next record, which is so long, and here. */
static bool open_record(struct wire_sealed *sealed, int bytes)
{
	uint8_t *record = sealed->in + sealed->next;
	size_t data_bytes;
	int kind;

	if (bytes < 0)
		return false;
	kind = record_open(&sealed->from, record, (size_t)bytes, &data_bytes);
	if (kind == RECORD_ALERT)
		sealed->was_refused |= is_refusal(record + RECORD_HEAD_BYTES, data_bytes);
	if (kind != RECORD_DATA || !data_bytes)
		return false;
	sealed->data = sealed->next + RECORD_HEAD_BYTES;
	sealed->data_bytes = data_bytes;
	sealed->next += (size_t)bytes;
	CHECK(check_wire_sealed(sealed));
	return true;
}

/* The data of one more record, or false. */
static bool open_next(struct wire_sealed *sealed, int socket)
{
	int bytes;

	while (!(bytes = next_bytes(sealed)))
		if (!wire_sealed_read(sealed, socket))
			return false;
	return open_record(sealed, bytes);
}

/* Of the data that are here. */
static size_t take_data(struct wire_sealed *sealed, void *to, size_t most)
{
	const size_t bytes = most < sealed->data_bytes ? most : sealed->data_bytes;

	memcpy(to, sealed->in + sealed->data, bytes);
	sealed->data += bytes;
	sealed->data_bytes -= bytes;
	return bytes;
}

bool wire_sealed_receive(struct wire_sealed *sealed, int socket, void *to, size_t bytes)
{
	uint8_t *at = to;

	while (bytes) {
		size_t part;

		if (!sealed->data_bytes && !open_next(sealed, socket))
			return false;
		part = take_data(sealed, at, bytes);
		at += part;
		bytes -= part;
	}
	return true;
}

ssize_t wire_sealed_take(struct wire_sealed *sealed, void *to, size_t most)
{
	const int bytes = sealed->data_bytes ? 0 : next_bytes(sealed);

	if (bytes && !open_record(sealed, bytes))
		return -EBADMSG;
	return (ssize_t)take_data(sealed, to, most);
}

bool wire_sealed_holds(const struct wire_sealed *sealed)
{
	return sealed->data_bytes || next_bytes(sealed);
}

bool wire_sealed_is_empty(const struct wire_sealed *sealed)
{
	return !sealed->data_bytes && sealed->next == sealed->end;
}

/* ---- its end ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* All records that are here, of which nothing is taken. False: there will be no more. */
static bool drop_records(struct wire_sealed *sealed)
{
	int bytes;

	sealed->data_bytes = 0;
	while ((bytes = next_bytes(sealed))) {
		if (!open_record(sealed, bytes))
			return false;
		sealed->data_bytes = 0;
	}
	return true;
}

/* Until something comes, or that time: then false. */
static bool comes_until(int socket, int64_t until)
{
	struct pollfd line = { .fd = socket, .events = POLLIN };
	const int64_t left = until - now_ms();

	return left > 0 && poll(&line, 1, (int)left) > 0;
}

/* What is on its way is lost where a socket is closed that has more to be read. */
void wire_sealed_end(struct wire_sealed *sealed, int socket, unsigned ms)
{
	static const uint8_t ends[ALERT_BYTES] = { ALERT_WARNING, ALERT_END };
	const int64_t until = now_ms() + ms;

	if (!record_seal(&sealed->to, RECORD_ALERT, ends, sizeof(ends), sealed->out))
		send(socket, sealed->out, sizeof(ends) + RECORD_MORE_BYTES,
		     MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(socket, SHUT_WR);
	while (drop_records(sealed) && comes_until(socket, until) &&
	       wire_sealed_read(sealed, socket))
		; /* a read takes what there is: a record that comes byte by byte waits here */
}
