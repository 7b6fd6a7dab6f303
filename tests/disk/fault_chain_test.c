/*
 * Long operations on a chain of files in which the n-th access to the host's files fails, or the n-th allocation, for every n that
 * they have: snapshot of a disk in use, commit, stream, rebase, compact, export of changes, copy, resize, freeze. Whatever the
 * operation returns, once the fault is gone the chain opens and reads the same, and the operation done again succeeds.
 *
 * usage: fault_chain_test [STEP [DIRECTORY]]; every STEP-th n alone.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/disk/disk_internal.h"
#include "faults.h"

enum { DISK_BYTES = 6 << 20, LINKS = 3 };

static char directory[200];
static uint8_t model[DISK_BYTES], seen[DISK_BYTES];
static uint64_t state = 88172645463325252ull, runs, faults;

static uint64_t rnd(void)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}

static const char *path(const char *name)
{
	static char text[4][256];
	static unsigned turn;

	turn = (turn + 1) & 3;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", directory, name);
	return text[turn];
}

static void give_up(const char *what, const struct disk_error *e)
{
	fprintf(stderr, "fault_chain_test: %s: %s\n", what, e->text);
	exit(1);
}

static int open_one(const char *name, bool write, struct disk **ret, struct disk_error *e)
{
	*e = (struct disk_error){ "" };
	return disk_open(path(name), &(struct disk_options){ .format = DISK_VHDX, .write = write }, ret, e);
}

/* ---- the chain, made once and copied for each run ---- */

static const char *const links[LINKS] = { "base.vhdx", "middle.vhdx", "top.vhdx" };

static void make_chain(void)
{
	struct disk_error e;
	struct disk *d;

	for (unsigned n = 0; n < LINKS; n++) {
		struct disk_create what = { .format = DISK_VHDX, .size_bytes = DISK_BYTES, .block_bytes = 1 << 20, .parent = n ? path(links[n - 1]) : NULL };

		if (disk_create(path(links[n]), &what, &e) || open_one(links[n], true, &d, &e))
			give_up("making", &e);
		for (unsigned k = 0; k < 6; k++) {
			uint64_t at = rnd() % (DISK_BYTES / 512) * 512, bytes = (rnd() % 3 ? rnd() % 16 + 1 : 2048) * 512;

			bytes = bytes < DISK_BYTES - at ? bytes : DISK_BYTES - at;
			for (uint64_t b = 0; b < bytes; b += 8)
				*(uint64_t *)(void *)(model + at + b) = rnd();
			if (k == 5)
				memset(model + at, 0, bytes);
			if (k == 5 ? disk_zero(d, at, bytes) : disk_write(d, at, model + at, bytes))
				give_up("writing", &e);
		}
		if (disk_close(d))
			give_up("closing", &e);
	}
	if (disk_create(path("other.vhdx"), &(struct disk_create){ .format = DISK_VHDX, .size_bytes = DISK_BYTES, .block_bytes = 1 << 20 }, &e))
		give_up("making", &e);
}

/* With their times, so that what a child knows of its parent's file still holds. */
static void keep(const char *from, const char *to)
{
	char command[600];

	snprintf(command, sizeof(command), "cp -p --sparse=always %s/*.vhdx %s/", path(from), path(to));
	if (system(command))
		exit(1);
}

static void fresh_chain(void)
{
	char command[600];

	snprintf(command, sizeof(command), "cd %s && rm -f *.vhdx *.umbra && cp -p --sparse=always kept/*.vhdx .", directory);
	if (system(command))
		exit(1);
}

/* ---- operations: 0, or what failed ---- */

static int with_top(int (*act)(struct disk *d, struct disk_error *e))
{
	struct disk_error e;
	struct disk *d;
	int error = open_one("top.vhdx", true, &d, &e), closed;

	if (error)
		return error;
	error = act(d, &e);
	closed = disk_close(d);
	return error ? error : closed;
}

static int do_commit(struct disk *d, struct disk_error *e) { return disk_commit(d, NULL, e); }
static int do_stream(struct disk *d, struct disk_error *e) { return (void)e, disk_stream(d, NULL); }
static int do_compact(struct disk *d, struct disk_error *e) { return (void)e, disk_compact(d, NULL); }
static int do_rebase(struct disk *d, struct disk_error *e) { return disk_rebase(d, path("other.vhdx"), DISK_VHDX, NULL, e); }
static int do_freeze(struct disk *d, struct disk_error *e) { return disk_freeze(d, "a test", e); }
static int do_resize(struct disk *d, struct disk_error *e) { return (void)e, disk_resize(d, disk_size_bytes(d) == DISK_BYTES ? DISK_BYTES * 2 : DISK_BYTES); }

static int do_export(struct disk *d, struct disk_error *e)
{
	unlink(path("delta.vhdx"));
	return disk_export_changes(d, path("base.vhdx"), path("delta.vhdx"), NULL, e);
}

static int do_copy(struct disk *d, struct disk_error *e)
{
	struct disk *to;
	int error, closed;

	unlink(path("copy.vhdx"));
	error = disk_create(path("copy.vhdx"), &(struct disk_create){ .format = DISK_VHDX, .size_bytes = DISK_BYTES, .block_bytes = 1 << 20 }, e);
	if (!error)
		error = open_one("copy.vhdx", true, &to, e);
	if (error)
		return error;
	error = disk_copy(d, to, NULL);
	closed = disk_close(to);
	return error ? error : closed;
}

/* Commits, streams and so on close the disk they are given; here the child takes it over. */
static int snapshot(void)
{
	struct disk_error e;
	struct disk *d, *child;
	int error = open_one("top.vhdx", true, &d, &e), closed;

	unlink(path("child.vhdx"));
	if (error)
		return error;
	error = disk_write(d, 0, model, 4096);
	if (!error)
		error = disk_snapshot(d, path("child.vhdx"), &child, &e);
	if (error) {
		disk_close(d);
		return error;
	}
	error = disk_write(child, 4096, model + 4096, 4096);
	if (!error)
		error = disk_settle(child);
	closed = disk_close(child);
	return error ? error : closed;
}

static int commit(void) { return with_top(do_commit); }
static int stream(void) { return with_top(do_stream); }
static int compact(void) { return with_top(do_compact); }
static int rebase(void) { return with_top(do_rebase); }
static int freeze(void) { return with_top(do_freeze); }
static int resize(void) { return with_top(do_resize); }
static int export(void) { return with_top(do_export); }
static int copy(void) { return with_top(do_copy); }

static const struct { const char *name, *result; int (*act)(void); } operations[] = {
	{ "snapshot", "child.vhdx", snapshot }, { "commit", "middle.vhdx", commit }, { "stream", NULL, stream }, { "compact", NULL, compact },
	{ "rebase", NULL, rebase }, { "export", "delta.vhdx", export }, { "copy", "copy.vhdx", copy }, { "resize", NULL, resize }, { "freeze", NULL, freeze },
};

/* ---- what is left ---- */

static void wrong(const char *operation, const char *how, long n, const char *what)
{
	fprintf(stderr, "fault_chain_test: %s, %s %ld: %s\n", operation, how, n, what);
	faults++;
}

/* Opened for writing where it may be, so that a log is replayed. */
static bool reads_the_same(const char *name, char *why, size_t bytes)
{
	struct disk_error e;
	struct disk *d;
	int error = open_one(name, true, &d, &e);

	if (error == -EROFS)
		error = open_one(name, false, &d, &e);
	if (error) {
		snprintf(why, bytes, "%s", e.text);
		return false;
	}
	error = disk_read(d, 0, seen, DISK_BYTES);
	snprintf(why, bytes, "%s: %s", name, error ? strerror(-error) : "reads something else");
	if (disk_close(d) && !error)
		error = -EIO;
	return !error && !memcmp(seen, model, DISK_BYTES);
}

static void one_run(unsigned k, const char *how, long n)
{
	char why[600];
	int error;

	runs++;
	if (!reads_the_same("top.vhdx", why, sizeof(why)))
		wrong(operations[k].name, how, n, why);
	error = operations[k].act();
	if (error && error != -EROFS && !(error == -EINVAL && (operations[k].act == stream))) {
		snprintf(why, sizeof(why), "done again it fails: %s", strerror(-error));
		wrong(operations[k].name, how, n, why);
	}
	if (!reads_the_same("top.vhdx", why, sizeof(why)) || (operations[k].result && !reads_the_same(operations[k].result, why, sizeof(why))))
		wrong(operations[k].name, how, n, why);
}

static void sweep(unsigned k, const char *how, long *left, int error, long step)
{
	for (long n = 0;; n += step) {
		bool over;

		fresh_chain();
		*left = n;
		access_error = error;
		counting = true;
		operations[k].act();
		counting = false;
		over = *left >= 0;
		*left = -1;
		one_run(k, how, n);
		if (over)
			break;
	}
}

int main(int argc, char **argv)
{
	long step = argc > 1 ? strtol(argv[1], NULL, 0) : 1;
	char command[300];

	snprintf(directory, sizeof(directory), "%s/fault-XXXXXX", argc > 2 ? argv[2] : "/dev/shm");
	if (!mkdtemp(directory) || mkdir(path("kept"), 0700))
		return 1;
	make_chain();
	keep(".", "kept");
	for (unsigned k = 0; k < sizeof(operations) / sizeof(operations[0]); k++) {
		sweep(k, "access", &accesses_left, EIO, step);
		sweep(k, "full at access", &accesses_left, ENOSPC, step);
		sweep(k, "allocation", &allocations_left, 0, step);
	}
	snprintf(command, sizeof(command), "rm -r %s", directory);
	printf("fault_chain_test: %lu runs with a fault, %lu faults in them\n", runs, faults);
	return system(command) || faults;
}
