/* See lvm.h. The text becomes JSON, with limits on length, depth and number; from then on it is
 * looked at as one. */
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "lvm.h"

enum {
	SECTOR = 512,
	LABEL_SECTORS = 4,
	UUID_BYTES = 32,
	AREAS = 16,
	TEXT_BYTES = 4 << 20,
	TEXT_DEPTH = 16,
	TEXT_NODES = 1 << 20
};

struct label { char magic[8]; uint64_t sector; uint32_t crc, offset; char type[8]; };
struct location { uint64_t offset, bytes; };
struct area_head {
	uint32_t crc;
	char magic[16];
	uint32_t version;
	uint64_t start, bytes;
	struct { uint64_t offset, bytes; uint32_t crc, flags; } text;
} __attribute__((packed));

/* ---- the text ---- */

struct text { const char *at; unsigned depth, nodes; };

static void skip_blanks(struct text *text)
{
	for (;;) {
		while (isspace((unsigned char)*text->at))
			text->at++;
		if (*text->at != '#')
			return;
		while (*text->at && *text->at != '\n')
			text->at++;
	}
}

static json_t *take_string(struct text *text)
{
	const char *end = strchr(text->at + 1, '"'); /* what lvm2 escapes, names do not have */
	json_t *json = end ? json_stringn(text->at + 1, (size_t)(end - text->at - 1)) : NULL;

	if (end)
		text->at = end + 1;
	return json;
}

static json_t *take_number(struct text *text)
{
	char *end;
	long long value = strtoll(text->at, &end, 10);

	if (end == text->at)
		return NULL;
	if (*end == '.') /* a time or a rate: nobody asks for it */
		strtod(text->at, &end);
	text->at = end;
	return json_integer(value);
}

static json_t *take_plain(struct text *text)
{
	return *text->at == '"' ? take_string(text) : take_number(text);
}

static json_t *take_list(struct text *text)
{
	json_t *all = json_array();

	text->at++;
	for (skip_blanks(text); *text->at && *text->at != ']'; skip_blanks(text)) {
		json_t *one = *text->at == ',' ? NULL : take_plain(text);

		if (*text->at == ',' && !one) {
			text->at++;
			continue;
		}
		if (!one || ++text->nodes > TEXT_NODES) {
			json_decref(one);
			json_decref(all);
			return NULL;
		}
		json_array_append_new(all, one);
	}
	if (*text->at == ']')
		text->at++;
	return all;
}

static bool is_of_name(char character)
{
	return isalnum((unsigned char)character) || strchr("_-.+/", character);
}

static json_t *take_section(struct text *text, bool top);

static json_t *take_value(struct text *text)
{
	json_t *json = NULL;

	skip_blanks(text);
	if (*text->at == '{') {
		text->at++;
		return take_section(text, false);
	}
	if (*text->at != '=')
		return NULL;
	text->at++;
	skip_blanks(text);
	json = *text->at == '[' ? take_list(text) : take_plain(text);
	return json;
}

static json_t *take_section(struct text *text, bool top)
{
	json_t *all = json_object();
	bool good = ++text->depth <= TEXT_DEPTH;

	for (skip_blanks(text); good && *text->at && *text->at != '}'; skip_blanks(text)) {
		size_t length = 0;
		char name[LVM_NAME_BYTES];
		json_t *value;

		while (text->at[length] && is_of_name(text->at[length]))
			length++;
		good = length && length < sizeof(name) && ++text->nodes <= TEXT_NODES;
		if (!good)
			break;
		memcpy(name, text->at, length);
		name[length] = 0;
		text->at += length;
		value = take_value(text);
		good = value && !json_object_set_new(all, name, value);
	}
	text->depth--;
	good = good && *text->at == (top ? 0 : '}');
	if (good && !top)
		text->at++;
	if (!good) {
		json_decref(all);
		all = NULL;
	}
	return all;
}

/* ---- label and metadata area ---- */

/* lvm2's sum: that of zlib without its inversions, from a beginning of its own. */
static uint32_t sum_of(const void *data, size_t bytes)
{
	return ~(uint32_t)crc32(~0xf597a6cfu, data, (uInt)bytes);
}

static bool find_label(const struct scan_volume *volume, uint8_t sector[SECTOR], uint64_t *ret_at)
{
	for (uint64_t n = 0; n < LABEL_SECTORS; n++) {
		struct label label;

		if (volume_read(volume, n * SECTOR, sector, SECTOR))
			return false;
		memcpy(&label, sector, sizeof(label));
		if (memcmp(label.magic, "LABELONE", 8) || memcmp(label.type, "LVM2 001", 8) ||
		    le32toh(label.offset) > SECTOR - UUID_BYTES - 8 - sizeof(struct location))
			continue;
		if (le32toh(label.crc) != sum_of(sector + 20, SECTOR - 20))
			return false;
		*ret_at = le32toh(label.offset);
		return true;
	}
	return false;
}

/* Where the metadata areas are: the second list behind the identifier and the size. */
static unsigned find_areas(const uint8_t sector[SECTOR], uint64_t at, struct location area[AREAS])
{
	unsigned list = 0;
	unsigned count = 0;

	for (at += UUID_BYTES + 8; at + sizeof(*area) <= SECTOR && list < 2; at += sizeof(*area)) {
		struct location location;

		memcpy(&location, sector + at, sizeof(location));
		if (!location.offset)
			list++;
		else if (list == 1 && count < AREAS)
			area[count++] = (struct location){ le64toh(location.offset),
							   le64toh(location.bytes) };
	}
	return count;
}

/* To be freed; NULL: it is not sound. */
static char *read_text(const struct scan_volume *volume, const struct location *area)
{
	uint8_t sector[SECTOR];
	struct area_head head;
	uint64_t bytes, offset, start, whole, first;
	char *text = NULL;

	if (area->offset > volume->bytes || volume_read(volume, area->offset, sector, SECTOR))
		return NULL;
	memcpy(&head, sector, sizeof(head));
	if (memcmp(head.magic, " LVM2 x[5A%r0N*>", 16) ||
	    le32toh(head.crc) != sum_of(sector + 4, SECTOR - 4))
		return NULL;
	bytes = le64toh(head.text.bytes);
	offset = le64toh(head.text.offset);
	start = le64toh(head.start);
	whole = le64toh(head.bytes);
	if (!bytes || bytes > TEXT_BYTES || whole <= SECTOR || whole > volume->bytes ||
	    offset < SECTOR || offset >= whole || bytes > whole - SECTOR ||
	    start > volume->bytes - whole)
		return NULL;
	first = bytes < whole - offset ? bytes : whole - offset; /* the text goes round */
	text = malloc(bytes + 1);
	if (text && !volume_read(volume, start + offset, text, first) &&
	    (first == bytes ||
	     !volume_read(volume, start + SECTOR, text + first, bytes - first)) &&
	    le32toh(head.text.crc) == sum_of(text, bytes)) {
		text[bytes] = 0;
		return text;
	}
	free(text);
	return NULL;
}

/* ---- what it says ---- */

static uint64_t number(const json_t *object, const char *key, uint64_t most)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value < 0 || (uint64_t)value > most ? 0 : (uint64_t)value;
}

static const char *word(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

struct group {
	const struct scan_volume *volume;
	const json_t *json;
	const char *own_name; /* of this physical volume in the text */
	uint64_t extent_bytes, begin, extents;
	struct scan_segment *taken; /* of all volumes, so that none lies over another */
	unsigned taken_count;
};

/* Without the lines that a person sees between its letters. */
static bool same_id(const char *text, const uint8_t id[UUID_BYTES])
{
	unsigned n = 0;

	for (; *text; text++)
		if (*text != '-' && (n == UUID_BYTES || *text != (char)id[n++]))
			return false;
	return n == UUID_BYTES;
}

static int find_own(struct group *group, const uint8_t id[UUID_BYTES])
{
	const json_t *all = json_object_get(group->json, "physical_volumes");
	const uint64_t most = group->volume->bytes / SECTOR;
	const char *name;
	json_t *one;

	group->extent_bytes = number(group->json, "extent_size", most) * SECTOR;
	json_object_foreach((json_t *)(uintptr_t)all, name, one)
	{
		if (!same_id(word(one, "id"), id))
			continue;
		group->own_name = name;
		group->begin = number(one, "pe_start", most) * SECTOR;
		group->extents = number(one, "pe_count", most);
	}
	if (!group->own_name || !group->extent_bytes || !group->begin ||
	    group->extents > (group->volume->bytes - group->begin) / group->extent_bytes)
		return -EBADMSG;
	return 0;
}

static bool is_taken(const struct group *group, uint64_t at, uint64_t bytes)
{
	for (unsigned n = 0; n < group->taken_count; n++)
		if (at < group->taken[n].at + group->taken[n].bytes &&
		    group->taken[n].at < at + bytes)
			return true;
	return false;
}

static void refuse(struct lvm_volume *lv, const char *why)
{
	snprintf(lv->refused, sizeof(lv->refused), "%s", why);
}

/* One segment: -EBADMSG, or 0 with it added, or the volume refused. */
static int add_segment(struct group *group, struct lvm_volume *lv, const json_t *segment)
{
	const json_t *stripes = json_object_get(segment, "stripes");
	const char *on = json_string_value(json_array_get(stripes, 0));
	json_int_t from = json_integer_value(json_array_get(stripes, 1));
	uint64_t extents = number(segment, "extent_count", 1ull << 40);
	struct scan_segment is;

	if (strcmp(word(segment, "type"), "striped") || number(segment, "stripe_count", 1) != 1) {
		refuse(lv, word(segment, "type")[0] ? word(segment, "type") : "unknown");
		return 0;
	}
	if (!on || strcmp(on, group->own_name)) {
		refuse(lv, "on several disks");
		return 0;
	}
	if (from < 0 || !extents || (uint64_t)from > group->extents ||
	    extents > group->extents - (uint64_t)from ||
	    number(segment, "start_extent", 1ull << 40) * group->extent_bytes != lv->bytes ||
	    group->taken_count == LVM_SEGMENTS)
		return -EBADMSG;
	is.at = group->volume->offset + group->begin + (uint64_t)from * group->extent_bytes;
	is.bytes = extents * group->extent_bytes;
	if (is_taken(group, is.at, is.bytes))
		return -EBADMSG;
	group->taken[group->taken_count++] = is;
	lv->segments++;
	lv->bytes += is.bytes;
	return 0;
}

static bool is_visible(const json_t *lv)
{
	const json_t *status = json_object_get(lv, "status");
	json_t *one;
	size_t n;

	json_array_foreach(status, n, one)
		if (!strcmp(json_string_value(one) ?: "", "VISIBLE"))
			return true;
	return false;
}

static int add_volume(struct group *group, struct lvm *lvm, const char *name, const json_t *json)
{
	struct lvm_volume *lv = &lvm->volume[lvm->volumes];
	unsigned first = group->taken_count;
	uint64_t count = number(json, "segment_count", LVM_SEGMENTS);
	int error = count ? 0 : -EBADMSG;

	if (lvm->volumes == LVM_VOLUMES)
		return -EBADMSG;
	lvm->volumes++;
	snprintf(lv->name, sizeof(lv->name), "%s", name);
	for (uint64_t n = 1; n <= count && !error && !lv->refused[0]; n++) {
		char key[32];

		snprintf(key, sizeof(key), "segment%lu", n);
		error = add_segment(group, lv, json_object_get(json, key));
	}
	lv->segment = calloc(lv->segments + 1, sizeof(*lv->segment));
	if (!lv->segment)
		return -ENOMEM;
	memcpy(lv->segment, group->taken + first, lv->segments * sizeof(*lv->segment));
	if (!is_visible(json) && !lv->refused[0])
		refuse(lv, "a part of another volume");
	return error;
}

static int read_group(struct group *group, const uint8_t id[UUID_BYTES], struct lvm *lvm)
{
	json_t *all = json_object_get(group->json, "logical_volumes");
	const char *name;
	json_t *one;
	int error = find_own(group, id);

	group->taken = calloc(LVM_SEGMENTS, sizeof(*group->taken));
	lvm->volume = calloc(LVM_VOLUMES, sizeof(*lvm->volume));
	if (!group->taken || !lvm->volume)
		error = -ENOMEM;
	json_object_foreach(all, name, one)
	{
		if (!error)
			error = add_volume(group, lvm, name, one);
	}
	free(group->taken);
	for (unsigned n = 0; n < lvm->volumes; n++)
		lvm->has_snapshots |= !strcmp(lvm->volume[n].refused, "snapshot");
	return error;
}

int lvm_read(const struct scan_volume *volume, struct lvm *ret)
{
	uint8_t sector[SECTOR];
	struct location area[AREAS];
	uint64_t at = 0;
	unsigned areas;
	char *text = NULL;
	json_t *root, *one;
	const char *name;
	int error = -EBADMSG;

	*ret = (struct lvm){ 0 };
	if (!find_label(volume, sector, &at))
		return -EBADMSG;
	areas = find_areas(sector, at, area);
	for (unsigned n = 0; n < areas && !text; n++)
		text = read_text(volume, &area[n]);
	root = text ? take_section(&(struct text){ .at = text }, true) : NULL;
	json_object_foreach(root, name, one)
	{
		struct group group = { .volume = volume, .json = one };

		if (json_is_object(json_object_get(one, "physical_volumes")))
			error = read_group(&group, sector + at, ret);
	}
	json_decref(root);
	free(text);
	return error;
}

void lvm_release(struct lvm *lvm)
{
	for (unsigned n = 0; n < lvm->volumes; n++)
		free(lvm->volume[n].segment);
	free(lvm->volume);
}
