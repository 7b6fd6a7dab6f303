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

static int unsound(const struct vhdx *vhdx, struct disk_error *error, enum disk_refusal kind,
		   uint64_t in, const char *what)
{
	return disk_refuse(error, kind, vhdx->disk->path, vhdx->locator_at + in, "%s", what);
}

/* ---- making a locator ---- */

struct locator { uint8_t *bytes; size_t used; unsigned count; };
enum {
	LOCATOR_PAIRS = 5,
	LOCATOR_TEXT =
		sizeof(struct vhdx_locator_head) + LOCATOR_PAIRS * sizeof(struct vhdx_locator_entry)
};

/* Behind what is there; its length in bytes, or -EILSEQ, -ENAMETOOLONG. */
static int put_utf16(struct locator *locator, const char *text)
{
	int bytes = parent_utf16(text, locator->bytes + locator->used,
				 LOCATOR_BYTES - locator->used, false);

	if (bytes > 0)
		locator->used += (size_t)bytes;
	return bytes;
}

static int put_pair(struct locator *locator, const char *key, const char *value)
{
	struct vhdx_locator_entry entry = { .key_offset = (uint32_t)locator->used };
	int bytes = put_utf16(locator, key);

	if (bytes < 0)
		return bytes;
	entry.key_bytes = (uint16_t)bytes;
	entry.value_offset = (uint32_t)locator->used;
	bytes = put_utf16(locator, value);
	if (bytes < 0)
		return bytes;
	entry.value_bytes = (uint16_t)bytes;
	memcpy(locator->bytes + sizeof(struct vhdx_locator_head) + locator->count++ * sizeof(entry),
	       &entry, sizeof(entry));
	return 0;
}

static char *with_backslashes(char *path)
{
	for (char *character = path; character && *character; character++)
		*character = *character == '/' ? '\\' : *character;
	return path;
}

static int put_id(struct locator *locator, const char *key, struct guid id)
{
	char text[GUID_TEXT_BYTES], value[GUID_TEXT_BYTES + 2];

	if (guid_is_zero(id))
		return 0;
	guid_print(id, text);
	snprintf(value, sizeof(value), "{%s}", text);
	return put_pair(locator, key, value);
}

static char *resolve(const char *path, bool resolved)
{
	return resolved ? strdup(path) : realpath(path, NULL);
}

int vhdx_make_locator(const char *child_path, const char *parent_path, bool resolved,
		      enum disk_format format, struct guid id, struct guid id2,
		      uint8_t **ret_value, uint32_t *ret_bytes)
{
	struct vhdx_locator_head head = { .type = format == DISK_VHDX ? VHDX_LOCATOR_TYPE
								      : VHDX_LOCATOR_FOREIGN };
	char *copy = strdup(child_path);
	char *directory = copy ? resolve(dirname(copy), resolved) : NULL;
	char *parent = resolve(parent_path, resolved);
	char *relative = directory && parent ? parent_relative_path(directory, parent) : NULL;
	struct locator locator = { .bytes = calloc(1, LOCATOR_BYTES), .used = LOCATOR_TEXT };
	int error = relative && locator.bytes ? 0 : -ENOMEM;

	if (!error)
		error = put_id(&locator, "parent_linkage", id);
	if (!error)
		error = put_id(&locator, "parent_linkage2", id2);
	if (!error)
		error = put_pair(&locator, "relative_path", with_backslashes(relative));
	if (!error)
		error = put_pair(&locator, "absolute_win32_path", with_backslashes(parent));
	if (!error && format != DISK_VHDX)
		error = put_pair(&locator, "umbra_format", disk_format_name(format));
	head.count = (uint16_t)locator.count;
	if (locator.bytes)
		memcpy(locator.bytes, &head, sizeof(head));
	free(copy);
	free(directory);
	free(parent);
	free(relative);
	*ret_value = locator.bytes;
	*ret_bytes = (uint32_t)locator.used;
	return error;
}

/* ---- reading a locator ---- */

static int take_pair(struct vhdx *vhdx, const char *key, char *value)
{
	static const char *const paths[3] = { "relative_path", "volume_path",
					      "absolute_win32_path" };

	if (!strcmp(key, "parent_linkage"))
		return guid_parse(value, &vhdx->parent_id) ? 0 : -EBADMSG;
	if (!strcmp(key, "parent_linkage2"))
		return guid_parse(value, &vhdx->parent_id2) ? 0 : -EBADMSG;
	if (!strcmp(key, "umbra_format")) {
		enum disk_format format;

		vhdx->parent_format =
			disk_format_parse(value, &format) ? (int)format : DISK_FORMATS;
	}
	for (int n = 0; n < 3; n++)
		if (!strcmp(key, paths[n]) && !vhdx->parent_path[n])
			vhdx->parent_path[n] = strdup(value);
	return 0;
}

int vhdx_read_locator(struct vhdx *vhdx, const uint8_t *at, uint32_t bytes,
		      struct disk_error *error)
{
	struct vhdx_locator_head head;
	int result = 0;

	if (bytes < sizeof(head) || bytes > LOCATOR_MAX_BYTES)
		return unsound(vhdx, error, REFUSAL_VHDX_LOCATOR, 0, "a wrong length");
	memcpy(&head, at, sizeof(head));
	vhdx->parent_format =
		guid_equal(head.type, VHDX_LOCATOR_FOREIGN) ? DISK_FORMATS : DISK_VHDX;
	if (!guid_equal(head.type, VHDX_LOCATOR_TYPE) &&
	    !guid_equal(head.type, VHDX_LOCATOR_FOREIGN))
		return unsound(vhdx, error, REFUSAL_VHDX_LOCATOR_TYPE, 0,
			       "its parent is not a VHDX file");
	if (head.count > LOCATOR_MAX_PAIRS ||
	    sizeof(head) + head.count * sizeof(struct vhdx_locator_entry) > bytes)
		return unsound(vhdx, error, REFUSAL_VHDX_LOCATOR,
			       offsetof(struct vhdx_locator_head, count),
			       "it is cut, or has too many pairs");
	for (unsigned n = 0; n < head.count && !result; n++) {
		struct vhdx_locator_entry entry;
		char *key, *value;

		memcpy(&entry, at + sizeof(head) + n * sizeof(entry), sizeof(entry));
		if (entry.key_offset > bytes || entry.key_bytes > bytes - entry.key_offset ||
		    entry.value_offset > bytes || entry.value_bytes > bytes - entry.value_offset)
			return unsound(vhdx, error, REFUSAL_VHDX_LOCATOR,
				       sizeof(head) + n * sizeof(entry),
				       "a pair points outside of it");
		key = parent_utf8(at + entry.key_offset, entry.key_bytes, false);
		value = parent_utf8(at + entry.value_offset, entry.value_bytes, false);
		if (!key || !value || take_pair(vhdx, key, value))
			result = unsound(vhdx, error, REFUSAL_VHDX_LOCATOR,
					 sizeof(head) + n * sizeof(entry),
					 "a pair that cannot be read");
		free(key);
		free(value);
	}
	if (!result && vhdx->parent_format == DISK_FORMATS)
		result = unsound(vhdx, error, REFUSAL_VHDX_LOCATOR_LINK, 0,
				 "does not say which format its parent has");
	if (!result && vhdx->parent_format == DISK_VHDX && guid_is_zero(vhdx->parent_id))
		result = unsound(vhdx, error, REFUSAL_VHDX_LOCATOR_LINK, 0,
				 "does not say which data its parent had");
	return result;
}

/* ---- the parent ---- */

static int vhdx_check_parent(struct disk *child, struct disk *parent, struct disk_error *error)
{
	const struct vhdx *vhdx = vhdx_of(child);
	struct guid id = disk_data_id(parent);
	char want[GUID_TEXT_BYTES], has[GUID_TEXT_BYTES];

	if (vhdx->parent_format == DISK_VHDX && !vhdx_names_data(vhdx, id)) {
		guid_print(vhdx->parent_id, want);
		guid_print(id, has);
		return disk_refuse(error, REFUSAL_VHDX_PARENT_DATA, child->path, vhdx->locator_at,
				   "was made on data %s of %s, which has changed since and is %s "
				   "now",
				   want, parent->path, has);
	}
	if (vhdx->parent_format != DISK_VHDX && !vhdx->link_item.bytes)
		return disk_refuse(error, REFUSAL_VHDX_PARENT_CONTENT, child->path,
				   vhdx->locator_at, "does not say what its parent %s held",
				   parent->path);
	if (parent->sector_bytes != vhdx->sector_bytes || parent->size_bytes > child->size_bytes)
		return disk_refuse(error, REFUSAL_VHDX_PARENT_SHAPE, child->path, DISK_NOWHERE,
				   "its parent %s has other sectors or is larger", parent->path);
	return 0;
}

int vhdx_find_parent(struct vhdx *vhdx, const struct disk_options *options,
		     struct disk_error *error)
{
	struct parent_query query = {
		.format = (enum disk_format)vhdx->parent_format,
		.name = NULL,
		.check = vhdx_check_parent,
	};
	const char *locator = vhdx->parent_path[0] ? vhdx->parent_path[0] : vhdx->parent_path[2];
	char *name = locator ? parent_host_path(vhdx->disk->path, locator, false) : NULL;
	int result;

	if (vhdx->parent_format == DISK_VHDX) {
		query.data_id = vhdx->parent_id;
		query.other_data_id = vhdx->parent_id2;
	}
	query.name = name;
	for (int n = 0; n < 3; n++)
		if (vhdx->parent_path[n])
			query.path[n] =
				parent_host_path(vhdx->disk->path, vhdx->parent_path[n], n == 0);
	result = search_parent(vhdx->disk, &query, options, error);
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
		vhdx_make_locator(child->disk->path, parent_path, false, format, id, id2, &value,
				  &bytes);

	if (!error)
		error = vhdx_write_item(child, VHDX_ITEM_LOCATOR, VHDX_ITEM_REQUIRED, value, bytes);
	free(value);
	return error;
}

/* The name of a parent and what is known of its content change together: the one without the other
 * would not open. */
static int write_link(struct vhdx *vhdx, const struct disk *parent, const struct link_items *items)
{
	enum { COUNT = 2 * VHDX_LONG_PARTS + 1 };
	struct vhdx_value *values = calloc(COUNT, sizeof(*values));
	uint8_t *locator = NULL;
	uint32_t bytes = 0;
	int error = values ? 0 : -ENOMEM;

	if (!error)
		error = vhdx_make_locator(vhdx->disk->path, parent->path, false, parent->format_id,
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
		error = vhdx_write_values(vhdx, values, COUNT);
	}
	free(locator);
	free(values);
	return error;
}

int vhdx_repair_link(struct disk *disk, struct disk *parent)
{
	struct vhdx *vhdx = vhdx_of(disk);
	struct link_items items;
	int error = link_encode(parent, LINK_COMPUTED, &items);

	if (error)
		return error;
	error = write_link(vhdx, parent, &items);
	free(items.link);
	free(items.table);
	if (!error) {
		vhdx->parent_id = disk_data_id(parent);
		vhdx->parent_id2 = (struct guid){ 0 };
	}
	return error;
}

/* Of a format that is never written, what is known of the parent is all in its side file. */
int disk_repair_link(struct disk *disk, struct disk_error *error)
{
	bool is_vhdx = disk->driver == &vhdx_driver;
	int result;

	if (!disk->parent || (is_vhdx ? !disk->write : disk->driver->write != NULL))
		return disk_refuse(error, REFUSAL_NO_CHILD, disk->path, DISK_NOWHERE,
				   "is no child that can be written");
	result = is_vhdx ? vhdx_repair_link(disk, disk->parent) : link_make(disk, LINK_COMPUTED);
	return result ? disk_refuse_host(error, result, disk->path, "accepting its parent") : 0;
}
