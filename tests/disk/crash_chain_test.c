/*
 * Power cuts during operations on a chain of files. What an operation does to each file is written
 * down, act by act; then, for many moments, all files are made as they may be after the power went
 * away there: of each, everything up to its own last sync, and of what came after it any part, in
 * any order, writes torn at 512 bytes. The chain must then open and read the same, and where the
 * operation had returned, its result, too. Where it had not, the operation done again succeeds.
 *
 * usage: crash_chain_test [STATES [SEED]]; `crash_chain_test control` forgets every second sync and
 * must find faults.
 */
#include <errno.h>
#include <fcntl.h>

#include "chain.h"

enum { FILES = 8, FILE_BYTES = 160 << 20, ACTS = 20000, OPEN_FILES = 64, PIECE_BYTES = 1 << 16 };
enum kind { WRITE, TRUNCATE, DISCARD, SYNC };
struct act { enum kind kind; unsigned file; uint64_t offset, bytes; uint8_t *data; };
/*
 * used: zero from there on. changed: no byte outside of it is another than of what was kept. blank:
 * of what was kept, the pieces that are zero.
 */
struct image {
	uint8_t *bytes;
	uint64_t length, used, changed_from, changed_to;
	bool there, blank[FILE_BYTES / PIECE_BYTES];
};

static struct act acts[ACTS];
/* forget: every second sync is not written down, from the first (1) or the second (2) */
static unsigned act_count, file_count, forget;
static char names[FILES][40];
static int file_of[OPEN_FILES]; /* a descriptor's file and one more; 0: none of ours */
static bool recording;
static uint64_t states, faults, syncs;

/* ---- what is done (the linker sends it here) ---- */

int __real_open64(const char *path, int flags, mode_t mode);
ssize_t __real_pwritev64(int fd, const struct iovec *iov, int count, off_t at);
int __real_ftruncate64(int fd, off_t bytes);
int __real_fallocate64(int fd, int mode, off_t offset, off_t bytes);
int __real_fdatasync(int fd);
int __real_close(int fd);
int __wrap_open64(const char *path, int flags, mode_t mode);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t at);
int __wrap_ftruncate64(int fd, off_t bytes);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t bytes);
int __wrap_fdatasync(int fd);
int __wrap_close(int fd);

static unsigned number_of(const char *name)
{
	unsigned n = 0;

	while (n < file_count && strcmp(names[n], name))
		n++;
	if (n == file_count)
		snprintf(names[file_count++], sizeof(names[0]), "%s", name);
	return n;
}

static struct act *note(enum kind kind, int fd, uint64_t offset, uint64_t bytes)
{
	if (!recording || fd < 0 || fd >= OPEN_FILES || !file_of[fd])
		return NULL;
	if (act_count == ACTS)
		abort();
	acts[act_count] = (struct act){
		.kind = kind, .file = (unsigned)file_of[fd] - 1, .offset = offset, .bytes = bytes
	};
	return &acts[act_count++];
}

int __wrap_open64(const char *path, int flags, mode_t mode)
{
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	int fd = __real_open64(path, flags, mode);

	if (recording && fd >= 0 && fd < OPEN_FILES)
		file_of[fd] = strstr(name, ".vhdx") ? (int)number_of(name) + 1 : 0;
	return fd;
}

int __wrap_close(int fd)
{
	if (fd >= 0 && fd < OPEN_FILES)
		file_of[fd] = 0;
	return __real_close(fd);
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t at)
{
	uint64_t bytes = iov_bytes(iov, count);
	uint64_t done = 0;
	struct act *a = note(WRITE, fd, (uint64_t)at, bytes);

	if (a)
		a->data = malloc(bytes);
	for (int n = 0; a && n < count; done += iov[n++].iov_len)
		memcpy(a->data + done, iov[n].iov_base, iov[n].iov_len);
	return __real_pwritev64(fd, iov, count, at);
}

int __wrap_ftruncate64(int fd, off_t bytes)
{
	note(TRUNCATE, fd, 0, (uint64_t)bytes);
	return __real_ftruncate64(fd, bytes);
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t bytes)
{
	note(DISCARD, fd, (uint64_t)offset, (uint64_t)bytes);
	return __real_fallocate64(fd, mode, offset, bytes);
}

int __wrap_fdatasync(int fd)
{
	if (!recording || !forget || syncs++ % 2 != forget - 1u)
		note(SYNC, fd, 0, 0);
	return 0; /* the machine that it is on keeps its power */
}

/* ---- files in memory ---- */

static struct image kept[FILES], now[FILES];

static void load_kept(void)
{
	for (unsigned n = 0; n < file_count; n++) {
		char path[600];
		FILE *from;

		snprintf(path, sizeof(path), "%s/kept/%s", chain_directory, names[n]);
		from = fopen(path, "r");
		memset(kept[n].bytes, 0, kept[n].used);
		kept[n].there = from;
		kept[n].length = kept[n].used =
			from ? fread(kept[n].bytes, 1, FILE_BYTES, from) : 0;
		if (from)
			fclose(from);
		for (uint64_t at = 0; at < FILE_BYTES; at += PIECE_BYTES)
			kept[n].blank[at / PIECE_BYTES] = at >= kept[n].used ||
							  is_zero(kept[n].bytes + at, PIECE_BYTES);
		now[n].changed_from = 0;
		now[n].changed_to = FILE_BYTES;
	}
}

static void reset(void)
{
	for (unsigned n = 0; n < file_count; n++) {
		uint64_t longest = now[n].used > kept[n].used ? now[n].used : kept[n].used;
		uint64_t from = now[n].changed_from;
		uint64_t to = now[n].changed_to < longest ? now[n].changed_to : longest;

		if (from < to)
			memcpy(now[n].bytes + from, kept[n].bytes + from, to - from);
		now[n].changed_from = FILE_BYTES;
		now[n].changed_to = 0;
		now[n].length = kept[n].length;
		now[n].used = kept[n].used;
		now[n].there = kept[n].there;
	}
}

static void note_change(struct image *image, uint64_t from, uint64_t to)
{
	if (from < image->changed_from)
		image->changed_from = from;
	if (to > image->changed_to)
		image->changed_to = to;
}

static void apply(const struct act *a, uint64_t from, uint64_t to)
{
	struct image *image = &now[a->file];

	image->there = true;
	if (a->kind != SYNC && a->offset + to > FILE_BYTES)
		abort();
	switch (a->kind) {
	case WRITE:
		note_change(image, a->offset + from, a->offset + to);
		memcpy(image->bytes + a->offset + from, a->data + from, to - from);
		if (a->offset + to > image->length)
			image->length = a->offset + to;
		if (a->offset + to > image->used)
			image->used = a->offset + to;
		break;
	case TRUNCATE:
		if (a->bytes < image->used) {
			note_change(image, a->bytes, image->used);
			memset(image->bytes + a->bytes, 0, image->used - a->bytes);
			image->used = a->bytes;
		}
		image->length = a->bytes;
		break;
	case DISCARD:
		note_change(image, a->offset + from, a->offset + to);
		memset(image->bytes + a->offset + from, 0, to - from);
		break;
	case SYNC: break;
	}
}

static bool is_blank(unsigned n, uint64_t at, uint64_t bytes)
{
	if (at >= now[n].changed_to || at + bytes <= now[n].changed_from)
		return kept[n].blank[at / PIECE_BYTES];
	return is_zero(now[n].bytes + at, bytes);
}

/* Sparse, as most of them is zero. */
static void write_out(void)
{
	for (unsigned n = 0; n < file_count; n++) {
		int fd;

		unlink(chain_path(names[n]));
		fd = now[n].there ? open(chain_path(names[n]), O_RDWR | O_CREAT | O_TRUNC, 0600)
				  : -1;
		for (uint64_t at = 0, bytes; fd >= 0 && at < now[n].used; at += bytes) {
			bytes = now[n].used - at < PIECE_BYTES ? now[n].used - at : PIECE_BYTES;
			if (!is_blank(n, at, bytes) &&
			    pwrite(fd, now[n].bytes + at, bytes, (off_t)at) != (ssize_t)bytes)
				exit(1);
		}
		if (fd >= 0 && ftruncate(fd, (off_t)now[n].length))
			exit(1);
		if (fd >= 0)
			close(fd);
	}
	chain_shell("rm -f %s/*.umbra", chain_directory);
}

/* ---- cuts ---- */

/* Of one file, acts [from, cut): some of them, in some order. */
static void in_part(unsigned file, unsigned from, unsigned cut)
{
	unsigned order[512];
	unsigned count = 0;
	unsigned sizes = chain_random() % 2 ? ACTS : (unsigned)(chain_random() % 3);

	for (unsigned n = from; n < cut; n++) {
		bool size = acts[n].file == file && acts[n].kind == TRUNCATE;

		/* changes of the size are the file system's, in order, but as late as it likes */
		if (size && sizes) {
			apply(&acts[n], 0, acts[n].bytes);
			sizes--;
		}
		else if (!size && acts[n].file == file && count < 512)
			order[count++] = n;
	}
	for (unsigned k = count; k > 1 && chain_random() % 2; k--) {
		unsigned other = (unsigned)(chain_random() % k);
		unsigned swapped = order[k - 1];

		order[k - 1] = order[other];
		order[other] = swapped;
	}
	for (unsigned k = 0; k < count; k++) {
		const struct act *a = &acts[order[k]];
		uint64_t pieces = a->bytes / 512;
		uint64_t at = pieces > 1 ? chain_random() % pieces * 512 : 0;
		uint64_t choice = chain_random() % 4;

		if (!choice)
			continue;
		if (choice == 1 && at)
			chain_random() % 2 ? apply(a, 0, at) : apply(a, at, a->bytes);
		else
			apply(a, 0, a->bytes);
	}
}

static void make_state(unsigned cut)
{
	reset();
	for (unsigned file = 0; file < file_count; file++) {
		unsigned last = cut;

		while (last && !(acts[last - 1].file == file && acts[last - 1].kind == SYNC))
			last--;
		for (unsigned n = 0; n < last; n++)
			if (acts[n].file == file)
				apply(&acts[n], 0, acts[n].bytes);
		in_part(file, last, cut);
	}
	write_out();
}

static const struct { const char *name, *result; int (*act)(void);
} operations[] = {
	{ "commit", "middle.vhdx", chain_commit }, { "snapshot", "child.vhdx", chain_snapshot },
	{ "stream", NULL, chain_stream },          { "compact", NULL, chain_compact },
	{ "rebase", NULL, chain_rebase },          { "repair-link", NULL, chain_repair },
	{ "resize", NULL, chain_resize },          { "shrink", NULL, chain_shrink },
};
enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };

static void wrong(unsigned k, unsigned cut, const char *what)
{
	if (!forget)
		fprintf(stderr, "crash_chain_test: %s cut at act %u of %u: %s\n",
			operations[k].name, cut, act_count, what);
	faults++;
}

static void look(unsigned k, unsigned cut)
{
	char why[600];
	int error;

	states++;
	if (!chain_reads("top.vhdx", why, sizeof(why))) {
		wrong(k, cut, why);
		return;
	}
	if (cut < act_count) {
		error = operations[k].act();
		if (error && !(error == -EINVAL && operations[k].act == chain_stream)) {
			snprintf(why, sizeof(why), "done again it fails: %s", strerror(-error));
			wrong(k, cut, why);
			return;
		}
	}
	if (!chain_reads("top.vhdx", why, sizeof(why)) ||
	    (operations[k].result && !chain_reads(operations[k].result, why, sizeof(why))))
		wrong(k, cut, why);
}

static void record(unsigned k)
{
	static const char *const names[] = { "base.vhdx", "middle.vhdx", "top.vhdx", "other.vhdx" };

	for (unsigned n = 0; n < act_count; n++)
		free(acts[n].data);
	act_count = file_count = 0;
	memset(file_of, 0, sizeof(file_of));
	chain_again();
	for (unsigned n = 0; n < 4; n++)
		number_of(names[n]);
	recording = true;
	if (operations[k].act())
		wrong(k, 0, "fails by itself");
	recording = false;
	load_kept();
}

/* until_fault: no more than it takes to find one. */
static void run(unsigned k, uint64_t want, bool until_fault)
{
	uint64_t before = faults;

	record(k);
	for (uint64_t n = 0; n < want && !(until_fault && faults > before); n++) {
		unsigned cut = (unsigned)(n * act_count / (want > 1 ? want - 1 : 1));

		make_state(cut < act_count ? cut : act_count);
		look(k, cut < act_count ? cut : act_count);
	}
}

int main(int argc, char **argv)
{
	bool control = argc > 1 && !strcmp(argv[1], "control");
	uint64_t want = argc > 1 && !control ? strtoull(argv[1], NULL, 0) : 700;
	uint64_t missed = 0;

	chain_state += argc > 2 ? strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ull : 0;
	for (unsigned n = 0; n < FILES; n++) {
		kept[n].bytes = calloc(1, FILE_BYTES);
		now[n].bytes = calloc(1, FILE_BYTES);
	}
	chain_make("/dev/shm");
	for (unsigned n = 0; control && n < 6; n++) {
		uint64_t before = faults;

		forget = n % 2 + 1;
		for (unsigned attempt = 0; attempt < 4 && faults == before; attempt++)
			run((unsigned[]){ 0, 2, 3 }[n / 2], 120, true);
		missed += faults == before;
		if (faults == before)
			printf("crash_chain_test: %s, without syncs from number %u on: not "
			       "noticed\n",
			       operations[(unsigned[]){ 0, 2, 3 }[n / 2]].name, forget);
	}
	for (unsigned k = 0; !control && k < OPERATIONS; k++)
		run(k, want / OPERATIONS + 1, false);
	chain_end();
	if (control)
		printf("crash_chain_test: %lu of 6 records without syncs were not noticed\n",
		       missed);
	else
		printf("crash_chain_test: %lu states, %lu faults\n", states, faults);
	return control ? missed > 1 : faults != 0;
}
