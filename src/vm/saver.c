/* See saver.h. */
#include "saver.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/archive.h"
#include "lib/crc32c.h"

enum { PARTS_BYTES = 2 << 20, PORT_PART_BYTES = 2 << 20, BITS_PER_WORD = 64 };

/* ---- sections ---- */

static void put_bytes(struct saver *saver, const void *data, size_t bytes)
{
	assert(saver->write && (data || !bytes));
	if (!saver->error && bytes)
		saver->error = saver->write(saver->context, data, bytes);
	saver->at += bytes;
}

struct piece { const void *data; size_t bytes; };

static struct saved_section section_head(uint32_t name, struct piece first, struct piece second)
{
	struct saved_section head = { .name = name,
				      .version = saved_section_version(name),
				      .bytes = first.bytes + second.bytes };

	head.crc = crc32c(crc32c(0, first.data, first.bytes), second.data, second.bytes);
	head.head_crc = crc32c(0, &head, offsetof(struct saved_section, head_crc));
	return head;
}

/* The payload in two parts. */
static void put_section(struct saver *saver, uint32_t name, struct piece first, struct piece second)
{
	static const uint8_t zeros[SAVED_ALIGNMENT];
	const struct saved_section head = section_head(name, first, second);

	put_bytes(saver, &head, sizeof(head));
	put_bytes(saver, first.data, first.bytes);
	put_bytes(saver, second.data, second.bytes);
	put_bytes(saver, zeros, -head.bytes % SAVED_ALIGNMENT);
	saver->sections++;
}

void saver_page_head(const struct saved_entry *entry, const uint8_t *pages,
		     struct saver_page_head *ret)
{
	ret->first = entry->first;
	ret->section = section_head(
		SECTION_PAGES, (struct piece){ .data = &ret->first, .bytes = sizeof(ret->first) },
		(struct piece){ .data = pages, .bytes = entry->pages * GUEST_PAGE_BYTES });
}

/* ---- memory ---- */

static bool is_zero(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)(const void *)page;

	for (unsigned n = 0; n < GUEST_PAGE_BYTES / 8; n += 4)
		if (words[n] | words[n + 1] | words[n + 2] | words[n + 3])
			return false;
	return true;
}

/* The last block, or another one behind it; NULL: no memory. */
static struct saver_index *index_room(struct saver *saver)
{
	struct saver_index *block = saver->last;

	if (block && block->entries < SAVER_INDEX_ENTRIES)
		return block;
	block = mmap(NULL, sizeof(*block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	if (block == MAP_FAILED)
		return NULL;
	if (saver->last)
		saver->last->next = block;
	else
		saver->index = block;
	saver->last = block;
	return block;
}

/* Where the section lies that is written next. Without memory the file has no index. */
static void note_run(struct saver *saver, uint64_t first, uint64_t pages)
{
	struct saver_index *block = saver->has_no_index ? NULL : index_room(saver);

	if (!block || first > UINT32_MAX) {
		saver->has_no_index = true;
		return;
	}
	block->entry[block->entries++] = (struct saved_entry){ .at = saver->at,
							       .first = (uint32_t)first,
							       .pages = (uint16_t)pages };
}

static void index_free(struct saver *saver)
{
	while (saver->index) {
		struct saver_index *block = saver->index;

		saver->index = block->next;
		munmap(block, sizeof(*block));
	}
}

/*
 * Up to SAVER_RUN_PAGES pages, copied first: where the guest runs they may change, and the
 * checksum would be wrong.
 */
static void put_run(struct saver *saver, uint64_t first, uint64_t end)
{
	const size_t bytes = (end - first) * GUEST_PAGE_BYTES;

	assert(first < end && end - first <= SAVER_RUN_PAGES);
	assert(end <= saved_frames(saver->machine));
	note_run(saver, first, end - first);
	if (saver->lays_out) {
		saver->at += sizeof(struct saver_page_head) + bytes;
		saver->sections++;
		return;
	}
	memcpy(saver->buffer, saver->machine->memory.ram + first * GUEST_PAGE_BYTES, bytes);
	put_section(saver, SECTION_PAGES, (struct piece){ .data = &first, .bytes = sizeof(first) },
		    (struct piece){ .data = saver->buffer, .bytes = bytes });
}

/* Of the units' parts, the largest of which says something of each page in a bit. */
static size_t buffer_bytes(const struct machine *machine)
{
	const uint64_t frames = machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	return (PARTS_BYTES + machine->options.ports * (size_t)PORT_PART_BYTES + frames / 8 +
		GUEST_PAGE_BYTES - 1) /
	       GUEST_PAGE_BYTES * GUEST_PAGE_BYTES;
}

bool saver_is_wanted(const struct saver *saver, uint64_t frame)
{
	return saver->wanted[frame / BITS_PER_WORD] >> frame % BITS_PER_WORD & 1;
}

bool saver_is_used(const struct saver *saver, uint64_t frame)
{
	return !is_zero(saver->machine->memory.ram + frame * GUEST_PAGE_BYTES);
}

bool saver_is_used_overlay(const struct saver *saver, uint64_t frame)
{
	const struct machine *machine = saver->machine;
	const uint64_t first = machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	return frame >= first && frame - first < hv_overlays(machine->options.cpus) &&
	       saver_is_used(saver, frame);
}

void saver_put_pages(struct saver *saver, uint64_t first,
		     bool (*is_wanted)(const struct saver *saver, uint64_t frame))
{
	const uint64_t most = saver->lays_out ? SAVER_LAID_OUT_PAGES : SAVER_RUN_PAGES;
	uint64_t frames = saved_frames(saver->machine);

	while (first < frames && !saver->error) {
		uint64_t end = first;

		while (end < frames && end - first < most && is_wanted(saver, end))
			end++;
		if (end > first)
			put_run(saver, first, end);
		/* a run that is full has not looked at its end */
		first = end - first == most ? end : end + 1;
	}
}

/* ---- everything else ---- */

struct part { uint32_t name; struct piece piece; };
struct parts { struct part part[1 + UNITS_MAX]; unsigned count; };

/* What the archive got since the part before. */
static void end_part(struct parts *parts, uint32_t name, const struct archive *archive)
{
	const struct piece *last = parts->count ? &parts->part[parts->count - 1].piece : NULL;
	const uint8_t *begin = last ? (const uint8_t *)last->data + last->bytes : archive->data;
	const size_t bytes = (size_t)(archive->data + archive->used - begin);

	assert(begin <= archive->data + archive->used);
	assert(parts->count < sizeof(parts->part) / sizeof(parts->part[0]));
	parts->part[parts->count++] =
		(struct part){ .name = name, .piece = { .data = begin, .bytes = bytes } };
}

/*
 * Under the lock all of it is of one moment, the one since when processors stand still: console
 * input comes meanwhile, too.
 */
static int archive_parts(struct saver *saver, struct parts *parts)
{
	struct machine *machine = saver->machine;
	uint64_t tsc = clock_moment(machine).tsc;
	uint64_t now_100ns = clock_reference_100ns(machine, tsc);
	struct archive archive = archive_save_to(saver->buffer, buffer_bytes(machine));

	saved_machine_archive(&archive, machine, &now_100ns, &tsc);
	end_part(parts, SECTION_MACHINE, &archive);
	for (unsigned n = 0; n < machine->units.count; n++) {
		struct unit *unit = &machine->units.unit[n];

		if (!unit->ops->archive)
			continue;
		if (unit->ops->numbered)
			archive_u32(&archive, &unit->number);
		unit->ops->archive(&archive, unit->self);
		end_part(parts, unit->ops->section, &archive);
	}
	return archive.error;
}

/* The index, and where it is. */
void saver_put_end(struct saver *saver)
{
	const struct piece none = { .data = NULL };

	if (!saver->has_no_index && saver->index)
		saver->end.index_at = saver->at;
	for (struct saver_index *block = saver->index; block && saver->end.index_at;
	     block = block->next)
		put_section(saver, SECTION_INDEX,
			    (struct piece){ .data = block->entry,
					    .bytes = block->entries * sizeof(block->entry[0]) },
			    none);
	saver->end.sections = saver->sections;
	put_section(saver, SECTION_END,
		    (struct piece){ .data = &saver->end, .bytes = sizeof(saver->end) }, none);
}

void saver_put_parts(struct saver *saver)
{
	const struct piece none = { .data = NULL };
	struct parts parts = { .count = 0 };

	pthread_mutex_lock(&saver->machine->lock);
	saver->error = archive_parts(saver, &parts);
	pthread_mutex_unlock(&saver->machine->lock);
	saver->end.sections_before = saver->sections;
	saver->end.parts_at = saver->at;
	for (unsigned n = 0; n < parts.count; n++)
		put_section(saver, parts.part[n].name, parts.part[n].piece, none);
}

/* Without memory, or of a machine that comes to nothing, there is no such section. */
void saver_put_code(struct saver *saver)
{
	const struct piece none = { .data = NULL };
	const size_t room = ENGINE_PLACES_MOST * sizeof(struct engine_place);
	struct engine_place *places = mmap(NULL, room, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t count;

	if (places == MAP_FAILED)
		return;
	count = engine_find_code(saver->machine->engine, places);
	if (count)
		put_section(saver, SECTION_CODE,
			    (struct piece){ .data = places, .bytes = count * sizeof(*places) },
			    none);
	munmap(places, room);
}

void saver_put_head(struct saver *saver)
{
	const struct machine *machine = saver->machine;
	struct saved_head head = {
		.memory_bytes = machine->options.memory_bytes,
		.features = machine->options.hv_features, .tsc_hz = machine->clock.tsc_hz,
		.cpus = machine->options.cpus, .debug_exit = machine->options.debug_exit,
		.has_bus = machine->devices, .cards = (uint16_t)machine->options.cards,
		.start_bytes = machine_start_bytes(&machine->options),
		.display = machine->options.display,
	};
	struct archive archive = archive_save_to(saver->buffer, SAVED_HEAD_BYTES);

	for (unsigned n = 0; n < machine->options.ports; n++)
		head.port[n] = machine->options.port[n].kind;
	saved_head_archive(&archive, &head);
	put_bytes(saver, archive.data, SAVED_HEAD_BYTES);
}

/* ---- its memory ---- */

static size_t wanted_bytes(const struct machine *machine)
{
	/* as engine_take_dirty() and engine_find_written() fill it: of the windows, too */
	const uint64_t frames =
		guest_memory_footprint_bytes(machine->memory.ram_bytes) / GUEST_PAGE_BYTES;

	return (frames + BITS_PER_WORD - 1) / BITS_PER_WORD * sizeof(uint64_t);
}

void saver_forget_wanted(struct saver *saver)
{
	memset(saver->wanted, 0, wanted_bytes(saver->machine));
}

int saver_check(const struct machine *machine)
{
	return machine->test_device ? -EOPNOTSUPP : 0;
}

int saver_make(struct saver *saver, struct machine *machine,
	       int (*write)(void *context, const void *data, size_t bytes), void *context)
{
	*saver = (struct saver){ .machine = machine, .write = write, .context = context };
	/*
	 * not malloc(): in a second thread it may change protections, and who calls has lost the
	 * right to
	 */
	saver->buffer = mmap(NULL, buffer_bytes(machine) + wanted_bytes(machine),
			     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (saver->buffer == MAP_FAILED)
		return -ENOMEM;
	saver->wanted = (uint64_t *)(void *)(saver->buffer + buffer_bytes(machine));
	return 0;
}

void saver_free(struct saver *saver)
{
	index_free(saver);
	munmap(saver->buffer,
	       buffer_bytes(saver->machine) + wanted_bytes(saver->machine));
}
