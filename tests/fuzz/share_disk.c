/*
 * What another machine asks of umbra-share-disk, through a host that lies, too: messages of any
 * length, kind and order, and a window that goes. The program, each time a process of its own,
 * reads and writes its disk and the window alone, answers nothing that was not asked, and does not
 * end by itself. The first byte: whether its disk is one that is only read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi/share.h"
#include "abi/share_disk.h"
#include "abi/vmbus_layout.h"
#include "driver/uio_channel.h"
#include "fuzz.h"

enum { PAGE_BYTES = 4096, WINDOW_PAGES = 256, DISK_BYTES = 1 << 20, IS_READ_ONLY = 1 };
enum { LIES_OF_BYTES = 1, COMPLETES = 2, PEER_GOES = 4, WINDOW_CHANGES = 8, OTHER_KIND = 16 };

/* Before each message, whose bytes follow. */
struct step { uint8_t flags, window; uint16_t bytes; };

static const uint8_t *input;
static size_t left;
static uint8_t *window, *read_only;
static char record[] = "/tmp/umbra-fuzz-record-XXXXXX"; /* of another disk each time */
static uint64_t window_number;
static bool disk_is_read_only, was_asked;

int share_disk_main(int argc, char **argv);
ssize_t __real_pwrite64(int fd, const void *from, size_t bytes, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *from, size_t bytes, off_t offset);
ssize_t __real_pread64(int fd, void *to, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *to, size_t bytes, off_t offset);

static void must(bool good)
{
	if (!good)
		abort();
}

/* ---- the program's calls ---- */

static bool lies_in_disk(size_t bytes, off_t offset)
{
	return offset >= 0 && bytes <= DISK_BYTES && offset <= (off_t)(DISK_BYTES - bytes);
}

ssize_t __wrap_pwrite64(int fd, const void *from, size_t bytes, off_t offset)
{
	must(lies_in_disk(bytes, offset) && !disk_is_read_only);
	return __real_pwrite64(fd, from, bytes, offset);
}

ssize_t __wrap_pread64(int fd, void *to, size_t bytes, off_t offset)
{
	const size_t at = (size_t)((uint8_t *)to - window);

	must(lies_in_disk(bytes, offset) && at <= WINDOW_PAGES * (size_t)PAGE_BYTES - bytes);
	return __real_pread64(fd, to, bytes, offset);
}

int uio_channel_open(struct uio_channel *channel, struct guid class, unsigned number)
{
	(void)class;
	(void)number;
	*channel = (struct uio_channel){ .window = window, .read_only = read_only,
					 .window_pages = WINDOW_PAGES };
	return 0;
}

int uio_channel_send(struct uio_channel *channel, const void *data, uint32_t bytes, uint32_t lend)
{
	const uint32_t kind = *(const uint32_t *)data;

	(void)channel;
	must(!lend && was_asked);
	must((kind == SHARE_DISK_WELCOME && bytes == sizeof(struct share_disk_welcome)) ||
	     (kind == SHARE_DISK_DONE && bytes == sizeof(struct share_disk_done)));
	was_asked = false;
	return 0;
}

static uint32_t head_kind(const struct step *step)
{
	if (step->flags & OTHER_KIND)
		return step->window;
	return step->flags & PEER_GOES ? SHARE_PEER : SHARE_DATA;
}

int uio_channel_receive(struct uio_channel *channel, struct umbra_packet *ret, void *to,
			uint32_t room, int timeout_ms)
{
	struct share_data *head = to;
	struct step step;

	(void)timeout_ms;
	if (left < sizeof(step))
		_exit(0);
	memcpy(&step, input, sizeof(step));
	input += sizeof(step);
	left -= sizeof(step);
	step.bytes %= room - sizeof(*head);
	if (step.bytes > left)
		step.bytes = (uint16_t)left;
	if (step.flags & WINDOW_CHANGES)
		window_number = step.window;
	*ret = (struct umbra_packet){ .type = step.flags & COMPLETES ? PACKET_COMPLETION
								     : PACKET_INBAND };
	*head = (struct share_data){ .head.kind = head_kind(&step),
				     .bytes = step.flags & LIES_OF_BYTES ? ~0u - step.window
									 : step.bytes };
	channel->peer_is_there = !(step.flags & PEER_GOES);
	memcpy(head + 1, input, step.bytes);
	input += step.bytes;
	left -= step.bytes;
	was_asked = true;
	return (int)sizeof(*head) + step.bytes;
}

/* It may go between any two looks. */
uint64_t uio_channel_window_number(const struct uio_channel *channel)
{
	(void)channel;
	return window_number;
}

/* ---- one input ---- */

static void run(void)
{
	char disk[32];
	char *words[] = { "umbra-share-disk", "-s", record, disk_is_read_only ? "-r" : disk,
			  disk_is_read_only ? disk : NULL, NULL };
	const int disk_fd = memfd_create("disk", MFD_CLOEXEC);

	must(disk_fd >= 0 && !ftruncate(disk_fd, DISK_BYTES));
	snprintf(disk, sizeof(disk), "/proc/self/fd/%d", disk_fd);
	must(freopen("/dev/null", "w", stdout) && dup2(1, 2) == 2);
	optind = 1;
	share_disk_main(disk_is_read_only ? 5 : 4, words);
	abort();
}

/* A page that nobody may touch is behind them. */
static uint8_t *make_window(void)
{
	const size_t bytes = WINDOW_PAGES * (size_t)PAGE_BYTES;
	uint8_t *at = mmap(NULL, bytes + PAGE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(at != MAP_FAILED && !mprotect(at + bytes, PAGE_BYTES, PROT_NONE));
	return at;
}

static void remove_record(void) { unlink(record); }

static void prepare(void)
{
	const int fd = mkstemp(record);

	must(fd >= 0 && !close(fd) && !atexit(remove_record));
	window = make_window();
	read_only = make_window();
}

static void count_messages(const uint8_t *data, size_t bytes)
{
	struct step step;

	while (bytes >= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		step.bytes %= SHARE_MESSAGE_BYTES - sizeof(struct share_data);
		data += sizeof(step);
		bytes -= sizeof(step);
		fuzz_message();
		data += step.bytes < bytes ? step.bytes : bytes;
		bytes -= step.bytes < bytes ? step.bytes : bytes;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	int status = 1;
	pid_t pid;

	if (!bytes)
		return 0;
	if (!window)
		prepare();
	disk_is_read_only = data[0] & IS_READ_ONLY;
	input = data + 1;
	left = bytes - 1;
	window_number = 1;
	fflush(stdout);
	pid = fork();
	if (!pid)
		run();
	must(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
	count_messages(data + 1, bytes - 1);
	return 0;
}

/* ---- seeds: a proxy that says hello, asks, and asks again ---- */

static size_t add(uint8_t *to, struct step step, const void *message, size_t bytes)
{
	step.bytes = (uint16_t)bytes;
	memcpy(to, &step, sizeof(step));
	memcpy(to + sizeof(step), message, bytes);
	return sizeof(step) + bytes;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	struct share_disk_hello hello = { .kind = SHARE_DISK_HELLO, .least = SHARE_DISK_1_1,
					  .most = SHARE_DISK_1_1 + n / 2 % 2, .session = 7 };
	size_t used = 1;

	data[0] = (uint8_t)(n % 8 == 7);
	for (hello.round = 1; hello.round <= 3; hello.round++) {
		used += add(data + used, (struct step){ .flags = n & 8 ? WINDOW_CHANGES : 0,
							.window = (uint8_t)hello.round },
			    &hello, sizeof(hello));
		for (uint64_t k = 1; k <= 6; k++) {
			const struct share_disk_request request = {
				.kind = SHARE_DISK_REQUEST, .round = hello.round,
				.act = (uint32_t)((k + n) % (SHARE_DISK_FLUSH + 1)),
				.first = (uint32_t)(k % 4 * 64), .number = k + hello.round,
				.oldest = hello.round, .offset = k * PAGE_BYTES,
				.bytes = (n + k) % 3 * PAGE_BYTES
			};

			used += add(data + used, (struct step){ .flags = 0 }, &request,
				    sizeof(request));
		}
	}
	used += add(data + used, (struct step){ .flags = PEER_GOES }, "", 0);
	return used;
}
