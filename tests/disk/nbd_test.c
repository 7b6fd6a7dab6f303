/*
 * Each request on a connection of a served disk is answered once, by its handle: many of every
 * kind at once, sound ones and such as are refused, with simple and with structured replies.
 */
#include <endian.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/format/vhdx_internal.h"
#include "memory_file.h"
#include "serve/served.h"

enum { REQUESTS = 600, UNIT_BYTES = 4096, DISK_BYTES = 8 << 20, FIRST_HANDLE = 7 };
enum { READ, WRITE, FLUSH = 3, TRIM, ZEROES = 6, NO_SUCH_KIND = 77 };
enum { OPTION_GO = 7, OPTION_STRUCTURED = 8, REPLY_ACK = 1, CLIENT_FLAGS = 3 };
enum { SIMPLE_MAGIC = 0x67446698, STRUCTURED_MAGIC = 0x668e33ef, REQUEST_MAGIC = 0x25609513 };
enum { CHUNK_DONE = 1 };
#define OPTION_MAGIC 0x49484156454f5054ull

static struct served served;
static int server_fd;

static void *serve_peer(void *context)
{
	(void)context;
	nbd_serve(&served, server_fd);
	shutdown(server_fd, SHUT_RDWR);
	return NULL;
}

static bool get(int fd, void *to, size_t bytes)
{
	return !bytes || recv(fd, to, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static bool put(int fd, const void *from, size_t bytes)
{
	return send(fd, from, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* An option without data that is wanted acknowledged; information before that is passed over. */
static bool agree(int fd, uint32_t option, const void *data, uint32_t bytes)
{
	struct {
		uint64_t magic;
		uint32_t option, bytes;
	} __attribute__((packed)) message = { htobe64(OPTION_MAGIC), htobe32(option),
					      htobe32(bytes) };
	struct {
		uint64_t magic;
		uint32_t option, type, bytes;
	} __attribute__((packed)) answer;
	uint8_t about[256];

	if (!put(fd, &message, sizeof(message)) || (bytes && !put(fd, data, bytes)))
		return false;
	do {
		if (!get(fd, &answer, sizeof(answer)) ||
		    be32toh(answer.bytes) > sizeof(about) ||
		    !get(fd, about, be32toh(answer.bytes)))
			return false;
	} while (be32toh(answer.type) == 3);
	return be32toh(answer.type) == REPLY_ACK;
}

static bool begin(int fd, bool structured)
{
	static const uint8_t any_export[6] = { 0 };
	const uint32_t flags = htobe32(CLIENT_FLAGS);
	uint8_t hello[18];

	return get(fd, hello, sizeof(hello)) && put(fd, &flags, sizeof(flags)) &&
	       (!structured || agree(fd, OPTION_STRUCTURED, NULL, 0)) &&
	       agree(fd, OPTION_GO, any_export, sizeof(any_export));
}

static unsigned kind_of(unsigned n)
{
	static const unsigned kinds[] = { READ, WRITE, READ, ZEROES, FLUSH, TRIM, READ,
					  NO_SUCH_KIND };

	return kinds[n % (sizeof(kinds) / sizeof(kinds[0]))];
}

/* Every seventh lies behind the disk's end: it is refused. */
static void *ask(void *context)
{
	static const uint8_t data[UNIT_BYTES] = { 1 };
	int fd = *(const int *)context;

	for (unsigned n = 0; n < REQUESTS; n++) {
		struct {
			uint32_t magic;
			uint16_t flags, type;
			uint64_t handle, offset;
			uint32_t bytes;
		} __attribute__((packed)) request = {
			.magic = htobe32(REQUEST_MAGIC),
			.type = htobe16((uint16_t)kind_of(n)),
			.handle = htobe64(FIRST_HANDLE + n),
			.offset = htobe64(n % 7 ? n * (uint64_t)UNIT_BYTES : DISK_BYTES),
			.bytes = htobe32(kind_of(n) == FLUSH ? 0 : UNIT_BYTES),
		};

		if (!put(fd, &request, sizeof(request)) ||
		    (kind_of(n) == WRITE && !put(fd, data, sizeof(data))))
			break;
	}
	return NULL;
}

/* One reply: its handle, or 0. A read that failed has no data in a simple reply. */
static uint64_t take(int fd, bool structured, bool *ret_last)
{
	struct {
		uint32_t magic, error;
		uint64_t handle;
	} __attribute__((packed)) simple;
	struct {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t handle;
		uint32_t bytes;
	} __attribute__((packed)) chunk;
	uint8_t data[2 * UNIT_BYTES];
	uint64_t handle;
	size_t bytes;

	*ret_last = true;
	if (structured) {
		if (!get(fd, &chunk, sizeof(chunk)) || be32toh(chunk.magic) != STRUCTURED_MAGIC)
			return 0;
		*ret_last = be16toh(chunk.flags) & CHUNK_DONE;
		bytes = be32toh(chunk.bytes);
		handle = be64toh(chunk.handle);
	} else {
		if (!get(fd, &simple, sizeof(simple)) || be32toh(simple.magic) != SIMPLE_MAGIC)
			return 0;
		handle = be64toh(simple.handle);
		bytes = !simple.error && handle >= FIRST_HANDLE &&
				kind_of((unsigned)(handle - FIRST_HANDLE)) == READ
			? UNIT_BYTES
			: 0;
	}
	return bytes <= sizeof(data) && get(fd, data, bytes) ? handle : 0;
}

static unsigned count_replies(int fd, bool structured)
{
	static unsigned replies[REQUESTS];
	unsigned faults = 0;
	uint8_t more;

	memset(replies, 0, sizeof(replies));
	for (unsigned n = 0; n < REQUESTS;) {
		bool last;
		uint64_t handle = take(fd, structured, &last);

		if (handle < FIRST_HANDLE || handle - FIRST_HANDLE >= REQUESTS)
			break;
		n += last;
		replies[handle - FIRST_HANDLE] += last;
	}
	for (unsigned n = 0; n < REQUESTS; n++)
		if (replies[n] != 1) {
			printf("nbd_test: %u replies to request %u (kind %u)\n", replies[n], n,
			       kind_of(n));
			faults++;
		}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &more, 1, 0) > 0) {
		printf("nbd_test: a reply that nobody has asked for\n");
		faults++;
	}
	return faults;
}

static unsigned one_connection(bool structured)
{
	pthread_t server;
	pthread_t asker;
	unsigned faults = 1;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		return 1;
	server_fd = ends[1];
	if (pthread_create(&server, NULL, serve_peer, NULL))
		return 1;
	if (begin(ends[0], structured) && !pthread_create(&asker, NULL, ask, &ends[0])) {
		faults = count_replies(ends[0], structured);
		pthread_join(asker, NULL);
	} else {
		printf("nbd_test: no handshake\n");
		shutdown(ends[0], SHUT_RDWR);
	}
	pthread_join(server, NULL);
	close(ends[0]);
	close(ends[1]);
	return faults;
}

int main(void)
{
	const struct disk_create what = { .format = DISK_VHDX,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20 };
	const struct disk_options options = { .format = DISK_VHDX, .write = true };
	struct memory_file *medium = memory_new();
	struct disk_file file = memory_disk_file(medium);
	struct disk_error error;
	struct disk *disk;
	unsigned faults;

	if (vhdx_create(&file, "nbd.vhdx", &what, NULL, &error) ||
	    disk_open_file(memory_disk_file(medium), "nbd.vhdx", &options, &disk, &error) ||
	    served_init(&served, disk, false))
		return 1;
	faults = one_connection(false);
	faults += one_connection(true);
	faults += served_end(&served) != 0;
	memory_free(medium);
	return faults != 0;
}
