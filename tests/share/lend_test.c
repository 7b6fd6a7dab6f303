/*
 * Pages that are lent and come back, in random order, against a model, with a peer that writes into
 * all of the window at any time, as a hostile machine process may: what is not lent never changes,
 * and of what has come back the window keeps nothing. What is lent to be read it cannot write.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/share/lend_table.h"
#include "ipc/port_window.h"
#include "ipc/spawn.h"
#include "memory/memory.h"

enum { RAM_PAGES = 400, STEPS = 20000, MOST_RUN = 40, MANY_PAGES = 4000, RUN_PAGES = 64 };

static int failures;
static struct guest_memory memory;
static struct share_window *window, *peers;
static uint8_t (*only)[GUEST_PAGE_BYTES]; /* what the peer only reads, by a descriptor of its own */
static int only_fd, peers_fd;
static struct lend_table table;
static unsigned told;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

static void written(void *context, uint64_t gpa, size_t bytes)
{
	(void)context;
	(void)gpa;
	told += bytes / GUEST_PAGE_BYTES;
}

static int open_to_read(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY);
}

static void make(void)
{
	const size_t bytes = guest_memory_footprint_bytes(RAM_PAGES * GUEST_PAGE_BYTES);
	const int fd = spawn_share("window", sizeof(*window));
	uint8_t *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	only_fd = memfd_create("window", MFD_ALLOW_SEALING);
	if (ftruncate(only_fd, WINDOW_HALF_BYTES))
		abort();
	only = mmap(NULL, WINDOW_HALF_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, only_fd, 0);
	peers_fd = open_to_read(only_fd);
	window = mmap(NULL, sizeof(*window), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	peers = mmap(NULL, sizeof(*peers), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ram == MAP_FAILED || window == MAP_FAILED || peers == MAP_FAILED ||
	    (void *)only == MAP_FAILED)
		abort();
	guest_memory_init(&memory, ram, RAM_PAGES * GUEST_PAGE_BYTES,
			  RAM_PAGES * GUEST_PAGE_BYTES);
	memory.window_bytes = SHARE_WINDOW_PAGES * GUEST_PAGE_BYTES;
	table = (struct lend_table){ .lender = lender_create(&memory, written, NULL),
				     .half = { { .page = window->page[0] }, { .page = only } } };
	for (unsigned n = 0; n < RAM_PAGES; n++)
		memset(ram + n * GUEST_PAGE_BYTES, (int)n, GUEST_PAGE_BYTES);
}

static uint8_t *page(uint64_t gfn) { return memory.ram + gfn * GUEST_PAGE_BYTES; }

static struct lend *lend_run(uint64_t gfn, uint32_t pages)
{
	struct lend *lend = lend_ask(&table, pages, false);

	for (uint32_t n = 0; lend && n < pages; n++)
		lend_frames(&table, lend)[n] = gfn + n;
	return lend;
}

static struct lend *lend_to_read(uint64_t gfn, uint32_t pages)
{
	struct lend *lend = lend_ask(&table, pages, true);

	for (uint32_t n = 0; lend && n < pages; n++)
		lend_frames(&table, lend)[n] = gfn + n;
	return lend;
}

static void both_see(void)
{
	struct lend *lend = lend_run(3, 2);
	uint8_t *theirs = peers->page[0][lend->first];

	expect("pages are lent", !lend_begin(&table, lend) && told == 2);
	expect("with what was in them", theirs[0] == 3 && theirs[GUEST_PAGE_BYTES] == 4);
	theirs[10] = 77;
	page(4)[20] = 78;
	expect("what one writes the other reads",
	       page(3)[10] == 77 && theirs[GUEST_PAGE_BYTES + 20] == 78);
	lend_end(&table, lend);
	expect("they keep it", page(3)[10] == 77 && page(4)[20] == 78);
	expect("the window does not", !theirs[0] && !theirs[GUEST_PAGE_BYTES + 20]);
	memset(theirs, 0xee, 2 * GUEST_PAGE_BYTES);
	expect("nobody else writes them any more", page(3)[0] == 3 && page(4)[0] == 4);
	page(3)[0] = 99;
	expect("or reads them", theirs[0] == 0xee);
	page(3)[0] = page(3)[10] = 3;
	page(4)[20] = 4;
}

static void refused(void)
{
	const uint64_t window_gfn = GUEST_WINDOW_GPA / GUEST_PAGE_BYTES;
	struct lend *one = lend_run(10, 1);
	struct lend *other;

	lend_begin(&table, one);
	other = lend_run(9, 3);
	expect("a page is lent once", lend_begin(&table, other) == -EBUSY);
	expect("and none of the others then", page(9)[0] == 9 && peers->page[0][1][0] != 9);
	other = lend_run(9, 3);
	lend_frames(&table, other)[1] = 12;
	lend_frames(&table, other)[2] = 10;
	expect("nor where it is not beside them", lend_begin(&table, other) == -EBUSY);
	expect("of which nothing was seen", page(12)[0] == 12 && !peers->page[0][1][0] &&
					       !peers->page[0][2][0]);
	other = lend_run(9, 2);
	lend_frames(&table, other)[1] = 9;
	expect("nor twice in one run", lend_begin(&table, other) == -EBUSY && page(9)[0] == 9);
	expect("nothing is left of it", !lend_find(&table, 3) && page(11)[0] == 11);
	expect("no RAM", lend_begin(&table, lend_run(RAM_PAGES, 1)) == -EFAULT);
	expect("the window is none", lend_begin(&table, lend_run(window_gfn, 1)) == -EFAULT);
	expect("no address", lend_begin(&table, lend_run(UINT64_MAX - 1, 1)) == -EFAULT);
	expect("no page at all", !lend_ask(&table, 0, false));
	expect("more than the half", !lend_ask(&table, SHARE_WINDOW_PAGES, false));
	lend_end(&table, one);
}

static void counts(void)
{
	struct lend *lend = lend_run(20, 1);

	expect("no access to what is only asked for", !lend_use(lend) && !lend_release(lend));
	lend_begin(&table, lend);
	expect("no release of nothing", !lend_release(lend) && !lend->accesses);
	lend->once = true;
	expect("two accesses", lend_use(lend) && lend_use(lend));
	expect("one release is not the last", !lend_release(lend));
	expect("the second is", lend_release(lend));
	lend->once = false;
	for (unsigned n = 0; n < LEND_MOST_ACCESSES; n++)
		if (!lend_use(lend))
			abort();
	expect("no more than may be", !lend_use(lend) && lend->accesses == LEND_MOST_ACCESSES);
	lend->state = LEND_ENDING;
	expect("and none once it ends", !lend_use(lend));
	lend_end(&table, lend);
}

/* ---- what the other only reads ---- */

/* All that a lost machine process could think of, and more than its list of calls lets it. */
enum { HOSTILE_ACTS = 15 };

static bool hostile_act(unsigned act, uint8_t *at)
{
	const struct iovec from = { .iov_base = (void *)"x", .iov_len = 1 };
	const struct iovec to = { .iov_base = at, .iov_len = 1 };
	const int rw = PROT_READ | PROT_WRITE;
	char path[32];
	uint8_t *again;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", peers_fd);
	switch (act) {
	case 0: return !mprotect(at, GUEST_PAGE_BYTES, rw);
	case 1: return mmap(NULL, GUEST_PAGE_BYTES, rw, MAP_SHARED, peers_fd, 0) != MAP_FAILED;
	case 2: return !ftruncate(peers_fd, 0);
	case 3: return write(peers_fd, "x", 1) == 1 || pwrite(peers_fd, "x", 1, 0) == 1;
	case 4: return !fallocate(peers_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				  GUEST_PAGE_BYTES);
	case 5: return !madvise(at, GUEST_PAGE_BYTES, MADV_REMOVE);
	case 6: return !fcntl(peers_fd, F_ADD_SEALS, F_SEAL_WRITE);
	case 7:
		again = mremap(at, 0, GUEST_PAGE_BYTES, MREMAP_MAYMOVE);
		return again != MAP_FAILED && !mprotect(again, GUEST_PAGE_BYTES, rw);
	case 8:
		again = mremap(at, GUEST_PAGE_BYTES, GUEST_PAGE_BYTES,
			       MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
		return again != MAP_FAILED && !mprotect(again, GUEST_PAGE_BYTES, rw);
	case 9: return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 1;
	case 10: /* as a tracer writes */
		fd = open("/proc/self/mem", O_RDWR);
		return fd >= 0 && pwrite(fd, "x", 1, (off_t)(uintptr_t)at) == 1;
	case 11: /* with another descriptor of it, which its list of calls does not let it open */
		fd = open(path, O_RDWR);
		return fd >= 0 && (write(fd, "x", 1) == 1 ||
				   mmap(NULL, GUEST_PAGE_BYTES, rw, MAP_SHARED, fd, 0) !=
					   MAP_FAILED);
	case 12:
		fd = open(path, O_RDWR);
		return fd >= 0 && !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					     GUEST_PAGE_BYTES);
	case 13: /* its own copy is nobody else's */
		again = mmap(NULL, GUEST_PAGE_BYTES, rw, MAP_PRIVATE, peers_fd, 0);
		if (again != MAP_FAILED)
			*again = 'x';
		return false;
	default: /* a store */
		*(volatile uint8_t *)at = 'x';
		return true;
	}
}

static int hostile_child(unsigned act, uint8_t *at)
{
	int status = 0;
	pid_t child = fork();

	if (!child) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		_exit(hostile_act(act, at));
	}
	waitpid(child, &status, 0);
	return status;
}

/* The peer has the descriptor that reads, and whatever a process of the user's may do. */
static void only_read(void)
{
	uint8_t *theirs = mmap(NULL, WINDOW_HALF_BYTES, PROT_READ, MAP_SHARED, peers_fd, 0);
	struct lend *lend = lend_to_read(30, 2);
	struct lend *other = lend_run(32, 1);
	bool is_kept = true;

	if (theirs == MAP_FAILED ||
	    fcntl(only_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL | F_SEAL_GROW))
		abort();
	expect("pages are lent to be read, and others", !lend_begin(&table, lend) &&
								!lend_begin(&table, other));
	expect("each in its place", lend->first == 0 && other->first == 0 && theirs[0] == 30 &&
					    theirs[GUEST_PAGE_BYTES] == 31 &&
					    peers->page[0][0][0] == 32);
	page(30)[9] = 7;
	expect("what is written is read", theirs[9] == 7);
	for (unsigned act = 0; act < HOSTILE_ACTS; act++) {
		const int status = hostile_child(act, theirs);

		if (act + 1 == HOSTILE_ACTS)
			is_kept &= WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
		else
			is_kept &= WIFEXITED(status) && !WEXITSTATUS(status);
		is_kept &= page(30)[0] == 30 && page(30)[9] == 7 && only[0][0] == 30;
		if (!is_kept)
			printf("# act %u: %x\n", act, (unsigned)status);
	}
	expect("and written by nobody else, whatever it calls", is_kept);
	page(31)[9] = 6;
	lend_end(&table, lend);
	lend_end(&table, other);
	expect("they come back", page(30)[0] == 30 && page(31)[9] == 6 && page(32)[0] == 32);
	expect("and nothing is left to read", !theirs[0] && !theirs[GUEST_PAGE_BYTES + 9]);
	page(30)[9] = 30;
	page(31)[9] = 31;
	munmap(theirs, WINDOW_HALF_BYTES);
}

/* ---- at random ---- */

static uint64_t state = 7;
static uint32_t any(uint32_t below)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % below;
}

/* What each page holds as far as this side has written it, and whether others may have. */
static uint8_t holds[RAM_PAGES];
static bool is_lent[RAM_PAGES];

static void lend_any(void)
{
	const uint32_t pages = 1 + any(MOST_RUN);
	const uint32_t gfn = any(RAM_PAGES - pages);
	struct lend *lend = lend_run(gfn, pages);
	bool busy = false;

	for (uint32_t n = 0; n < pages; n++)
		busy |= is_lent[gfn + n];
	if (!lend)
		return;
	if ((lend_begin(&table, lend) != 0) != busy)
		abort();
	for (uint32_t n = 0; n < pages && !busy; n++)
		is_lent[gfn + n] = true;
}

static void end_any(void)
{
	struct lend *lend = &table.lend[any(LENDS)];
	const struct lend was = *lend;

	if (was.state == LEND_FREE)
		return;
	lend_end(&table, lend);
	for (uint32_t n = was.first; n < was.first + was.pages; n++) {
		const uint64_t gfn = table.half[0].gfn[n];

		is_lent[gfn] = false;
		holds[gfn] = *page(gfn);
		if (peers->page[0][n][0])
			abort();
	}
}

static void at_random(void)
{
	bool good = true;

	for (unsigned n = 0; n < RAM_PAGES; n++)
		holds[n] = *page(n);
	for (unsigned step = 0; step < STEPS; step++) {
		const uint32_t gfn = any(RAM_PAGES);

		switch (any(4)) {
		case 0: lend_any(); break;
		case 1: end_any(); break;
		case 2: peers->page[0][any(SHARE_WINDOW_PAGES)][0] = (uint8_t)any(256); break;
		default:
			*page(gfn) = holds[gfn] = (uint8_t)any(256);
			break;
		}
		good = good && (is_lent[gfn] || *page(gfn) == holds[gfn]);
		check_lends(&table);
	}
	expect("what is not lent is this machine's alone", good);
	for (unsigned n = 0; n < LENDS; n++)
		if (table.lend[n].state != LEND_FREE)
			lend_end(&table, &table.lend[n]);
	check_lends(&table);
}

/* ---- many ---- */

static unsigned count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned lines = 0;
	int byte;

	if (!maps)
		abort();
	while ((byte = fgetc(maps)) != EOF)
		lines += byte == '\n';
	fclose(maps);
	return lines;
}

/* Pages behind one another change places together, and cost as many mappings as one. */
static void run_at_once(void)
{
	const unsigned before = count_mappings();
	struct lend *lend = lend_run(100, RUN_PAGES);
	unsigned lent;

	told = 0;
	expect("a long run is lent", !lend_begin(&table, lend) && told == RUN_PAGES);
	lent = count_mappings();
	printf("# %u mappings before, %u while %u pages are lent\n", before, lent, RUN_PAGES);
	expect("by few mappings", lent < before + RUN_PAGES / 8);
	for (unsigned n = 0; n < RUN_PAGES; n++)
		peers->page[0][lend->first + n][1] = (uint8_t)(n + 1);
	lend_end(&table, lend);
	for (unsigned n = 0; n < RUN_PAGES; n++)
		if (page(100 + n)[1] != (uint8_t)(n + 1) || peers->page[0][lend->first + n][1])
			abort();
	expect("which go with it", count_mappings() < before + RUN_PAGES / 8);
}

/* Of mappings that are not one: a border lies in the run, at any place of it. */
static void run_over_border(void)
{
	bool good = true;

	for (unsigned n = 1; n < RUN_PAGES; n += 3) {
		uint8_t *behind = page(100 + n);
		struct lend *lend = lend_run(100, RUN_PAGES);

		if (madvise(behind, RUN_PAGES * GUEST_PAGE_BYTES, MADV_DONTFORK))
			abort();
		good = good && !lend_begin(&table, lend);
		*behind = (uint8_t)(n + 7);
		good = good && peers->page[0][lend->first + n][0] == (uint8_t)(n + 7);
		lend_end(&table, lend);
		good = good && *behind == (uint8_t)(n + 7) && !peers->page[0][lend->first + n][0];
		madvise(behind, RUN_PAGES * GUEST_PAGE_BYTES, MADV_DOFORK);
	}
	expect("a run over more than one mapping comes back, too", good);
}

/* Each page once, also those that nobody has written yet, of memory like a machine's. */
static void one_by_one(void)
{
	const size_t bytes = MANY_PAGES * GUEST_PAGE_BYTES;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint8_t *ram = mmap(NULL, guest_memory_footprint_bytes(bytes), PROT_READ | PROT_WRITE,
			    flags, -1, 0);
	struct lender *others = table.lender;
	struct guest_memory many = { 0 };
	unsigned before;
	unsigned after;

	if (ram == MAP_FAILED)
		abort();
	madvise(ram, bytes, MADV_HUGEPAGE);
	guest_memory_init(&many, ram, bytes, bytes);
	table.lender = lender_create(&many, written, NULL);
	before = count_mappings();
	for (uint64_t gfn = 0; gfn < MANY_PAGES; gfn += 2) {
		struct lend *lend = lend_run(gfn, 1);

		if (lend_begin(&table, lend))
			abort();
		ram[gfn * GUEST_PAGE_BYTES] = (uint8_t)gfn;
		lend_end(&table, lend);
		if (ram[gfn * GUEST_PAGE_BYTES] != (uint8_t)gfn)
			abort();
	}
	after = count_mappings();
	printf("# %u mappings before, %u after\n", before, after);
	expect("pages that were lent cost no mappings", after < before + MANY_PAGES / 64);
	lender_destroy(table.lender);
	table.lender = others;
}

/* What a hub sends for a window: only what nobody can shorten is one. */
static void kinds_of_memory(void)
{
	const int good = spawn_share("window", sizeof(*window));
	const int brief = spawn_share("window", sizeof(*window) / 2);
	const int open_end = memfd_create("window", MFD_ALLOW_SEALING);

	if (ftruncate(open_end, sizeof(*window)))
		abort();
	expect("a window is one", spawn_is_share(good, sizeof(*window)));
	expect("one that is too short is none", !spawn_is_share(brief, sizeof(*window)));
	expect("nor one that may become so", !spawn_is_share(open_end, sizeof(*window)));
	expect("nor nothing", !spawn_is_share(-1, sizeof(*window)));
	close(good);
	close(brief);
	close(open_end);
}

/*
 * As a machine that was stopped for so long that its window was ended meanwhile; with a guard it
 * has its pages, of zeros, and goes on with them.
 */
static int use_lost_page(const struct lend *lend, int fd, bool is_guarded)
{
	struct port_window port = { .memory = window, .places = 1,
				    .place[0] = { .at = (uint8_t *)window,
						  .bytes = sizeof(*window) } };
	struct sigaction action = { .sa_flags = SA_SIGINFO };
	int status = 0;
	pid_t child = fork();

	if (child) {
		waitpid(child, &status, 0);
		return status;
	}
	signal(SIGBUS, SIG_DFL);
	if (is_guarded && !sigaction(SIGBUS, &action, NULL))
		port_windows_guard(&port, 1, memory.ram, memory.ram_bytes);
	if (ftruncate(fd, 0))
		_exit(2);
	if (page(3)[5] || page(4)[GUEST_PAGE_BYTES - 1])
		_exit(3);
	page(3)[5] = 1;
	lend_end(&table, (struct lend *)(uintptr_t)lend);
	page(4)[5] = 2;
	_exit(page(3)[0] || page(4)[5] != 2 || page(5)[0] != 5 || page(2)[0] != 2);
}

/* As a machine is: its window is not inherited, and with it no page that is lent. */
static int go_on_forked(struct lend *lend)
{
	const uint32_t first = lend->first;
	unsigned wrong = 0;

	lender_forked(table.lender);
	lend_forget(&table, lend);
	check_lends(&table);
	wrong += page(3)[5] != 1 || page(4)[0] != 4 || page(5)[0] != 5;
	wrong += lender_holds_pages(table.lender, 3, 2);
	page(3)[5] = 9;
	wrong += peers->page[0][first][5] != 1;
	return wrong != 0;
}

static void forked(void)
{
	struct lend *lend = lend_run(3, 2);
	int status = 0;
	pid_t child;

	if (madvise(window, sizeof(*window), MADV_DONTFORK))
		abort();
	for (unsigned n = 2; n < 6; n++)
		memset(page(n), (int)n, GUEST_PAGE_BYTES);
	expect("pages are lent", !lend_begin(&table, lend));
	page(3)[5] = 1;
	lender_stand(table.lender);
	child = fork();
	if (!child)
		_exit(go_on_forked(lend));
	waitpid(child, &status, 0);
	expect("what is forked has them for its own", WIFEXITED(status) && !WEXITSTATUS(status));
	expect("and who was forked has them as before",
	       page(3)[5] == 1 && peers->page[0][lend->first][5] == 1);
	page(3)[5] = 3;
	lend_end(&table, lend);
	expect("and back", page(3)[5] == 3);
}

static void lost(void)
{
	const int fd = memfd_create("window", 0);
	struct lend *lend;

	if (ftruncate(fd, sizeof(*window)) ||
	    mmap(window, sizeof(*window), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		    MAP_FAILED)
		abort();
	for (unsigned n = 2; n < 6; n++)
		memset(page(n), (int)n, GUEST_PAGE_BYTES);
	lend = lend_run(3, 2);
	expect("pages are lent in another window", !lend_begin(&table, lend) && page(3)[0] == 3);
	expect("one that is lost ends who has no guard",
	       WTERMSIG(use_lost_page(lend, fd, false)) == SIGBUS);
	if (ftruncate(fd, sizeof(*window)))
		abort();
	expect("and who has one goes on", use_lost_page(lend, fd, true) == 0);
}

int main(void)
{
	kinds_of_memory();
	make();
	both_see();
	refused();
	counts();
	only_read();
	at_random();
	run_at_once();
	run_over_border();
	one_by_one();
	forked();
	lost();
	lender_destroy(table.lender);
	return failures != 0;
}
