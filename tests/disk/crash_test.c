/*
 * Power cuts. A workload on a VHDX or VHD file is written down act by act; then, for many moments, the file is made as it may be after the
 * power went away there: everything up to the last sync of the host's file, and of what came after it any part, in any order, writes
 * torn at 512 bytes. Each such file must open, and then
 *
 *   every sector has what it had at the last flush that had returned, or something that was written to it later;
 *   if anything differs from before the workload, the data identifier differs, too (of a VHDX file: the other has none).
 *
 * usage: crash_test [STATES [SEED]]; `crash_test control` drops syncs from the record and must find faults in them.
 */
#include <stdio.h>
#include <unistd.h>

#include "../../src/disk/vhdx_internal.h"
#include "memory_file.h"

enum { DISK_BYTES = 12 << 20, SECTORS = DISK_BYTES / 512, WORK = 60, ACTS_MAX = 100000, VALUES = 32 };

/* What a sector may hold from a moment on; 0 is zero, other values fill it. */
struct history { uint32_t act[VALUES]; uint8_t value[VALUES]; unsigned count; };

static struct history *history; /* of each sector: a value and the act after which it may be seen */
static uint8_t (*flushed)[SECTORS]; /* at each flush that returned */
static size_t flush_act[WORK + 2];
static unsigned flushes;
static uint64_t state, faults, states;
static struct guid first_id;
static char parent_path[2][64], child_path[64];
static bool differencing;
enum { KINDS = 5 }; /* VHDX dynamic, fixed, differencing; VHD dynamic, differencing */
static struct disk_options options = { .write = true };

static uint64_t rnd(void)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}

static void may_be(struct memory_file *f, uint64_t sector, uint8_t value)
{
	struct history *h = &history[sector];

	if (h->count == VALUES)
		abort();
	h->act[h->count] = (uint32_t)f->count;
	h->value[h->count++] = value;
}

static uint8_t newest(uint64_t sector) { return history[sector].value[history[sector].count - 1]; }

static void note_flush(struct memory_file *f)
{
	for (uint64_t s = 0; s < SECTORS; s++)
		flushed[flushes][s] = newest(s);
	flush_act[flushes++] = f->count;
}

static struct disk *open_at(struct memory_file *f)
{
	struct disk_error e;
	struct disk *d = NULL;

	if (disk_open_file(memory_disk_file(f), child_path, &options, &d, &e))
		fprintf(stderr, "crash_test: does not open: %s\n", e.text);
	return d;
}

static bool room_for(uint64_t first, uint64_t count)
{
	for (uint64_t s = first; s < first + count; s++)
		if (history[s].count >= VALUES - 1)
			return false;
	return true;
}

static void one_act(struct memory_file *f, struct disk *d, unsigned n)
{
	uint64_t first = rnd() % SECTORS, count = rnd() % 4 ? rnd() % 8 + 1 : rnd() % 3000 + 1;
	uint8_t value = (uint8_t)(n + 1);
	static uint8_t buffer[DISK_BYTES];

	if (rnd() % 3 == 0)
		first = first / 2048 * 2048, count = rnd() % 2 ? 2048 : count; /* whole blocks now and then */
	if (first + count > SECTORS)
		count = SECTORS - first;
	if (!room_for(first, count))
		return;
	switch (rnd() % 6) {
	case 0:
	case 1:
		if (disk_flush(d))
			abort();
		note_flush(f);
		return;
	case 2: value = 0; /* fall through */
	default:
		for (uint64_t s = first; s < first + count; s++)
			may_be(f, s, value);
		memset(buffer, value, count * 512);
		if (value ? disk_write(d, first * 512, buffer, count * 512) : disk_zero(d, first * 512, count * 512))
			abort();
	}
}

static struct memory_file *make(bool fixed)
{
	struct memory_file *f = memory_new();
	struct disk_file file = memory_disk_file(f);
	const struct disk_create what = { .format = options.format, .size_bytes = DISK_BYTES, .block_bytes = 1 << 20, .fixed = fixed };
	const char *path = parent_path[options.format == DISK_VHD];
	struct disk_error e;
	struct disk *parent = NULL;

	if (differencing && disk_open(path, &(struct disk_options){ .format = options.format }, &parent, &e))
		abort();
	if (options.format == DISK_VHD ? vhd_create(&file, child_path, &what, parent, &e) : vhdx_create(&file, child_path, &what, parent, &e)) {
		fprintf(stderr, "crash_test: %s\n", e.text);
		exit(1);
	}
	if (parent)
		disk_close(parent);
	return f;
}

/* The workload; *ret_begin: the file before it. */
static struct memory_file *record(unsigned kind, struct memory_file **ret_begin)
{
	struct memory_file *f;
	struct disk *d;
	struct disk_info info;

	differencing = kind == 2 || kind == 4;
	options.format = kind < 3 ? DISK_VHDX : DISK_VHD;
	f = make(kind == 1);
	memset(history, 0, SECTORS * sizeof(*history));
	for (uint64_t s = 0; s < SECTORS; s++)
		may_be(f, s, differencing ? (uint8_t)(200 + s / 4096) : 0);
	flushes = 0;
	*ret_begin = memory_copy(f);
	f->recording = true;
	d = open_at(f);
	disk_info(d, &info);
	first_id = info.data_id;
	note_flush(f);
	for (unsigned n = 0; n < WORK; n++)
		one_act(f, d, n);
	if (disk_close(d))
		abort();
	note_flush(f);
	return f;
}

/* ---- after the cut ---- */

static bool was_possible(uint64_t sector, uint8_t value, size_t cut, unsigned flush)
{
	const struct history *h = &history[sector];

	if (flushed[flush][sector] == value)
		return true;
	for (unsigned n = 0; n < h->count; n++)
		if (h->value[n] == value && h->act[n] >= flush_act[flush] && h->act[n] <= cut)
			return true;
	return false;
}

static void verify(struct memory_file *f, size_t cut)
{
	static uint8_t buffer[DISK_BYTES];
	struct disk *d = open_at(f);
	struct disk_info info;
	unsigned flush = 0;
	bool changed = false, bad = false;

	states++;
	while (flush + 1 < flushes && flush_act[flush + 1] <= cut)
		flush++;
	if (!d) {
		faults++;
		return;
	}
	disk_info(d, &info);
	if (disk_read(d, 0, buffer, DISK_BYTES))
		bad = true;
	for (uint64_t s = 0; s < SECTORS && !bad; s++) {
		const uint8_t *at = buffer + s * 512;

		bad = memcmp(at, at + 1, 511) || !was_possible(s, *at, cut, flush);
		if (bad && !getenv("QUIET"))
			fprintf(stderr, "crash_test: act %zu: sector %lu has %u, not %u\n", cut, s, *at, flushed[flush][s]);
		changed |= *at != flushed[0][s];
	}
	if (changed && options.format == DISK_VHDX && guid_equal(info.data_id, first_id)) {
		fprintf(stderr, "crash_test: act %zu: data changed, the identifier did not\n", cut);
		bad = true;
	}
	faults += bad;
	if (disk_close(d))
		faults++;
}

/* Acts [0, stable) whole, then of [stable, cut) some, in some order. */
static void cut_at(const struct memory_file *begin, const struct memory_file *f, struct memory_file **stable, size_t *stable_count, size_t cut)
{
	size_t last = cut, order[64], n = 0;
	struct memory_file *s;

	while (last && f->acts[last - 1].kind != MEMORY_FLUSH)
		last--;
	if (!*stable) {
		*stable = memory_copy(begin);
		*stable_count = 0;
	}
	for (; *stable_count < last; ++*stable_count)
		memory_do(*stable, &f->acts[*stable_count], 0, f->acts[*stable_count].bytes);
	s = memory_copy(*stable);
	for (size_t k = last; k < cut; k++)
		if (f->acts[k].kind == MEMORY_TRUNCATE || cut - k > 64) /* the size is the file system's, in order */
			memory_do(s, &f->acts[k], 0, f->acts[k].bytes);
		else
			order[n++] = k;
	for (size_t k = n; k > 1 && rnd() % 2; k--) { /* half of the states in another order */
		size_t other = rnd() % k, t = order[k - 1];

		order[k - 1] = order[other];
		order[other] = t;
	}
	for (size_t k = 0; k < n; k++) {
		const struct memory_act *a = &f->acts[order[k]];
		uint64_t pieces = a->bytes / 512;

		switch (rnd() % 4) {
		case 0: break;
		case 1: /* torn */
			if (pieces > 1) {
				uint64_t at = rnd() % pieces * 512;

				rnd() % 2 ? memory_do(s, a, 0, at) : memory_do(s, a, at, a->bytes);
				break;
			} /* fall through */
		default: memory_do(s, a, 0, a->bytes);
		}
	}
	verify(s, cut);
	memory_free(s);
}

static void run(unsigned kind, uint64_t want)
{
	struct memory_file *begin, *stable = NULL, *f = record(kind, &begin);
	size_t stable_count = 0;
	uint64_t each = want / (f->count + 1) + 1, until = states + want;

	for (size_t cut = 0; cut <= f->count && states < until; cut++)
		for (uint64_t n = 0; n < each && states < until; n++)
			cut_at(begin, f, &stable, &stable_count, cut);
	memory_free(f);
	memory_free(begin);
	if (stable)
		memory_free(stable);
}

/* As if syncs were forgotten: the record without every second one. */
static uint64_t faults_without_syncs(unsigned kind, unsigned which)
{
	struct memory_file *begin, *stable = NULL, *f = record(kind, &begin);
	size_t stable_count = 0, syncs = 0;
	uint64_t before = faults;

	for (size_t n = 0; n < f->count; n++)
		if (f->acts[n].kind == MEMORY_FLUSH && syncs++ % 2 == which)
			f->acts[n] = (struct memory_act){ MEMORY_DISCARD, 0, 0, NULL };
	for (unsigned n = 0; n < 1500 && faults == before; n++)
		cut_at(begin, f, &stable, &stable_count, f->count * (n / 3 + 1) / 501);
	memory_free(f);
	memory_free(begin);
	memory_free(stable);
	return faults - before;
}

static void make_parent(enum disk_format format)
{
	static uint8_t buffer[DISK_BYTES];
	const struct disk_create what = { .format = format, .size_bytes = DISK_BYTES, .block_bytes = 1 << 20 };
	char *path = parent_path[format == DISK_VHD];
	struct disk_error e;
	struct disk *d;

	options.format = format;
	snprintf(path, sizeof(*parent_path), "build/crash-%d.%s", getpid(), disk_format_name(format));
	snprintf(child_path, sizeof(child_path), "build/crash-child-%d", getpid());
	for (uint64_t s = 0; s < SECTORS; s++)
		memset(buffer + 512 * s, (int)(200 + s / 4096), 512);
	if (disk_create(path, &what, &e) || disk_open(path, &options, &d, &e) || disk_write(d, 0, buffer, DISK_BYTES) || disk_close(d)) {
		fprintf(stderr, "crash_test: %s\n", e.text);
		exit(1);
	}
}

static void clean_up(void)
{
	char side[80];

	for (int n = 0; n < 2; n++) {
		unlink(parent_path[n]);
		snprintf(side, sizeof(side), "%s.umbra", n ? parent_path[1] : child_path);
		unlink(side);
	}
}

int main(int argc, char **argv)
{
	bool control = argc > 1 && !strcmp(argv[1], "control");
	uint64_t want = argc > 1 && !control ? strtoull(argv[1], NULL, 0) : 1000, missed = 0;

	state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
	history = calloc(SECTORS, sizeof(*history));
	flushed = calloc(WORK + 2, SECTORS);
	make_parent(DISK_VHDX);
	make_parent(DISK_VHD);
	if (control) {
		freopen("/dev/null", "w", stderr);
		for (unsigned n = 0; n < 20; n++)
			missed += !faults_without_syncs((unsigned[]){ 0, 2, 4 }[n % 3], n / 3 % 2);
		printf("crash_test: %lu of 20 records without syncs were not noticed\n", missed);
		clean_up();
		return missed > 2;
	}
	for (unsigned n = 0; states < want; n++)
		run(n % KINDS, want - states < 400 ? want - states : 400);
	printf("crash_test: %lu states, %lu faults\n", states, faults);
	clean_up();
	return faults ? 1 : 0;
}
