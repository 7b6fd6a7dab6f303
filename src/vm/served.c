/*
 * A machine that was forked to be read: what machine_save() would write of it is laid out, and made
 * where somebody asks for it. It never runs (machine.h, machine_serve()).
 *
 *   head | PAGE ... | MACH, parts of units, PAGE of overlays, INDX ..., END
 *   front             front
 *          made when asked for
 *
 *  1. Nothing of the machine changes any more, so that what is asked for twice is the same.
 *  2. The pages that are laid out are those that were ever written (engine_find_written()); where
 *     the engine does not know, those that are not zeros. Others are zeros for who restores it.
 *  3. What is not RAM is written once, into `front`, which is as large as that is.
 *  4. Before the parts section follows section, in the order of their frames, and nothing lies
 *     between: so the one that has a byte is found by halves.
 */
#include "served_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/check.h"

/* Of units' parts and overlays, beside what grows with memory. */
enum { FRONT_BYTES = 8 << 20 };

static int put_front(void *context, const void *data, size_t bytes)
{
	struct served *served = context;

	if (bytes > served->front_room - served->front_bytes)
		return -ENOMEM;
	memcpy(served->front + served->front_bytes, data, bytes);
	served->front_bytes += bytes;
	return 0;
}

/* ---- how it is laid out ---- */

/* As much as parts, overlays and index can come to. */
static uint64_t front_room(const struct machine *machine)
{
	const uint64_t frames = saved_frames(machine);

	return FRONT_BYTES + frames / 8 + frames * sizeof(struct saved_entry);
}

static bool is_of_ram(const struct saver *saver, uint64_t frame)
{
	return frame < saver->machine->memory.ram_bytes / GUEST_PAGE_BYTES;
}

static bool is_served(const struct saver *saver, uint64_t frame)
{
	return is_of_ram(saver, frame) && (saver->machine->knows_written
						   ? saver_is_wanted(saver, frame)
						   : saver_is_used(saver, frame));
}

static int lay_out(struct served *served)
{
	struct saver *saver = &served->saver;
	const uint64_t overlays = saver->machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	engine_find_written(saver->machine->engine, saver->wanted);
	saver_put_head(saver);
	saver->lays_out = true;
	saver_put_pages(saver, 0, is_served);
	saver->lays_out = false;
	if (saver->has_no_index)
		return -ENOMEM;
	saver_put_parts(saver);
	saver_put_pages(saver, overlays, saver_is_used_overlay);
	saver_put_end(saver);
	return saver->error;
}

void check_served(const struct served *served)
{
	const struct saver *saver = &served->saver;
	const uint64_t parts_at = saver->end.parts_at;
	const uint64_t frames = saver->machine->memory.ram_bytes / GUEST_PAGE_BYTES;
	uint64_t at = SAVED_HEAD_BYTES;
	uint64_t frame = 0;

	assert(at <= parts_at && parts_at <= saver->at);
	assert(served->front_bytes <= served->front_room);
	assert(served->front_bytes == SAVED_HEAD_BYTES + (saver->at - parts_at));
	for (const struct saver_index *block = saver->index; block; block = block->next)
		for (uint64_t n = 0; n < block->entries && block->entry[n].at < parts_at; n++) {
			const struct saved_entry *entry = &block->entry[n];

			assert(entry->at == at && entry->pages && entry->first >= frame);
			frame = (uint64_t)entry->first + entry->pages;
			assert(frame <= frames);
			at += saved_entry_bytes(entry);
		}
	assert(at == parts_at);
}

int machine_serve(struct machine *machine, uint64_t *ret_bytes, uint64_t *ret_parts_at)
{
	struct served *served;
	int error = saver_check(machine);

	assert(machine->life == LIFE_FORKING && !machine->served);
	if (error)
		return error;
	pthread_mutex_init(&machine->lock, NULL); /* who held it was a thread of the other */
	if (machine->devices)
		devices_leave_lent(machine->devices);
	served = mmap(NULL, sizeof(*served), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	if (served == MAP_FAILED)
		return -ENOMEM;
	served->front_room = front_room(machine);
	served->front = mmap(NULL, served->front_room, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (served->front == MAP_FAILED || saver_make(&served->saver, machine, put_front, served))
		return -ENOMEM;
	error = lay_out(served);
	if (!error)
		CHECK(check_served(served));
	machine->served = served;
	*ret_bytes = served->saver.at;
	*ret_parts_at = served->saver.end.parts_at;
	return error;
}

/* ---- what is asked for ---- */

/* The section that has this byte of the stream. */
static const struct saved_entry *entry_at(const struct saver *saver, uint64_t at)
{
	const struct saver_index *block = saver->index;
	uint64_t low = 0;
	uint64_t high;

	while (block->next && block->next->entry[0].at <= at)
		block = block->next;
	for (high = block->entries; high - low > 1;) {
		const uint64_t middle = low + (high - low) / 2;

		if (block->entry[middle].at <= at)
			low = middle;
		else
			high = middle;
	}
	return &block->entry[low];
}

/* Bytes of one section; how many. */
static size_t read_section(struct served *served, uint64_t at, uint8_t *to, size_t bytes)
{
	const struct saved_entry *entry = entry_at(&served->saver, at);
	const uint8_t *pages = served->saver.machine->memory.ram +
			       (uint64_t)entry->first * GUEST_PAGE_BYTES;
	const uint64_t from = at - entry->at;
	const uint64_t left = saved_entry_bytes(entry) - from;

	assert(entry->at <= at && from < saved_entry_bytes(entry));
	if (served->made.at != entry->at || !served->made.pages) {
		saver_page_head(entry, pages, &served->head);
		served->made = *entry;
	}
	bytes = bytes < left ? bytes : left;
	if (from < sizeof(served->head)) {
		bytes = bytes < sizeof(served->head) - from ? bytes : sizeof(served->head) - from;
		memcpy(to, (const uint8_t *)&served->head + from, bytes);
	} else {
		memcpy(to, pages + from - sizeof(served->head), bytes);
	}
	return bytes;
}

/* The same of what is written already. */
static size_t read_front(const struct served *served, uint64_t at, uint8_t *to, size_t bytes)
{
	const uint64_t parts_at = served->saver.end.parts_at;
	const uint64_t from = at < SAVED_HEAD_BYTES ? at : at - parts_at + SAVED_HEAD_BYTES;
	const uint64_t left =
		at < SAVED_HEAD_BYTES ? SAVED_HEAD_BYTES - at : served->saver.at - at;

	bytes = bytes < left ? bytes : left;
	memcpy(to, served->front + from, bytes);
	return bytes;
}

int machine_serve_read(struct machine *machine, uint64_t at, void *to, size_t bytes)
{
	struct served *served = machine->served;
	uint8_t *next = to;

	if (at > served->saver.at || bytes > served->saver.at - at)
		return -EINVAL;
	while (bytes) {
		const bool is_front =
			at < SAVED_HEAD_BYTES || at >= served->saver.end.parts_at;
		const size_t got = is_front ? read_front(served, at, next, bytes)
					    : read_section(served, at, next, bytes);

		at += got;
		next += got;
		bytes -= got;
	}
	return 0;
}
