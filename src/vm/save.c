/* A machine is written (saved.h). */
#include "saved.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/archive.h"
#include "lib/crc32c.h"
#include "saved_pages.h"

enum {
	/* 1: without a bus */
	FORMAT_VERSION_FIRST = 1, FORMAT_VERSION_BUS = 2,
	PAGES_PER_SECTION = 16, PARTS_BYTES = 2 << 20, PASSES_MAX = 8, FEW_PAGES = 256
};
/* A block of the index is one section, and what is taken of memory at once. */
enum { INDEX_BLOCK_ENTRIES = 4095 };
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

/* ---- sections ---- */

struct index_block {
	struct index_block *next;
	uint64_t entries;
	struct saved_entry entry[INDEX_BLOCK_ENTRIES];
};

struct saver {
	struct machine *machine;
	int (*write)(void *context, const void *data, size_t bytes);
	void *context;
	uint8_t *buffer;
	uint64_t *dirty; /* a bit for each frame */
	uint64_t sections, at; /* that were written; bytes that were */
	struct saved_end end;
	struct index_block *index, *last;
	bool has_no_index; /* there was no memory for it */
	int error;
};

static void put_bytes(struct saver *saver, const void *data, size_t bytes)
{
	assert(saver->write && (data || !bytes));
	if (!saver->error && bytes)
		saver->error = saver->write(saver->context, data, bytes);
	saver->at += bytes;
}

struct piece { const void *data; size_t bytes; };

/* The payload in two parts. */
static void put_section(struct saver *saver, uint32_t name, struct piece first, struct piece second)
{
	static const uint8_t zeros[SAVED_ALIGNMENT];
	struct saved_section head = { .name = name,
				      .version = saved_section_version(name),
				      .bytes = first.bytes + second.bytes };

	head.crc = crc32c(crc32c(0, first.data, first.bytes), second.data, second.bytes);
	head.head_crc = crc32c(0, &head, offsetof(struct saved_section, head_crc));
	put_bytes(saver, &head, sizeof(head));
	put_bytes(saver, first.data, first.bytes);
	put_bytes(saver, second.data, second.bytes);
	put_bytes(saver, zeros, -head.bytes % SAVED_ALIGNMENT);
	saver->sections++;
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
static struct index_block *index_room(struct saver *saver)
{
	struct index_block *block = saver->last;

	if (block && block->entries < INDEX_BLOCK_ENTRIES)
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
	struct index_block *block = saver->has_no_index ? NULL : index_room(saver);

	if (!block || first > UINT32_MAX) {
		saver->has_no_index = true;
		return;
	}
	block->entry[block->entries++] = (struct saved_entry){ .at = saver->at,
							       .first = (uint32_t)first,
							       .pages = (uint32_t)pages };
}

static void index_free(struct saver *saver)
{
	while (saver->index) {
		struct index_block *block = saver->index;

		saver->index = block->next;
		munmap(block, sizeof(*block));
	}
}

/*
 * Up to PAGES_PER_SECTION pages, copied first: where the guest runs they may change, and the
 * checksum would be wrong.
 */
static void put_run(struct saver *saver, uint64_t first, uint64_t end)
{
	const size_t bytes = (end - first) * GUEST_PAGE_BYTES;

	assert(first < end && end - first <= PAGES_PER_SECTION);
	assert(end <= saved_frames(saver->machine));
	memcpy(saver->buffer, saver->machine->memory.ram + first * GUEST_PAGE_BYTES, bytes);
	note_run(saver, first, end - first);
	put_section(saver, SECTION_PAGES, (struct piece){ .data = &first, .bytes = sizeof(first) },
		    (struct piece){ .data = saver->buffer, .bytes = bytes });
}

/* Of the units' parts, the largest of which says something of each page in a bit. */
static size_t buffer_bytes(const struct machine *machine)
{
	const uint64_t frames = machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	return (PARTS_BYTES + frames / 8 + GUEST_PAGE_BYTES - 1) / GUEST_PAGE_BYTES *
	       GUEST_PAGE_BYTES;
}

static bool is_dirty(const struct saver *saver, uint64_t frame)
{
	return saver->dirty[frame / BITS_PER_WORD] >> frame % BITS_PER_WORD & 1;
}

static bool is_used(const struct saver *saver, uint64_t frame)
{
	return !is_zero(saver->machine->memory.ram + frame * GUEST_PAGE_BYTES);
}

/* The frames that `wanted` has, in runs. */
static void put_pages(struct saver *saver,
		      bool (*wanted)(const struct saver *saver, uint64_t frame))
{
	uint64_t frames = saved_frames(saver->machine);
	uint64_t first = 0;

	while (first < frames && !saver->error) {
		uint64_t end = first;

		while (end < frames && end - first < PAGES_PER_SECTION && wanted(saver, end))
			end++;
		if (end > first)
			put_run(saver, first, end);
		/* a run that is full has not looked at its end */
		first = end - first == PAGES_PER_SECTION ? end : end + 1;
	}
}

static size_t dirty_bytes(const struct machine *machine)
{
	/* as engine_take_dirty() fills it: of the windows, too */
	const uint64_t frames =
		guest_memory_footprint_bytes(machine->memory.ram_bytes) / GUEST_PAGE_BYTES;

	return (frames + BITS_PER_WORD - 1) / BITS_PER_WORD * sizeof(uint64_t);
}

/*
 * While the machine runs: every page that holds something, then those that were written meanwhile,
 * until only few are, or it is no use. What is in `dirty` afterwards has still to be written. A
 * page is written again as often as that; the last one counts.
 */
static void put_while_running(struct saver *saver)
{
	struct machine *machine = saver->machine;
	uint64_t before = UINT64_MAX;

	engine_take_dirty(machine->engine, saver->dirty);
	put_pages(saver, is_used);
	for (unsigned n = 0; n < PASSES_MAX && !saver->error; n++) {
		uint64_t count;

		memset(saver->dirty, 0, dirty_bytes(machine));
		count = engine_take_dirty(machine->engine, saver->dirty);
		if (count <= FEW_PAGES || count > before / 2)
			return;
		before = count;
		put_pages(saver, is_dirty);
	}
	memset(saver->dirty, 0, dirty_bytes(machine));
}

/* While it stands still: the rest. The machine writes to overlay pages by itself. */
static void put_rest(struct saver *saver)
{
	struct machine *machine = saver->machine;

	engine_take_dirty(machine->engine, saver->dirty);
	for (uint64_t n = machine->memory.ram_bytes / GUEST_PAGE_BYTES; n < saved_frames(machine);
	     n++)
		saver->dirty[n / BITS_PER_WORD] |= 1ull << n % BITS_PER_WORD;
	put_pages(saver, is_dirty);
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
 * Under the lock all of it is of one moment: console input comes while processors stand still, too.
 */
static int archive_parts(struct saver *saver, struct parts *parts)
{
	struct machine *machine = saver->machine;
	uint64_t tsc = clock_tsc();
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
static void put_end(struct saver *saver)
{
	const struct piece none = { .data = NULL };

	if (!saver->has_no_index && saver->index)
		saver->end.index_at = saver->at;
	for (struct index_block *block = saver->index; block && saver->end.index_at;
	     block = block->next)
		put_section(saver, SECTION_INDEX,
			    (struct piece){ .data = block->entry,
					    .bytes = block->entries * sizeof(block->entry[0]) },
			    none);
	saver->end.sections = saver->sections;
	put_section(saver, SECTION_END,
		    (struct piece){ .data = &saver->end, .bytes = sizeof(saver->end) }, none);
}

static void put_parts(struct saver *saver)
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
	put_rest(saver);
	put_end(saver);
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
	struct saved_head head = {
		.memory_bytes = machine->options.memory_bytes,
		.features = machine->options.hv_features, .tsc_hz = machine->clock.tsc_hz,
		.cpus = machine->options.cpus, .debug_exit = machine->options.debug_exit,
		.has_bus = machine->devices, .cards = (uint16_t)machine->options.cards,
		.start_bytes = machine_start_bytes(&machine->options),
		.display = machine->options.display,
	};
	struct archive archive = archive_save_to(saver->buffer, SAVED_HEAD_BYTES);

	saver->error = machine_wait_for_begin(machine);
	if (!saver->error)
		saver->error = demand_wait_whole(machine);
	if (saver->error)
		return;
	saved_head_archive(&archive, &head);
	put_bytes(saver, archive.data, SAVED_HEAD_BYTES);
	put_while_running(saver);
	if (!saver->error)
		saver->error = machine_pause(machine);
	if (saver->error)
		return;
	move(machine, LIFE_SAVING);
	put_parts(saver);
	move(machine, LIFE_PAUSED);
	if (saver->error)
		machine_resume(machine);
}

int machine_save(struct machine *machine,
		 int (*write)(void *context, const void *data, size_t bytes), void *context)
{
	struct saver saver = { .machine = machine, .write = write, .context = context };

	assert(write);
	if (machine->options.ports || machine->test_device)
		return -EOPNOTSUPP; /* what another machine has of it would have to be saved, too */
	/*
	 * not malloc(): in a second thread it may change protections, and who calls has lost the
	 * right to
	 */
	saver.buffer = mmap(NULL, buffer_bytes(machine) + dirty_bytes(machine),
			    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (saver.buffer == MAP_FAILED)
		return -ENOMEM;
	saver.dirty = (uint64_t *)(void *)(saver.buffer + buffer_bytes(machine));
	save(&saver);
	index_free(&saver);
	munmap(saver.buffer, buffer_bytes(machine) + dirty_bytes(machine));
	return saver.error;
}
