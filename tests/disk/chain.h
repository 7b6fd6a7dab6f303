/*
 * A chain of three small files and long operations on it, for tests that let them fail: the chain
 * reads `model` before, during and after each of them.
 */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk_internal.h"

enum { CHAIN_BYTES = 6 << 20, CHAIN_LINKS = 3 };
enum { CHAIN_PART_BYTES = 4096 };

static char chain_directory[200];
static uint8_t chain_model[CHAIN_BYTES], chain_seen[CHAIN_BYTES];
static uint64_t chain_state = 88172645463325252ull;

static inline uint64_t chain_random(void)
{
	chain_state ^= chain_state << 13, chain_state ^= chain_state >> 7,
		chain_state ^= chain_state << 17;
	return chain_state;
}

static inline const char *chain_path(const char *name)
{
	static char text[4][256];
	static unsigned turn;

	turn = (turn + 1) & 3;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", chain_directory, name);
	return text[turn];
}

static inline void chain_give_up(const char *what, const struct disk_error *error)
{
	fprintf(stderr, "chain: %s: %s\n", what, error->text);
	exit(1);
}

static inline int chain_open(const char *name, bool write, struct disk **ret,
			     struct disk_error *error)
{
	*error = (struct disk_error){ .kind = REFUSAL_NONE };
	return disk_open(chain_path(name),
			 &(struct disk_options){ .format = DISK_VHDX, .write = write }, ret, error);
}

static inline void chain_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline void chain_shell(const char *format, ...)
{
	char command[900];
	va_list list;

	va_start(list, format);
	vsnprintf(command, sizeof(command), format, list);
	va_end(list);
	if (system(command))
		exit(1);
}

static inline void chain_change(struct disk *disk, unsigned k)
{
	uint64_t at = chain_random() % (CHAIN_BYTES / 512) * 512;
	uint64_t bytes = (chain_random() % 3 ? chain_random() % 16 + 1 : 2048) * 512;

	bytes = bytes < CHAIN_BYTES - at ? bytes : CHAIN_BYTES - at;
	for (uint64_t b = 0; b < bytes; b += 8) {
		uint64_t word = chain_random();

		memcpy(chain_model + at + b, &word, 8);
	}
	if (k == 5)
		memset(chain_model + at, 0, bytes);
	if (k == 5 ? disk_zero(disk, at, bytes) : disk_write(disk, at, chain_model + at, bytes))
		chain_give_up("writing", &(struct disk_error){ .text = "failed" });
}

/*
 * base, middle, top, and another file as large; kept once more in kept/, with their times, so that
 * what a child knows of its parent's file still holds.
 */
static inline void chain_make(const char *where)
{
	static const char *const links[CHAIN_LINKS] = { "base.vhdx", "middle.vhdx", "top.vhdx" };
	struct disk_error error;
	struct disk *disk;

	snprintf(chain_directory, sizeof(chain_directory), "%s/chain-XXXXXX", where);
	if (!mkdtemp(chain_directory) || mkdir(chain_path("kept"), 0700))
		exit(1);
	for (unsigned n = 0; n < CHAIN_LINKS; n++) {
		struct disk_create what = { .format = DISK_VHDX,
					    .size_bytes = CHAIN_BYTES,
					    .block_bytes = 1 << 20,
					    .parent = n ? chain_path(links[n - 1]) : NULL };

		if (disk_create(chain_path(links[n]), &what, &error) ||
		    chain_open(links[n], true, &disk, &error))
			chain_give_up("making", &error);
		for (unsigned k = 0; k < 6; k++)
			chain_change(disk, k);
		/* two blocks of zeros between others: compaction has something to do */
		if (n == CHAIN_LINKS - 1)
			for (unsigned block = 1; block < 5; block++) {
				uint8_t *at = chain_model + ((uint64_t)block << 20);

				memset(at, block < 3 ? 0 : (int)block, 1 << 20);
				if (disk_write(disk, (uint64_t)block << 20, at, 1 << 20))
					chain_give_up("writing", &error);
			}
		if (disk_close(disk))
			chain_give_up("closing", &error);
	}
	if (disk_create(chain_path("other.vhdx"),
			&(struct disk_create){ .format = DISK_VHDX,
					       .size_bytes = CHAIN_BYTES,
					       .block_bytes = 1 << 20 },
			&error))
		chain_give_up("making", &error);
	chain_shell("cd %s && cp -p --sparse=always *.vhdx kept/", chain_directory);
}

static inline void chain_again(void)
{
	chain_shell("cd %s && rm -f *.vhdx *.umbra && cp -p --sparse=always kept/*.vhdx .",
		    chain_directory);
}
static inline void chain_end(void) { chain_shell("rm -r %s", chain_directory); }

static inline int chain_count(void *context, uint64_t offset, uint64_t bytes)
{
	(void)offset;
	(void)bytes;
	++*(unsigned *)context;
	return 0;
}

/* Opened for writing where it may be, so that a log is replayed. */
static inline bool chain_reads(const char *name, char *why, size_t bytes)
{
	struct disk_error reason;
	struct disk *disk;
	int error = chain_open(name, true, &disk, &reason);

	if (error == -EROFS)
		error = chain_open(name, false, &disk, &reason);
	if (error) {
		snprintf(why, bytes, "%.500s", reason.text);
		return false;
	}
	error = disk_read(disk, 0, chain_seen, CHAIN_BYTES);
	snprintf(why, bytes, "%s: %s", name, error ? strerror(-error) : "reads something else");
	/* digests say nothing, or the truth */
	for (struct disk *at = disk; at && !error; at = disk_parent(at)) {
		unsigned found = 0;
		int verified = disk_verify(at, chain_count, &found);

		error = found || (verified && verified != -ESTALE && verified != -ENOENT) ? -EILSEQ
											  : 0;
		if (error)
			snprintf(why, bytes, "%s: its digests are wrong (%u, %d)", disk_path(at),
				 found, verified);
	}
	if (disk_close(disk) && !error)
		error = -EIO;
	return !error && !memcmp(chain_seen, chain_model, CHAIN_BYTES);
}

/* ---- operations: 0, or what failed ---- */

static inline int chain_with_top(int (*act)(struct disk *disk, struct disk_error *error))
{
	struct disk_error reason;
	struct disk *disk;
	int error = chain_open("top.vhdx", true, &disk, &reason);
	int closed;

	if (error)
		return error;
	error = act(disk, &reason);
	closed = disk_close(disk);
	return error ? error : closed;
}

static inline int chain_do_commit(struct disk *disk, struct disk_error *error)
{
	return disk_commit(disk, NULL, error);
}
static inline int chain_do_stream(struct disk *disk, struct disk_error *error)
{
	(void)error;
	return disk_stream(disk, NULL);
}
static inline int chain_do_compact(struct disk *disk, struct disk_error *error)
{
	(void)error;
	return disk_compact(disk, NULL);
}
/* A block of zeros and a part of the next one: the chain reads the same. */
static inline int chain_do_shrink(struct disk *disk, struct disk_error *error)
{
	const struct disk_extent unused = { .offset = 1 << 20, .bytes = (1 << 20) + (64 << 10) };
	uint64_t bytes;

	(void)error;
	return disk_shrink(disk, &unused, 1, NULL, &bytes);
}
static inline int chain_do_rebase(struct disk *disk, struct disk_error *error)
{
	return disk_rebase(disk, chain_path("other.vhdx"), DISK_VHDX, NULL, error);
}
static inline int chain_do_repair(struct disk *disk, struct disk_error *error)
{
	return disk_repair_link(disk, error);
}
static inline int chain_do_freeze(struct disk *disk, struct disk_error *error)
{
	return disk_freeze(disk, "a test", error);
}
static inline int chain_do_resize(struct disk *disk, struct disk_error *error)
{
	(void)error;
	return disk_resize(disk,
			   disk_size_bytes(disk) == CHAIN_BYTES ? CHAIN_BYTES * 2 : CHAIN_BYTES);
}

/* The child takes over the disk that it is made on. */
static inline int chain_snapshot(void)
{
	struct disk_error reason;
	struct disk *disk, *child;
	int error = chain_open("top.vhdx", true, &disk, &reason), closed;

	unlink(chain_path("child.vhdx"));
	if (error)
		return error;
	error = disk_write(disk, 0, chain_model, CHAIN_PART_BYTES);
	if (!error)
		error = disk_snapshot(disk, chain_path("child.vhdx"), &child, &reason);
	if (error) {
		disk_close(disk);
		return error;
	}
	error = disk_write(child, CHAIN_PART_BYTES, chain_model + CHAIN_PART_BYTES,
			   CHAIN_PART_BYTES);
	if (!error)
		error = disk_settle(child);
	closed = disk_close(child);
	return error ? error : closed;
}

static inline int chain_commit(void) { return chain_with_top(chain_do_commit); }
static inline int chain_stream(void) { return chain_with_top(chain_do_stream); }
static inline int chain_compact(void) { return chain_with_top(chain_do_compact); }
static inline int chain_shrink(void) { return chain_with_top(chain_do_shrink); }
static inline int chain_rebase(void) { return chain_with_top(chain_do_rebase); }
static inline int chain_repair(void) { return chain_with_top(chain_do_repair); }
static inline int chain_freeze(void) { return chain_with_top(chain_do_freeze); }
static inline int chain_resize(void) { return chain_with_top(chain_do_resize); }
