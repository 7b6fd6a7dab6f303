/* A machine that runs is written (saved.h). */
#include "saved.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/archive.h"
#include "lib/check.h"
#include "lib/crc32c.h"
#include "saver.h"

enum {
	/* 1: without a bus */
	FORMAT_VERSION_FIRST = 1, FORMAT_VERSION_BUS = 2,
	PASSES_MAX = 8, FEW_PAGES = 256, USED_PAGES_MOST = 8192
};
enum { CRC_COVERED_BYTES = SAVED_HEAD_BYTES - 4, BITS_PER_WORD = 64 };

/* ---- both directions ---- */

void saved_head_archive(struct archive *archive, struct saved_head *head)
{
	char magic[8] = { 'U', 'M', 'B', 'R', 'A', 'S', 'A', 'V' };
	uint32_t format = head->has_bus ? FORMAT_VERSION_BUS : FORMAT_VERSION_FIRST;
	uint32_t bytes = SAVED_HEAD_BYTES;
	uint32_t crc;

	archive_check(archive, archive->bytes >= SAVED_HEAD_BYTES);
	archive_bytes(archive, magic, sizeof(magic));
	archive_check(archive, !memcmp(magic, "UMBRASAV", sizeof(magic)));
	archive_u32(archive, &format);
	if (!archive->error && format != FORMAT_VERSION_FIRST && format != FORMAT_VERSION_BUS)
		archive_fail(archive, -ENOTSUP, "it is of a version that this Umbra does not know");
	archive_u32(archive, &bytes);
	archive_u64(archive, &head->memory_bytes);
	archive_u64(archive, &head->features);
	archive_u64(archive, &head->tsc_hz);
	archive_u32(archive, &head->cpus);
	archive_u16(archive, &head->debug_exit);
	head->has_bus = format == FORMAT_VERSION_BUS;
	if (head->has_bus) {
		archive_u16(archive, &head->cards);
		archive_u64(archive, &head->start_bytes);
		archive_bool(archive, &head->display);
		archive_bytes(archive, head->port, sizeof(head->port));
	}
	if (archive->error)
		return;
	if (!archive->loading)
		memset(archive->data + archive->used, 0, SAVED_HEAD_BYTES - archive->used);
	for (; archive->used < CRC_COVERED_BYTES; archive->used++)
		archive_check(archive, !archive->data[archive->used]);
	crc = crc32c(0, archive->data, CRC_COVERED_BYTES);
	if (!archive->loading)
		memcpy(archive->data + CRC_COVERED_BYTES, &crc, sizeof(crc));
	archive_check(archive, bytes == SAVED_HEAD_BYTES);
	archive_check(archive, !memcmp(&crc, archive->data + CRC_COVERED_BYTES, sizeof(crc)));
}

void saved_machine_archive(struct archive *archive, struct machine *machine, uint64_t *now_100ns,
			   uint64_t *tsc)
{
	archive_u64(archive, now_100ns);
	archive_u64(archive, tsc);
	archive_u64(archive, &machine->hv_host.tsc_offset);
	cpu_model_archive(archive, &machine->model);
}

uint64_t saved_frames(const struct machine *machine)
{
	return machine->memory.ram_bytes / GUEST_PAGE_BYTES + GUEST_OVERLAYS;
}

/* ---- memory ---- */

static bool is_ram(const struct saver *saver, uint64_t frame)
{
	return frame < saver->machine->memory.ram_bytes / GUEST_PAGE_BYTES;
}

/* Overlays are written at the end, once: of one that is empty then there is no page. */
static bool is_wanted_ram(const struct saver *saver, uint64_t frame)
{
	return is_ram(saver, frame) && saver_is_wanted(saver, frame);
}

/*
 * Once more what the machine has come to since the save began, and will soon come to where it is
 * restored: what lies behind the first pass is brought first there (process/pager_main.c). With it
 * the few that were written meanwhile.
 */
static void put_used(struct saver *saver)
{
	engine_find_used(saver->machine->engine, saver->wanted, USED_PAGES_MOST);
	saver_put_pages(saver, 0, is_wanted_ram);
	saver_forget_wanted(saver);
}

/* Who looks at memory that nobody has written has the kernel make some of it. */
static bool is_written_and_used(const struct saver *saver, uint64_t frame)
{
	return is_ram(saver, frame) &&
	       (!saver->machine->knows_written || saver_is_wanted(saver, frame)) &&
	       saver_is_used(saver, frame);
}

/* Of what is written from here on the engine takes notes. */
static void put_all(struct saver *saver)
{
	struct engine *engine = saver->machine->engine;

	engine_take_dirty(engine, saver->wanted);
	engine_find_written(engine, saver->wanted);
	saver_put_pages(saver, 0, is_written_and_used);
	saver_forget_wanted(saver);
}

/*
 * While the machine runs: every page that holds something, then those that were written meanwhile,
 * until only few are, or it is no use. What is in `wanted` afterwards has still to be written. A
 * page is written again as often as that; the last one counts.
 */
static void put_while_running(struct saver *saver)
{
	struct machine *machine = saver->machine;
	uint64_t before = UINT64_MAX;

	engine_note_use(machine->engine, true);
	put_all(saver);
	for (unsigned n = 0; n < PASSES_MAX && !saver->error; n++) {
		const uint64_t count = engine_take_dirty(machine->engine, saver->wanted);

		if (count <= FEW_PAGES) {
			put_used(saver);
			/* what was written meanwhile: the machine stands while the rest is */
			engine_take_dirty(machine->engine, saver->wanted);
			saver_put_pages(saver, 0, is_wanted_ram);
			saver_forget_wanted(saver);
			return;
		}
		if (count > before / 2)
			return;
		before = count;
		saver_put_pages(saver, 0, is_wanted_ram);
		saver_forget_wanted(saver);
	}
}

/*
 * What was never written is zeros: who reads what was forked takes it for that (served.c). Behind
 * the last page, since `wanted` is another one afterwards.
 */
static void check_written(struct saver *saver)
{
	const uint64_t frames = saver->machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	if (!saver->machine->knows_written)
		return;
	saver_forget_wanted(saver);
	engine_find_written(saver->machine->engine, saver->wanted);
	for (uint64_t n = 0; n < frames; n++)
		assert(saver_is_wanted(saver, n) || !saver_is_used(saver, n));
}

/* While it stands still: the rest. The machine writes to overlay pages by itself. */
static void put_rest(struct saver *saver)
{
	struct machine *machine = saver->machine;
	const uint64_t ram_frames = machine->memory.ram_bytes / GUEST_PAGE_BYTES;
	const uint64_t frames = saved_frames(machine);

	engine_take_dirty(machine->engine, saver->wanted);
	/* which others write, and no engine notes */
	if (machine->devices)
		devices_mark_lent(machine->devices, saver->wanted);
	/* who restores one that is empty would have the host make it for nothing */
	for (uint64_t n = ram_frames; n < frames; n++) {
		const uint64_t bit = 1ull << n % BITS_PER_WORD;

		saver->wanted[n / BITS_PER_WORD] &= ~bit;
		saver->wanted[n / BITS_PER_WORD] |= saver_is_used_overlay(saver, n) ? bit : 0;
	}
	saver_put_pages(saver, 0, saver_is_wanted);
}

/* ---- the whole ---- */

static void move(struct machine *machine, enum life to)
{
	pthread_mutex_lock(&machine->lock);
	machine_move(machine, to);
	pthread_mutex_unlock(&machine->lock);
}

static void save(struct saver *saver)
{
	struct machine *machine = saver->machine;

	saver->error = machine_wait_for_begin(machine);
	if (!saver->error)
		saver->error = demand_wait_whole(machine);
	if (saver->error)
		return;
	saver_put_head(saver);
	put_while_running(saver);
	engine_note_use(machine->engine, false);
	if (!saver->error)
		saver->error = machine_pause(machine);
	if (saver->error)
		return;
	if (machine->devices)
		devices_stand(machine->devices);
	move(machine, LIFE_SAVING);
	saver_put_parts(saver);
	saver_put_code(saver);
	put_rest(saver);
	CHECK(check_written(saver));
	saver_put_end(saver);
	move(machine, LIFE_PAUSED);
	if (saver->error)
		machine_resume(machine);
}

int machine_save(struct machine *machine,
		 int (*write)(void *context, const void *data, size_t bytes), void *context)
{
	struct saver saver;
	int error = saver_check(machine);

	assert(write);
	if (!error)
		error = saver_make(&saver, machine, write, context);
	if (error)
		return error;
	save(&saver);
	saver_free(&saver);
	return saver.error;
}
