/*
 * VHD files: fixed, dynamic, differencing.
 *
 *   fixed      the disk, footer            dynamic     footer's copy, header, block table, blocks, footer
 *   a block    a bit for each sector that the file has (all, without a parent), padded to a sector; then its sectors
 *
 * 1. What a flush has returned for is there: sectors and the bitmaps of new blocks are synced before the table names the blocks, and
 *    before a bit says that an old block has a sector. In between those live in memory: at most two syncs a flush, none without one.
 * 2. A new block lies where the last footer was; a new footer is written behind it first. The copy in front is always valid. What
 *    lies before the footer and in no block is somebody's (locators, spare entries of the table, other programs' own maps), and is
 *    not written. A file without a footer at its end gets one behind everything, with the first flush of a change.
 * 3. The unique identifier is the disk's, as other programs have it: it does not change with the data. So a parent's content is what a
 *    child of ours compares (digest.h); of one that others made, only the identifier.
 *
 * Lock: `lock` is shared by readers; who writes has it alone. Left out: growing and shrinking (convert to VHDX), saved states.
 */
#include <endian.h>
#include <libgen.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk/digest.h"
#include "disk/search.h"
#include "abi/vhd.h"

enum { BLOCK_BYTES = 2 << 20, BLOCK_MIN = 4096, BLOCK_MAX = 256 << 20, YEAR_2000 = 946684800, LOCATOR_BYTES = 4096 };

struct bitmap { uint8_t *bits; bool is_new, dirty; };

struct vhd {
	struct vhd_footer footer;
	uint32_t type, block_bytes, bitmap_bytes, entries;
	uint64_t table_offset;
	uint64_t end;        /* where the next block goes: where the footer is */
	bool footer_missing; /* none is at `end` yet */
	uint32_t *table;            /* in sectors; host order */
	uint8_t *table_dirty;       /* a bit for each sector of it */
	struct bitmap *bitmap;
	bool any_dirty, payload_dirty;
	struct guid id, parent_id;
	pthread_rwlock_t lock;
	pthread_mutex_t loading;
};

static struct vhd *vhd_of(const struct disk *d) { return d->format; }

static int unsound(const struct disk *d, struct disk_error *error, const char *what) { return disk_fail(error, -EBADMSG, d->path, "%s", what); }

/* One's complement of the sum of all bytes but the sum's own. */
static uint32_t checksum(const void *at, size_t bytes, size_t sum_at)
{
	const uint8_t *byte = at;
	uint32_t sum = 0;

	for (size_t n = 0; n < bytes; n++)
		sum += n < sum_at || n >= sum_at + 4 ? byte[n] : 0;
	return ~sum;
}

static bool is_footer(const struct vhd_footer *f)
{
	return !memcmp(f->cookie, "conectix", 8) && be32toh(f->checksum) == checksum(f, sizeof(*f), offsetof(struct vhd_footer, checksum)) &&
	       be32toh(f->version) >> 16 == 1;
}

static uint64_t block_offset(const struct vhd *v, uint32_t block) { return (uint64_t)v->table[block] * VHD_SECTOR; }

/* Of data that the table has a block for. */
static uint64_t place_of(const struct vhd *v, uint64_t at) { return block_offset(v, (uint32_t)(at / v->block_bytes)) + v->bitmap_bytes + at % v->block_bytes; }

/* ---- sectors ---- */

/* The bits of a block that the table names; NULL: they cannot be read. Any thread that has the lock. */
static uint8_t *bits_of(struct disk *d, uint32_t block)
{
	struct vhd *v = vhd_of(d);
	uint8_t *bits = __atomic_load_n(&v->bitmap[block].bits, __ATOMIC_ACQUIRE);

	if (bits)
		return bits;
	pthread_mutex_lock(&v->loading);
	bits = v->bitmap[block].bits;
	if (!bits) {
		bits = malloc(v->bitmap_bytes);
		if (bits && file_read(&d->file, block_offset(v, block), bits, v->bitmap_bytes)) {
			free(bits);
			bits = NULL;
		}
		__atomic_store_n(&v->bitmap[block].bits, bits, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&v->loading);
	return bits;
}

static bool has_bit(const uint8_t *bits, uint32_t sector) { return bits[sector / 8] >> (7 - sector % 8) & 1; }

/* What begins at an offset, within one block. */
static int vhd_range_unlocked(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct vhd *v = vhd_of(d);
	uint64_t room = v->block_bytes - offset % v->block_bytes;
	uint32_t block = (uint32_t)(offset / v->block_bytes);
	uint32_t sector = (uint32_t)(offset % v->block_bytes / VHD_SECTOR);
	uint32_t count = 1;
	const uint8_t *bits;
	bool here;

	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes < room ? bytes : room };
	if (v->table[block] == VHD_UNUSED) {
		ret->kind = d->is_child ? DISK_RANGE_ABSENT : DISK_RANGE_ZERO;
		return 0;
	}
	if (!d->is_child)
		return 0;
	bits = bits_of(d, block);
	if (!bits)
		return -EIO;
	here = has_bit(bits, sector);
	while (count < ret->bytes / VHD_SECTOR && has_bit(bits, sector + count) == here)
		count++;
	ret->kind = here ? DISK_RANGE_PRESENT : DISK_RANGE_ABSENT;
	ret->bytes = (uint64_t)count * VHD_SECTOR;
	return 0;
}

static int vhd_read(struct disk *d, uint64_t offset, const struct disk_buffer *buffer, uint64_t bytes, struct disk_range *ret)
{
	struct vhd *v = vhd_of(d);
	int error;

	if (v->type == VHD_FIXED) {
		*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
		return buffer_read(buffer, &d->file, offset, bytes);
	}
	pthread_rwlock_rdlock(&v->lock);
	error = vhd_range_unlocked(d, offset, bytes, ret);
	if (!error && ret->kind == DISK_RANGE_PRESENT)
		error = buffer_read(buffer, &d->file, place_of(v, offset), ret->bytes);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

/* A place for a block, behind which the footer moves. It reads as zero. */
static int allocate(struct disk *d, uint32_t block)
{
	struct vhd *v = vhd_of(d);
	uint64_t bytes = v->bitmap_bytes + (uint64_t)v->block_bytes;
	uint8_t *bits = malloc(v->bitmap_bytes);
	int error = bits ? 0 : -ENOMEM;

	if (v->end / VHD_SECTOR + bytes / VHD_SECTOR >= VHD_UNUSED)
		error = -ENOSPC;
	if (!error)
		error = file_write(&d->file, v->end + bytes, &v->footer, sizeof(v->footer));
	if (!error) /* the last footer, and what a cut may have left there */
		error = file_discard(&d->file, v->end, bytes);
	if (error) {
		free(bits);
		return error;
	}
	memset(bits, d->is_child ? 0 : 0xff, v->bitmap_bytes);
	v->bitmap[block] = (struct bitmap){ .bits = bits, .is_new = true, .dirty = true };
	v->footer_missing = false;
	v->table[block] = (uint32_t)(v->end / VHD_SECTOR);
	v->table_dirty[block / 128 / 8] |= (uint8_t)(1u << (block / 128 & 7));
	v->end += bytes;
	v->any_dirty = true;
	return 0;
}

static int set_bits(struct disk *d, uint32_t block, uint32_t sector, uint32_t count)
{
	struct vhd *v = vhd_of(d);
	uint8_t *bits = d->is_child ? bits_of(d, block) : NULL;

	if (!d->is_child)
		return 0;
	if (!bits)
		return -EIO;
	for (; count--; sector++) {
		if (has_bit(bits, sector))
			continue;
		bits[sector / 8] |= (uint8_t)(0x80u >> sector % 8);
		v->bitmap[block].dirty = v->any_dirty = true;
	}
	return 0;
}

/* buffer NULL: zeros. Within one block, with `lock` alone. */
static int write_block(struct disk *d, uint64_t at, const struct disk_buffer *buffer, uint64_t bytes)
{
	struct vhd *v = vhd_of(d);
	uint32_t block = (uint32_t)(at / v->block_bytes);
	bool fresh = v->table[block] == VHD_UNUSED;
	uint64_t place;
	int error = fresh ? allocate(d, block) : 0;

	if (error)
		return error;
	place = place_of(v, at);
	v->payload_dirty = true;
	if (buffer)
		error = buffer_write(buffer, &d->file, place, bytes);
	else if (!fresh)
		error = file_discard(&d->file, place, bytes);
	return error ? error : set_bits(d, block, (uint32_t)(at % v->block_bytes / VHD_SECTOR), (uint32_t)(bytes / VHD_SECTOR));
}

static int vhd_write(struct disk *d, uint64_t offset, const struct disk_buffer *buffer, uint64_t bytes)
{
	struct vhd *v = vhd_of(d);
	int error;

	if (v->type == VHD_FIXED)
		return buffer_write(buffer, &d->file, offset, bytes);
	pthread_rwlock_wrlock(&v->lock);
	error = write_block(d, offset, buffer, bytes);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

static int vhd_zero(struct disk *d, uint64_t offset, uint64_t bytes)
{
	struct vhd *v = vhd_of(d);
	int error = 0;

	if (v->type == VHD_FIXED)
		return file_discard(&d->file, offset, bytes);
	pthread_rwlock_wrlock(&v->lock);
	if (d->is_child || v->table[offset / v->block_bytes] != VHD_UNUSED) /* else it is zero already */
		error = write_block(d, offset, NULL, bytes);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

/* ---- flushing ---- */

static int write_bitmaps(struct disk *d, bool of_new)
{
	struct vhd *v = vhd_of(d);
	int error = 0;

	for (uint32_t n = 0; n < v->entries && !error; n++) {
		struct bitmap *b = &v->bitmap[n];

		if (!b->dirty || b->is_new != of_new)
			continue;
		error = file_write(&d->file, block_offset(v, n), b->bits, v->bitmap_bytes);
		b->dirty = error;
	}
	return error;
}

static int write_table(struct disk *d)
{
	struct vhd *v = vhd_of(d);
	uint32_t sectors = (v->entries + 127) / 128;
	int error = 0;

	for (uint32_t n = 0; n < sectors && !error; n++) {
		uint32_t big[128];

		if (!(v->table_dirty[n / 8] >> (n & 7) & 1))
			continue;
		for (uint32_t k = 0; k < 128; k++)
			big[k] = htobe32(v->table[n * 128 + k]); /* with the spare ones of its last sector */
		error = file_write(&d->file, v->table_offset + (uint64_t)n * VHD_SECTOR, big, sizeof(big));
		if (!error)
			v->table_dirty[n / 8] &= (uint8_t) ~(1u << (n & 7));
	}
	return error;
}

static int vhd_flush(struct disk *d)
{
	struct vhd *v = vhd_of(d);
	int error = 0;

	if (v->type == VHD_FIXED)
		return file_flush(&d->file);
	pthread_rwlock_wrlock(&v->lock);
	if (v->footer_missing && (v->any_dirty || v->payload_dirty)) {
		error = file_write(&d->file, v->end, &v->footer, sizeof(v->footer));
		v->footer_missing = error;
	}
	if (!error && v->any_dirty)
		error = write_bitmaps(d, true);
	if (!error && (v->payload_dirty || v->any_dirty))
		error = file_flush(&d->file);
	if (!error && v->any_dirty) {
		for (uint32_t n = 0; n < v->entries; n++)
			v->bitmap[n].is_new = false;
		error = write_bitmaps(d, false);
		if (!error)
			error = write_table(d);
		if (!error)
			error = file_flush(&d->file);
	}
	if (!error)
		v->any_dirty = v->payload_dirty = false;
	pthread_rwlock_unlock(&v->lock);
	return error;
}

/* ---- the rest ---- */

static int vhd_resize(struct disk *d, uint64_t size_bytes)
{
	(void)d, (void)size_bytes;
	return -ENOTSUP;
}

static int vhd_range(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	struct vhd *v = vhd_of(d);
	int error;

	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
	if (v->type == VHD_FIXED)
		return 0;
	pthread_rwlock_rdlock(&v->lock);
	error = vhd_range_unlocked(d, offset, bytes, ret);
	pthread_rwlock_unlock(&v->lock);
	return error;
}

static int vhd_check(struct disk *d, void (*report)(void *, const char *), void *context)
{
	const struct vhd *v = vhd_of(d);
	struct vhd_footer end;
	int64_t bytes = file_size(&d->file);

	if (bytes < VHD_SECTOR || file_read(&d->file, (uint64_t)bytes - VHD_SECTOR, &end, sizeof(end)) || !is_footer(&end)) {
		report(context, v->type == VHD_FIXED ? "its footer does not end with the file"
						     : "has no footer at its end: the next who writes makes one behind it");
		return 1;
	}
	if (v->type != VHD_FIXED && memcmp(&end, &v->footer, sizeof(end))) {
		report(context, "its two footers differ");
		return 1;
	}
	return 0;
}

static void vhd_info(const struct disk *d, struct disk_info *ret)
{
	const struct vhd *v = vhd_of(d);

	*ret = (struct disk_info){ .format = DISK_VHD, .size_bytes = d->size_bytes, .logical_sector_bytes = VHD_SECTOR, .physical_sector_bytes = VHD_SECTOR,
				   .fixed = v->type == VHD_FIXED, .has_parent = d->is_child, .disk_id = v->id, .block_bytes = v->block_bytes, .blocks = v->entries };
	for (uint32_t n = 0; n < v->entries; n++)
		ret->blocks_present += v->table[n] != VHD_UNUSED;
	ret->parent_data_id = v->parent_id;
	if (d->parent)
		ret->is_linked = d->parent->format_id == DISK_VHD && guid_equal(vhd_of(d->parent)->id, v->parent_id);
}

static void release(struct vhd *v)
{
	for (uint32_t n = 0; v->bitmap && n < v->entries; n++)
		free(v->bitmap[n].bits);
	free(v->bitmap);
	free(v->table);
	free(v->table_dirty);
	pthread_rwlock_destroy(&v->lock);
	pthread_mutex_destroy(&v->loading);
	free(v);
}

/* disk_close() has flushed. */
static int vhd_close(struct disk *d)
{
	release(vhd_of(d));
	return 0;
}

static const struct disk_driver driver = {
	.read = vhd_read,
	.write = vhd_write,
	.zero = vhd_zero,
	.flush = vhd_flush,
	.resize = vhd_resize,
	.range = vhd_range,
	.check = vhd_check,
	.info = vhd_info,
	.close = vhd_close,
};

/* ---- opening ---- */

/* In two different orders of bytes: here it is only compared and shown. */
static struct guid id_of(const uint8_t raw[16])
{
	struct guid id;

	memcpy(id.byte, (uint8_t[16]){ raw[3], raw[2], raw[1], raw[0], raw[5], raw[4], raw[7], raw[6] }, 8);
	memcpy(id.byte + 8, raw + 8, 8);
	return id;
}

/* What lies at the end, of 512 bytes or, as the oldest programs wrote it, 511. */
static bool read_last_footer(struct disk *d, uint64_t bytes, struct vhd_footer *ret)
{
	uint64_t short_bytes = sizeof(*ret) - 1;

	if (!file_read(&d->file, bytes / VHD_SECTOR * VHD_SECTOR - VHD_SECTOR, ret, sizeof(*ret)) && is_footer(ret))
		return true;
	*ret = (struct vhd_footer){ .type = 0 };
	return bytes % VHD_SECTOR == short_bytes && !file_read(&d->file, bytes - short_bytes, ret, short_bytes) && is_footer(ret);
}

static int read_footer(struct disk *d, uint64_t bytes, struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	struct vhd_footer first, last;
	bool is_last;

	if (bytes < 2 * VHD_SECTOR || file_read(&d->file, 0, &first, sizeof(first)))
		return unsound(d, error, "too short for a VHD file");
	is_last = read_last_footer(d, bytes, &last);
	v->footer = is_footer(&first) && be32toh(first.type) != VHD_FIXED ? first : last;
	v->type = be32toh(v->footer.type);
	if (!is_footer(&v->footer))
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
		return unsound(d, error, "its size is not a whole number of sectors, or more than a VHD can hold");
	if (v->type == VHD_FIXED && d->size_bytes > bytes / VHD_SECTOR * VHD_SECTOR - (is_last && !v->footer_missing ? VHD_SECTOR : 0))
		return disk_fail(error, -EBADMSG, d->path, "is cut off: %lu bytes of a disk of %lu", bytes, d->size_bytes);
	return 0;
}

struct vhd_place { uint64_t begin, end; };

static int by_begin(const void *one, const void *other)
{
	const struct vhd_place *a = one, *b = other;

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
		struct vhd_place place = { .begin = block_offset(v, n), .end = block_offset(v, n) + place_bytes(d, n) };

		if (v->table[n] == VHD_UNUSED)
			continue;
		if (place.begin < first)
			result = disk_fail(error, -EBADMSG, d->path, "entry %u of its table (%#x) is not possible", n, v->table[n]);
		else if (place.end > bytes)
			result = disk_fail(error, -EBADMSG, d->path, "is cut off: the data of offset %lu ends at %lu of a file of %lu bytes",
					   (uint64_t)n * v->block_bytes, place.end, bytes);
		else if (place.end > v->end)
			result = disk_fail(error, -EBADMSG, d->path, "entry %u of its table (%#x) lies over the footer", n, v->table[n]);
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
	uint64_t end = v->table_offset + ((uint64_t)all * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	uint32_t whole = (v->entries + 127) / 128 * 128;
	int result;

	v->table = malloc((uint64_t)whole * 4);
	v->table_dirty = calloc(1, v->entries / 128 / 8 + 1);
	v->bitmap = calloc(v->entries, sizeof(*v->bitmap));
	if (!v->table || !v->table_dirty || !v->bitmap)
		return disk_fail(error, -ENOMEM, d->path, "no memory");
	memset(v->table, 0xff, (uint64_t)whole * 4);
	result = file_read(&d->file, v->table_offset, v->table, (uint64_t)(whole < all ? whole : all) * 4);
	if (result)
		return disk_fail(error, result, d->path, "%s", strerror(-result));
	for (uint32_t n = 0; n < whole; n++)
		v->table[n] = be32toh(v->table[n]);
	return check_table(d, end, bytes, error);
}

static int check_header(struct disk *d, const struct vhd_header *h, uint64_t bytes, struct disk_error *error)
{
	struct vhd *v = vhd_of(d);
	uint64_t needed;

	if (memcmp(h->cookie, "cxsparse", 8) || be32toh(h->checksum) != checksum(h, sizeof(*h), offsetof(struct vhd_header, checksum)))
		return unsound(d, error, "its header is not one");
	v->block_bytes = be32toh(h->block_bytes);
	if (v->block_bytes < BLOCK_MIN || v->block_bytes > BLOCK_MAX || v->block_bytes & (v->block_bytes - 1))
		return unsound(d, error, "the block size is not a power of two from 4 KiB to 256 MiB");
	v->bitmap_bytes = (v->block_bytes / VHD_SECTOR / 8 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
	needed = (d->size_bytes + v->block_bytes - 1) / v->block_bytes;
	v->table_offset = be64toh(h->table_offset);
	if (needed > be32toh(h->entries) || v->table_offset % VHD_SECTOR || v->table_offset < 3 * VHD_SECTOR || v->table_offset > bytes ||
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
		return disk_fail(error, -ESTALE, d->path, "was made on the disk %s, but %s is %s", want, parent->path, has);
	}
	return parent->size_bytes > d->size_bytes ? disk_fail(error, -ESTALE, d->path, "its parent %s is larger", parent->path) : 0;
}

static char *read_locator(struct disk *d, const struct vhd_locator *l, uint64_t bytes, bool *ret_relative)
{
	uint32_t code = be32toh(l->code), count = be32toh(l->bytes);
	uint64_t at = be64toh(l->offset);
	uint8_t *text;
	char *path = NULL;

	*ret_relative = code == 0x57327275; /* W2ru; W2ku is absolute */
	if ((!*ret_relative && code != 0x57326b75) || !count || count > LOCATOR_BYTES || at > bytes || count > bytes - at)
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

	while (length + 2 <= sizeof(h->parent_name) && (h->parent_name[length] | h->parent_name[length + 1]))
		length += 2;
	text = length ? parent_utf8(h->parent_name, length, true) : NULL;
	name = text ? parent_host_path(d->path, text, false) : NULL;
	free(text);
	return name;
}

static int vhd_find_parent(struct disk *d, const struct vhd_header *h, const struct disk_options *o, uint64_t bytes, struct disk_error *error)
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

	if (!v || bytes < 0) {
		free(v);
		return disk_fail(error, v ? (int)bytes : -ENOMEM, d->path, v ? "not a regular file" : "no memory");
	}
	d->format = v;
	d->sector_bytes = VHD_SECTOR;
	pthread_rwlock_init(&v->lock, NULL);
	pthread_mutex_init(&v->loading, NULL);
	result = read_footer(d, (uint64_t)bytes, error);
	if (!result && v->type != VHD_FIXED) {
		result = file_read(&d->file, be64toh(v->footer.header_offset) <= INT64_MAX ? be64toh(v->footer.header_offset) : (uint64_t)bytes, &h, sizeof(h));
		result = result ? disk_fail(error, result, d->path, "%s", strerror(-result)) : check_header(d, &h, (uint64_t)bytes, error);
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
		release(v);
		return result;
	}
	d->driver = &driver;
	return 0;
}

/* ---- a new file ---- */

/* Cylinders, heads and sectors as the specification's appendix counts them. */
static void set_geometry(struct vhd_footer *f, uint64_t size_bytes)
{
	uint64_t sectors = size_bytes / VHD_SECTOR, tracks;
	uint32_t per_track = 17, heads;

	if (sectors > 65535ull * 16 * 255)
		sectors = 65535ull * 16 * 255;
	if (sectors >= 65535ull * 16 * 63) {
		per_track = 255;
		heads = 16;
		tracks = sectors / per_track;
	} else {
		tracks = sectors / per_track;
		heads = tracks < 4096 ? 4 : (uint32_t)((tracks + 1023) / 1024);
		if (tracks >= heads * 1024ull || heads > 16) {
			per_track = 31;
			heads = 16;
			tracks = sectors / per_track;
		}
		if (tracks >= heads * 1024ull) {
			per_track = 63;
			heads = 16;
			tracks = sectors / per_track;
		}
	}
	f->geometry.cylinders = htobe16((uint16_t)(tracks / heads));
	f->geometry.heads = (uint8_t)heads;
	f->geometry.sectors = (uint8_t)per_track;
}

/* The creator is the one of Hyper-V: others take the exact size only from names that they know, and else the geometry's. */
static void make_footer(struct vhd_footer *f, uint64_t size_bytes, uint32_t type)
{
	const struct guid id = guid_new();

	*f = (struct vhd_footer){ .features = htobe32(2), .version = htobe32(0x10000), .header_offset = type == VHD_FIXED ? UINT64_MAX : htobe64(VHD_SECTOR),
				  .seconds = htobe32((uint32_t)(time(NULL) - YEAR_2000)), .creator_version = htobe32(0xa0000), .creator_system = htobe32(0x5769326b),
				  .original_bytes = htobe64(size_bytes), .size_bytes = htobe64(size_bytes), .type = htobe32(type) };
	memcpy(f->cookie, "conectix", 8);
	memcpy(f->creator, "win ", 4);
	memcpy(f->id, id.byte, 16);
	set_geometry(f, size_bytes);
	f->checksum = htobe32(checksum(f, sizeof(*f), offsetof(struct vhd_footer, checksum)));
}

/* UTF-8 to UTF-16; its length in bytes, 0 where it does not fit or is none. */
static size_t to_utf16(const char *text, uint8_t *to, size_t room, bool big)
{
	size_t used = 0;

	for (const uint8_t *t = (const uint8_t *)text; *t; t++) {
		uint32_t c = *t;

		for (int more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3, k = more; k; k--) {
			if ((t[1] & 0xc0) != 0x80)
				return 0;
			c = (k == more ? c & (0x3fu >> more) : c) << 6 | (*++t & 0x3f);
		}
		for (int pair = c >= 0x10000; pair >= 0; pair--) {
			uint32_t unit = c < 0x10000 ? c : pair ? 0xd800 + ((c - 0x10000) >> 10) : 0xdc00 + ((c - 0x10000) & 0x3ff);

			if (used + 2 > room)
				return 0;
			to[used++] = (uint8_t)(big ? unit >> 8 : unit);
			to[used++] = (uint8_t)(big ? unit : unit >> 8);
		}
	}
	return used;
}

/* Both paths, absolute first. */
static int write_locators(struct disk_file *f, struct vhd_header *h, const char *child, struct disk *parent, uint64_t at)
{
	char *absolute = realpath(parent->path, NULL), *copy = strdup(child), *here = copy ? realpath(dirname(copy), NULL) : NULL, *relative = NULL;
	static const uint32_t codes[2] = { 0x57326b75, 0x57327275 };
	const char *paths[2], *below = NULL;
	int error = 0;

	if (absolute && here)
		below = !strncmp(absolute, here, strlen(here)) && absolute[strlen(here)] == '/' ? absolute + strlen(here) + 1 : absolute;
	if (!below || asprintf(&relative, ".\\%s", below) < 0)
		error = -ENOMEM;
	for (char *c = relative; !error && *c; c++)
		*c = *c == '/' ? '\\' : *c;
	paths[0] = absolute;
	paths[1] = relative;
	for (int n = 0; n < 2 && !error; n++) {
		uint8_t text[LOCATOR_BYTES] = { 0 };
		size_t bytes = to_utf16(paths[n], text, sizeof(text), false);

		h->locator[n] = (struct vhd_locator){ htobe32(codes[n]), htobe32(LOCATOR_BYTES), htobe32((uint32_t)bytes), 0, htobe64(at + (uint64_t)n * LOCATOR_BYTES) };
		error = !bytes ? -ENAMETOOLONG : file_write(f, at + (uint64_t)n * LOCATOR_BYTES, text, sizeof(text));
	}
	if (!error && !to_utf16(basename(absolute), h->parent_name, sizeof(h->parent_name) - 2, true))
		error = -ENAMETOOLONG;
	free(absolute);
	free(relative);
	free(here);
	free(copy);
	return error;
}

static int write_dynamic(struct disk_file *f, const char *path, const struct vhd_footer *footer, uint64_t size_bytes, uint32_t block_bytes, struct disk *parent)
{
	uint32_t entries = (uint32_t)((size_bytes + block_bytes - 1) / block_bytes);
	uint64_t table_bytes = ((uint64_t)entries * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR, table = VHD_SECTOR + sizeof(struct vhd_header);
	uint64_t end = table + table_bytes + (parent ? 2 * LOCATOR_BYTES : 0);
	struct vhd_header h = { .next = UINT64_MAX, .table_offset = htobe64(table), .version = htobe32(0x10000), .entries = htobe32(entries),
		.block_bytes = htobe32(block_bytes) };
	uint8_t *unused = malloc(table_bytes);
	int error = unused ? 0 : -ENOMEM;

	memcpy(h.cookie, "cxsparse", 8);
	if (!error) {
		memset(unused, 0xff, table_bytes);
		error = file_write(f, table, unused, table_bytes);
	}
	if (!error && parent) {
		struct stat st;

		memcpy(h.parent_id, vhd_of(parent)->footer.id, 16);
		h.parent_seconds = htobe32(stat(parent->path, &st) ? 0 : (uint32_t)(st.st_mtime - YEAR_2000));
		error = write_locators(f, &h, path, parent, table + table_bytes);
	}
	h.checksum = htobe32(checksum(&h, sizeof(h), offsetof(struct vhd_header, checksum)));
	if (!error)
		error = file_write(f, VHD_SECTOR, &h, sizeof(h));
	if (!error)
		error = file_write(f, end, footer, sizeof(*footer));
	if (!error)
		error = file_flush(f);
	free(unused);
	return error ? error : file_write(f, 0, footer, sizeof(*footer)); /* last: a file that was not finished is not one */
}

/* What the parent holds goes beside the child: the format has no place for it. */
static int write_link(const char *path, struct disk *parent)
{
	struct link_items items;
	bool unsynced; /* the child is removed then */
	int error = link_encode(parent, LINK_KEPT_OR_COMPUTED, &items);

	if (error)
		return error;
	error = side_write(NULL, path, DIGEST_ITEM_PARENT, items.table, items.table_bytes, &unsynced);
	if (!error)
		error = side_write(NULL, path, DIGEST_ITEM_LINK, items.link, items.link_bytes, &unsynced);
	free(items.link);
	free(items.table);
	return error;
}

int vhd_create(struct disk_file *f, const char *path, const struct disk_create *what, struct disk *parent, struct disk_error *error)
{
	uint64_t size_bytes = parent ? parent->size_bytes : what->size_bytes;
	uint32_t block_bytes = what->block_bytes ? what->block_bytes : parent && parent->block_bytes ? parent->block_bytes : BLOCK_BYTES;
	struct vhd_footer footer;
	int result;

	if (parent && (parent->format_id != DISK_VHD || what->fixed))
		return disk_fail(error, -EINVAL, path, "a VHD child is not fixed, and its parent is a VHD file, too");
	if (!size_bytes || size_bytes % VHD_SECTOR || size_bytes > VHD_MAX_BYTES)
		return disk_fail(error, -EINVAL, path, "a size must be a whole number of sectors up to 2040 GiB");
	if (block_bytes < BLOCK_MIN || block_bytes > BLOCK_MAX || block_bytes & (block_bytes - 1) ||
	    (what->logical_sector_bytes && what->logical_sector_bytes != VHD_SECTOR))
		return disk_fail(error, -EINVAL, path, "a block size must be a power of two from 4K to 256M, a sector size 512");
	make_footer(&footer, size_bytes, parent ? VHD_CHILD : what->fixed ? VHD_FIXED : VHD_DYNAMIC);
	result = parent && !what->in_use ? write_link(path, parent) : 0;
	if (!result)
		result = what->fixed ? file_write(f, size_bytes, &footer, sizeof(footer)) : write_dynamic(f, path, &footer, size_bytes, block_bytes, parent);
	if (!result)
		result = file_flush(f);
	return result ? disk_fail(error, result, path, "%s", strerror(-result)) : 0;
}
