/*
 * One NBD connection (NBD protocol, fixed newstyle): handshake, then requests by several threads,
 * which answer as they finish.
 *
 *   each of THREADS: receive lock { header, payload } -> the disk -> send lock { reply }
 *
 * Invariants
 *  1. Nothing that the peer says is larger than it may be: options OPTION_BYTES, requests
 *     REQUEST_BYTES; else the connection ends.
 *  2. A request is checked before anything is read for it or done; its payload is read in any case,
 *     to stay in step.
 *  3. After an error of the socket nobody receives any more; requests that run are finished and
 *     their answers lost.
 * Locks: `receive` before nothing, `send` before nothing; the served disk's lock is held during a
 * request alone. Left out: TLS, and every option that is not named here; they are refused as the
 * protocol says.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "served.h"

enum { THREADS = 4, OPTION_BYTES = 65536, REQUEST_BYTES = 32 << 20, EXTENTS = 1024 };
#define MAGIC 0x4e42444d41474943ull     /* "NBDMAGIC" */
#define OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define OPTION_REPLY_MAGIC 0x3e889045565a9ull
enum { REQUEST_MAGIC = 0x25609513, SIMPLE_MAGIC = 0x67446698, STRUCTURED_MAGIC = 0x668e33ef };
enum {
	OPT_EXPORT_NAME = 1,
	OPT_ABORT,
	OPT_LIST,
	OPT_INFO = 6,
	OPT_GO,
	OPT_STRUCTURED,
	OPT_LIST_META,
	OPT_SET_META
};
enum { REP_ACK = 1, REP_SERVER, REP_INFO, REP_META };
#define REP_UNSUPPORTED 0x80000001u
#define REP_INVALID 0x80000003u
#define REP_UNKNOWN 0x80000006u
enum { INFO_EXPORT = 0, INFO_BLOCK_SIZE = 3 };
enum { PREFERRED_BLOCK_BYTES = 4096, NAME_BYTES = 4096 };
enum {
	FLAGS = 1 /* has flags */,
	FLAG_READ_ONLY = 2,
	FLAG_FLUSH = 4,
	FLAG_FUA = 8,
	FLAG_TRIM = 32,
	FLAG_ZEROES = 64,
	FLAG_MULTI = 256
};
enum { CMD_READ, CMD_WRITE, CMD_DISCONNECT, CMD_FLUSH, CMD_TRIM, CMD_ZEROES = 6, CMD_STATUS };
enum { CMD_FLAG_FUA = 1, CMD_FLAG_ONE = 8 };
enum { CHUNK_NONE = 0, CHUNK_DATA = 1, CHUNK_STATUS = 5, CHUNK_ERROR = 32769, CHUNK_DONE = 1 };
enum { STATE_HOLE = 1, STATE_ZERO = 2, CONTEXT_ID = 1 };

struct request_wire {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t bytes;
} __attribute__((packed));
struct simple_wire { uint32_t magic, error; uint64_t cookie; } __attribute__((packed));
struct chunk_wire {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie;
	uint32_t bytes;
} __attribute__((packed));
struct option_wire { uint64_t magic; uint32_t option, bytes; } __attribute__((packed));
struct option_reply_wire { uint64_t magic; uint32_t option, type, bytes; } __attribute__((packed));

struct connection {
	struct served *served;
	int fd;
	/* allocation: block status was asked for; over: under receive */
	bool structured, allocation, over;
	pthread_mutex_t receive, send;
};

struct request { uint16_t flags, type; uint64_t cookie, offset; uint32_t bytes; uint8_t *data; };

static bool get(int fd, void *to, size_t bytes)
{
	while (bytes) {
		ssize_t n = recv(fd, to, bytes, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		to = (uint8_t *)to + n;
		bytes -= (size_t)n;
	}
	return true;
}

static bool put(int fd, const void *from, size_t bytes, bool more)
{
	assert(from || !bytes);
	while (bytes) {
		ssize_t n = send(fd, from, bytes, MSG_NOSIGNAL | (more ? MSG_MORE : 0));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		from = (const uint8_t *)from + n;
		bytes -= (size_t)n;
	}
	return true;
}

static uint32_t load32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, 4);
	return be32toh(value);
}

/* ---- the handshake ---- */

static bool answer(const struct connection *connection, uint32_t option, uint32_t type,
		   const void *data, uint32_t bytes)
{
	struct option_reply_wire wire = { htobe64(OPTION_REPLY_MAGIC), htobe32(option),
					  htobe32(type), htobe32(bytes) };

	return put(connection->fd, &wire, sizeof(wire), bytes) &&
	       (!bytes || put(connection->fd, data, bytes, false));
}

static uint16_t export_flags(const struct connection *connection)
{
	unsigned flags = FLAGS | FLAG_FLUSH | FLAG_FUA | FLAG_TRIM | FLAG_ZEROES | FLAG_MULTI;

	return (uint16_t)(connection->served->read_only ? flags | FLAG_READ_ONLY : flags);
}

static uint64_t export_bytes(const struct connection *connection)
{
	uint64_t bytes;

	pthread_rwlock_rdlock(&connection->served->lock);
	bytes = disk_size_bytes(connection->served->top);
	pthread_rwlock_unlock(&connection->served->lock);
	return bytes;
}

static bool send_info(const struct connection *connection, uint32_t option)
{
	const struct {
		uint16_t type;
		uint64_t bytes;
		uint16_t flags;
	} __attribute__((packed)) export = {
		htobe16(INFO_EXPORT),
		htobe64(export_bytes(connection)),
		htobe16(export_flags(connection)),
	};
	struct {
		uint16_t type;
		uint32_t least, best, most;
	} __attribute__((packed))
	sizes = { .type = htobe16(INFO_BLOCK_SIZE),
		  .best = htobe32(PREFERRED_BLOCK_BYTES),
		  .most = htobe32(REQUEST_BYTES) };

	sizes.least = htobe32(disk_sector_bytes(connection->served->top));
	return answer(connection, option, REP_INFO, &export, sizeof(export)) &&
	       answer(connection, option, REP_INFO, &sizes, sizeof(sizes)) &&
	       answer(connection, option, REP_ACK, NULL, 0);
}

/* There is one export, named "" by most; any name is it. */
static bool is_good_name(const uint8_t *data, uint32_t bytes, uint32_t *ret_after)
{
	uint32_t name = bytes >= 4 ? load32(data) : UINT32_MAX;

	*ret_after = 4 + name;
	return bytes >= 4 && name <= bytes - 4 && name <= NAME_BYTES;
}

static bool meta(struct connection *connection, uint32_t option, const uint8_t *data,
		 uint32_t bytes)
{
	static const char name[] = "base:allocation";
	struct {
		uint32_t id;
		char text[15];
	} __attribute__((packed)) context = { htobe32(CONTEXT_ID), { 0 } };
	uint32_t at, queries;
	bool found = false;

	memcpy(context.text, name, sizeof(context.text));
	if (!connection->structured || !is_good_name(data, bytes, &at) || bytes - at < 4)
		return answer(connection, option, REP_INVALID, NULL, 0);
	queries = load32(data + at);
	at += 4;
	found = !queries && option == OPT_LIST_META;
	for (; queries && bytes - at >= 4; queries--) {
		uint32_t n = load32(data + at);

		at += 4;
		if (n > bytes - at)
			return answer(connection, option, REP_INVALID, NULL, 0);
		found |= (n == sizeof(name) - 1 && !memcmp(data + at, name, n)) ||
			 (option == OPT_LIST_META && n == 5 && !memcmp(data + at, "base:", 5));
		at += n;
	}
	if (option == OPT_SET_META)
		connection->allocation = found;
	if (found && !answer(connection, option, REP_META, &context, sizeof(context)))
		return false;
	return answer(connection, option, REP_ACK, NULL, 0);
}

enum next { NEXT_OPTION, NEXT_REQUESTS, NEXT_END };

static enum next one_option(struct connection *connection, uint32_t option, const uint8_t *data,
			    uint32_t bytes, bool zeroes)
{
	struct {
		uint64_t bytes;
		uint16_t flags;
		uint8_t zero[124];
	} __attribute__((packed))
	old = { htobe64(export_bytes(connection)), htobe16(export_flags(connection)), { 0 } };
	uint32_t after;
	bool good;

	switch (option) {
	case OPT_EXPORT_NAME:
		return put(connection->fd, &old, zeroes ? sizeof(old) : 10, false) ? NEXT_REQUESTS
										   : NEXT_END;
	case OPT_ABORT: answer(connection, option, REP_ACK, NULL, 0); return NEXT_END;
	case OPT_LIST:
		if (bytes)
			good = answer(connection, option, REP_INVALID, NULL, 0);
		else
			good = answer(connection, option, REP_SERVER, &(uint32_t){ 0 }, 4) &&
			       answer(connection, option, REP_ACK, NULL, 0);
		break;
	case OPT_INFO:
	case OPT_GO:
		if (!is_good_name(data, bytes, &after)) {
			good = answer(connection, option, REP_INVALID, NULL, 0);
			break;
		}
		if (!send_info(connection, option))
			return NEXT_END;
		return option == OPT_GO ? NEXT_REQUESTS : NEXT_OPTION;
	case OPT_STRUCTURED:
		connection->structured |= !bytes;
		good = answer(connection, option, bytes ? REP_INVALID : REP_ACK, NULL, 0);
		break;
	case OPT_LIST_META:
	case OPT_SET_META: good = meta(connection, option, data, bytes); break;
	default: good = answer(connection, option, REP_UNSUPPORTED, NULL, 0);
	}
	return good ? NEXT_OPTION : NEXT_END;
}

static bool handshake(struct connection *connection)
{
	struct {
		uint64_t magic, option_magic;
		uint16_t flags;
	} __attribute__((packed)) hello = { htobe64(MAGIC), htobe64(OPTION_MAGIC), htobe16(3) };
	uint8_t *data = malloc(OPTION_BYTES);
	enum next next =
		data && put(connection->fd, &hello, sizeof(hello), false) ? NEXT_OPTION : NEXT_END;
	uint32_t client = 0;

	if (next == NEXT_OPTION &&
	    (!get(connection->fd, &client, 4) || be32toh(client) & ~3u || !(be32toh(client) & 1)))
		next = NEXT_END;
	while (next == NEXT_OPTION) {
		struct option_wire wire;

		if (!get(connection->fd, &wire, sizeof(wire)) ||
		    be64toh(wire.magic) != OPTION_MAGIC || be32toh(wire.bytes) > OPTION_BYTES ||
		    !get(connection->fd, data, be32toh(wire.bytes)))
			break;
		next = one_option(connection, be32toh(wire.option), data, be32toh(wire.bytes),
				  !(be32toh(client) & 2));
	}
	free(data);
	return next == NEXT_REQUESTS;
}

/* ---- requests ---- */

static bool reply(struct connection *connection, const struct request *request, uint16_t type,
		  const void *head, uint32_t head_bytes, const void *data, uint32_t bytes)
{
	struct chunk_wire chunk = { .magic = htobe32(STRUCTURED_MAGIC),
				    .flags = htobe16(CHUNK_DONE),
				    .type = htobe16(type),
				    .cookie = htobe64(request->cookie),
				    .bytes = htobe32(head_bytes + bytes) };
	bool good;

	pthread_mutex_lock(&connection->send);
	good = put(connection->fd, &chunk, sizeof(chunk), head_bytes || bytes) &&
	       (!head_bytes || put(connection->fd, head, head_bytes, bytes)) &&
	       (!bytes || put(connection->fd, data, bytes, false));
	pthread_mutex_unlock(&connection->send);
	return good;
}

static uint32_t wire_error(int error)
{
	switch (error) {
	case 0: return 0;
	case -EROFS:
	case -EPERM: return 1;
	case -ENOMEM: return 12;
	case -EINVAL: return 22;
	case -ENOSPC: return 28;
	case -EOVERFLOW: return 75;
	case -ENOTSUP: return 95;
	default: return 5;
	}
}

static bool finish(struct connection *connection, const struct request *request, int error)
{
	struct simple_wire simple = { htobe32(SIMPLE_MAGIC), htobe32(wire_error(error)),
				      htobe64(request->cookie) };
	struct {
		uint32_t error;
		uint16_t text;
	} __attribute__((packed)) what = { htobe32(wire_error(error)), 0 };
	uint64_t offset = htobe64(request->offset);
	bool good;
	bool data = request->type == CMD_READ && !error;

	if (connection->structured && request->type == CMD_READ && data)
		return reply(connection, request, CHUNK_DATA, &offset, sizeof(offset),
			     request->data, request->bytes);
	if (connection->structured)
		return error ? reply(connection, request, CHUNK_ERROR, &what, sizeof(what), NULL, 0)
			     : reply(connection, request, CHUNK_NONE, NULL, 0, NULL, 0);
	pthread_mutex_lock(&connection->send);
	good = put(connection->fd, &simple, sizeof(simple), data) &&
	       (!data || put(connection->fd, request->data, request->bytes, false));
	pthread_mutex_unlock(&connection->send);
	return good;
}

struct extent_wire { uint32_t bytes, state; } __attribute__((packed));

/*
 * Through the whole chain: a range that no file says anything about is a hole. Under the lock,
 * shared.
 */
static int range_state(struct disk *top, uint64_t at, uint64_t *bytes, uint32_t *ret_state)
{
	for (struct disk *disk = top; disk; disk = disk_parent(disk)) {
		struct disk_range range;
		int error;

		if (at >= disk_size_bytes(disk))
			break;
		if (*bytes > disk_size_bytes(disk) - at)
			*bytes = disk_size_bytes(disk) - at;
		error = disk_range(disk, at, *bytes, &range);
		if (error)
			return error;
		*bytes = range.bytes;
		if (range.kind != DISK_RANGE_ABSENT) {
			*ret_state = range.kind == DISK_RANGE_PRESENT ? 0 : STATE_HOLE | STATE_ZERO;
			return 0;
		}
	}
	*ret_state = STATE_HOLE | STATE_ZERO;
	return 0;
}

static bool status(struct connection *connection, const struct request *request)
{
	struct {
		uint32_t context;
		struct extent_wire extent[EXTENTS];
	} __attribute__((packed)) *all = malloc(sizeof(*all));
	unsigned count = 0;
	unsigned most = request->flags & CMD_FLAG_ONE ? 1 : EXTENTS;
	uint64_t done = 0;
	int error = all ? 0 : -ENOMEM;
	bool good;

	pthread_rwlock_rdlock(&connection->served->lock);
	while (!error && done < request->bytes) {
		uint64_t n = request->bytes - done;
		uint32_t state = 0;

		error = range_state(connection->served->top, request->offset + done, &n, &state);
		if (error)
			break;
		if (count && be32toh(all->extent[count - 1].state) == state)
			all->extent[count - 1].bytes =
				htobe32(be32toh(all->extent[count - 1].bytes) + (uint32_t)n);
		else if (count == most)
			break;
		else
			all->extent[count++] =
				(struct extent_wire){ htobe32((uint32_t)n), htobe32(state) };
		done += n;
	}
	pthread_rwlock_unlock(&connection->served->lock);
	if (error) {
		good = finish(connection, request, error);
	} else {
		all->context = htobe32(CONTEXT_ID);
		good = reply(connection, request, CHUNK_STATUS, all,
			     4 + count * (uint32_t)sizeof(all->extent[0]), NULL, 0);
	}
	free(all);
	return good;
}

/* Reading over the end, also with a length of 0, is the peer's mistake; the disk checks sectors. */
static int check(const struct connection *connection, const struct request *request)
{
	uint64_t size = export_bytes(connection);
	bool changes = request->type == CMD_WRITE || request->type == CMD_TRIM ||
		       request->type == CMD_ZEROES;

	if (request->type > CMD_STATUS || request->type == 5)
		return -EINVAL;
	if (changes && connection->served->read_only)
		return -EPERM;
	if (request->type == CMD_STATUS && !connection->allocation)
		return -EINVAL;
	if (request->type != CMD_FLUSH &&
	    (!request->bytes || request->offset > size || request->bytes > size - request->offset))
		return changes ? -ENOSPC : -EINVAL;
	return 0;
}

/* Trimming gives back whole sectors, and leaves what is no whole one. */
static int trim(struct disk *disk, const struct request *request)
{
	uint64_t sector = disk_sector_bytes(disk);
	uint64_t from = (request->offset + sector - 1) / sector * sector;
	uint64_t to = (request->offset + request->bytes) / sector * sector;

	return to > from ? disk_zero(disk, from, to - from) : 0;
}

static int act(struct connection *connection, struct request *request)
{
	struct disk *disk;
	int error = 0;

	pthread_rwlock_rdlock(&connection->served->lock);
	disk = connection->served->top;
	switch (request->type) {
	case CMD_READ:
		error = disk_read(disk, request->offset, request->data, request->bytes);
		break;
	case CMD_WRITE:
		error = disk_write(disk, request->offset, request->data, request->bytes);
		break;
	case CMD_TRIM: error = trim(disk, request); break;
	case CMD_ZEROES: error = disk_zero(disk, request->offset, request->bytes); break;
	default: break;
	}
	if (!error && (request->type == CMD_FLUSH ||
		       (request->flags & CMD_FLAG_FUA && request->type != CMD_READ)))
		error = disk_flush(disk);
	pthread_rwlock_unlock(&connection->served->lock);
	return error;
}

/* The invariants above, of a request that was received and of its connection. */
static void check_received(const struct connection *connection, const struct request *request)
{
	bool has_payload = request->type == CMD_READ || request->type == CMD_WRITE;

	assert(connection->served && connection->fd >= 0);
	assert(!connection->allocation || connection->structured);
	assert(has_payload == (request->data != NULL));
	assert(!has_payload || request->bytes <= REQUEST_BYTES);
	assert(request->type != CMD_DISCONNECT);
}

/* The next request with its payload; false: the connection is over. Under `receive`. */
static bool receive(struct connection *connection, struct request *request)
{
	struct request_wire wire;

	if (connection->over || !get(connection->fd, &wire, sizeof(wire)) ||
	    be32toh(wire.magic) != REQUEST_MAGIC)
		return false;
	*request = (struct request){ .flags = be16toh(wire.flags),
				     .type = be16toh(wire.type),
				     .cookie = be64toh(wire.cookie),
				     .offset = be64toh(wire.offset),
				     .bytes = be32toh(wire.bytes) };
	if (request->type == CMD_DISCONNECT ||
	    ((request->type == CMD_READ || request->type == CMD_WRITE) &&
	     request->bytes > REQUEST_BYTES))
		return false;
	if (request->type != CMD_READ && request->type != CMD_WRITE)
		return true;
	request->data = malloc(request->bytes + 1);
	if (!request->data)
		return false;
	if (request->type == CMD_WRITE && !get(connection->fd, request->data, request->bytes)) {
		free(request->data);
		return false;
	}
	return true;
}

static void *work(void *context)
{
	struct connection *connection = context;

	for (;;) {
		struct request request;
		bool good;
		int error;

		pthread_mutex_lock(&connection->receive);
		good = receive(connection, &request);
		connection->over |= !good;
		pthread_mutex_unlock(&connection->receive);
		if (!good)
			break;
		check_received(connection, &request);
		error = check(connection, &request);
		if (!error && request.type == CMD_STATUS)
			good = status(connection, &request);
		else
			good = finish(connection, &request,
				      error ? error : act(connection, &request));
		free(request.data);
		if (!good)
			shutdown(connection->fd, SHUT_RDWR);
	}
	return NULL;
}

void nbd_serve(struct served *served, int fd)
{
	struct connection connection = { .served = served, .fd = fd };
	pthread_t threads[THREADS - 1];
	unsigned started = 0;

	assert(served && fd >= 0);
	pthread_mutex_init(&connection.receive, NULL);
	pthread_mutex_init(&connection.send, NULL);
	if (!handshake(&connection))
		return;
	while (started < THREADS - 1 && !pthread_create(&threads[started], NULL, work, &connection))
		started++;
	work(&connection);
	while (started)
		pthread_join(threads[--started], NULL);
}
