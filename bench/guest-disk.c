/*
 * In a guest: guest-disk DEVICE SECONDS [NAME]: requests of one device past the page cache, by
 * Linux's asynchronous interface. A line for each of the measurements, or for that one: R NAME
 * OPERATIONS-A-SECOND MEGABYTES-A-SECOND MEAN-MICROSECONDS. Of a file, on a host: reads alone, and
 * through its page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH_MAX = 64, BLOCK_BYTES = 4096, MOST_BYTES = 1 << 20, DATA_BYTES = 4 * MOST_BYTES };

struct kind { const char *name; unsigned bytes, depth; int write, random, flush; };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t state = 88172645463325252ull;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void measure(int fd, uint64_t size, const struct kind *kind, double seconds)
{
	static struct iocb requests[DEPTH_MAX];
	static uint8_t *data;
	struct io_event events[DEPTH_MAX];
	struct iocb *one;
	aio_context_t context = 0;
	uint64_t at = 0;
	uint64_t done = 0;
	double begin = now();
	double end = begin + seconds;

	if (!data && posix_memalign((void **)&data, BLOCK_BYTES, DATA_BYTES))
		exit(1);
	if (syscall(SYS_io_setup, DEPTH_MAX, &context))
		exit(1);
	for (unsigned n = 0; n < kind->depth; n++)
		events[n].obj = (uint64_t)&requests[n];
	for (long ready = kind->depth; now() < end;) {
		for (long n = 0; n < ready; n++) {
			one = (struct iocb *)events[n].obj;
			*one = (struct iocb){
				.aio_lio_opcode = kind->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
				.aio_fildes = (uint32_t)fd,
				.aio_nbytes = kind->bytes,
				.aio_buf = (uint64_t)(data + kind->bytes * (one - requests)),
				.aio_offset =
					(int64_t)(kind->random ? rnd() % (size / kind->bytes) *
									 kind->bytes
							       : at)
			};
			at = at + 2 * kind->bytes > size ? 0 : at + kind->bytes;
			if (syscall(SYS_io_submit, context, 1, &one) != 1)
				exit(1);
		}
		ready = syscall(SYS_io_getevents, context, 1, DEPTH_MAX, events, NULL);
		for (long n = 0; n < ready; n++)
			if (events[n].res != kind->bytes)
				exit(1);
		if (kind->flush && fdatasync(fd))
			exit(1);
		done += (uint64_t)ready;
	}
	seconds = now() - begin;
	syscall(SYS_io_destroy, context);
	printf("R %s %.0f %.1f %.1f\n", kind->name, (double)done / seconds,
	       (double)done * kind->bytes / seconds / 1e6,
	       seconds * 1e6 * kind->depth / (double)done);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct kind kinds[] = {
		{ .name = "read-4k-1", .bytes = BLOCK_BYTES, .depth = 1, .random = 1 },
		{ .name = "read-4k-32", .bytes = BLOCK_BYTES, .depth = 32, .random = 1 },
		{ .name = "read-128k-8", .bytes = 131072, .depth = 8 },
		{ .name = "read-1m-1", .bytes = MOST_BYTES, .depth = 1 },
		{ .name = "read-1m-4", .bytes = MOST_BYTES, .depth = 4 },
		{ .name = "write-4k-1", .bytes = BLOCK_BYTES, .depth = 1, .write = 1, .random = 1 },
		{ .name = "write-4k-32",
		  .bytes = BLOCK_BYTES,
		  .depth = 32,
		  .write = 1,
		  .random = 1 },
		{ .name = "write-128k-8", .bytes = 131072, .depth = 8, .write = 1 },
		{ .name = "write-4k-sync",
		  .bytes = BLOCK_BYTES,
		  .depth = 1,
		  .write = 1,
		  .random = 1,
		  .flush = 1 },
	};
	struct stat status;
	bool is_file;
	int fd;
	uint64_t size;

	if (argc < 3 || stat(argv[1], &status))
		return 1;
	is_file = S_ISREG(status.st_mode);
	fd = open(argv[1], is_file ? O_RDONLY : O_RDWR | O_DIRECT);
	size = (uint64_t)status.st_size;
	if (fd < 0 || (!is_file && ioctl(fd, BLKGETSIZE64, &size)))
		return 1;
	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if ((!is_file || !kinds[n].write) && (argc < 4 || !strcmp(argv[3], kinds[n].name)))
			measure(fd, size, &kinds[n], atof(argv[2]));
	return 0;
}
