/*
 * Power cuts. A workload on a VHDX or VHD file is written down act by act: one request after the
 * other, or by several queues with many requests under way at once. Then, for many moments, the
 * file is made as it may be after the power went away there: everything up to the last sync of the
 * host's file, and of what came after it any part, in any order, writes torn at 512 bytes. Each
 * such file must open, and then
 *
 *   every sector has what it had when the last flush that had returned was asked for, or something
 *   that was written to it later; if anything differs from before the workload, the data identifier
 *   differs, too (of a VHDX file: the other has none); its digests are of older data, or right.
 *
 * usage: crash_test [STATES [SEED]]; `crash_test control` drops syncs from the record and must find
 * faults in them.
 */
#include <stdio.h>
#include <unistd.h>

#include "disk/queue.h"
#include "disk/format/vhdx_internal.h"
#include "memory_file.h"

enum {
	DISK_BYTES = 12 << 20,
	SECTORS = DISK_BYTES / 512,
	WORK = 60,
	SECTORS_OF_A_BYTE = 4096, /* of the parent: its content changes after so many */
	VALUES = 32,
	QUEUES = 3,
	SLOTS = 24,
	LONGEST = 3000
};

/*
 * What was written to a sector, in order: a value (0 is zero, others fill it), the number of acts
 * after which it may be seen, and when it was done, on a clock that every request moves on;
 * NOT_DONE: it is under way. Nothing is written where something is under way.
 */
#define NOT_DONE UINT32_MAX
struct history { uint32_t act[VALUES], done[VALUES]; uint8_t value[VALUES]; unsigned count; };
struct flush { uint32_t asked; size_t returned; }; /* on the clock; as a number of acts */

static struct history *history; /* of each sector */
static struct flush flush[WORK * 4];
static unsigned flushes;
static uint32_t clock_now;
static uint64_t state, faults, states;
static struct guid first_id;
static char parent_path[2][64], child_path[64];
static bool differencing;
/* VHDX dynamic, fixed, differencing; VHD dynamic, differencing; and once more by queues */
enum { KINDS = 5 };
static struct disk_options options = { .write = true };

static uint64_t rnd(void)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}

static void may_be(struct memory_file *f, uint64_t sector, uint8_t value, uint32_t done)
{
	struct history *h = &history[sector];

	if (h->count == VALUES)
		abort();
	h->act[h->count] = (uint32_t)memory_acts(f);
	h->done[h->count] = done;
	h->value[h->count++] = value;
}

static void is_done(uint64_t first, uint64_t count)
{
	clock_now++;
	for (uint64_t s = first; s < first + count; s++)
		history[s].done[history[s].count - 1] = clock_now;
}

static void note_flush(struct memory_file *f, uint32_t asked)
{
	flush[flushes++] = (struct flush){ asked, memory_acts(f) };
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
		if (history[s].count >= VALUES - 1 ||
		    history[s].done[history[s].count - 1] == NOT_DONE)
			return false;
	return true;
}

/* Where the next request goes: whole blocks now and then. */
static void choose(uint64_t *first, uint64_t *count)
{
	*first = rnd() % SECTORS;
	*count = rnd() % 4 ? rnd() % 8 + 1 : rnd() % LONGEST + 1;
	if (rnd() % 3 == 0) {
		*first = *first / 2048 * 2048;
		*count = rnd() % 2 ? 2048 : *count;
	}
	if (*first + *count > SECTORS)
		*count = SECTORS - *first;
}

static void one_act(struct memory_file *f, struct disk *d, unsigned n)
{
	static uint8_t buffer[DISK_BYTES];
	uint8_t value = (uint8_t)(n + 1);
	uint64_t first, count;
	uint32_t asked = clock_now;

	choose(&first, &count);
	if (!room_for(first, count))
		return;
	switch (rnd() % 6) {
	case 0:
	case 1:
		if (disk_flush(d))
			abort();
		note_flush(f, asked);
		return;
	case 2: value = 0; /* fall through */
	default:
		for (uint64_t s = first; s < first + count; s++)
			may_be(f, s, value, NOT_DONE);
		memset(buffer, value, count * 512);
		if (value ? disk_write(d, first * 512, buffer, count * 512)
			  : disk_zero(d, first * 512, count * 512))
			abort();
		is_done(first, count);
	}
}

/* ---- by queues ---- */

struct slot {
	struct disk_request request;
	struct iovec iov;
	struct memory_file *file;
	uint64_t first, count;
	uint32_t asked;
	bool busy;
	uint8_t bytes[LONGEST * 512];
};

static void slot_done(struct disk_request *r, int error)
{
	struct slot *s = r->context;

	if (error)
		abort();
	if (r->kind == DISK_FLUSH)
		note_flush(s->file, s->asked);
	else
		is_done(s->first, s->count);
	s->busy = false;
}

static void submit(struct disk_queue *q, struct slot *s, struct memory_file *f, unsigned n)
{
	uint8_t value = (uint8_t)(n + 1);

	choose(&s->first, &s->count);
	if (!room_for(s->first, s->count))
		return;
	s->file = f;
	s->asked = clock_now;
	s->request = (struct disk_request){ .kind = DISK_WRITE,
					    .offset = s->first * 512,
					    .iov = &s->iov,
					    .count = 1,
					    .done = slot_done,
					    .context = s };
	switch (rnd() % 6) {
	case 0: s->request.kind = DISK_FLUSH; break;
	case 1:
		s->request.kind = DISK_ZERO;
		s->request.bytes = s->count * 512;
		value = 0; /* fall through */
	default:
		for (uint64_t k = s->first; k < s->first + s->count; k++)
			may_be(f, k, value, NOT_DONE);
		memset(s->bytes, value, s->count * 512);
		s->iov = (struct iovec){ s->bytes, s->count * 512 };
	}
	s->busy = true;
	if (disk_queue_submit(q, &s->request))
		abort();
}

static void work_by_queues(struct memory_file *f, struct disk *d)
{
	static struct slot slots[SLOTS];
	struct disk_queue *queue[QUEUES];

	for (unsigned n = 0; n < QUEUES; n++)
		if (disk_queue_open(d, &(struct disk_queue_options){ .threads = 2 }, &queue[n]))
			abort();
	for (unsigned n = 0; n < 2 * WORK; n++) {
		unsigned at = (unsigned)(rnd() % SLOTS);

		if (!slots[at].busy)
			submit(queue[at % QUEUES], &slots[at], f, n % 190);
		if (rnd() % 3 == 0)
			disk_queue_poll(queue[rnd() % QUEUES]);
		if (rnd() % 16 == 0)
			disk_queue_drain(queue[rnd() % QUEUES]);
	}
	for (unsigned n = 0; n < QUEUES; n++)
		disk_queue_close(queue[n]);
}

static struct memory_file *make(bool fixed)
{
	struct memory_file *f = memory_new();
	struct disk_file file = memory_disk_file(f);
	const struct disk_create what = { .format = options.format,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20,
					  .fixed = fixed };
	const char *path = parent_path[options.format == DISK_VHD];
	struct disk_error e;
	struct disk *parent = NULL;

	if (differencing &&
	    disk_open(path, &(struct disk_options){ .format = options.format }, &parent, &e))
		abort();
	if (options.format == DISK_VHD ? vhd_create(&file, child_path, &what, parent, &e)
				       : vhdx_create(&file, child_path, &what, parent, &e)) {
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
	bool queues = kind >= KINDS;
	struct memory_file *f;
	struct disk *d;
	struct disk_info info;
	uint32_t asked;

	kind %= KINDS;
	differencing = kind == 2 || kind == 4;
	options.format = kind < 3 ? DISK_VHDX : DISK_VHD;
	f = make(kind == 1);
	memset(history, 0, SECTORS * sizeof(*history));
	clock_now = 0;
	for (uint64_t s = 0; s < SECTORS; s++)
		may_be(f, s, differencing ? (uint8_t)(200 + s / SECTORS_OF_A_BYTE) : 0, 0);
	flushes = 0;
	*ret_begin = memory_copy(f);
	f->recording = true;
	d = open_at(f);
	disk_info(d, &info);
	first_id = info.data_id;
	note_flush(f, 0);
	if (queues)
		work_by_queues(f, d);
	for (unsigned n = 0; n < WORK && !queues; n++)
		one_act(f, d, n);
	asked = clock_now;
	if (disk_close(d))
		abort();
	note_flush(f, asked);
	return f;
}

/* ---- after the cut ---- */

/* covered: when the latest flush that had returned was asked for. */
static bool was_possible(uint64_t sector, uint8_t value, size_t cut, uint32_t covered)
{
	const struct history *h = &history[sector];
	unsigned n = h->count - 1;

	while (n && h->done[n] > covered)
		n--;
	for (; n < h->count; n++)
		if (h->value[n] == value && h->act[n] <= cut)
			return true;
	return false;
}

static int wrong_digest(void *context, uint64_t offset, uint64_t bytes)
{
	(void)context;
	(void)offset;
	(void)bytes;
	return -EILSEQ;
}

static void verify(struct memory_file *f, size_t cut)
{
	static uint8_t buffer[DISK_BYTES];
	struct disk *d = open_at(f);
	struct disk_info info;
	uint32_t covered = 0;
	bool changed = false;
	bool bad = false;

	states++;
	for (unsigned n = 0; n < flushes; n++)
		if (flush[n].returned <= cut && flush[n].asked > covered)
			covered = flush[n].asked;
	if (!d) {
		faults++;
		return;
	}
	disk_info(d, &info);
	if (disk_read(d, 0, buffer, DISK_BYTES))
		bad = true;
	for (uint64_t s = 0; s < SECTORS && !bad; s++) {
		const uint8_t *at = buffer + s * 512;

		bad = memcmp(at, at + 1, 511) || !was_possible(s, *at, cut, covered);
		if (bad)
			fprintf(stderr, "crash_test: act %zu: sector %lu has %u\n", cut, s, *at);
		changed |= *at != history[s].value[0];
	}
	if (changed && options.format == DISK_VHDX && guid_equal(info.data_id, first_id)) {
		fprintf(stderr, "crash_test: act %zu: data changed, the identifier did not\n", cut);
		bad = true;
	}
	if (options.format == DISK_VHDX && disk_verify(d, wrong_digest, NULL) == -EILSEQ) {
		fprintf(stderr, "crash_test: act %zu: a digest is wrong\n", cut);
		bad = true;
	}
	faults += bad;
	if (disk_close(d))
		faults++;
}

/* Acts [0, stable) whole, then of [stable, cut) some, in some order. */
static void cut_at(const struct memory_file *begin, const struct memory_file *f,
		   struct memory_file **stable, size_t *stable_count, size_t cut)
{
	size_t last = cut;
	size_t order[64];
	size_t n = 0;
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
	for (size_t k = last, sizes = rnd() % 2 ? cut : rnd() % 3; k < cut; k++) {
		bool size = f->acts[k].kind == MEMORY_TRUNCATE;

		if (size && !sizes)
			continue; /* changes of the size are the file system's, in order, but as late as it likes */
		sizes -= size;
		if (size || cut - k > 64)
			memory_do(s, &f->acts[k], 0, f->acts[k].bytes);
		else
			order[n++] = k;
	}
	for (size_t k = n; k > 1 && rnd() % 2; k--) { /* half of the states in another order */
		size_t other = rnd() % k;
		size_t t = order[k - 1];

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
	struct memory_file *begin;
	struct memory_file *stable = NULL;
	struct memory_file *f = record(kind, &begin);
	size_t stable_count = 0;
	uint64_t each = want / (f->count + 1) + 1;
	uint64_t until = states + want;

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
	struct memory_file *begin;
	struct memory_file *stable = NULL;
	struct memory_file *f = record(kind, &begin);
	size_t stable_count = 0;
	size_t syncs = 0;
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
	const struct disk_create what = { .format = format,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20 };
	char *path = parent_path[format == DISK_VHD];
	struct disk_error e;
	struct disk *d;

	options.format = format;
	snprintf(path, sizeof(*parent_path), "build/crash-%d.%s", getpid(),
		 disk_format_name(format));
	snprintf(child_path, sizeof(child_path), "build/crash-child-%d", getpid());
	for (uint64_t s = 0; s < SECTORS; s++)
		memset(buffer + 512 * s, (int)(200 + s / SECTORS_OF_A_BYTE), 512);
	if (disk_create(path, &what, &e) || disk_open(path, &options, &d, &e) ||
	    disk_write(d, 0, buffer, DISK_BYTES) || disk_close(d)) {
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
	uint64_t want = argc > 1 && !control ? strtoull(argv[1], NULL, 0) : 1000;
	uint64_t missed = 0;

	state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
	history = calloc(SECTORS, sizeof(*history));
	make_parent(DISK_VHDX);
	make_parent(DISK_VHD);
	if (control) {
		if (!freopen("/dev/null", "w", stderr))
			return 1;
		for (unsigned n = 0; n < 20; n++)
			missed += !faults_without_syncs((unsigned[]){ 0, 2, 4, KINDS + 2 }[n % 4],
							n / 4 % 2);
		printf("crash_test: %lu of 20 records without syncs were not noticed\n", missed);
		clean_up();
		return missed > 2;
	}
	for (unsigned n = 0; states < want; n++)
		run(n % (2 * KINDS), want - states < 400 ? want - states : 400);
	printf("crash_test: %lu states, %lu faults\n", states, faults);
	clean_up();
	return faults ? 1 : 0;
}
