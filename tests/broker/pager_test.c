/*
 * The pager, with the kernel's pages that are missed, and a file of three sections of which it
 * hears block by block: so long as one of them has not come the pager stays, and whoever waits in
 * vain is seen. Each case is a process of its own, where the pager is a thread. The file is this
 * test's, and so is when a section has been read.
 */
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "process/mains.h"
#include "process/plan.h"
#include "vm/demand.h"
#include "vm/machine_internal.h"
#include "vm/saved_blocks.h"
#include "vm/saved_pages.h"

enum {
	FRAMES = 1024, /* the second half is nobody's: the pager leaves it to the kernel */
	ENTRIES = 3,
	ENTRY_GRAINS = 128, /* from one's begin to the next one's */
	ENTRY_FRAMES = 16,
	PATIENCE_S = 60,
	WORDS = SAVED_PAGE_BYTES / sizeof(uint64_t),
};

static struct saved_entry entries[ENTRIES] = {
	{ .at = 0, .first = 0, .pages = ENTRY_FRAMES },
	{ .at = ENTRY_GRAINS * SAVED_GRAIN_BYTES, .first = 100, .pages = ENTRY_FRAMES },
	{ .at = 2 * ENTRY_GRAINS * SAVED_GRAIN_BYTES, .first = 200, .pages = ENTRY_FRAMES },
};
static struct machine machine;
static int line; /* to the pager: which blocks there are */
static uint64_t *ram;
static bool gives_back; /* the machine, once the pager has read a section */

/* ---- in the place of what the pager calls ---- */

int __wrap_lockdown_before_threads(enum role role, const int *folders);
int __wrap_lockdown(enum role role);
const struct plan *__wrap_plan_of_process(void);
grant_set __wrap_role_grants_here(void);
int __wrap_saved_pages_open(int fd, struct saved_pages *ret);
int __wrap_saved_pages_file_bytes(int fd, uint64_t *ret);
int __wrap_saved_pages_read(const struct saved_pages *pages, uint32_t number, uint32_t count,
			    const uint8_t **ret);

int __wrap_lockdown_before_threads(enum role role, const int *folders)
{
	(void)role;
	(void)folders;
	return 0;
}

int __wrap_lockdown(enum role role)
{
	(void)role;
	return 0;
}

const struct plan *__wrap_plan_of_process(void)
{
	static const struct plan plan = { .source = "a file" };

	return &plan;
}

grant_set __wrap_role_grants_here(void) { return GRANT(GRANT_PAGES); }

int __wrap_saved_pages_open(int fd, struct saved_pages *ret)
{
	*ret = (struct saved_pages){ .fd = fd, .entry = entries, .entries = ENTRIES };
	return 0;
}

int __wrap_saved_pages_file_bytes(int fd, uint64_t *ret)
{
	(void)fd;
	*ret = (uint64_t)ENTRIES * ENTRY_GRAINS * SAVED_GRAIN_BYTES;
	return 0;
}

static uint64_t name_of(uint64_t frame) { return (frame + 1) * 0x9e3779b97f4a7c15; }

static void *give_back(void *frame)
{
	madvise(frame, SAVED_PAGE_BYTES, MADV_DONTNEED);
	return NULL;
}

/* Until the kernel has said it to the pager, which is here, and hears it later. */
static void begin_to_give_back(uint64_t frame)
{
	struct pollfd faults = { .fd = machine.demand.pages_fd, .events = POLLIN };
	pthread_t thread;

	if (pthread_create(&thread, NULL, give_back, ram + frame * WORDS) ||
	    poll(&faults, 1, PATIENCE_S * 1000) != 1)
		abort();
}

int __wrap_saved_pages_read(const struct saved_pages *pages, uint32_t number, uint32_t count,
			    const uint8_t **ret)
{
	static uint64_t data[ENTRY_FRAMES * WORDS];

	if (count != 1)
		abort();
	for (uint64_t n = 0; n < ENTRY_FRAMES; n++)
		data[n * WORDS] = name_of(pages->entry[number].first + n);
	if (gives_back)
		begin_to_give_back(3);
	gives_back = false;
	*ret = (const uint8_t *)data;
	return 0;
}

/* ---- the machine ---- */

struct touch { uint64_t frame, seen; sem_t done; };

static void *touch(void *argument)
{
	struct touch *touch = argument;

	touch->seen = *(volatile uint64_t *)(ram + touch->frame * WORDS);
	sem_post(&touch->done);
	return NULL;
}

static struct touch *begin_touch(uint64_t frame)
{
	struct touch *new = calloc(1, sizeof(*new));
	pthread_t thread;

	new->frame = frame;
	if (sem_init(&new->done, 0, 0) || pthread_create(&thread, NULL, touch, new))
		abort();
	return new;
}

static void expect(const char *what, bool got)
{
	if (got)
		return;
	printf("FAIL %s\n", what);
	fflush(stdout);
	_exit(1);
}

static void expect_seen(const char *what, struct touch *touched, uint64_t name)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	expect(what, !sem_timedwait(&touched->done, &until) && touched->seen == name);
}

static void tell(uint32_t entry)
{
	const struct saved_blocks_word word = { .block = (uint64_t)entry * ENTRY_GRAINS,
						.count = ENTRY_GRAINS };

	if (write(line, &word, sizeof(word)) != sizeof(word))
		abort();
}

/* The pager has heard who waits for this section, and asks for it. */
static void wait_for_want(uint32_t entry)
{
	struct saved_blocks_word word = { .count = 0 };

	while (!word.count)
		if (read(line, &word, sizeof(word)) != sizeof(word))
			abort();
	expect("the section that is missed is wanted", word.block == entry * ENTRY_GRAINS);
}

/* Another mapping in a page's place, as one that is lent is. */
static void lend(uint64_t frame)
{
	if (mmap(ram + frame * WORDS, SAVED_PAGE_BYTES, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		abort();
}

/* All sections come; every frame is what it was, but this one, which is zeros. */
static void end_well(uint64_t but)
{
	for (uint32_t entry = 0; entry < ENTRIES; entry++)
		tell(entry);
	expect("all of it is there", !demand_wait_whole(&machine));
	for (uint32_t entry = 0; entry < ENTRIES; entry++)
		for (uint64_t n = 0; n < ENTRY_FRAMES; n++) {
			const uint64_t frame = entries[entry].first + n;

			expect("a page is what it was",
			       ram[frame * WORDS] == (frame == but ? 0 : name_of(frame)));
		}
}

/* ---- cases ---- */

static void beside_what_is_left(void)
{
	expect_seen("zeros before a range without pages", begin_touch(FRAMES / 2 - 2), 0);
	end_well(FRAMES);
}

static void beside_what_is_lent(void)
{
	struct touch *lent;

	lend(302);
	expect_seen("zeros before a page that is lent", begin_touch(300), 0);
	lent = begin_touch(5);
	wait_for_want(0);
	lend(5);
	tell(0);
	expect_seen("who waits for a page that was lent goes on", lent, 0);
	end_well(5);
}

static void given_back_while_wanted(void)
{
	struct touch *touched = begin_touch(3);

	wait_for_want(0);
	give_back(ram + 3 * WORDS);
	expect_seen("who waits for a page that is given back has zeros", touched, 0);
	end_well(3);
}

static void given_back_while_brought(void)
{
	struct touch *touched = begin_touch(3);

	wait_for_want(0);
	gives_back = true;
	tell(0);
	expect_seen("who waits for a page that is given back as it comes has zeros", touched, 0);
	end_well(3);
}

static struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "beside a range that is left", beside_what_is_left },
	{ "beside a page that is lent", beside_what_is_lent },
	{ "given back while it is wanted", given_back_while_wanted },
	{ "given back while it is brought", given_back_while_brought },
};

static void *page(void *unused)
{
	(void)unused;
	pager_main();
	return NULL;
}

static void grant(enum grant what, int fd)
{
	if (dup2(fd, grant_fd(what)) < 0)
		abort();
}

static void begin(void)
{
	int pages[2];
	int pager[2];
	int end[2];
	pthread_t thread;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pages) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, pager) || pipe(end))
		abort();
	grant(GRANT_PAGES, pages[1]);
	grant(GRANT_PAGER, pager[1]);
	grant(GRANT_END, end[0]);
	line = pages[0];
	ram = mmap(NULL, (size_t)FRAMES * SAVED_PAGE_BYTES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	machine.memory.ram = (void *)ram;
	machine.memory.ram_bytes = (uint64_t)FRAMES * SAVED_PAGE_BYTES;
	machine.options.has_pager = true;
	machine.options.pager_fd = pager[0];
	if (ram == MAP_FAILED || pthread_create(&thread, NULL, page, NULL))
		abort();
	demand_begin(&machine);
	expect("it is served", demand_is_served(&machine));
}

int main(void)
{
	int failures = 0;

	for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		int status = 1;
		const pid_t child = fork();

		if (!child) {
			begin();
			cases[n].run();
			_exit(0);
		}
		waitpid(child, &status, 0);
		printf("%s %s\n", status ? "FAIL" : "ok  ", cases[n].name);
		fflush(stdout);
		failures += status != 0;
	}
	return failures != 0;
}
