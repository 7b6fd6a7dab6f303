/* Opening VHD files: everything that they say is checked here, once; and their parents. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "disk/search.h"
#include "vhd_internal.h"

static int unsound(const struct disk *d, struct disk_error *error, const char *what)
{
	return disk_fail(error, -EBADMSG, d->path, "%s", what);
}

/* One's complement of the sum of all bytes but the sum's own. */
uint32_t vhd_checksum(const void *at, size_t bytes, size_t sum_at)
{
	const uint8_t *byte = at;
	uint32_t sum = 0;

	for (size_t n = 0; n < bytes; n++)
		sum += n < sum_at || n >= sum_at + 4 ? byte[n] : 0;
	return ~sum;
}

bool vhd_is_footer(const struct vhd_footer *f)
{
	return !memcmp(f->cookie, "conectix", 8) &&
	       be32toh(f->checksum) ==
		       vhd_checksum(f, sizeof(*f), offsetof(struct vhd_footer, checksum)) &&
	       be32toh(f->version) >> 16 == 1;
}

/* In two different orders of bytes: here it is only compared and shown. */
static struct guid id_of(const uint8_t raw[16])
{
	struct guid id;

	memcpy(id.byte,
	       (uint8_t[16]){ raw[3], raw[2], raw[1], raw[0], raw[5], raw[4], raw[7], raw[6] }, 8);
	memcpy(id.byte + 8, raw + 8, 8);
	return id;
}

/* What lies at the end, of 512 bytes or, as the oldest programs wrote it, 511. */
static bool read_last_footer(struct disk *d, uint64_t bytes, struct vhd_footer *ret)
{
	uint64_t short_bytes = sizeof(*ret) - 1;

	if (!file_read(&d->file, bytes / VHD_SECTOR * VHD_SECTOR - VHD_SECTOR, ret, sizeof(*ret)) &&
	    vhd_is_footer(ret))
		return true;
	*ret = (struct vhd_footer){ .type = 0 };
	return bytes % VHD_SECTOR == short_bytes &&
	       !file_read(&d->file, bytes - short_bytes, ret, short_bytes) && vhd_is_footer(ret);
}

static int read_footer(struct disk *d, uint64_t bytes, struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	struct vhd_footer first, last;
	bool is_last;

	if (bytes < 2 * VHD_SECTOR || file_read(&d->file, 0, &first, sizeof(first)))
		return unsound(d, error, "too short for a VHD file");
	is_last = read_last_footer(d, bytes, &last);
	v->footer = vhd_is_footer(&first) && be32toh(first.type) != VHD_FIXED ? first : last;
	v->type = be32toh(v->footer.type);
	if (!vhd_is_footer(&v->footer))
		return unsound(d, error, "has no footer of a VHD file");
	if (v->type < VHD_FIXED || v->type > VHD_CHILD)
		return disk_fail(error, -ENOTSUP, d->path, "a VHD file of type %u", v->type);
	d->size_bytes = be64toh(v->footer.size_bytes);
	v->id = id_of(v->footer.id);
	v->footer_missing = !is_last || bytes % VHD_SECTOR;
	v->end = (bytes + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	if (!v->footer_missing)
		v->end -= VHD_SECTOR;
	if (!d->size_bytes || d->size_bytes % VHD_SECTOR || d->size_bytes > VHD_MAX_BYTES)
		return unsound(
			d, error,
			"its size is not a whole number of sectors, or more than a VHD can hold");
	if (v->type == VHD_FIXED &&
	    d->size_bytes > bytes / VHD_SECTOR * VHD_SECTOR -
				    (is_last && !v->footer_missing ? VHD_SECTOR : 0))
		return disk_fail(error, -EBADMSG, d->path, "is cut off: %lu bytes of a disk of %lu",
				 bytes, d->size_bytes);
	return 0;
}

struct vhd_place { uint64_t begin, end; };

static int by_begin(const void *one, const void *other)
{
	const struct vhd_place *a = one;
	const struct vhd_place *b = other;

	return (a->begin > b->begin) - (a->begin < b->begin);
}

/* Of the last block only what the disk has of it has to be there. */
static uint64_t place_bytes(const struct disk *d, uint32_t block)
{
	const struct vhd *v = vhd_of(d);
	uint64_t left = d->size_bytes - (uint64_t)block * v->block_bytes;

	return v->bitmap_bytes + (left < v->block_bytes ? left : v->block_bytes);
}

/* Each block in the file, not over another one, the tables or the footer. */
static int check_table(struct disk *d, uint64_t first, uint64_t bytes, struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	struct vhd_place *places = malloc((v->entries + 1ull) * sizeof(*places));
	uint32_t count = 0;
	int result = 0;

	if (!places)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	for (uint32_t n = 0; n < v->entries && !result; n++) {
		struct vhd_place place = { .begin = vhd_block_offset(v, n),
					   .end = vhd_block_offset(v, n) + place_bytes(d, n) };

		if (v->table[n] == VHD_UNUSED)
			continue;
		if (place.begin < first)
			result = disk_fail(error, -EBADMSG, d->path,
					   "entry %u of its table (%#x) is not possible", n,
					   v->table[n]);
		else if (place.end > bytes)
			result = disk_fail(
				error, -EBADMSG, d->path,
				"is cut off: the data of offset %lu ends at %lu of a file of %lu "
				"bytes",
				(uint64_t)n * v->block_bytes, place.end, bytes);
		else if (place.end > v->end)
			result = disk_fail(error, -EBADMSG, d->path,
					   "entry %u of its table (%#x) lies over the footer", n,
					   v->table[n]);
		places[count++] = place;
	}
	qsort(places, count, sizeof(*places), by_begin);
	for (uint32_t n = 1; n < count && !result; n++)
		if (places[n].begin < places[n - 1].end)
			result = unsound(d, error, "two blocks lie over each other");
	free(places);
	return result;
}

/* In memory to the end of its last sector; `all`: how many entries the file has. */
static int read_table(struct disk *d, uint32_t all, uint64_t bytes, struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	uint64_t end =
		v->table_offset + ((uint64_t)all * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	uint32_t whole = (v->entries + 127) / 128 * 128;
	int result;

	v->table = malloc((uint64_t)whole * 4);
	v->table_dirty = calloc(1, v->entries / 128 / 8 + 1);
	v->bitmap = calloc(v->entries, sizeof(*v->bitmap));
	if (!v->table || !v->table_dirty || !v->bitmap)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	memset(v->table, 0xff, (uint64_t)whole * 4);
	result = file_read(&d->file, v->table_offset, v->table,
			   (uint64_t)(whole < all ? whole : all) * 4);
	if (result)
		return disk_fail(error, result, d->path, "%s", strerror(-result));
	for (uint32_t n = 0; n < whole; n++)
		v->table[n] = be32toh(v->table[n]);
	return check_table(d, end, bytes, error);
}

static int check_header(struct disk *d, const struct vhd_header *h, uint64_t bytes,
			struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	uint64_t needed;

	if (memcmp(h->cookie, "cxsparse", 8) ||
	    be32toh(h->checksum) !=
		    vhd_checksum(h, sizeof(*h), offsetof(struct vhd_header, checksum)))
		return unsound(d, error, "its header is not one");
	v->block_bytes = be32toh(h->block_bytes);
	if (v->block_bytes < VHD_BLOCK_MIN || v->block_bytes > VHD_BLOCK_MAX ||
	    v->block_bytes & (v->block_bytes - 1))
		return unsound(d, error,
			       "the block size is not a power of two from 4 KiB to 256 MiB");
	v->bitmap_bytes =
		(v->block_bytes / VHD_SECTOR / 8 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	needed = (d->size_bytes + v->block_bytes - 1) / v->block_bytes;
	v->table_offset = be64toh(h->table_offset);
	if (needed > be32toh(h->entries) || v->table_offset % VHD_SECTOR ||
	    v->table_offset < 3 * VHD_SECTOR || v->table_offset > bytes ||
	    be32toh(h->entries) * 4ull > bytes - v->table_offset)
		return unsound(d, error, "its block table is too short, or not in the file");
	v->entries = (uint32_t)needed;
	return 0;
}

/* ---- the parent ---- */

static int vhd_check_parent(struct disk *d, struct disk *parent, struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	char want[GUID_TEXT_BYTES], has[GUID_TEXT_BYTES];

	if (!guid_equal(vhd_of(parent)->id, v->parent_id)) {
		guid_print(v->parent_id, want);
		guid_print(vhd_of(parent)->id, has);
		return disk_fail(error, -ESTALE, d->path, "was made on the disk %s, but %s is %s",
				 want, parent->path, has);
	}
	return parent->size_bytes > d->size_bytes
		       ? disk_fail(error, -ESTALE, d->path, "its parent %s is larger", parent->path)
		       : 0;
}

static char *read_locator(struct disk *d, const struct vhd_locator *l, uint64_t bytes,
			  bool *ret_relative)
{
	uint32_t code = be32toh(l->code);
	uint32_t count = be32toh(l->bytes);
	uint64_t at = be64toh(l->offset);
	uint8_t *text;
	char *path = NULL;

	*ret_relative = code == VHD_CODE_RELATIVE;
	if ((!*ret_relative && code != VHD_CODE_ABSOLUTE) || !count || count > VHD_LOCATOR_BYTES ||
	    at > bytes || count > bytes - at)
		return NULL;
	text = malloc(count);
	if (text && !file_read(&d->file, at, text, count))
		path = parent_utf8(text, count & ~1u, false);
	free(text);
	return path;
}

/* The name that the header has: UTF-16, big-endian. */
static char *read_parent_name(const struct disk *d, const struct vhd_header *h)
{
	size_t length = 0;
	char *text, *name;

	while (length + 2 <= sizeof(h->parent_name) &&
	       (h->parent_name[length] | h->parent_name[length + 1]))
		length += 2;
	text = length ? parent_utf8(h->parent_name, length, true) : NULL;
	name = text ? parent_host_path(d->path, text, false) : NULL;
	free(text);
	return name;
}

static int vhd_find_parent(struct disk *d, const struct vhd_header *h, const struct disk_options *o,
			   uint64_t bytes, struct disk_error *error)
{
	char *name = read_parent_name(d, h);
	struct parent_query query = { .format = DISK_VHD, .name = name, .check = vhd_check_parent };
	enum { PATHS = sizeof(query.path) / sizeof(query.path[0]) };
	int paths = 0;
	int result;

	for (int n = 0; n < VHD_LOCATORS && paths < PATHS; n++) {
		bool relative;
		char *text = read_locator(d, &h->locator[n], bytes, &relative);

		if (text)
			query.path[paths++] = parent_host_path(d->path, text, relative);
		free(text);
	}
	result = search_parent(d, &query, o, error);
	while (paths--)
		free(query.path[paths]);
	free(name);
	return result;
}

int vhd_open(struct disk *d, const struct disk_options *o, struct disk_error *error)
{
	struct vhd *v = calloc(1, sizeof(*v));
	int64_t bytes = file_size(&d->file);
	struct vhd_header h;
	int result;

	if (!v)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	if (bytes < 0) {
		free(v);
		return disk_fail(error, (int)bytes, d->path, "not a regular file");
	}
	d->format = v;
	d->sector_bytes = VHD_SECTOR;
	pthread_rwlock_init(&v->lock, NULL);
	pthread_mutex_init(&v->loading, NULL);
	result = read_footer(d, (uint64_t)bytes, error);
	if (!result && v->type != VHD_FIXED) {
		result = file_read(&d->file,
				   be64toh(v->footer.header_offset) <= INT64_MAX
					   ? be64toh(v->footer.header_offset)
					   : (uint64_t)bytes,
				   &h, sizeof(h));
		result = result ? disk_fail(error, result, d->path, "%s", strerror(-result))
				: check_header(d, &h, (uint64_t)bytes, error);
		if (!result)
			result = read_table(d, be32toh(h.entries), (uint64_t)bytes, error);
		d->block_bytes = v->block_bytes;
	}
	if (!result && v->type == VHD_CHILD) {
		d->is_child = true;
		v->parent_id = id_of(h.parent_id);
		result = o->without_parents ? 0 : vhd_find_parent(d, &h, o, (uint64_t)bytes, error);
	}
	if (result) {
		if (d->parent)
			disk_close(d->parent);
		vhd_release(v);
		return result;
	}
	d->driver = &vhd_driver;
	return 0;
}
