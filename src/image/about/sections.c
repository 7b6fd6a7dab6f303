/* The sections in the image: loading, saving, changing one value; files that are kept beside them.
 * */
#include "image/image_internal.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

enum { MAGIC = 0x474d4955, LEVEL = 3 };

/* Before the compressed text. */
struct packed_head { uint32_t magic, version; uint64_t bytes; };

/* Objects of a format the version of which is not known are left alone. */
static int check_version(const json_t *json)
{
	json_int_t version = json_integer_value(json_object_get(json, "umbra-image"));

	if (!json_is_object(json))
		return -EBADMSG;
	return version == IMAGE_VERSION || !version ? 0 : -ENOTSUP;
}

int image_load_json(struct disk *disk, struct guid id, size_t most, json_t **ret)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(disk, id, &bytes, &count);

	assert(most);
	*ret = NULL;
	if (error)
		return error;
	if (count <= most)
		*ret = json_loadb((const char *)bytes, count, JSON_REJECT_DUPLICATES, NULL);
	free(bytes);
	return *ret ? 0 : -EBADMSG;
}

static int no_good(json_t **ret, int error)
{
	json_decref(*ret);
	*ret = NULL;
	return error;
}

int image_load_about(struct disk *disk, json_t **ret)
{
	int error = image_load_json(disk, ITEM_ABOUT, IMAGE_ABOUT_BYTES, ret);

	if (error == -ENOENT) {
		*ret = json_pack("{s:i}", "umbra-image", IMAGE_VERSION);
		return *ret ? 0 : -ENOMEM;
	}
	error = error ? error : check_version(*ret);
	return error ? no_good(ret, error) : 0;
}

int image_load_kept(struct disk *disk, json_t **ret)
{
	int error = image_load_json(disk, ITEM_KEPT, IMAGE_ABOUT_BYTES, ret);

	if (error == -ENOENT) {
		*ret = json_object();
		return *ret ? 0 : -ENOMEM;
	}
	if (error)
		return error;
	return json_is_object(*ret) ? 0 : no_good(ret, -EBADMSG);
}

static int save_object(struct disk *disk, struct guid id, enum disk_item_subject subject,
		       const json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);
	size_t bytes = text ? strlen(text) : 0;
	int error;

	if (!text)
		error = -ENOMEM;
	else if (bytes > IMAGE_ABOUT_BYTES)
		error = -EFBIG;
	else
		error = disk_write_item(disk, id, subject, text, bytes);
	free(text);
	return error;
}

int image_save_about(struct disk *disk, const json_t *about)
{
	return save_object(disk, ITEM_ABOUT, DISK_ITEM_OF_DISK, about);
}

/* Memory grows with what really comes out, not with what is said of it. NULL: it is not that
 * much. */
static char *unpack(const uint8_t *packed, size_t packed_bytes, size_t bytes)
{
	enum { ROOM_BYTES = 1 << 16 };
	ZSTD_inBuffer in = { packed, packed_bytes, 0 };
	ZSTD_outBuffer out = { NULL, 0, 0 };
	ZSTD_DStream *stream = ZSTD_createDStream();
	size_t left = stream ? 1 : 0;

	while (left && !ZSTD_isError(left)) {
		const size_t before = in.pos + out.pos;

		if (out.pos == out.size && out.size <= bytes) {
			size_t room = out.size < ROOM_BYTES ? ROOM_BYTES : 2 * out.size;
			char *more = realloc(out.dst, room > bytes ? bytes + 1 : room);

			if (!more)
				break;
			out.dst = more;
			out.size = room > bytes ? bytes + 1 : room;
		}
		left = ZSTD_decompressStream(stream, &out, &in);
		if (in.pos + out.pos == before)
			break;
	}
	ZSTD_freeDStream(stream);
	if (out.dst && !left && out.pos == bytes)
		return out.dst;
	free(out.dst);
	return NULL;
}

/* Ended by a zero. */
static int load_text(struct disk *disk, struct guid id, char **ret, size_t *ret_bytes)
{
	struct packed_head head = { 0 };
	uint8_t *bytes;
	char *whole = NULL;
	size_t count;
	int error = disk_read_item(disk, id, &bytes, &count);

	if (error)
		return error;
	if (count >= sizeof(head))
		memcpy(&head, bytes, sizeof(head));
	if (head.magic == MAGIC && head.version == IMAGE_VERSION &&
	    head.bytes <= IMAGE_CONTENT_BYTES)
		whole = unpack(bytes + sizeof(head), count - sizeof(head), head.bytes);
	free(bytes);
	if (!whole)
		return -EBADMSG;
	whole[head.bytes] = 0;
	*ret = whole;
	*ret_bytes = head.bytes;
	return 0;
}

static int load_packed(struct disk *disk, struct guid id, json_t **ret)
{
	size_t bytes;
	char *text;
	int error = load_text(disk, id, &text, &bytes);

	*ret = error ? NULL : json_loadb(text, bytes, 0, NULL);
	if (error)
		return error;
	free(text);
	if (json_is_object(*ret))
		return 0;
	json_decref(*ret);
	*ret = NULL;
	return -EBADMSG;
}

/* `text` is released. */
static int save_text(struct disk *disk, struct guid id, char *text)
{
	struct packed_head head = { .magic = MAGIC,
				    .version = IMAGE_VERSION,
				    .bytes = text ? strlen(text) : 0 };
	size_t room = ZSTD_compressBound(head.bytes);
	size_t used;
	uint8_t *packed = malloc(sizeof(head) + room);
	int error = 0;

	if (!text || !packed)
		error = -ENOMEM;
	else if (head.bytes > IMAGE_CONTENT_BYTES)
		error = -EFBIG;
	if (!error) {
		memcpy(packed, &head, sizeof(head));
		used = ZSTD_compress(packed + sizeof(head), room, text, head.bytes, LEVEL);
		error = ZSTD_isError(used) ? -EIO
					   : disk_write_item(disk, id, DISK_ITEM_OF_DISK, packed,
							     sizeof(head) + used);
	}
	free(text);
	free(packed);
	return error;
}

static int save_packed(struct disk *disk, struct guid id, const json_t *what)
{
	return save_text(disk, id, json_dumps(what, JSON_COMPACT));
}

/* "NAME<tab>VERSION<newline>" of each package: what policies ask for, without the rest of what is
 * known of them. */
static char *versions_of(const json_t *content)
{
	const json_t *packages = json_object_get(content, "packages");
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	for (size_t n = 0; to && n < json_array_size(packages); n++) {
		const char *name =
			json_string_value(json_object_get(json_array_get(packages, n), "name"));
		const char *version =
			json_string_value(json_object_get(json_array_get(packages, n), "version"));

		if (name && version && !strpbrk(name, "\t\n") && !strpbrk(version, "\t\n"))
			fprintf(to, "%s\t%s\n", name, version);
	}
	if (to && fclose(to)) {
		free(text);
		text = NULL;
	}
	return text;
}

int image_load_content(struct disk *disk, json_t **ret)
{
	return load_packed(disk, ITEM_CONTENT, ret);
}

int image_save_content(struct disk *disk, const json_t *content)
{
	int error = save_packed(disk, ITEM_CONTENT, content);

	return error ? error : save_text(disk, ITEM_VERSIONS, versions_of(content));
}

int image_load_versions(struct disk *disk, char **ret)
{
	size_t bytes;

	return load_text(disk, ITEM_VERSIONS, ret, &bytes);
}

int image_load_files(struct disk *disk, json_t **ret) { return load_packed(disk, ITEM_FILES, ret); }
int image_save_files(struct disk *disk, const json_t *files)
{
	return save_packed(disk, ITEM_FILES, files);
}

/* ---- a copy of the data ---- */

static struct guid data_id_of(const struct disk *disk)
{
	struct disk_info info;

	disk_info(disk, &info);
	return info.data_id;
}

static int carry_item(struct disk *from, struct disk *to, struct guid id)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(from, id, &bytes, &count);

	if (error)
		return error == -ENOENT ? 0 : error;
	error = disk_write_item(to, id, DISK_ITEM_OF_DISK, bytes, count);
	free(bytes);
	return error;
}

int image_carry(struct disk *from, struct disk *to)
{
	char was[GUID_TEXT_BYTES], is[GUID_TEXT_BYTES];
	json_t *about, *scanned;
	const char *of;
	int error = image_load_about(from, &about);

	if (error)
		return error;
	guid_print(data_id_of(from), was);
	guid_print(data_id_of(to), is);
	scanned = json_object_get(about, "scanned");
	of = json_string_value(json_object_get(scanned, "data-id"));
	if (of && !strcmp(of, was) && !guid_is_zero(data_id_of(to)))
		json_object_set_new(scanned, "data-id", json_string(is));
	if (json_object_size(about) > 1)
		error = image_save_about(to, about);
	json_decref(about);
	if (!error)
		error = carry_item(from, to, ITEM_CONTENT);
	if (!error)
		error = carry_item(from, to, ITEM_VERSIONS);
	return error ? error : carry_item(from, to, ITEM_FILES);
}

/* ---- values ---- */

static const char *const sections[] = { "title",        "compatible", "expires", "rights",
					"patches",      "network",    "tags",    "configuration",
					"saved-states", "extensions", "policy" };

static bool is_section(const char *key, size_t length)
{
	for (size_t n = 0; n < sizeof(sections) / sizeof(sections[0]); n++)
		if (strlen(sections[n]) == length && !strncmp(key, sections[n], length))
			return true;
	return false;
}

/* Vendors' names have dots, too: their space is extensions.NAME with everything behind it. */
static json_t *put_at(json_t *at, const char *key, size_t length, json_t *value)
{
	const char *dot = memchr(key, '.', length);
	size_t part = dot ? (size_t)(dot - key) : length;
	json_t *next;

	if (!dot) {
		if (value)
			json_object_setn_new_nocheck(at, key, length, value);
		else
			json_object_deln(at, key, length);
		return at;
	}
	next = json_object_getn(at, key, part);
	if (!json_is_object(next)) {
		next = json_object();
		json_object_setn_new_nocheck(at, key, part, next);
	}
	return put_at(next, dot + 1, length - part - 1, value);
}

int image_set(json_t *about, const char *assignment)
{
	const char *equals = strchr(assignment, '=');
	const char *dot = strchr(assignment, '.');
	size_t length = equals ? (size_t)(equals - assignment) : 0;
	size_t section = dot && dot < equals ? (size_t)(dot - assignment) : length;
	json_t *value;

	if (!length || !is_section(assignment, section) ||
	    strstr(assignment, "..") == assignment + section)
		return -EINVAL;
	value = equals[1] ? json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL)
			  : NULL;
	if (!value && equals[1])
		value = json_string(equals + 1);
	if (!value && equals[1])
		return -EILSEQ;
	put_at(about, assignment, length, value);
	return 0;
}

json_t *image_get(const json_t *about, const char *key)
{
	json_t *at = (json_t *)(uintptr_t)about;

	while (at && *key) {
		size_t n = strcspn(key, ".");

		at = json_object_getn(at, key, n);
		key += n + (key[n] == '.');
	}
	return at;
}

/* ---- kept files ---- */

static int kept_id(const char *name, struct guid *ret)
{
	size_t length = strlen(name);

	if (!length || length > 200 || strchr(name, '/') || name[0] == '.')
		return -EINVAL;
	crypto_generichash(ret->byte, sizeof(ret->byte), (const uint8_t *)name, length,
			   (const uint8_t *)"umbra kept files", 16);
	ret->byte[14] = ret->byte[15] = 0; /* the parts of a long value */
	return 0;
}

int image_keep(struct disk *disk, const char *name, const void *bytes, size_t count)
{
	uint8_t digest[32];
	char text[65];
	struct guid id;
	json_t *kept;
	int error = kept_id(name, &id);

	assert(bytes || !count);
	if (!error)
		error = image_load_kept(disk, &kept);
	if (error)
		return error;
	crypto_generichash(digest, sizeof(digest), bytes ? bytes : (const uint8_t *)"", count, NULL,
			   0);
	sodium_bin2hex(text, sizeof(text), digest, sizeof(digest));
	if (!bytes)
		json_object_del(kept, name);
	else
		json_object_set_new(
			kept, name,
			json_pack("{s:I, s:s}", "bytes", (json_int_t)count, "blake2b", text));
	error = disk_write_item(disk, id, DISK_ITEM_OF_FILE, bytes, count);
	if (!error)
		error = save_object(disk, ITEM_KEPT, DISK_ITEM_OF_FILE, kept);
	json_decref(kept);
	return error;
}

int image_fetch(struct disk *disk, const char *name, uint8_t **ret, size_t *ret_count)
{
	struct guid id;
	int error = kept_id(name, &id);

	return error ? error : disk_read_item(disk, id, ret, ret_count);
}
