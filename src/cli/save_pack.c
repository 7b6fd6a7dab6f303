/* See save_pack.h. */
#include "save_pack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crc32c.h"
#include "vm/packed_pages.h"
#include "vm/saved.h"
#include "vm/saved_pages.h"

enum {
	FIRST_BYTES = sizeof(uint64_t), /* of a PAGE section: the number of its first frame */
	SECTION_BYTES = SAVED_SECTION_HEAD_BYTES + FIRST_BYTES +
			SAVED_ENTRY_PAGES * GUEST_PAGE_BYTES,
	PLACES_AT_ONCE = 1 << 12,
};

/* Where a PAGE section began in what the machine has said, and what the index says of it now. */
struct section_place { uint64_t from; struct saved_entry entry; };

struct save_pack {
	int (*write)(void *context, const void *data, size_t bytes);
	void *context;
	struct pages_packer *packer;
	/* what is taken as a whole: `got` bytes of `wanted` */
	uint8_t *section;
	size_t got, wanted;
	uint64_t passing; /* so many bytes go through as they are */
	uint64_t from, at; /* in what the machine says; in the file */
	struct section_place *place;
	size_t places, room, named; /* of them those that the index has named */
	/* where MACH, and where the first INDX begins: there, and in the file */
	uint64_t parts_from, parts_at, index_from, index_at;
	uint64_t sections, sections_before;
	bool has_ended;
};

struct save_pack *save_pack_make(int (*write)(void *context, const void *data, size_t bytes),
				 void *context)
{
	struct save_pack *pack = calloc(1, sizeof(*pack));

	if (!pack)
		return NULL;
	*pack = (struct save_pack){ .write = write, .context = context,
				    .passing = SAVED_HEAD_BYTES,
				    .wanted = SAVED_SECTION_HEAD_BYTES };
	pack->section = malloc(SECTION_BYTES);
	pack->packer = pages_packer_make();
	if (pack->section && pack->packer)
		return pack;
	save_pack_free(pack);
	return NULL;
}

void save_pack_free(struct save_pack *pack)
{
	if (!pack)
		return;
	pages_packer_free(pack->packer);
	free(pack->section);
	free(pack->place);
	free(pack);
}

static int put(struct save_pack *pack, const void *data, size_t bytes)
{
	pack->at += bytes;
	return pack->write(pack->context, data, bytes);
}

static void seal(struct saved_section *head, const void *payload)
{
	head->crc = crc32c(0, payload, head->bytes);
	head->head_crc = crc32c(0, head, offsetof(struct saved_section, head_crc));
}

/* ---- sections that are taken as a whole ---- */

static int note_place(struct save_pack *pack, const struct section_place *place)
{
	if (pack->places == pack->room) {
		struct section_place *more = reallocarray(
			pack->place, pack->room + PLACES_AT_ONCE, sizeof(*more));

		if (!more)
			return -ENOMEM;
		pack->place = more;
		pack->room += PLACES_AT_ONCE;
	}
	pack->place[pack->places++] = *place;
	return 0;
}

static int pack_pages(struct save_pack *pack, const struct saved_section *head,
		      const uint8_t *payload)
{
	const uint64_t pages = (head->bytes - FIRST_BYTES) / GUEST_PAGE_BYTES;
	struct section_place place = { .from = pack->from, .entry = { .at = pack->at } };
	const uint8_t *packed = NULL;
	uint64_t first;
	size_t bytes;
	int error;

	memcpy(&first, payload, sizeof(first));
	if (!pages || head->bytes % GUEST_PAGE_BYTES != FIRST_BYTES || first > UINT32_MAX)
		return -EPROTO;
	place.entry.first = (uint32_t)first;
	place.entry.pages = (uint16_t)pages;
	bytes = pages_packer_pack(pack->packer, first, payload + FIRST_BYTES, (uint32_t)pages,
				  &packed);
	place.entry.packed_words = (uint16_t)(bytes / PACKED_WORD_BYTES);
	error = note_place(pack, &place);
	if (error)
		return error;
	return bytes ? put(pack, packed, bytes) : put(pack, pack->section, pack->wanted);
}

/* The places of the sections that it names are others now. */
static int pack_index(struct save_pack *pack, struct saved_section *head, uint8_t *payload)
{
	const size_t count = head->bytes / sizeof(struct saved_entry);

	if (head->bytes % sizeof(struct saved_entry) || count > pack->places - pack->named)
		return -EPROTO;
	if (!pack->index_at) {
		pack->index_at = pack->at;
		pack->index_from = pack->from;
	}
	for (size_t n = 0; n < count; n++) {
		const struct section_place *place = &pack->place[pack->named++];
		struct saved_entry said;

		memcpy(&said, payload + n * sizeof(said), sizeof(said));
		if (said.at != place->from || said.first != place->entry.first ||
		    said.pages != place->entry.pages || said.packed_words)
			return -EPROTO;
		memcpy(payload + n * sizeof(said), &place->entry, sizeof(place->entry));
	}
	head->version = SECTION_PACKED_VERSION;
	seal(head, payload);
	memcpy(pack->section, head, sizeof(*head));
	return put(pack, pack->section, pack->wanted);
}

static int pack_end(struct save_pack *pack, struct saved_section *head, uint8_t *payload)
{
	struct saved_end end;

	if (head->bytes != sizeof(end))
		return -EPROTO;
	memcpy(&end, payload, sizeof(end));
	if (end.sections != pack->sections || end.sections_before != pack->sections_before ||
	    end.parts_at != pack->parts_from ||
	    (end.index_at &&
	     (end.index_at != pack->index_from || pack->named != pack->places)))
		return -EPROTO;
	end.parts_at = pack->parts_at;
	end.index_at = end.index_at ? pack->index_at : 0;
	memcpy(payload, &end, sizeof(end));
	seal(head, payload);
	memcpy(pack->section, head, sizeof(*head));
	pack->has_ended = true;
	return put(pack, pack->section, pack->wanted);
}

static bool is_taken_whole(uint32_t name)
{
	return name == SECTION_PAGES || name == SECTION_INDEX || name == SECTION_END;
}

/* Its checksums are its machine's, and looked at here where they would be made anew. */
static int take_whole(struct save_pack *pack, struct saved_section *head)
{
	uint8_t *payload = pack->section + sizeof(*head);

	if (head->crc != crc32c(0, payload, head->bytes))
		return -EPROTO;
	switch (head->name) {
	case SECTION_PAGES: return pack_pages(pack, head, payload);
	case SECTION_INDEX: return pack_index(pack, head, payload);
	default: return pack_end(pack, head, payload);
	}
}

/* ---- what comes ---- */

static void begin_section(struct save_pack *pack)
{
	pack->got = 0;
	pack->wanted = SAVED_SECTION_HEAD_BYTES;
}

/* One that goes through: its head has come. */
static int begin_passing(struct save_pack *pack, const struct saved_section *head)
{
	const int error = put(pack, head, sizeof(*head));

	pack->passing = head->bytes + -head->bytes % SAVED_ALIGNMENT;
	pack->sections++;
	pack->from += sizeof(*head) + pack->passing;
	begin_section(pack);
	return error;
}

static int take_head(struct save_pack *pack, const struct saved_section *head)
{
	const uint64_t bytes = head->bytes + -head->bytes % SAVED_ALIGNMENT;

	if (head->head_crc != crc32c(0, head, offsetof(struct saved_section, head_crc)) ||
	    head->bytes > UINT32_MAX)
		return -EPROTO;
	if (head->name == SECTION_MACHINE && !pack->parts_at) {
		pack->parts_from = pack->from;
		pack->parts_at = pack->at;
		pack->sections_before = pack->sections;
	}
	if (!is_taken_whole(head->name))
		return begin_passing(pack, head);
	if (head->version != saved_section_version(head->name) || head->bytes < FIRST_BYTES ||
	    bytes > SECTION_BYTES - sizeof(*head))
		return -EPROTO;
	pack->wanted += bytes;
	return 0;
}

/* A head, or all of a section. */
static int take_gathered(struct save_pack *pack)
{
	struct saved_section head;
	int error;

	memcpy(&head, pack->section, sizeof(head));
	if (pack->wanted == sizeof(head))
		return take_head(pack, &head);
	error = take_whole(pack, &head);
	pack->sections++;
	pack->from += pack->wanted;
	begin_section(pack);
	return error;
}

int save_pack_take(struct save_pack *pack, const void *data, size_t bytes)
{
	const uint8_t *next = data;
	int error = 0;

	while (bytes && !error) {
		const size_t most = pack->passing ? (size_t)pack->passing
						  : pack->wanted - pack->got;
		const size_t now = bytes < most ? bytes : most;

		assert(most);
		if (pack->has_ended)
			return -EPROTO;
		if (pack->passing) {
			pack->from += pack->from < SAVED_HEAD_BYTES ? now : 0;
			pack->passing -= now;
			error = put(pack, next, now);
		} else {
			memcpy(pack->section + pack->got, next, now);
			pack->got += now;
			if (pack->got == pack->wanted)
				error = take_gathered(pack);
		}
		next += now;
		bytes -= now;
	}
	return error;
}

int save_pack_end(const struct save_pack *pack) { return pack->has_ended ? 0 : -EPROTO; }
