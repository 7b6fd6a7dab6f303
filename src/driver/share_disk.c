/*
 * umbra-share-disk [-r] [-n NUMBER] [-s RECORD] FILE
 *
 * A driver domain: a program in a Linux guest that serves a file or block device of its own as a
 * disk to another machine (abi/share_disk.h, docs/sharing.md). An example to write others by.
 *
 *   - What was asked is checked before it is done: places in the file, and pages of the window.
 *   - Of the last numbers of a proxy it is known what came of them: nothing is done twice, also
 *     when this end or the other one goes and comes back, or this program is started again
 *     (share_record.h). It is done once more only where it ends between doing and recording that,
 *     with the same bytes, and nobody was told.
 *   - What is in the window is copied, and then the window's word looked at, before it is written;
 *     what was read counts as done only if the window is still there (abi/share_disk.h).
 *
 * Requests are done one after the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "abi/share_disk.h"
#include "abi/vmbus_layout.h"
#include "share_record.h"
#include "uio_channel.h"

enum { SECTOR_BYTES = 512, PHYSICAL_BYTES = 4096, PAGE_BYTES = 4096, FOREVER = -1 };

struct server {
	struct uio_channel channel;
	int fd;
	bool is_read_only;
	uint64_t size_bytes;
	struct share_record *record;
	uint64_t window; /* of the round */
	uint32_t round, version;
	uint64_t done, again, left;
	uint8_t *copy;
};

static void usage(void)
{
	fputs("umbra-share-disk [-r] [-n NUMBER] [-s RECORD] FILE\n", stderr);
	exit(64);
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "umbra-share-disk: %s: %s\n", what, strerror(-error));
	exit(1);
}

/* ---- the file ---- */

static void open_file(struct server *server, const char *path, const char *record)
{
	struct stat st;
	int error;

	server->fd = open(path, (server->is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (server->fd < 0 || fstat(server->fd, &st))
		fail(path, -errno);
	server->size_bytes = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(server->fd, BLKGETSIZE64, &server->size_bytes))
		fail(path, -errno);
	server->size_bytes -= server->size_bytes % SECTOR_BYTES;
	if (!server->size_bytes)
		fail(path, -ENODATA);
	error = share_record_open(path, &st, server->size_bytes, record, &server->record);
	if (error)
		fail("the record of what was done (-s)", error);
}

/* All of it, or a status. */
static uint32_t write_file(const struct server *server, const uint8_t *from, uint64_t bytes,
			   uint64_t offset)
{
	while (bytes) {
		const ssize_t put = pwrite(server->fd, from, bytes, (off_t)offset);

		if (put <= 0)
			return put < 0 && errno == ENOSPC ? SHARE_DISK_NO_SPACE : SHARE_DISK_FAILED;
		from += put;
		offset += (uint64_t)put;
		bytes -= (uint64_t)put;
	}
	return SHARE_DISK_GOOD;
}

static uint32_t read_file(const struct server *server, uint8_t *to, uint64_t bytes, uint64_t offset)
{
	while (bytes) {
		const ssize_t got = pread(server->fd, to, bytes, (off_t)offset);

		if (got <= 0)
			return SHARE_DISK_FAILED;
		to += got;
		offset += (uint64_t)got;
		bytes -= (uint64_t)got;
	}
	return SHARE_DISK_GOOD;
}

static uint32_t zero_file(const struct server *server, uint64_t bytes, uint64_t offset)
{
	uint32_t status = SHARE_DISK_GOOD;

	memset(server->copy, 0, SHARE_DISK_MAX_BYTES);
	while (bytes && status == SHARE_DISK_GOOD) {
		const uint64_t some = bytes < SHARE_DISK_MAX_BYTES ? bytes : SHARE_DISK_MAX_BYTES;

		status = write_file(server, server->copy, some, offset);
		offset += some;
		bytes -= some;
	}
	return status;
}

/* ---- requests ---- */

static bool lies_in_disk(const struct server *server, const struct share_disk_request *asked)
{
	return asked->offset <= server->size_bytes &&
	       asked->bytes <= server->size_bytes - asked->offset;
}

static bool lies_in_window(const struct server *server, const struct share_disk_request *asked)
{
	return asked->bytes <= SHARE_DISK_MAX_BYTES &&
	       asked->first <= server->channel.window_pages &&
	       (asked->bytes + PAGE_BYTES - 1) / PAGE_BYTES <=
		       server->channel.window_pages - asked->first;
}

static bool is_rounds_window(const struct server *server)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return server->window && uio_channel_window_number(&server->channel) == server->window;
}

/* False: the window has gone meanwhile, and nothing was done. */
static bool write_request(struct server *server, const struct share_disk_request *asked,
			  uint32_t *ret)
{
	const uint8_t *from = server->version == SHARE_DISK_1_1 ? server->channel.window
								: server->channel.read_only;

	memcpy(server->copy, from + (size_t)asked->first * PAGE_BYTES, asked->bytes);
	if (!is_rounds_window(server))
		return false;
	*ret = write_file(server, server->copy, asked->bytes, asked->offset);
	return true;
}

static bool execute(struct server *server, const struct share_disk_request *asked, uint32_t *ret)
{
	const bool moves = asked->act == SHARE_DISK_READ || asked->act == SHARE_DISK_WRITE;

	*ret = SHARE_DISK_FAILED;
	if (!lies_in_disk(server, asked) || (moves && !lies_in_window(server, asked)))
		return true;
	if (server->is_read_only && asked->act != SHARE_DISK_READ && asked->act != SHARE_DISK_FLUSH)
		return true;
	switch (asked->act) {
	case SHARE_DISK_READ:
		*ret = read_file(server,
				 server->channel.window + (size_t)asked->first * PAGE_BYTES,
				 asked->bytes, asked->offset);
		return is_rounds_window(server);
	case SHARE_DISK_WRITE: return write_request(server, asked, ret);
	case SHARE_DISK_ZERO: *ret = zero_file(server, asked->bytes, asked->offset); return true;
	case SHARE_DISK_FLUSH:
		*ret = fdatasync(server->fd) ? SHARE_DISK_FAILED : SHARE_DISK_GOOD;
		return true;
	default: return true;
	}
}

static void say(struct server *server, const void *message, uint32_t bytes)
{
	const int error = uio_channel_send(&server->channel, message, bytes, 0);

	if (error)
		fail("the channel", error);
}

static void take_request(struct server *server, const struct share_disk_request *asked)
{
	struct share_disk_done done = { .kind = SHARE_DISK_DONE, .number = asked->number };
	const struct share_outcome *outcome = share_record_find(server->record, asked->number);

	/* without a hello there is no round, and nothing is known of who asks */
	if (!server->round || asked->round != server->round || !asked->number ||
	    (outcome && outcome->number > asked->number))
		return;
	if (outcome && (outcome->act != SHARE_DISK_READ || outcome->window == server->window)) {
		server->again++;
		done.status = outcome->status;
	} else if (execute(server, asked, &done.status)) {
		server->done++;
		share_record_put(server->record,
				 &(struct share_outcome){ .number = asked->number,
							  .window = server->window,
							  .act = asked->act,
							  .status = done.status });
	} else {
		server->left++;
		return; /* it is asked again, in another round */
	}
	say(server, &done, sizeof(done));
}

static void take_hello(struct server *server, const struct share_disk_hello *hello)
{
	struct share_disk_welcome welcome = {
		.kind = SHARE_DISK_WELCOME, .round = hello->round,
		.flags = server->is_read_only ? SHARE_DISK_READ_ONLY : 0,
		.size_bytes = server->size_bytes,
		.sector_bytes = SECTOR_BYTES, .physical_bytes = PHYSICAL_BYTES,
	};

	const uint32_t most = server->channel.read_only ? SHARE_DISK_1_3 : SHARE_DISK_1_1;

	if (hello->least <= most && hello->most >= SHARE_DISK_1_1)
		welcome.version = hello->most < most ? hello->most : most;
	server->version = welcome.version;
	memcpy(welcome.id, server->record->id, sizeof(welcome.id));
	share_record_begin(server->record, hello->session);
	server->round = welcome.version ? hello->round : 0;
	server->window = uio_channel_window_number(&server->channel);
	say(server, &welcome, sizeof(welcome));
}

static void take_data(struct server *server, const struct share_data *data, size_t bytes)
{
	struct share_disk_hello hello;
	struct share_disk_request request;
	uint32_t kind = 0;

	bytes -= sizeof(*data);
	if (data->bytes > bytes || data->bytes < sizeof(kind))
		return;
	memcpy(&kind, data + 1, sizeof(kind));
	if (kind == SHARE_DISK_HELLO && data->bytes >= sizeof(hello)) {
		memcpy(&hello, data + 1, sizeof(hello));
		take_hello(server, &hello);
	} else if (kind == SHARE_DISK_REQUEST && data->bytes >= sizeof(request)) {
		memcpy(&request, data + 1, sizeof(request));
		take_request(server, &request);
	}
}

static void serve(struct server *server)
{
	_Alignas(8) static uint8_t got[SHARE_MESSAGE_BYTES];

	for (;;) {
		struct umbra_packet packet;
		struct share_head head;
		const int bytes = uio_channel_receive(&server->channel, &packet, got, sizeof(got),
						      FOREVER);

		if (bytes < 0)
			fail("the channel", bytes);
		if (packet.type == PACKET_COMPLETION)
			continue;
		memcpy(&head, got, sizeof(head));
		if (head.kind == SHARE_PEER && !server->channel.peer_is_there) {
			server->round = 0;
			printf("umbra-share-disk: %lu requests done, %lu asked again, %lu left\n",
			       server->done, server->again, server->left);
			fflush(stdout);
		} else if (head.kind == SHARE_DATA && (size_t)bytes >= sizeof(struct share_data)) {
			take_data(server, (const struct share_data *)(const void *)got,
				  (size_t)bytes);
		}
	}
}

int main(int argc, char **argv)
{
	static struct server server;
	const char *record = NULL;
	unsigned number = 0;
	int option;
	int error;

	while ((option = getopt(argc, argv, "rn:s:")) != -1) {
		if (option == 'r')
			server.is_read_only = true;
		else if (option == 'n')
			number = (unsigned)strtoul(optarg, NULL, 0);
		else if (option == 's')
			record = optarg;
		else
			usage();
	}
	if (optind + 1 != argc)
		usage();
	open_file(&server, argv[optind], record);
	server.copy = malloc(SHARE_DISK_MAX_BYTES);
	if (!server.copy)
		fail("memory", -ENOMEM);
	error = uio_channel_open(&server.channel, SHARE_DISK_TYPE, number);
	if (error)
		fail("no channel of the class `disk`", error);
	printf("umbra-share-disk: serves %lu bytes\n", server.size_bytes);
	fflush(stdout);
	serve(&server);
	return 0;
}
