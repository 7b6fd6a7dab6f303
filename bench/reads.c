/*
 * In a guest: reads DEVICE... : 1 MiB reads past the page cache, one after the other, IN_A_TURN of
 * each device in turns, TIMES of each. A line for each: R DEVICE LEAST-us MEDIAN-us.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 1 << 20, ALIGNMENT = 1 << 12, DEVICES = 4, PLACES = 64 };
enum { TIMES = 600, IN_A_TURN = 20 };

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

static double read_one(int fd, void *buffer, unsigned place)
{
	const double begin = now_us();

	if (pread(fd, buffer, BYTES, (off_t)place * BYTES) != BYTES)
		exit(1);
	return now_us() - begin;
}

int main(int argc, char **argv)
{
	static double took[DEVICES][TIMES];
	void *buffer = aligned_alloc(ALIGNMENT, BYTES);
	int fd[DEVICES];

	if (argc < 2 || argc > DEVICES + 1 || !buffer)
		return 1;
	for (int n = 0; n < argc - 1; n++)
		if ((fd[n] = open(argv[n + 1], O_RDONLY | O_DIRECT)) < 0)
			return 1;
	for (unsigned turn = 0; turn < TIMES; turn += IN_A_TURN)
		for (int n = 0; n < argc - 1; n++)
			for (unsigned k = turn; k < turn + IN_A_TURN; k++)
				took[n][k] = read_one(fd[n], buffer, k % PLACES);
	for (int n = 0; n < argc - 1; n++) {
		qsort(took[n], TIMES, sizeof(double), compare);
		printf("R %s %.0f %.0f\n", argv[n + 1], took[n][0], took[n][TIMES / 2]);
	}
	return 0;
}
