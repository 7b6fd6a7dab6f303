/*
 * Two machines' memory in random sequences of what may happen to it, against a model: pages are
 * lent, accessed, released, ended, revoked, written by both sides, reported as cold, ballooned and
 * given back; a machine is forked, saved and restored, killed; and what a hostile process does that
 * keeps a window writes into all of it at any time. Each page has what the model says, whoever
 * looks; no page is both lent and discarded; a fork has its parent's bytes and changes none.
 * model_test STEPS SEED. Prints TAP.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/dynamic_memory/pages.h"
#include "device/share/lend_table.h"
#include "ipc/spawn.h"
#include "memory/memory.h"

enum { RAM_PAGES = 96, MOST_RUN = 12, MACHINES = 2, FORKS_EVERY = 16, WORDS = 512 };

/* What a page has in all of its words; where: the lend that has it, 0: none. */
struct model_page { uint64_t stamp; uint32_t lend; bool in_balloon; };
struct model_lend { uint32_t id, pages, accesses; bool ending; uint64_t gfn[MOST_RUN]; };

struct machine {
	struct guest_memory memory;
	struct lend_table table;
	struct pages pages;
	struct share_window *window;
	struct model_page page[RAM_PAGES];
	struct model_lend lend[LENDS];
};

static struct machine machines[MACHINES];
static uint64_t state, last_stamp;
static unsigned done[16];

static uint64_t rnd(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void must(const char *what, bool good)
{
	if (good)
		return;
	printf("not ok - %s\n", what);
	exit(1);
}

static uint64_t *words_of(const struct machine *machine, uint64_t gfn)
{
	return (uint64_t *)(void *)(machine->memory.ram + gfn * GUEST_PAGE_BYTES);
}

static void fill(uint64_t *words, uint64_t stamp)
{
	for (unsigned n = 0; n < WORDS; n++)
		words[n] = stamp;
}

static bool is_filled(const uint64_t *words, uint64_t stamp)
{
	for (unsigned n = 0; n < WORDS; n++)
		if (words[n] != stamp)
			return false;
	return true;
}

static void *map(size_t bytes, int fd)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	must("memory", at != MAP_FAILED);
	return at;
}

static void written(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	(void)bytes;
}

/* ---- machines ---- */

static void make_machine(struct machine *machine, struct share_window *window, unsigned side)
{
	const size_t bytes = RAM_PAGES * (size_t)GUEST_PAGE_BYTES;

	*machine = (struct machine){ .window = window };
	guest_memory_init(&machine->memory, map(guest_memory_footprint_bytes(bytes), -1), bytes,
			  bytes);
	machine->table = (struct lend_table){
		.lender = lender_create(&machine->memory, written, NULL),
		.half[0].page = window->page[side],
	};
	must("a lender", machine->table.lender != NULL);
	must("pages", !pages_make(&machine->pages, &machine->memory, 8 * GUEST_PAGE_BYTES));
}

static void destroy_machine(struct machine *machine)
{
	const size_t bytes = RAM_PAGES * (size_t)GUEST_PAGE_BYTES;

	lender_destroy(machine->table.lender);
	pages_free(&machine->pages);
	munmap(machine->memory.ram, guest_memory_footprint_bytes(bytes));
	munmap(machine->window, sizeof(*machine->window));
}

/* The same memory, in each of them: two mappings, as two processes have. */
static void make_windows(struct share_window *ret[MACHINES])
{
	const int fd = spawn_share("window", sizeof(struct share_window));

	for (unsigned n = 0; n < MACHINES; n++)
		ret[n] = map(sizeof(struct share_window), fd);
	close(fd);
}

static void check_machine(const struct machine *machine)
{
	for (uint64_t gfn = 0; gfn < RAM_PAGES; gfn++) {
		const struct model_page *page = &machine->page[gfn];

		must("a page has what was written", is_filled(words_of(machine, gfn), page->stamp));
		must("what is lent is held, and nothing else",
		     lender_holds_pages(machine->table.lender, gfn, 1) == (page->lend != 0));
	}
	check_lends(&machine->table);
	check_pages(&machine->pages);
}

/* ---- lends ---- */

static struct model_lend *some_lend(struct machine *machine, struct lend **ret)
{
	struct model_lend *model = &machine->lend[rnd(LENDS)];

	for (unsigned n = 0; n < LENDS && !model->id; n++)
		model = &machine->lend[n];
	*ret = model->id ? lend_find(&machine->table, model->id) : NULL;
	must("what is lent is found", !model->id || *ret);
	return model->id ? model : NULL;
}

static bool may_be_lent(const struct machine *machine, const uint64_t *gfn, uint32_t pages)
{
	for (uint32_t n = 0; n < pages; n++) {
		if (gfn[n] >= RAM_PAGES || machine->page[gfn[n]].lend)
			return false;
		for (uint32_t k = 0; k < n; k++)
			if (gfn[k] == gfn[n])
				return false;
	}
	return true;
}

static void keep_lend(struct machine *machine, const struct lend *lend, const uint64_t *gfn)
{
	struct model_lend *model = machine->lend;

	while (model->id)
		model++;
	*model = (struct model_lend){ .id = lend->id, .pages = lend->pages };
	for (uint32_t n = 0; n < lend->pages; n++) {
		model->gfn[n] = gfn[n];
		machine->page[gfn[n]].lend = lend->id;
	}
}

/* Runs, and pages from anywhere; some that are none, lent already, or named twice. */
static void do_lend(struct machine *machine)
{
	const uint32_t pages = 1 + (uint32_t)rnd(MOST_RUN);
	struct lend *lend = lend_ask(&machine->table, pages, false);
	const bool is_run = rnd(2);
	uint64_t gfn[MOST_RUN];
	int error;

	if (!lend)
		return;
	gfn[0] = rnd(RAM_PAGES + (rnd(8) ? 0 : 4));
	for (uint32_t n = 1; n < pages; n++)
		gfn[n] = is_run ? gfn[n - 1] + 1 : rnd(RAM_PAGES);
	for (uint32_t n = 0; n < pages; n++)
		lend_frames(&machine->table, lend)[n] = gfn[n];
	error = lend_begin(&machine->table, lend);
	must("pages are lent if they may be", !error == may_be_lent(machine, gfn, pages));
	if (!error)
		keep_lend(machine, lend, gfn);
}

static void forget_lend(struct machine *machine, struct model_lend *model)
{
	for (uint32_t n = 0; n < model->pages; n++)
		machine->page[model->gfn[n]].lend = 0;
	model->id = 0;
}

static void end_lend(struct machine *machine, struct model_lend *model, struct lend *lend)
{
	const uint32_t first = lend->first;

	lend_end(&machine->table, lend);
	for (uint32_t n = 0; n < model->pages; n++)
		must("the window keeps nothing",
		     is_filled((uint64_t *)(void *)machine->table.half[0].page[first + n], 0));
	forget_lend(machine, model);
}

/* An access begins or ends; what ends waits for the last. */
static void do_access(struct machine *machine)
{
	struct lend *lend;
	struct model_lend *model = some_lend(machine, &lend);

	if (!model)
		return;
	if (rnd(2)) {
		must("an access begins if it may", lend_use(lend) == !model->ending);
		model->accesses += !model->ending;
		return;
	}
	const bool is_last = model->accesses == 1 && model->ending;

	must("the last release ends it", lend_release(lend) == is_last);
	model->accesses -= model->accesses != 0;
	if (is_last)
		end_lend(machine, model, lend);
}

static void do_end(struct machine *machine)
{
	struct lend *lend;
	struct model_lend *model = some_lend(machine, &lend);

	if (!model)
		return;
	lend->state = LEND_ENDING;
	model->ending = true;
	if (!model->accesses || !rnd(4)) /* at once */
		end_lend(machine, model, lend);
}

static void end_all(struct machine *machine)
{
	for (unsigned n = 0; n < LENDS; n++)
		if (machine->lend[n].id)
			end_lend(machine, &machine->lend[n],
				 lend_find(&machine->table, machine->lend[n].id));
}

/* ---- writes ---- */

static void do_write(struct machine *machine)
{
	const uint64_t gfn = rnd(RAM_PAGES);

	machine->page[gfn].stamp = ++last_stamp;
	fill(words_of(machine, gfn), last_stamp);
}

/* The other machine's process, into a page that it may write, or into what is nobody's. */
static void do_peer_write(struct machine *machine, const struct machine *peer)
{
	const unsigned side = machine->table.half[0].page == machine->window->page[1];
	const uint32_t at = (uint32_t)rnd(SHARE_WINDOW_PAGES);
	uint64_t *words = (uint64_t *)(void *)peer->window->page[side][at];

	for (unsigned n = 0; n < LENDS; n++) {
		const struct model_lend *model = &machine->lend[n];
		const struct lend *lend = model->id ? lend_find(&machine->table, model->id) : NULL;

		if (!lend || at < lend->first || at - lend->first >= lend->pages)
			continue;
		must("the other side sees what is lent",
		     is_filled(words, machine->page[model->gfn[at - lend->first]].stamp));
		machine->page[model->gfn[at - lend->first]].stamp = ++last_stamp;
	}
	fill(words, last_stamp);
}

/* ---- the balloon ---- */

static void discard(struct machine *machine, uint64_t gfn)
{
	if (lender_holds_pages(machine->table.lender, gfn, 1))
		return;
	must("a discard", !madvise(words_of(machine, gfn), GUEST_PAGE_BYTES, MADV_DONTNEED));
	machine->page[gfn].stamp = 0;
}

static void do_inflate(struct machine *machine)
{
	const uint64_t gfn = rnd(RAM_PAGES + 2);
	const uint64_t count = 1 + rnd(6);
	bool may = gfn + count <= RAM_PAGES;

	for (uint64_t n = gfn; may && n < gfn + count; n++)
		may = !machine->page[n].in_balloon;
	must("pages go into the balloon if they may",
	     !pages_inflate(&machine->pages, gfn, count) == may);
	for (uint64_t n = gfn; may && n < gfn + count; n++) {
		machine->page[n].in_balloon = true;
		discard(machine, n);
	}
}

static void do_deflate(struct machine *machine)
{
	uint64_t gfn, count;

	if (!machine->pages.inflated)
		return;
	count = pages_deflate(&machine->pages, 1 + rnd(8), &gfn);
	for (uint64_t n = gfn; n < gfn + count; n++) {
		must("what comes back was in it", machine->page[n].in_balloon);
		machine->page[n].in_balloon = false;
	}
}

/* ---- forks, saves, deaths ---- */

/* The child sees its parent's bytes, writes all of its own, and none of the parent's. */
static void fork_machine(struct machine *machine)
{
	const pid_t child = fork();
	int status;

	must("a fork", child >= 0);
	if (!child) {
		bool good = true;

		for (uint64_t gfn = 0; gfn < RAM_PAGES; gfn++) {
			good &= is_filled(words_of(machine, gfn), machine->page[gfn].stamp);
			fill(words_of(machine, gfn), ~0ull);
		}
		_exit(!good);
	}
	must("a fork has its parent's bytes",
	     waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
}

/* What may be forked or saved has lent nothing. */
static void do_fork(struct machine *machine)
{
	if (rnd(FORKS_EVERY))
		return;
	end_all(machine);
	fork_machine(machine);
}

static void do_restore(struct machine *machine, unsigned side)
{
	const size_t bytes = RAM_PAGES * (size_t)GUEST_PAGE_BYTES;
	struct machine before;
	uint8_t *saved;

	if (rnd(FORKS_EVERY))
		return;
	end_all(machine);
	saved = malloc(bytes);
	must("memory", saved != NULL);
	memcpy(saved, machine->memory.ram, bytes);
	before = *machine;
	make_machine(machine, map(sizeof(struct share_window), -1), side);
	munmap(machine->window, sizeof(*machine->window));
	machine->window = before.window;
	machine->table.half[0].page = before.table.half[0].page;
	memcpy(machine->memory.ram, saved, bytes);
	memcpy(machine->page, before.page, sizeof(machine->page));
	for (uint64_t gfn = 0; gfn < RAM_PAGES; gfn++)
		if (machine->page[gfn].in_balloon)
			must("its balloon", !pages_inflate(&machine->pages, gfn, 1));
	lender_destroy(before.table.lender);
	pages_free(&before.pages);
	munmap(before.memory.ram, guest_memory_footprint_bytes(bytes));
	free(saved);
}

/* One dies in the middle: the other one's pages come back, and both have another window. */
static void do_kill(unsigned n)
{
	struct machine *survivor = &machines[!n];
	struct share_window *windows[MACHINES];

	if (rnd(FORKS_EVERY))
		return;
	destroy_machine(&machines[n]);
	end_all(survivor);
	munmap(survivor->window, sizeof(*survivor->window));
	make_windows(windows);
	make_machine(&machines[n], windows[n], n);
	survivor->window = windows[!n];
	survivor->table.half[0].page = survivor->window->page[!n];
}

static void step(void)
{
	const unsigned n = (unsigned)rnd(MACHINES);
	struct machine *machine = &machines[n];
	const unsigned act = (unsigned)rnd(11);

	done[act]++;
	switch (act) {
	case 0:
	case 1: do_lend(machine); break;
	case 2: do_access(machine); break;
	case 3: do_end(machine); break;
	case 4: do_write(machine); break;
	case 5: do_peer_write(machine, &machines[!n]); break;
	case 6: do_inflate(machine); break;
	case 7: do_deflate(machine); break;
	case 8: do_fork(machine); break;
	case 9: do_restore(machine, n); break;
	default: do_kill(n); break;
	}
	check_machine(machine);
}

int main(int argc, char **argv)
{
	const unsigned steps = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 4000;
	struct share_window *windows[MACHINES];

	state = 88172645463325252ull + (argc > 2 ? strtoull(argv[2], NULL, 0) * 2654435761u : 0);
	make_windows(windows);
	for (unsigned n = 0; n < MACHINES; n++)
		make_machine(&machines[n], windows[n], n);
	for (unsigned n = 0; n < steps; n++)
		step();
	for (unsigned n = 0; n < MACHINES; n++) {
		end_all(&machines[n]);
		check_machine(&machines[n]);
		destroy_machine(&machines[n]);
	}
	printf("ok 1 - %u steps: %u lends, %u forks, %u restores, %u deaths drawn\n1..1\n", steps,
	       done[0] + done[1], done[8], done[9], done[10]);
	return 0;
}
