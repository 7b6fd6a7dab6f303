/*
 * In a guest: reads DEVICE... : 1 MiB reads past the page cache, one after the other, IN_A_TURN of
 * each device in turns, TIMES of each; then the same with 2, and with 4, under way at once. A line
 * for each: R DEVICE DEPTH LEAST TENTH MEDIAN NINTH-TENTH, and what a read comes to of the time
 * that all of them took; us.
 */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 1 << 20, ALIGNMENT = 1 << 12, DEVICES = 4, PLACES = 64 };
enum { TIMES = 600, IN_A_TURN = 20, DEPTH_MOST = 4 };

struct device {
	const char *name;
	int fd;
	unsigned reads;
	double took[TIMES], turns; /* us */
};

struct reader {
	aio_context_t context;
	uint8_t *buffer;
	double begun[DEPTH_MOST];
};

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *one, const void *other)
{
	const double a = *(const double *)one;
	const double b = *(const double *)other;

	return (a > b) - (a < b);
}

static void must(int good)
{
	if (!good)
		exit(1);
}

static void read_one(struct device *device, uint8_t *buffer)
{
	const double begin = now_us();

	must(pread(device->fd, buffer, BYTES, (off_t)(device->reads % PLACES) * BYTES) == BYTES);
	device->took[device->reads++] = now_us() - begin;
}

/* Into the number-th buffer. */
static void begin_one(struct reader *reader, const struct device *device, unsigned number,
		      unsigned place)
{
	struct iocb control = {
		.aio_fildes = (uint32_t)device->fd, .aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_buf = (uintptr_t)reader->buffer + (size_t)number * BYTES, .aio_nbytes = BYTES,
		.aio_offset = (int64_t)(place % PLACES) * BYTES, .aio_data = number
	};
	struct iocb *controls[] = { &control };

	reader->begun[number] = now_us();
	must(syscall(SYS_io_submit, reader->context, 1, controls) == 1);
}

static void read_at_once(struct reader *reader, struct device *device, unsigned depth)
{
	const unsigned end = device->reads + IN_A_TURN;
	unsigned begun = device->reads;
	struct io_event event;

	for (unsigned n = 0; n < depth; n++)
		begin_one(reader, device, n, begun++);
	while (device->reads < end) {
		must(syscall(SYS_io_getevents, reader->context, 1, 1, &event, NULL) == 1 &&
		     event.res == BYTES);
		device->took[device->reads++] = now_us() - reader->begun[event.data];
		if (begun < end)
			begin_one(reader, device, (unsigned)event.data, begun++);
	}
}

static void take_turn(struct reader *reader, struct device *device, unsigned depth)
{
	const double begin = now_us();

	if (depth > 1)
		read_at_once(reader, device, depth);
	for (unsigned n = 0; depth == 1 && n < IN_A_TURN; n++)
		read_one(device, reader->buffer);
	device->turns += now_us() - begin;
}

static void say(struct device *device, unsigned depth)
{
	qsort(device->took, TIMES, sizeof(double), compare);
	printf("R %s %u %.0f %.0f %.0f %.0f %.0f\n", device->name, depth, device->took[0],
	       device->took[TIMES / 10], device->took[TIMES / 2], device->took[TIMES * 9 / 10],
	       device->turns / TIMES);
	device->reads = 0;
	device->turns = 0;
}

int main(int argc, char **argv)
{
	static struct device device[DEVICES];
	struct reader reader = { .buffer = aligned_alloc(ALIGNMENT, (size_t)DEPTH_MOST * BYTES) };
	const int count = argc - 1;

	must(count >= 1 && count <= DEVICES && reader.buffer);
	must(!syscall(SYS_io_setup, DEPTH_MOST, &reader.context));
	for (int n = 0; n < count; n++) {
		device[n] = (struct device){ .name = argv[n + 1],
					     .fd = open(argv[n + 1], O_RDONLY | O_DIRECT) };
		must(device[n].fd >= 0);
	}
	for (unsigned depth = 1; depth <= DEPTH_MOST; depth *= 2) {
		for (unsigned turn = 0; turn < TIMES; turn += IN_A_TURN)
			for (int n = 0; n < count; n++)
				take_turn(&reader, &device[n], depth);
		for (int n = 0; n < count; n++)
			say(&device[n], depth);
	}
	return 0;
}
