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
enum { KINDS = 5, CONTROLS = 8 };
static struct disk_options options = { .write = true };

static uint64_t rnd(void)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return state;
}

static void may_be(struct memory_file *file, uint64_t sector, uint8_t value, uint32_t done)
{
	struct history *states = &history[sector];

	if (states->count == VALUES)
		abort();
	states->act[states->count] = (uint32_t)memory_acts(file);
	states->done[states->count] = done;
	states->value[states->count++] = value;
}

static void is_done(uint64_t first, uint64_t count)
{
	clock_now++;
	for (uint64_t sector = first; sector < first + count; sector++)
		history[sector].done[history[sector].count - 1] = clock_now;
}

static void note_flush(struct memory_file *file, uint32_t asked)
{
	flush[flushes++] = (struct flush){ asked, memory_acts(file) };
}

static struct disk *open_at(struct memory_file *file)
{
	struct disk_error error;
	struct disk *disk = NULL;

	if (disk_open_file(memory_disk_file(file), child_path, &options, &disk, &error))
		fprintf(stderr, "crash_test: does not open: %s\n", error.text);
	return disk;
}

static bool room_for(uint64_t first, uint64_t count)
{
	for (uint64_t sector = first; sector < first + count; sector++)
		if (history[sector].count >= VALUES - 1 ||
		    history[sector].done[history[sector].count - 1] == NOT_DONE)
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

static void one_act(struct memory_file *file, struct disk *disk, unsigned n)
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
		if (disk_flush(disk))
			abort();
		note_flush(file, asked);
		return;
	case 2: value = 0; /* fall through */
	default:
		for (uint64_t sector = first; sector < first + count; sector++)
			may_be(file, sector, value, NOT_DONE);
		memset(buffer, value, count * 512);
		if (value ? disk_write(disk, first * 512, buffer, count * 512)
			  : disk_zero(disk, first * 512, count * 512))
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

static void slot_done(struct disk_request *request, int error)
{
	struct slot *slot = request->context;

	if (error)
		abort();
	if (request->kind == DISK_FLUSH)
		note_flush(slot->file, slot->asked);
	else
		is_done(slot->first, slot->count);
	slot->busy = false;
}

static void submit(struct disk_queue *queue, struct slot *slot, struct memory_file *file,
		   unsigned n)
{
	uint8_t value = (uint8_t)(n + 1);

	choose(&slot->first, &slot->count);
	if (!room_for(slot->first, slot->count))
		return;
	slot->file = file;
	slot->asked = clock_now;
	slot->request = (struct disk_request){ .kind = DISK_WRITE,
					       .offset = slot->first * 512,
					       .iov = &slot->iov,
					       .count = 1,
					       .done = slot_done,
					       .context = slot };
	switch (rnd() % 6) {
	case 0: slot->request.kind = DISK_FLUSH; break;
	case 1:
		slot->request.kind = DISK_ZERO;
		slot->request.bytes = slot->count * 512;
		value = 0; /* fall through */
	default:
		for (uint64_t k = slot->first; k < slot->first + slot->count; k++)
			may_be(file, k, value, NOT_DONE);
		memset(slot->bytes, value, slot->count * 512);
		slot->iov = (struct iovec){ slot->bytes, slot->count * 512 };
	}
	slot->busy = true;
	if (disk_queue_submit(queue, &slot->request))
		abort();
}

static void work_by_queues(struct memory_file *file, struct disk *disk)
{
	static struct slot slots[SLOTS];
	struct disk_queue *queue[QUEUES];

	for (unsigned n = 0; n < QUEUES; n++)
		if (disk_queue_open(disk, &(struct disk_queue_options){ .threads = 2 }, &queue[n]))
			abort();
	for (unsigned n = 0; n < 2 * WORK; n++) {
		unsigned at = (unsigned)(rnd() % SLOTS);

		if (!slots[at].busy)
			submit(queue[at % QUEUES], &slots[at], file, n % 190);
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
	struct memory_file *medium = memory_new();
	struct disk_file file = memory_disk_file(medium);
	const struct disk_create what = { .format = options.format,
					  .size_bytes = DISK_BYTES,
					  .block_bytes = 1 << 20,
					  .fixed = fixed };
	const char *path = parent_path[options.format == DISK_VHD];
	struct disk_error error;
	struct disk *parent = NULL;

	if (differencing &&
	    disk_open(path, &(struct disk_options){ .format = options.format }, &parent, &error))
		abort();
	if (options.format == DISK_VHD ? vhd_create(&file, child_path, &what, parent, &error)
				       : vhdx_create(&file, child_path, &what, parent, &error)) {
		fprintf(stderr, "crash_test: %s\n", error.text);
		exit(1);
	}
	if (parent)
		disk_close(parent);
	return medium;
}

/* The workload; *ret_begin: the file before it. */
static struct memory_file *record(unsigned kind, struct memory_file **ret_begin)
{
	bool queues = kind >= KINDS;
	struct memory_file *file;
	struct disk *disk;
	struct disk_info info;
	uint32_t asked;

	kind %= KINDS;
	differencing = kind == 2 || kind == 4;
	options.format = kind < 3 ? DISK_VHDX : DISK_VHD;
	file = make(kind == 1);
	memset(history, 0, SECTORS * sizeof(*history));
	clock_now = 0;
	for (uint64_t sector = 0; sector < SECTORS; sector++)
		may_be(file, sector, differencing ? (uint8_t)(200 + sector / SECTORS_OF_A_BYTE) : 0,
		       0);
	flushes = 0;
	*ret_begin = memory_copy(file);
	file->recording = true;
	disk = open_at(file);
	disk_info(disk, &info);
	first_id = info.data_id;
	note_flush(file, 0);
	if (queues)
		work_by_queues(file, disk);
	for (unsigned n = 0; n < WORK && !queues; n++)
		one_act(file, disk, n);
	asked = clock_now;
	if (disk_close(disk))
		abort();
	note_flush(file, asked);
	return file;
}

/* ---- after the cut ---- */

/* covered: when the latest flush that had returned was asked for. */
static bool was_possible(uint64_t sector, uint8_t value, size_t cut, uint32_t covered)
{
	const struct history *states = &history[sector];
	unsigned n = states->count - 1;

	while (n && states->done[n] > covered)
		n--;
	for (; n < states->count; n++)
		if (states->value[n] == value && states->act[n] <= cut)
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

static void verify(struct memory_file *file, size_t cut)
{
	static uint8_t buffer[DISK_BYTES];
	struct disk *disk = open_at(file);
	struct disk_info info;
	uint32_t covered = 0;
	bool changed = false;
	bool bad = false;

	states++;
	for (unsigned n = 0; n < flushes; n++)
		if (flush[n].returned <= cut && flush[n].asked > covered)
			covered = flush[n].asked;
	if (!disk) {
		faults++;
		return;
	}
	disk_info(disk, &info);
	if (disk_read(disk, 0, buffer, DISK_BYTES))
		bad = true;
	for (uint64_t sector = 0; sector < SECTORS && !bad; sector++) {
		const uint8_t *at = buffer + sector * 512;

		bad = memcmp(at, at + 1, 511) || !was_possible(sector, *at, cut, covered);
		if (bad)
			fprintf(stderr, "crash_test: act %zu: sector %lu has %u\n", cut, sector,
				*at);
		changed |= *at != history[sector].value[0];
	}
	if (changed && options.format == DISK_VHDX && guid_equal(info.data_id, first_id)) {
		fprintf(stderr, "crash_test: act %zu: data changed, the identifier did not\n", cut);
		bad = true;
	}
	if (options.format == DISK_VHDX && disk_verify(disk, wrong_digest, NULL) == -EILSEQ) {
		fprintf(stderr, "crash_test: act %zu: a digest is wrong\n", cut);
		bad = true;
	}
	faults += bad;
	if (disk_close(disk))
		faults++;
}

/* Acts [0, stable) whole, then of [stable, cut) some, in some order. */
static void cut_at(const struct memory_file *begin, const struct memory_file *file,
		   struct memory_file **stable, size_t *stable_count, size_t cut)
{
	size_t last = cut;
	size_t order[64];
	size_t n = 0;
	struct memory_file *settled;

	while (last && file->acts[last - 1].kind != MEMORY_FLUSH)
		last--;
	if (!*stable) {
		*stable = memory_copy(begin);
		*stable_count = 0;
	}
	for (; *stable_count < last; ++*stable_count)
		memory_do(*stable, &file->acts[*stable_count], 0, file->acts[*stable_count].bytes);
	settled = memory_copy(*stable);
	for (size_t k = last, sizes = rnd() % 2 ? cut : rnd() % 3; k < cut; k++) {
		bool size = file->acts[k].kind == MEMORY_TRUNCATE;

		if (size && !sizes)
			continue; /* the file system's, in order, but as late as it likes */
		sizes -= size;
		if (size || cut - k > 64)
			memory_do(settled, &file->acts[k], 0, file->acts[k].bytes);
		else
			order[n++] = k;
	}
	for (size_t k = n; k > 1 && rnd() % 2; k--) { /* half of the states in another order */
		size_t other = rnd() % k;
		size_t swapped = order[k - 1];

		order[k - 1] = order[other];
		order[other] = swapped;
	}
	for (size_t k = 0; k < n; k++) {
		const struct memory_act *a = &file->acts[order[k]];
		uint64_t pieces = a->bytes / 512;

		switch (rnd() % 4) {
		case 0: break;
		case 1: /* torn */
			if (pieces > 1) {
				uint64_t at = rnd() % pieces * 512;

				rnd() % 2 ? memory_do(settled, a, 0, at)
					  : memory_do(settled, a, at, a->bytes);
				break;
			} /* fall through */
		default: memory_do(settled, a, 0, a->bytes);
		}
	}
	verify(settled, cut);
	memory_free(settled);
}

static void run(unsigned kind, uint64_t want)
{
	struct memory_file *begin;
	struct memory_file *stable = NULL;
	struct memory_file *file = record(kind, &begin);
	size_t stable_count = 0;
	uint64_t each = want / (file->count + 1) + 1;
	uint64_t until = states + want;

	for (size_t cut = 0; cut <= file->count && states < until; cut++)
		for (uint64_t n = 0; n < each && states < until; n++)
			cut_at(begin, file, &stable, &stable_count, cut);
	memory_free(file);
	memory_free(begin);
	if (stable)
		memory_free(stable);
}

/* As if syncs were forgotten: the record without every second one. */
static uint64_t faults_without_syncs(unsigned kind, unsigned which)
{
	struct memory_file *begin;
	struct memory_file *stable = NULL;
	struct memory_file *file = record(kind, &begin);
	size_t stable_count = 0;
	size_t syncs = 0;
	uint64_t before = faults;

	for (size_t n = 0; n < file->count; n++)
		if (file->acts[n].kind == MEMORY_FLUSH && syncs++ % 2 == which)
			file->acts[n] = (struct memory_act){ MEMORY_DISCARD, 0, 0, NULL };
	for (unsigned n = 0; n < 1500 && faults == before; n++)
		cut_at(begin, file, &stable, &stable_count, file->count * (n / 3 + 1) / 501);
	memory_free(file);
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
	struct disk_error error;
	struct disk *disk;

	options.format = format;
	snprintf(path, sizeof(*parent_path), "build/crash-%d.%s", getpid(),
		 disk_format_name(format));
	snprintf(child_path, sizeof(child_path), "build/crash-child-%d", getpid());
	for (uint64_t sector = 0; sector < SECTORS; sector++)
		memset(buffer + 512 * sector, (int)(200 + sector / SECTORS_OF_A_BYTE), 512);
	if (disk_create(path, &what, &error) || disk_open(path, &options, &disk, &error) ||
	    disk_write(disk, 0, buffer, DISK_BYTES) || disk_close(disk)) {
		fprintf(stderr, "crash_test: %s\n", error.text);
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
		for (unsigned n = 0; n < CONTROLS; n++)
			missed += !faults_without_syncs((unsigned[]){ 0, 2, 4, KINDS + 2 }[n % 4],
							n / 4 % 2);
		printf("crash_test: %lu of %u records without syncs were not noticed\n", missed,
		       CONTROLS);
		clean_up();
		return missed > CONTROLS / 8;
	}
	for (unsigned n = 0; states < want; n++)
		run(n % (2 * KINDS), want - states < 400 ? want - states : 400);
	printf("crash_test: %lu states, %lu faults\n", states, faults);
	clean_up();
	return faults ? 1 : 0;
}
