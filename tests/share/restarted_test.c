/*
 * umbra-share-disk, ended by a signal again and again and started anew: this test is its channel
 * and the proxy. Each write is done once, its answer comes, and the disk stays the same one. A
 * program that ends between a write and its record does that once more, with the same bytes.
 * Prints TAP.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi/share.h"
#include "abi/share_disk.h"
#include "abi/vmbus_layout.h"
#include "driver/share_record.h"
#include "driver/uio_channel.h"

enum { WRITES = 120, SECTOR = 512, DISK_BYTES = 1 << 20, PATIENCE_MS = 20000, BUSY = 1,
       PAGE_BYTES = 4096 };
enum death { LIVES, BEFORE_WRITE, BEFORE_RECORD, BEFORE_ANSWER, DEATHS };

/* What the program and its proxy have in common. */
struct common {
	uint8_t window[SHARE_DISK_MAX_BYTES], read_only[SHARE_DISK_MAX_BYTES];
	uint64_t window_number;
	enum death death; /* of the next write */
	unsigned times[WRITES + 1];
};

static struct common *common;
static char disk[] = "/tmp/umbra-restarted-XXXXXX";
static char record[sizeof(disk) + 8];
static pid_t server;
static int line, servers_line;
static uint32_t round_now;
static unsigned checks, bad;

int share_disk_main(int argc, char **argv);
ssize_t __real_pwrite64(int fd, const void *from, size_t bytes, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *from, size_t bytes, off_t offset);

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

/* ---- in the program: its calls ---- */

static void die_at(enum death death)
{
	if (common->death != death)
		return;
	common->death = LIVES;
	raise(SIGKILL);
}

ssize_t __wrap_pwrite64(int fd, const void *from, size_t bytes, off_t offset)
{
	ssize_t done;

	die_at(BEFORE_WRITE);
	done = __real_pwrite64(fd, from, bytes, offset);
	common->times[offset / SECTOR]++;
	die_at(BEFORE_RECORD);
	return done;
}

int uio_channel_open(struct uio_channel *channel, struct guid class, unsigned number)
{
	(void)class;
	(void)number;
	*channel = (struct uio_channel){ .window = common->window,
					 .read_only = common->read_only,
					 .window_pages = SHARE_DISK_MAX_BYTES / PAGE_BYTES };
	return 0;
}

int uio_channel_send(struct uio_channel *channel, const void *data, uint32_t bytes, uint32_t lend)
{
	(void)channel;
	(void)lend;
	if (((const struct share_disk_done *)data)->kind == SHARE_DISK_DONE)
		die_at(BEFORE_ANSWER);
	return send(servers_line, data, bytes, 0) == (ssize_t)bytes ? 0 : -EPROTO;
}

int uio_channel_receive(struct uio_channel *channel, struct umbra_packet *ret, void *to,
			uint32_t room, int timeout_ms)
{
	struct share_data *head = to;
	ssize_t got;

	(void)channel;
	(void)timeout_ms;
	got = recv(servers_line, head + 1, room - sizeof(*head), 0);
	if (got <= 0)
		_exit(0);
	*ret = (struct umbra_packet){ .type = PACKET_INBAND };
	*head = (struct share_data){ .head.kind = SHARE_DATA, .bytes = (uint32_t)got };
	return (int)sizeof(*head) + (int)got;
}

uint64_t uio_channel_window_number(const struct uio_channel *channel)
{
	(void)channel;
	return __atomic_load_n(&common->window_number, __ATOMIC_ACQUIRE);
}

/* ---- the proxy ---- */

static void start(void)
{
	char *words[] = { "umbra-share-disk", "-s", record, disk, NULL };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		abort();
	fflush(stdout);
	server = fork();
	if (!server) {
		close(pair[0]);
		servers_line = pair[1];
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			abort();
		optind = 1;
		_exit(share_disk_main(4, words));
	}
	close(pair[1]);
	line = pair[0];
}

/* Its exit status. */
static int wait_for_server(void)
{
	int status = 0;

	waitpid(server, &status, 0);
	close(line);
	return status;
}

static void end_server(void)
{
	kill(server, SIGKILL);
	wait_for_server();
}

/* False: it has ended. */
static bool hear(void *to, size_t bytes)
{
	struct pollfd answer = { .fd = line, .events = POLLIN };

	return poll(&answer, 1, PATIENCE_MS) == 1 && recv(line, to, bytes, 0) == (ssize_t)bytes;
}

static bool greet(uint64_t session, struct share_disk_welcome *ret)
{
	const struct share_disk_hello hello = { .kind = SHARE_DISK_HELLO,
						.least = SHARE_DISK_1_1,
						.most = SHARE_DISK_1_2,
						.round = ++round_now,
						.session = session };

	return send(line, &hello, sizeof(hello), 0) == sizeof(hello) && hear(ret, sizeof(*ret));
}

static bool write_once(uint64_t number)
{
	const struct share_disk_request asked = { .kind = SHARE_DISK_REQUEST,
						  .round = round_now,
						  .act = SHARE_DISK_WRITE,
						  .number = number,
						  .oldest = number,
						  .offset = number * SECTOR,
						  .bytes = SECTOR };
	struct share_disk_done done;

	memset(common->read_only, (int)number, SECTOR);
	return send(line, &asked, sizeof(asked), MSG_NOSIGNAL) == sizeof(asked) &&
	       hear(&done, sizeof(done)) && done.number == number && !done.status;
}

/* As a proxy does: whoever serves next is asked by the same number. */
static bool write_whatever_comes(uint64_t number, const struct share_disk_welcome *is)
{
	struct share_disk_welcome welcome;

	while (!write_once(number)) {
		wait_for_server();
		start();
		if (!greet(7, &welcome) || memcmp(welcome.id, is->id, sizeof(is->id)) != 0)
			return false;
	}
	return true;
}

static bool is_written(unsigned from, unsigned to)
{
	uint8_t sector[SECTOR], wanted[SECTOR];
	FILE *file = fopen(disk, "rb");
	bool good = file && !fseek(file, (long)from * SECTOR, SEEK_SET);

	for (unsigned n = from; n <= to && good; n++) {
		memset(wanted, (int)n, SECTOR);
		good = fread(sector, 1, SECTOR, file) == SECTOR && !memcmp(sector, wanted, SECTOR);
	}
	if (file)
		fclose(file);
	return good;
}

static void ends_now_and_then(void)
{
	struct share_disk_welcome is;
	bool good = true;
	unsigned once = 0;
	unsigned again = 0;

	start();
	check("it serves", greet(7, &is) && is.version == SHARE_DISK_1_2);
	for (unsigned n = 1; n <= WRITES && good; n++) {
		common->death = (enum death)(n % DEATHS);
		good = write_whatever_comes(n, &is);
	}
	check("the same disk, each time, and each write is answered", good);
	check("of each the bytes", is_written(1, WRITES));
	for (unsigned n = 1; n <= WRITES; n++) {
		const bool is_gap = n % DEATHS == BEFORE_RECORD;

		once += !is_gap && common->times[n] == 1;
		again += is_gap && common->times[n] == 2;
	}
	check("each was done once", once == WRITES - WRITES / DEATHS);
	check("or twice, where nobody could know of it", again == WRITES / DEATHS);
	check("one that was answered is not done again",
	      write_once(WRITES) && common->times[WRITES] == 1);
}

static void asked_before_hello(void)
{
	const struct share_disk_request asked = { .kind = SHARE_DISK_REQUEST,
						  .act = SHARE_DISK_ZERO,
						  .number = WRITES + 1,
						  .oldest = 1,
						  .bytes = SECTOR };
	struct share_disk_welcome is;

	start();
	check("what is asked before a hello is not done",
	      send(line, &asked, sizeof(asked), 0) == sizeof(asked) && greet(9, &is) &&
		      is.kind == SHARE_DISK_WELCOME && !common->times[0]);
	end_server();
}

/* The record, as another kernel of this guest's has left it. */
static void boot_again(void)
{
	const size_t at = offsetof(struct share_record, boot);
	FILE *file = fopen(record, "r+b");

	if (!file || fseek(file, (long)at, SEEK_SET) || fputc('?', file) == EOF || fclose(file))
		abort();
}

static void others(void)
{
	struct share_disk_welcome before;
	struct share_disk_welcome is;
	const int first_line = line;
	const pid_t first = server;
	int status;

	check("another proxy", greet(8, &before) && write_once(WRITES));
	check("has numbers of its own", common->times[WRITES] == 2);
	start();
	status = wait_for_server();
	check("two do not serve one disk", WIFEXITED(status) && WEXITSTATUS(status) == BUSY);
	server = first;
	line = first_line;
	end_server();
	if (truncate(disk, 2 * DISK_BYTES))
		abort();
	start();
	check("a disk of another size is another",
	      greet(8, &is) && memcmp(is.id, before.id, sizeof(is.id)) != 0);
	end_server();
	boot_again();
	before = is;
	start();
	check("and one that another kernel has written to",
	      greet(8, &is) && memcmp(is.id, before.id, sizeof(is.id)) != 0);
	end_server();
}

int main(void)
{
	const int fd = mkstemp(disk);

	if (fd < 0 || ftruncate(fd, DISK_BYTES))
		return 1;
	close(fd);
	snprintf(record, sizeof(record), "%s.record", disk);
	common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (common == MAP_FAILED)
		return 1;
	common->window_number = 3;
	ends_now_and_then();
	others();
	asked_before_hello();
	unlink(disk);
	unlink(record);
	printf("1..%u\n", checks);
	return bad != 0;
}
