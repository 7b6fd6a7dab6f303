/*
 * Nobody waits for ever for a page that was missed while its range was left. Every page is a range
 * of the kernel's own, so that threads which touch them in their order meet each as it is left.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/missed_pages.h"

/* Newer than the headers of some hosts. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum { PAGE_BYTES = 4096, PAGES = 256, STEP_MOST = 100, TOUCHERS = 2, ROUNDS = 600 };
enum { LOOKS = 10000, WAIT_S = 30 };

struct scene {
	uint8_t *pages;
	int pages_fd;
	atomic_uint round, done; /* done: touchers of this round */
};

struct toucher {
	struct scene *scene;
	unsigned seed;
	pthread_t thread;
};

static void *touch(void *context)
{
	struct toucher *toucher = context;
	struct scene *scene = toucher->scene;

	for (unsigned round = 1; round <= ROUNDS; round++) {
		for (unsigned looks = 0; atomic_load(&scene->round) < round; looks++)
			if (looks < LOOKS) /* who sleeps comes too late */
				__builtin_ia32_pause();
			else
				sched_yield();
		for (unsigned n = 0; n < PAGES; n += 1 + rand_r(&toucher->seed) % STEP_MOST)
			(void)*(volatile uint8_t *)(scene->pages + n * PAGE_BYTES);
		atomic_fetch_add(&scene->done, 1);
	}
	return NULL;
}

static int begin(struct scene *scene)
{
	struct uffdio_api api = { .api = UFFD_API };

	scene->pages_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	scene->pages = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (scene->pages_fd < 0 || scene->pages == MAP_FAILED ||
	    ioctl(scene->pages_fd, UFFDIO_API, &api))
		return -1;
	for (unsigned n = 0; n < PAGES; n += 2)
		if (mprotect(scene->pages + n * PAGE_BYTES, PAGE_BYTES, PROT_READ))
			return -1;
	return 0;
}

static int leave_round(struct scene *scene, unsigned round)
{
	struct uffdio_register range = { .range = { .start = (uintptr_t)scene->pages,
						    .len = PAGES * PAGE_BYTES },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (madvise(scene->pages, PAGES * PAGE_BYTES, MADV_DONTNEED) ||
	    ioctl(scene->pages_fd, UFFDIO_REGISTER, &range))
		return -1;
	atomic_store(&scene->done, 0);
	atomic_store(&scene->round, round);
	missed_pages_leave(scene->pages_fd, range.range.start, range.range.len);
	alarm(WAIT_S);
	while (atomic_load(&scene->done) < TOUCHERS)
		sched_yield();
	return 0;
}

int main(void)
{
	static struct scene scene;
	struct toucher touchers[TOUCHERS];

	if (begin(&scene)) {
		perror("missed pages");
		return EXIT_FAILURE;
	}
	for (unsigned n = 0; n < TOUCHERS; n++) {
		touchers[n] = (struct toucher){ .scene = &scene, .seed = n };
		if (pthread_create(&touchers[n].thread, NULL, touch, &touchers[n]))
			return EXIT_FAILURE;
	}
	for (unsigned round = 1; round <= ROUNDS; round++)
		if (leave_round(&scene, round)) {
			perror("a round");
			return EXIT_FAILURE;
		}
	for (unsigned n = 0; n < TOUCHERS; n++)
		pthread_join(touchers[n].thread, NULL);
	printf("ok   whoever missed a page went on\n");
	return EXIT_SUCCESS;
}
