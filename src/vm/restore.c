/* A saved machine is read, in a process without rights (saved.h). Every number of it is hostile. */
#include "saved.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/archive.h"
#include "lib/crc32c.h"
#include "packed_pages.h"
#include "saved_pages.h"

enum { MEMORY_MIN_BYTES = 1 << 20, TSC_HZ_MIN = 1000000, TSC_TOLERANCE_PPM = 200 };

static const char damaged[] = "it is damaged, or no saved machine";

/* The first ones, each of a kind that is known. */
static void check_ports(struct archive *archive, const struct saved_head *head)
{
	for (unsigned n = 0; n < SHARE_PORTS && !archive->error; n++) {
		archive_check(archive, !n || !head->port[n] || head->port[n - 1]);
		if (head->port[n] > SHARE_PORT_KINDS)
			archive_fail(archive, -ENOTSUP,
				     "it has a port that this Umbra does not know");
	}
}

int saved_read_head(const struct boot_file *file, struct saved_head *ret, const char **ret_reason)
{
	struct archive archive = archive_load_from(
		file->data, file->bytes < SAVED_HEAD_BYTES ? file->bytes : SAVED_HEAD_BYTES);
	uint64_t host_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * GUEST_PAGE_BYTES;

	saved_head_archive(&archive, ret);
	archive_check(&archive, ret->memory_bytes >= MEMORY_MIN_BYTES &&
					ret->memory_bytes % GUEST_PAGE_BYTES == 0);
	archive_check(&archive,
		      ret->cpus && ret->cpus <= MACHINE_MAX_CPUS && ret->tsc_hz >= TSC_HZ_MIN);
	if (!archive.error && ret->features >> HV_FEATURES)
		archive_fail(&archive, -ENOTSUP,
			     "it was offered a feature of the Hyper-V interface that this Umbra "
			     "does not know");
	if (!archive.error && ret->memory_bytes > host_bytes)
		archive_fail(&archive, -ENOTSUP, "it has more memory than this host");
	if (!archive.error && ret->has_bus)
		archive_check(&archive, ret->cards <= NET_CARDS &&
						ret->start_bytes >= MEMORY_MIN_BYTES &&
						ret->start_bytes <= ret->memory_bytes &&
						ret->start_bytes % GUEST_PAGE_BYTES == 0);
	check_ports(&archive, ret);
	*ret_reason = archive.reason ? archive.reason : damaged;
	return archive.error;
}

int saved_check_rate(uint64_t saved_hz, uint64_t host_hz, const char **ret_reason)
{
	uint64_t difference = saved_hz > host_hz ? saved_hz - host_hz : host_hz - saved_hz;

	*ret_reason = "the time stamp counter of this host runs at another rate";
	return (unsigned __int128)difference * 1000000 >
			       (unsigned __int128)saved_hz * TSC_TOLERANCE_PPM
		       ? -ENOTSUP
		       : 0;
}

struct loader {
	struct machine *machine;
	const uint8_t *at;
	size_t left;
	bool on_demand; /* RAM is brought by somebody else */
	struct pages_unpacker *unpacker; /* made for the first section that is packed */
	uint64_t sections, now_100ns, tsc;
	uint64_t frame; /* that the last entry of the index begins with */
	bool has_machine, ended;
	int error;
	const char *reason;
};

static void refuse(struct loader *loader, int error, const char *reason)
{
	assert(error < 0);
	if (loader->error)
		return;
	loader->error = error;
	loader->reason = reason ? reason : damaged;
}

/* ---- sections ---- */

static void load_machine(struct loader *loader, struct archive *archive)
{
	saved_machine_archive(archive, loader->machine, &loader->now_100ns, &loader->tsc);
	archive_check(archive, !loader->has_machine && loader->now_100ns <= INT64_MAX);
	if (!archive->error && cpu_model_lacks(&loader->machine->model,
					       &loader->machine->options.host) != CPU_FEATURES)
		archive_fail(archive, -ENOTSUP,
			     "the processor of this host lacks what it has been offered");
	loader->has_machine = true;
	/* it is another one than the machine was made with */
	if (!archive->error)
		engine_set_model(loader->machine->engine, &loader->machine->model,
			 &loader->machine->options.host);
}

/* Of a PAGE section that is packed: those that are not brought by somebody else. */
static void load_packed_pages(struct loader *loader, struct archive *archive)
{
	struct machine *machine = loader->machine;
	const uint64_t frames = saved_frames(machine);
	const uint64_t skipped =
		loader->on_demand ? machine->memory.ram_bytes / GUEST_PAGE_BYTES : 0;
	struct packed_pages_head about = { 0 };
	const uint8_t *pages = NULL;
	int error;

	if (archive->error)
		return;
	if (!loader->unpacker)
		loader->unpacker = pages_unpacker_make();
	error = loader->unpacker
			? pages_unpacker_unpack(loader->unpacker, archive->data, archive->bytes,
						&about, &pages)
			: -ENOMEM;
	if (error == -ENOMEM)
		archive_fail(archive, error, "the host has not enough memory for it");
	if (!archive_check(archive, !error && about.first < frames &&
					    about.pages <= frames - about.first))
		return;
	archive->used = archive->bytes;
	engine_note_written(machine->engine, about.first, about.pages);
	for (uint64_t n = 0; n < about.pages; n++)
		if (about.first + n >= skipped)
			memcpy(machine->memory.ram + (about.first + n) * GUEST_PAGE_BYTES,
			       pages + n * GUEST_PAGE_BYTES, GUEST_PAGE_BYTES);
}

static void load_pages(struct loader *loader, struct archive *archive)
{
	struct machine *machine = loader->machine;
	uint64_t first = 0;
	uint64_t pages = archive->bytes < sizeof(first)
				 ? 0
				 : (archive->bytes - sizeof(first)) / GUEST_PAGE_BYTES;
	uint64_t frames = saved_frames(machine);
	const uint64_t ram_frames = machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	archive_u64(archive, &first);
	if (!archive_check(archive, pages && first < frames && pages <= frames - first))
		return;
	engine_note_written(machine->engine, first, pages);
	for (; loader->on_demand && pages && first < ram_frames; first++, pages--)
		archive->used += GUEST_PAGE_BYTES;
	archive_bytes(archive, machine->memory.ram + first * GUEST_PAGE_BYTES,
		      pages * GUEST_PAGE_BYTES);
}

static bool has_all_units(const struct machine *machine)
{
	for (unsigned n = 0; n < machine->units.count; n++) {
		const struct unit *unit = &machine->units.unit[n];

		if (unit->ops->archive && !unit->ops->later && !unit->loaded)
			return false;
	}
	return true;
}

static void load_end(struct loader *loader, struct archive *archive)
{
	struct saved_end end = { 0 };

	archive_u64(archive, &end.sections);
	if (archive->version > 1) {
		archive_u64(archive, &end.sections_before);
		archive_u64(archive, &end.parts_at);
		archive_u64(archive, &end.index_at);
		archive_u64(archive, &end.zero);
	}
	archive_check(archive, end.sections == loader->sections && !end.zero &&
				       loader->has_machine && has_all_units(loader->machine));
	loader->ended = true;
}

/*
 * Where somebody else brings RAM: which frames he brings, and what is used first, for who touches
 * it, which lies behind the first pass of the save (process/pager_main.c). Who changes a file of
 * which he has begun a machine does so to that alone.
 */
static void load_index(struct loader *loader, struct archive *archive)
{
	struct machine *machine = loader->machine;
	struct demand *demand = &machine->demand;
	struct saved_entry entry;

	if (!loader->on_demand) /* the pages themselves were there; it may lie */
		archive->used = archive->bytes;
	for (; archive->bytes - archive->used >= sizeof(entry); archive->used += sizeof(entry)) {
		memcpy(&entry, archive->data + archive->used, sizeof(entry));
		if (!archive_check(archive, (uint64_t)entry.first + entry.pages <=
						    saved_frames(machine)))
			return;
		engine_note_written(machine->engine, entry.first, entry.pages);
		if (demand->first_count || entry.first < loader->frame)
			demand_note_first(demand, entry.first, entry.pages);
		loader->frame = entry.first;
	}
}

/* Nothing of it is looked at before the machine runs. */
static void load_code(struct loader *loader, struct archive *archive)
{
	if (archive_check(archive, code_ahead_take(&loader->machine->code_ahead, archive->data,
						   archive->bytes)))
		archive->used = archive->bytes;
}

/* False: no unit has this section. */
static bool load_unit(struct loader *loader, uint32_t section, struct archive *archive)
{
	struct unit_list *units = &loader->machine->units;
	uint32_t number = 0;
	struct unit *unit;

	if (!unit_find(units, section, 0))
		return false;
	if (unit_is_numbered(units, section))
		archive_u32(archive, &number);
	unit = unit_find(units, section, number);
	if (!archive_check(archive, unit && !unit->loaded))
		return true;
	unit->loaded = true;
	unit->ops->archive(archive, unit->self);
	return true;
}

/*
 * Whether all of it is RAM that somebody else brings, and compares with its checksum: nobody waits
 * here until it is read. The index says which frames these are.
 */
static bool is_brought(const struct loader *loader, const struct saved_section *head,
		       const uint8_t *payload)
{
	const uint64_t ram_frames = loader->machine->memory.ram_bytes / GUEST_PAGE_BYTES;
	uint64_t first;

	if (!loader->on_demand || head->name != SECTION_PAGES || head->bytes < sizeof(first) ||
	    head->bytes > sizeof(first) + SAVED_ENTRY_PAGES * GUEST_PAGE_BYTES)
		return false;
	memcpy(&first, payload, sizeof(first));
	return first < ram_frames && SAVED_ENTRY_PAGES <= ram_frames - first;
}

static void load_section(struct loader *loader, const struct saved_section *head,
			 const uint8_t *payload)
{
	struct archive archive = archive_load_from(payload, head->bytes);

	if (!saved_section_is_known(head->name, head->version)) {
		bool before_models = head->name == SECTION_MACHINE && head->version == 1;

		refuse(loader, -ENOTSUP,
		       before_models
			       ? "it was saved by an Umbra without processor models"
			       : "a part of it is of a version that this Umbra does not know");
		return;
	}
	if (is_brought(loader, head, payload))
		return;
	archive.version = head->version;
	archive_check(&archive, crc32c(0, payload, head->bytes) == head->crc);
	if (head->name == SECTION_MACHINE) {
		load_machine(loader, &archive);
	} else if (head->name == SECTION_PAGES && head->version == SECTION_PACKED_VERSION) {
		load_packed_pages(loader, &archive);
	} else if (head->name == SECTION_PAGES) {
		load_pages(loader, &archive);
	} else if (head->name == SECTION_END) {
		load_end(loader, &archive);
	} else if (head->name == SECTION_CODE) {
		load_code(loader, &archive);
	} else if (head->name == SECTION_INDEX) {
		load_index(loader, &archive);
	} else if (!load_unit(loader, head->name, &archive)) {
		refuse(loader, -ENOTSUP, "it has a part that this Umbra does not know");
		return;
	}
	archive_check_end(&archive);
	if (archive.error)
		refuse(loader, archive.error, archive.reason);
}

/* A section's head that says what is there. */
static bool is_section(const struct loader *loader, const struct saved_section *head)
{
	size_t left = loader->left - sizeof(*head);

	if (head->head_crc != crc32c(0, head, offsetof(struct saved_section, head_crc)))
		return false;
	return head->bytes <= left && -head->bytes % SAVED_ALIGNMENT <= left - head->bytes;
}

/* False at the end, and on a refusal. */
static bool load_next(struct loader *loader)
{
	struct saved_section head;
	size_t whole;

	if (loader->left < sizeof(head)) {
		refuse(loader, -EBADMSG, NULL);
		return false;
	}
	memcpy(&head, loader->at, sizeof(head));
	if (!is_section(loader, &head)) {
		refuse(loader, -EBADMSG, NULL);
		return false;
	}
	load_section(loader, &head, loader->at + sizeof(head));
	whole = sizeof(head) + head.bytes + -head.bytes % SAVED_ALIGNMENT;
	loader->sections++;
	loader->at += whole;
	loader->left -= whole;
	return !loader->error && !loader->ended;
}

/* ---- the whole ---- */

/* Everything is there: from now on time passes. */
static void begin_time(struct loader *loader)
{
	struct machine *machine = loader->machine;
	uint64_t behind = loader->tsc - clock_tsc(); /* modulo 2^64, as offsets are */
	uint64_t partition_tsc = loader->tsc + machine->hv_host.tsc_offset;

	clock_set(machine, machine->clock.tsc_hz, partition_tsc, loader->now_100ns);
	clock_move_tsc(machine, behind);
}

/* Where somebody else brings RAM: behind the pages that were written while it ran. */
static void begin_at_parts(struct loader *loader)
{
	const struct boot_file *file = &loader->machine->options.saved;
	struct saved_tail tail;

	if (!demand_is_served(loader->machine))
		return;
	if (file->bytes < SAVED_HEAD_BYTES + SAVED_TAIL_BYTES ||
	    saved_tail_take(file->data + file->bytes - SAVED_TAIL_BYTES, file->bytes, &tail)) {
		refuse(loader, -EBADMSG, NULL);
		return;
	}
	loader->on_demand = true;
	loader->at = file->data + tail.parts_at;
	loader->left = file->bytes - tail.parts_at;
	loader->sections = tail.sections_before;
}

int restore_machine(struct machine *machine, const char **ret_reason)
{
	const struct boot_file *file = &machine->options.saved;
	struct loader loader = { .machine = machine,
				 .at = file->data + SAVED_HEAD_BYTES,
				 .left = file->bytes - SAVED_HEAD_BYTES };
	bool more;

	begin_at_parts(&loader);
	more = !loader.error;
	pthread_mutex_lock(&machine->lock);
	while (more)
		more = load_next(&loader);
	if (!loader.error && loader.left)
		refuse(&loader, -EBADMSG, NULL);
	if (!loader.error) {
		begin_time(&loader);
		units_restored(&machine->units);
		machine->knows_written = true;
	}
	pthread_mutex_unlock(&machine->lock);
	*ret_reason = loader.reason;
	pages_unpacker_free(loader.unpacker);
	return loader.error;
}
