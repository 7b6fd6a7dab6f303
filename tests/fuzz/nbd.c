/*
 * What peers say on the sockets of a served disk: NBD (handshake, options, requests) and the
 * control socket's lines. The first byte chooses, the rest is what is sent; then the peer is gone.
 * Nothing may crash or hang, and the disk stays sound.
 */
#include <endian.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/format/vhdx_internal.h"
#include "serve/served.h"
#include "../disk/memory_file.h"
#include "fuzz.h"

enum { BLOCK_BYTES = 4096 };

struct session { struct served served; int fd; bool control; };

static struct memory_file *good;

static void make(void)
{
	const struct disk_create what = { .format = DISK_VHDX,
					  .size_bytes = 8 << 20,
					  .block_bytes = 1 << 20 };
	struct memory_file *medium = memory_new();
	struct disk_file file = memory_disk_file(medium);
	struct disk_error error;

	if (vhdx_create(&file, "fuzz.vhdx", &what, NULL, &error))
		abort();
	good = medium;
}

/* The chain stays as it is: a snapshot would be a file. */
static int refuse(struct disk *disk, const char *what, struct disk_error *error)
{
	snprintf(error->text, sizeof(error->text), "%s of %s is not allowed", what,
		 disk_path(disk));
	return -EPERM;
}

static void *serve_peer(void *context)
{
	struct session *session = context;

	(session->control ? control_serve : nbd_serve)(&session->served, session->fd);
	shutdown(session->fd, SHUT_RDWR);
	return NULL;
}

static void fault(void *context, const struct disk_error *found)
{
	(void)context;
	fprintf(stderr, "fuzz-nbd: %s\n", found->text);
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct session session = { .control = bytes && data[0] % 8 == 7 };
	struct memory_file *file;
	struct disk_error error;
	struct disk *disk;
	static uint8_t answer[65536];
	pthread_t thread;
	int ends[2];

	if (!good)
		make();
	file = memory_copy(good);
	if (disk_open_file(memory_disk_file(file), "fuzz.vhdx",
			   &(struct disk_options){ .format = DISK_VHDX, .write = true }, &disk,
			   &error) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, ends) ||
	    served_init(&session.served, disk, bytes && data[0] & 64))
		abort();
	session.served.admit = refuse;
	session.fd = ends[1];
	if (pthread_create(&thread, NULL, serve_peer, &session))
		abort();
	for (size_t at = 1; at < bytes;) {
		ssize_t n = send(ends[0], data + at, bytes - at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN && recv(ends[0], answer, sizeof(answer), 0) > 0)
			continue;
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	shutdown(ends[0], SHUT_WR);
	while (recv(ends[0], answer, sizeof(answer), 0) > 0)
		;
	pthread_join(thread, NULL);
	close(ends[0]);
	close(ends[1]);
	disk_check(disk, fault, NULL);
	if (served_end(&session.served))
		abort();
	memory_free(file);
	return 0;
}

/* ---- seeds ---- */

static uint64_t random_state = 88172645463325252ull;

static uint64_t rnd(void)
{
	random_state ^= random_state << 13, random_state ^= random_state >> 7,
		random_state ^= random_state << 17;
	return random_state;
}

static size_t put(uint8_t *to, size_t at, const void *from, size_t bytes)
{
	if (bytes)
		memcpy(to + at, from, bytes);
	return at + bytes;
}

static size_t put_option(uint8_t *to, size_t at, uint32_t option, const void *data, uint32_t bytes)
{
	struct {
		uint64_t magic;
		uint32_t option, bytes;
	} __attribute__((packed))
	message = { htobe64(0x49484156454f5054), htobe32(option), htobe32(bytes) };

	return put(to, put(to, at, &message, sizeof(message)), data, bytes);
}

static size_t put_request(uint8_t *to, size_t at)
{
	static const uint64_t offsets[] = { 0, 512, 1 << 20, 8 << 20, (8 << 20) - 512, 3 };
	static const uint32_t lengths[] = { 0, 1, 512, BLOCK_BYTES, 65536, 1 << 20, 8 << 20 };
	struct {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t cookie, offset;
		uint32_t bytes;
	} __attribute__((packed))
	request = { htobe32(0x25609513),         htobe16(rnd() % 16),
		    htobe16(rnd() % 8),          rnd(),
		    htobe64(offsets[rnd() % 6]), htobe32(lengths[rnd() % 7]) };

	at = put(to, at, &request, sizeof(request));
	if (be16toh(request.type) == 1 && be32toh(request.bytes) <= BLOCK_BYTES)
		at += be32toh(request.bytes);
	return at;
}

static size_t put_line(uint8_t *to, const char *line) { return put(to, 1, line, strlen(line)); }

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char *const lines[] = { "{\"do\":\"snapshot\",\"file\":\"x\"}\n",
					     "{\"do\":\"commit\"}\n{\"do\":\"stream\"}\n",
					     "{\"do\":\"resize\",\"size\":9999999}\n", "[]\n{}\n",
					     "{\"do\":\"stop\"}\n" };
	static const uint8_t go[6] = { 0 };
	static const char meta[] = "\0\0\0\0" "\0\0\0\1" "\0\0\0\17" "base:allocation";
	uint32_t client = htobe32(3);
	size_t at = 1;

	memset(data, 0, 65536);
	data[0] = (uint8_t)(rnd() % 2 ? 0 : 64);
	if (n % 8 == 7)
		data[0] = 7;
	if (n % 8 == 7)
		return put_line(data, lines[rnd() % 5]);
	at = put(data, at, &client, 4);
	if (rnd() % 2)
		at = put_option(data, at, 8, NULL, 0);
	if (rnd() % 2)
		at = put_option(data, at, 9 + rnd() % 2, meta, sizeof(meta) - 1);
	if (rnd() % 8 == 0)
		at = put_option(data, at, (uint32_t)(rnd() % 12), go, sizeof(go));
	at = rnd() % 4 ? put_option(data, at, 7, go, sizeof(go)) : put_option(data, at, 1, NULL, 0);
	for (unsigned k = (unsigned)(rnd() % 8); k--;)
		at = put_request(data, at);
	return at;
}
