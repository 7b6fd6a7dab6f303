/*
 * copies-bench FILE: what it takes to bring a MiB of a file from one thread to another one's pages,
 * as a disk process and a machine process do, four under way: by slots that both have (two copies:
 * file, slot, page), or by pipes that the file's pages are spliced into (one). Each line: time for
 * a MiB, and processor time of either side, the least of ROUNDS, the ways in turns.
 */
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, PAGE = 1 << 12, PAGES = PIECE / PAGE, SLOTS = 4, ROUNDS = 10 };

struct way;
struct bench {
	int fd, pipe[SLOTS][2];
	size_t pieces;
	uint8_t *slots, *pages;
	sem_t free, full;
	double used_us[2];
	const struct way *way;
};

struct way {
	const char *name;
	void (*bring)(struct bench *bench, unsigned slot, off_t at);
	void (*take)(struct bench *bench, unsigned slot);
};

static double now_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(1);
}

static void bring_slot(struct bench *bench, unsigned slot, off_t at)
{
	expect(pread(bench->fd, bench->slots + slot * (size_t)PIECE, PIECE, at) == PIECE, "pread");
}

static void take_slot(struct bench *bench, unsigned slot)
{
	for (size_t n = 0; n < PIECE; n += PAGE)
		memcpy(bench->pages + slot * (size_t)PIECE + n,
		       bench->slots + slot * (size_t)PIECE + n, PAGE);
}

static void bring_pipe(struct bench *bench, unsigned slot, off_t at)
{
	ssize_t got;

	for (size_t done = 0; done < PIECE; done += (size_t)got) {
		got = splice(bench->fd, &at, bench->pipe[slot][1], NULL, PIECE - done,
			     SPLICE_F_NONBLOCK);
		expect(got > 0, "splice");
	}
}

static void take_pipe(struct bench *bench, unsigned slot)
{
	struct iovec page[PAGES];

	for (size_t n = 0; n < PAGES; n++)
		page[n] = (struct iovec){ bench->pages + slot * (size_t)PIECE + n * PAGE, PAGE };
	expect(readv(bench->pipe[slot][0], page, PAGES) == PIECE, "readv");
}

static const struct way ways[] = {
	{ "by slots", bring_slot, take_slot },
	{ "by pipes", bring_pipe, take_pipe },
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static void *disk_side(void *context)
{
	struct bench *bench = context;
	const double begin = now_us(CLOCK_THREAD_CPUTIME_ID);

	for (size_t n = 0; n < bench->pieces; n++) {
		sem_wait(&bench->free);
		bench->way->bring(bench, n % SLOTS, (off_t)n * PIECE);
		sem_post(&bench->full);
	}
	bench->used_us[0] = now_us(CLOCK_THREAD_CPUTIME_ID) - begin;
	return NULL;
}

static void machine_side(struct bench *bench)
{
	const double begin = now_us(CLOCK_THREAD_CPUTIME_ID);

	for (size_t n = 0; n < bench->pieces; n++) {
		sem_wait(&bench->full);
		bench->way->take(bench, n % SLOTS);
		sem_post(&bench->free);
	}
	bench->used_us[1] = now_us(CLOCK_THREAD_CPUTIME_ID) - begin;
}

static double run(struct bench *bench, const struct way *way)
{
	const double begin = now_us(CLOCK_MONOTONIC);
	pthread_t disk;

	bench->way = way;
	sem_init(&bench->free, 0, SLOTS);
	sem_init(&bench->full, 0, 0);
	expect(!pthread_create(&disk, NULL, disk_side, bench), "pthread_create");
	machine_side(bench);
	pthread_join(disk, NULL);
	return now_us(CLOCK_MONOTONIC) - begin;
}

static void begin(struct bench *bench, const char *file)
{
	const int protection = PROT_READ | PROT_WRITE;
	const int how = MAP_ANONYMOUS | MAP_POPULATE;
	struct stat status;

	bench->fd = open(file, O_RDONLY);
	expect(bench->fd >= 0 && !fstat(bench->fd, &status), file);
	bench->pieces = (size_t)status.st_size / PIECE;
	expect(bench->pieces > 0, "a file of a MiB or more");
	bench->slots = mmap(NULL, SLOTS * PIECE, protection, how | MAP_SHARED, -1, 0);
	bench->pages = mmap(NULL, SLOTS * PIECE, protection, how | MAP_PRIVATE, -1, 0);
	expect(bench->slots != MAP_FAILED && bench->pages != MAP_FAILED, "mmap");
	for (unsigned n = 0; n < SLOTS; n++)
		expect(!pipe(bench->pipe[n]) &&
			       fcntl(bench->pipe[n][1], F_SETPIPE_SZ, PIECE) == PIECE,
		       "pipe");
}

int main(int argc, char **argv)
{
	static struct bench bench;
	double least[WAYS][3];

	expect(argc == 2, "copies-bench FILE");
	begin(&bench, argv[1]);
	for (unsigned round = 0; round < ROUNDS; round++)
		for (unsigned n = 0; n < WAYS; n++) {
			const double took = run(&bench, &ways[n]);
			const double used = bench.used_us[0] + bench.used_us[1];

			if (!round || took < least[n][0])
				least[n][0] = took;
			if (!round || used < least[n][1] + least[n][2])
				memcpy(&least[n][1], bench.used_us, sizeof(bench.used_us));
		}
	for (unsigned n = 0; n < WAYS; n++)
		printf("%s: %.1f us a MiB; disk's side %.1f, machine's %.1f us of a processor\n",
		       ways[n].name, least[n][0] / (double)bench.pieces,
		       least[n][1] / (double)bench.pieces, least[n][2] / (double)bench.pieces);
	return 0;
}
