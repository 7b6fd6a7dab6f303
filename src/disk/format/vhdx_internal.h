/*
 * An open VHDX file.
 *
 *  1. Identity: the data identifier changes durably before the first changed sector after an open,
 *     the file identifier before any change; both header copies then hold the same values
 *     (vhdx_begin()).
 *  2. Blocks are mapped in memory at once; the file learns of it at a flush: payload synced,
 *     changed BAT and bitmap sectors logged and synced, then written in place without a sync
 *     (vhdx_log.c). Two syncs a flush, none between flushes.
 *  3. A block's place in the file reads as zero until its data is there, so that a mapping made
 *     durable early shows zeros, which is what the block was; of a child the bits of a bitmap are
 *     set after the data they stand for is in the file.
 *  4. Space that was freed is used again only after the flush that made the freeing durable: until
 *     then it is nobody's, and never are two things in one place.
 *
 * check_vhdx() asserts what of these can be seen in memory; that what was flushed is there is what
 * the power cuts of tests/disk/crash_test.c show.
 *
 * Locks, in this order: `flush` one flush at a time; `io` shared by reads and writes for as long as
 * they last, alone for what moves or frees blocks; `map` for everything below it.
 */
#pragma once

#include <pthread.h>

#include "disk/disk_internal.h"
#include "abi/vhdx.h"

enum { LOCATOR_BYTES = 32768 }; /* the longest that is written */
enum { BITMAP_BYTES = 1 << 20, BITMAP_PAGES = BITMAP_BYTES / VHDX_SECTOR_BYTES };
/* Entries of the BAT in a sector, and those that a byte of bat_dirty stands for. */
enum { VHDX_SECTOR_ENTRIES = VHDX_SECTOR_BYTES / 8, VHDX_DIRTY_ENTRIES = 8 * VHDX_SECTOR_ENTRIES };

struct vhdx_bitmap { uint8_t *bits; uint8_t dirty[BITMAP_PAGES / 8]; bool any_dirty; };

struct vhdx_space { uint64_t *offset; size_t count, room; }; /* of blocks */
struct vhdx_extent { uint64_t offset, bytes; };

struct vhdx {
	struct disk *disk;
	struct vhdx_header header; /* the current one */
	int header_at;             /* which copy it is */
	uint64_t bat_offset, metadata_offset;
	uint64_t locator_at; /* of a child: where in the file its locator is */
	uint32_t bat_bytes, metadata_bytes;
	struct vhdx_extent *others; /* regions that are not known here, and stay where they are */
	size_t other_count;
	uint32_t block_bytes, sector_bytes, physical_bytes, chunk_ratio;
	uint64_t blocks, entries, chunks;
	bool fixed, has_parent;
	struct guid disk_id, parent_id, parent_id2;
	int parent_format; /* enum disk_format */
	bool replayed; /* its log, when it was opened: of a reader in memory */
	/* The first bytes of the metadata table and of the values behind it, where most writers put
	 * all small items: as they were when the file was opened, and until `changed`. */
	uint8_t table_near[VHDX_SECTOR_BYTES], values_near[VHDX_SECTOR_BYTES];
	/* where DIGEST_ITEM_LINK was when the file was opened; bytes 0: nowhere */
	struct vhdx_item link_item;
	char *parent_path[3]; /* relative, volume, absolute; NULL: none */
	/* not zero: what the next change makes the data identifier (disk_commit()) */
	struct guid next_data_id;

	pthread_mutex_t flush_lock, map;
	pthread_rwlock_t io;
	uint64_t flushes_begun, flushes_done;
	/* changed under `map`; an entry may be read without it, atomically, where `io` is held */
	uint64_t *bat;
	uint8_t *bat_dirty; /* one bit for 4 KiB of it */
	bool any_dirty, payload_dirty /* atomic: data was written since the last flush began */,
		begun, data_begun; /* begun: and not ended since */
	bool half_ended; /* a header may still name the log, as writing the clean ones failed */
	bool changed; /* since it was opened, also when that has ended */
	uint64_t in_flight; /* transfers of vhdx_map(); under `map` */
	struct vhdx_bitmap *bitmap; /* one of each chunk, of a child */
	/* where the next block goes; how long the file is (read atomically without `map`) */
	uint64_t end_offset, file_bytes;
	struct vhdx_space freed, reusable;
	uint32_t log_at;
	uint64_t log_sequence;
	uint64_t syncs; /* counted for tests and benches */
};

static inline struct vhdx *vhdx_of(const struct disk *disk) { return disk->format; }
/* Of a disk, logical or physical. */
static inline bool vhdx_is_sector_size(uint32_t bytes)
{
	enum { SMALL_BYTES = 512, LARGE_BYTES = 4096 };

	return bytes == SMALL_BYTES || bytes == LARGE_BYTES;
}
/* How much of bat_dirty is for so many entries. */
static inline size_t vhdx_dirty_bytes(uint64_t entries)
{
	return (entries + VHDX_DIRTY_ENTRIES - 1) / VHDX_DIRTY_ENTRIES;
}
static inline uint64_t vhdx_entry(const struct vhdx *vhdx, uint64_t block)
{
	return block + block / vhdx->chunk_ratio;
}
static inline uint64_t vhdx_bitmap_entry(const struct vhdx *vhdx, uint64_t chunk)
{
	return (chunk + 1) * vhdx->chunk_ratio + chunk;
}
static inline void vhdx_note_payload(struct vhdx *vhdx)
{
	if (!__atomic_load_n(&vhdx->payload_dirty, __ATOMIC_SEQ_CST))
		__atomic_store_n(&vhdx->payload_dirty, true, __ATOMIC_SEQ_CST);
}
static inline unsigned vhdx_state(uint64_t entry) { return entry & BAT_STATE; }
static inline uint64_t vhdx_offset(uint64_t entry) { return entry & ~(VHDX_MIB - 1); }
static inline bool vhdx_holds(uint64_t entry) { return vhdx_state(entry) >= BAT_PRESENT; }

/* vhdx_items.c: an item's value, without asking the file for what opening has read. */
int vhdx_read_value(struct vhdx *vhdx, const struct vhdx_item *item, void *to);
/* vhdx_log.c. Replay: on a file whose header names a log; true in *ret_replayed: what was read
 * before holds no more. */
int vhdx_replay(struct vhdx *vhdx, bool *ret_replayed, struct disk_error *error);
/* Of the headers and the log: while it is the same, no writer beside us has changed a table. */
int vhdx_log_sum(const struct vhdx *vhdx, const struct disk_file *file, uint32_t *ret);
/* Before the first change since opening; data: of what a guest sees. */
int vhdx_begin(struct vhdx *vhdx, bool data);
int vhdx_write_header(struct vhdx *vhdx);
/* Makes everything that has completed durable. */
int vhdx_commit(struct vhdx *vhdx);
int vhdx_end(struct vhdx *vhdx);
int vhdx_sync(struct vhdx *vhdx);
struct vhdx_sector { uint64_t file_offset; uint8_t data[VHDX_SECTOR_BYTES]; };
/* These sectors change together, and durably; a sector at most once. After vhdx_begin(); under
 * `flush`. */
int vhdx_write_sectors(struct vhdx *vhdx, const struct vhdx_sector *sectors, size_t count);

/* vhdx_items.c: metadata items by id. Read: a copy, to be freed; -ENOENT. */
int vhdx_read_item(struct vhdx *vhdx, struct guid id, bool user, uint8_t **ret_value,
		   uint32_t *ret_bytes);
/* Replaces or adds an item, whole or not at all. -EFBIG: more than the format allows. */
int vhdx_write_item(struct vhdx *vhdx, struct guid id, uint32_t flags, const void *value,
		    uint32_t bytes);
struct vhdx_value { struct guid id; uint32_t flags, bytes; const void *value; bool remove; };
/* All of them together, or none. */
int vhdx_write_values(struct vhdx *vhdx, const struct vhdx_value *values, size_t count);
enum { VHDX_LONG_PARTS = 32 };
struct guid vhdx_part_id(struct guid id, unsigned part);
/* What changes one: its parts; those of a longer value before it go. NULL: all go. -EFBIG. */
int vhdx_long_values(struct vhdx_value values[VHDX_LONG_PARTS], struct guid id, uint32_t flags,
		     const void *value, size_t bytes);
int vhdx_read_long(struct disk *disk, struct guid id, uint8_t **ret_value, size_t *ret_bytes);
int vhdx_write_long(struct disk *disk, struct guid id, enum disk_item_subject subject,
		    const void *value, size_t bytes);
/* User items about the virtual disk. Load: to be released. Copy: in the place of those that `to`
 * has. */
int vhdx_load_disk_items(struct vhdx *vhdx, struct vhdx_value **ret, size_t *ret_count);
void vhdx_free_values(struct vhdx_value *values, size_t count);
int vhdx_copy_disk_items(struct vhdx *from, struct vhdx *to);
int vhdx_resize(struct disk *disk, uint64_t size_bytes);
/* vhdx_link.c. A locator that names these as parent data identifiers (the second: zero for none),
 * with the paths of `parent`. resolved: they are absolute, and lead through no links. */
int vhdx_make_locator(const char *child_path, const char *parent_path, bool resolved,
		      enum disk_format format, struct guid id, struct guid id2,
		      uint8_t **ret_value, uint32_t *ret_bytes);
int vhdx_read_locator(struct vhdx *vhdx, const uint8_t *at, uint32_t bytes,
		      struct disk_error *error);
int vhdx_find_parent(struct vhdx *vhdx, const struct disk_options *options,
		     struct disk_error *error);
/* Whether this is the data that the child was made on. */
static inline bool vhdx_names_data(const struct vhdx *vhdx, struct guid id)
{
	return guid_equal(id, vhdx->parent_id) ||
	       (!guid_is_zero(vhdx->parent_id2) && guid_equal(id, vhdx->parent_id2));
}
/* The child takes this parent as it is now. */
int vhdx_repair_link(struct disk *child, struct disk *parent);
/* Another locator for an open child. */
int vhdx_set_link(struct vhdx *child, const char *parent_path, enum disk_format format,
		  struct guid id, struct guid id2);
/* vhdx_map.c: of the whole file, in MiB steps at its end. */
int vhdx_extend(struct vhdx *vhdx, uint64_t to);

/* vhdx_map.c, under `map` */
void check_vhdx(const struct vhdx *vhdx);
void vhdx_set_entry(struct vhdx *vhdx, uint64_t index, uint64_t value);
/* A place for a block that reads as zero; 0 and -errno. */
int vhdx_allocate(struct vhdx *vhdx, uint64_t bytes, uint64_t *ret_offset);
int vhdx_free(struct vhdx *vhdx, uint64_t offset);
int vhdx_push(struct vhdx_space *space, uint64_t offset);
/* The bits of a block's chunk, loaded; *ret may be NULL when the file has none (all zero) and
 * `make` is not set. */
int vhdx_bits(struct vhdx *vhdx, uint64_t chunk, bool make, uint8_t **ret);
void vhdx_set_bits(struct vhdx *vhdx, uint64_t block, uint32_t first_sector, uint32_t count,
		   bool set);
/* From this sector of a block on: how many are alike, and whether this file has them. */
int vhdx_run(struct vhdx *vhdx, uint64_t block, uint32_t sector, uint32_t count, bool *ret_here,
	     uint32_t *ret_count);

/* vhdx_open.c */
int vhdx_close(struct disk *disk);

/* vhdx_io.c */
/* The driver's read(), with `io`. */
int vhdx_read_unlocked(struct vhdx *vhdx, uint64_t offset, const struct disk_buffer *buffer,
		       uint64_t bytes, struct disk_range *ret);
extern const struct disk_driver vhdx_driver;
