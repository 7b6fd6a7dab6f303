/*
 * A VHDX file's parent: the locator that names it, finding it, and whether it is the one that the
 * child was made on.
 *
 * A parent that is itself VHDX is named as MS-VHDX 2.6.2.6 has it, so that other programs find it.
 * For another format the locator has a type of our own and names the format; other programs then
 * refuse the child, as they must. The parent's identity is then its content (digest.h). How a
 * parent is looked for: search.h.
 */
#include "vhdx_internal.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "disk/digest.h"
#include "disk/search.h"

enum { LOCATOR_MAX_BYTES = 1 << 20, LOCATOR_MAX_PAIRS = 64 };

static int unsound(const struct vhdx *v, struct disk_error *error, const char *what)
{
	return disk_fail(error, -EBADMSG, v->disk->path, "%s", what);
}

/* ---- making a locator ---- */

struct locator { uint8_t *bytes; size_t used; unsigned count; };
enum {
	LOCATOR_PAIRS = 5,
	LOCATOR_TEXT =
		sizeof(struct vhdx_locator_head) + LOCATOR_PAIRS * sizeof(struct vhdx_locator_entry)
};

/* Behind what is there; its length in bytes, or -EILSEQ, -ENAMETOOLONG. */
static int put_utf16(struct locator *l, const char *text)
{
	int bytes = parent_utf16(text, l->bytes + l->used, LOCATOR_BYTES - l->used, false);

	if (bytes > 0)
		l->used += (size_t)bytes;
	return bytes;
}

static int put_pair(struct locator *l, const char *key, const char *value)
{
	struct vhdx_locator_entry e = { .key_offset = (uint32_t)l->used };
	int bytes = put_utf16(l, key);

	if (bytes < 0)
		return bytes;
	e.key_bytes = (uint16_t)bytes;
	e.value_offset = (uint32_t)l->used;
	bytes = put_utf16(l, value);
	if (bytes < 0)
		return bytes;
	e.value_bytes = (uint16_t)bytes;
	memcpy(l->bytes + sizeof(struct vhdx_locator_head) + l->count++ * sizeof(e), &e, sizeof(e));
	return 0;
}

static char *with_backslashes(char *path)
{
	for (char *c = path; c && *c; c++)
		*c = *c == '/' ? '\\' : *c;
	return path;
}

/* How to reach `to` from the directory `from`, both resolved. */
static char *relative_path(const char *from, const char *to)
{
	size_t common = 0;
	char *path = strdup(".");
	char *next;

	for (size_t n = 0; from[n] == to[n] || (!from[n] && to[n] == '/'); n++) {
		if (to[n] == '/')
			common = n;
		if (!from[n] || !to[n])
			break;
	}
	for (const char *c = from + common; path && (c = strchr(c, '/')) && c[1]; c++) {
		if (asprintf(&next, "%s/..", path) < 0)
			next = NULL;
		free(path);
		path = next;
	}
	if (!path || asprintf(&next, "%s%s", path, to + common) < 0)
		next = NULL;
	free(path);
	return next;
}

static int put_id(struct locator *l, const char *key, struct guid id)
{
	char text[GUID_TEXT_BYTES], value[GUID_TEXT_BYTES + 2];

	if (guid_is_zero(id))
		return 0;
	guid_print(id, text);
	snprintf(value, sizeof(value), "{%s}", text);
	return put_pair(l, key, value);
}

int vhdx_make_locator(const char *child_path, const char *parent_path, enum disk_format format,
		      struct guid id, struct guid id2, uint8_t **ret_value, uint32_t *ret_bytes)
{
	struct vhdx_locator_head h = { .type = format == DISK_VHDX ? VHDX_LOCATOR_TYPE
								   : VHDX_LOCATOR_FOREIGN };
	char *copy = strdup(child_path);
	char *directory = copy ? realpath(dirname(copy), NULL) : NULL;
	char *parent = realpath(parent_path, NULL);
	char *relative = directory && parent ? relative_path(directory, parent) : NULL;
	struct locator l = { .bytes = calloc(1, LOCATOR_BYTES), .used = LOCATOR_TEXT };
	int error = relative && l.bytes ? 0 : -ENOMEM;

	if (!error)
		error = put_id(&l, "parent_linkage", id);
	if (!error)
		error = put_id(&l, "parent_linkage2", id2);
	if (!error)
		error = put_pair(&l, "relative_path", with_backslashes(relative));
	if (!error)
		error = put_pair(&l, "absolute_win32_path", with_backslashes(parent));
	if (!error && format != DISK_VHDX)
		error = put_pair(&l, "umbra_format", disk_format_name(format));
	h.count = (uint16_t)l.count;
	if (l.bytes)
		memcpy(l.bytes, &h, sizeof(h));
	free(copy);
	free(directory);
	free(parent);
	free(relative);
	*ret_value = l.bytes;
	*ret_bytes = (uint32_t)l.used;
	return error;
}

/* ---- reading a locator ---- */

static int take_pair(struct vhdx *v, const char *key, char *value)
{
	static const char *const paths[3] = { "relative_path", "volume_path",
					      "absolute_win32_path" };

	if (!strcmp(key, "parent_linkage"))
		return guid_parse(value, &v->parent_id) ? 0 : -EBADMSG;
	if (!strcmp(key, "parent_linkage2"))
		return guid_parse(value, &v->parent_id2) ? 0 : -EBADMSG;
	if (!strcmp(key, "umbra_format")) {
		enum disk_format format;

		v->parent_format = disk_format_parse(value, &format) ? (int)format : DISK_FORMATS;
	}
	for (int n = 0; n < 3; n++)
		if (!strcmp(key, paths[n]) && !v->parent_path[n])
			v->parent_path[n] = strdup(value);
	return 0;
}

int vhdx_read_locator(struct vhdx *v, const uint8_t *at, uint32_t bytes, struct disk_error *error)
{
	struct vhdx_locator_head h;
	int result = 0;

	if (bytes < sizeof(h) || bytes > LOCATOR_MAX_BYTES)
		return unsound(v, error, "the parent's locator has a wrong length");
	memcpy(&h, at, sizeof(h));
	v->parent_format = guid_equal(h.type, VHDX_LOCATOR_FOREIGN) ? DISK_FORMATS : DISK_VHDX;
	if (!guid_equal(h.type, VHDX_LOCATOR_TYPE) && !guid_equal(h.type, VHDX_LOCATOR_FOREIGN))
		return disk_fail(error, -ENOTSUP, v->disk->path, "its parent is not a VHDX file");
	if (h.count > LOCATOR_MAX_PAIRS ||
	    sizeof(h) + h.count * sizeof(struct vhdx_locator_entry) > bytes)
		return unsound(v, error, "the parent's locator is cut, or too long");
	for (unsigned n = 0; n < h.count && !result; n++) {
		struct vhdx_locator_entry e;
		char *key, *value;

		memcpy(&e, at + sizeof(h) + n * sizeof(e), sizeof(e));
		if (e.key_offset > bytes || e.key_bytes > bytes - e.key_offset ||
		    e.value_offset > bytes || e.value_bytes > bytes - e.value_offset)
			return unsound(v, error, "the parent's locator points outside of itself");
		key = parent_utf8(at + e.key_offset, e.key_bytes, false);
		value = parent_utf8(at + e.value_offset, e.value_bytes, false);
		if (!key || !value || take_pair(v, key, value))
			result = unsound(v, error, "the parent's locator cannot be read");
		free(key);
		free(value);
	}
	if (!result && v->parent_format == DISK_FORMATS)
		result = unsound(v, error, "does not say which format its parent has");
	if (!result && v->parent_format == DISK_VHDX && guid_is_zero(v->parent_id))
		result = unsound(v, error, "does not say which data its parent had");
	return result;
}

/* ---- the parent ---- */

static int vhdx_check_parent(struct disk *child, struct disk *parent, struct disk_error *error)
{
	const struct vhdx *v = vhdx_of(child);
	struct guid id = disk_data_id(parent);
	char want[GUID_TEXT_BYTES], has[GUID_TEXT_BYTES];

	if (v->parent_format == DISK_VHDX && !vhdx_names_data(v, id)) {
		guid_print(v->parent_id, want);
		guid_print(id, has);
		return disk_fail(error, -ESTALE, child->path,
				 "was made on data %s of %s, which has changed since and is %s now",
				 want, parent->path, has);
	}
	if (v->parent_format != DISK_VHDX && !v->link_item.bytes)
		return disk_fail(error, -ESTALE, child->path,
				 "does not say what its parent %s held", parent->path);
	if (parent->sector_bytes != v->sector_bytes || parent->size_bytes > child->size_bytes)
		return disk_fail(error, -ESTALE, child->path,
				 "its parent %s has other sectors or is larger", parent->path);
	return 0;
}

int vhdx_find_parent(struct vhdx *v, const struct disk_options *o, struct disk_error *error)
{
	struct parent_query query = {
		.format = (enum disk_format)v->parent_format,
		.name = NULL,
		.check = vhdx_check_parent,
	};
	const char *locator = v->parent_path[0] ? v->parent_path[0] : v->parent_path[2];
	char *name = locator ? parent_host_path(v->disk->path, locator, false) : NULL;
	int result;

	if (v->parent_format == DISK_VHDX) {
		query.data_id = v->parent_id;
		query.other_data_id = v->parent_id2;
	}
	query.name = name;
	for (int n = 0; n < 3; n++)
		if (v->parent_path[n])
			query.path[n] = parent_host_path(v->disk->path, v->parent_path[n], n == 0);
	result = search_parent(v->disk, &query, o, error);
	for (int n = 0; n < 3; n++)
		free(query.path[n]);
	free(name);
	return result;
}

int vhdx_set_link(struct vhdx *child, const char *parent_path, enum disk_format format,
		  struct guid id, struct guid id2)
{
	uint8_t *value;
	uint32_t bytes;
	int error =
		vhdx_make_locator(child->disk->path, parent_path, format, id, id2, &value, &bytes);

	if (!error)
		error = vhdx_write_item(child, VHDX_ITEM_LOCATOR, VHDX_ITEM_REQUIRED, value, bytes);
	free(value);
	return error;
}

/* The name of a parent and what is known of its content change together: the one without the other
 * would not open. */
static int write_link(struct vhdx *v, const struct disk *parent, const struct link_items *items)
{
	enum { COUNT = 2 * VHDX_LONG_PARTS + 1 };
	struct vhdx_value *values = calloc(COUNT, sizeof(*values));
	uint8_t *locator = NULL;
	uint32_t bytes = 0;
	int error = values ? 0 : -ENOMEM;

	if (!error)
		error = vhdx_make_locator(v->disk->path, parent->path, parent->format_id,
					  disk_data_id(parent), (struct guid){ 0 }, &locator,
					  &bytes);
	if (!error)
		error = vhdx_long_values(values, DIGEST_ITEM_PARENT, 0, items->table,
					 items->table_bytes);
	if (!error)
		error = vhdx_long_values(values + VHDX_LONG_PARTS, DIGEST_ITEM_LINK, 0, items->link,
					 items->link_bytes);
	if (!error) {
		values[COUNT - 1] = (struct vhdx_value){ .id = VHDX_ITEM_LOCATOR,
							 .flags = VHDX_ITEM_REQUIRED,
							 .value = locator,
							 .bytes = bytes };
		error = vhdx_write_values(v, values, COUNT);
	}
	free(locator);
	free(values);
	return error;
}

int vhdx_repair_link(struct disk *d, struct disk *parent)
{
	struct vhdx *v = vhdx_of(d);
	struct link_items items;
	int error = link_encode(parent, LINK_COMPUTED, &items);

	if (error)
		return error;
	error = write_link(v, parent, &items);
	free(items.link);
	free(items.table);
	if (!error) {
		v->parent_id = disk_data_id(parent);
		v->parent_id2 = (struct guid){ 0 };
	}
	return error;
}

int disk_repair_link(struct disk *d, struct disk_error *error)
{
	int result;

	if (d->driver != &vhdx_driver || !d->write || !d->parent)
		return disk_fail(error, -EINVAL, d->path, "is no child that can be written");
	result = vhdx_repair_link(d, d->parent);
	return result ? disk_fail(error, result, d->path, "%s", strerror(-result)) : 0;
}
