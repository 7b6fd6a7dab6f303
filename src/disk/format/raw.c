/*
 * A file, or a block device, that is the disk. Its length is the size, rounded up to whole sectors:
 * what the last one lacks is zero, and the file gets it when it is written.
 */
#include "disk/disk_internal.h"

#include <unistd.h>

enum { SECTOR_BYTES = 512 };

static int raw_read(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		    uint64_t bytes, struct disk_range *ret)
{
	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
	return buffer_read(buffer, &disk->file, offset, bytes);
}

static int raw_write(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes)
{
	return buffer_write(buffer, &disk->file, offset, bytes);
}

static int raw_zero(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	return file_discard(&disk->file, offset, bytes);
}
static int raw_flush(struct disk *disk) { return file_flush(&disk->file); }

static int raw_resize(struct disk *disk, uint64_t size_bytes)
{
	int error = size_bytes < disk->size_bytes ? -EBUSY : file_truncate(&disk->file, size_bytes);

	if (!error)
		disk->size_bytes = size_bytes;
	return error;
}

static int raw_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret)
{
	(void)disk;
	(void)offset;
	*ret = (struct disk_range){ .kind = DISK_RANGE_PRESENT, .bytes = bytes };
	return 0;
}

static uint64_t raw_hole(const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	return file_hole(&disk->file, offset, bytes);
}

static int raw_check(struct disk *disk, disk_fault_report *report, void *context)
{
	(void)disk;
	(void)report;
	(void)context;
	return 0;
}

static void raw_info(const struct disk *disk, struct disk_info *ret)
{
	*ret = (struct disk_info){ .format = DISK_RAW,
				   .size_bytes = disk->size_bytes,
				   .fixed = true,
				   .logical_sector_bytes = SECTOR_BYTES,
				   .physical_sector_bytes = PHYSICAL_SECTOR_BYTES };
}

static bool raw_map(struct disk *disk, bool write, uint64_t offset, uint64_t bytes,
		    uint64_t *ret_at)
{
	(void)disk;
	(void)write;
	(void)bytes;
	*ret_at = offset;
	return true;
}

static void raw_unmap(struct disk *disk, bool write)
{
	(void)disk;
	(void)write;
}

/* disk_close() has flushed. */
static int raw_close(struct disk *disk)
{
	(void)disk;
	return 0;
}

static const struct disk_driver driver = {
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.flush = raw_flush,
	.resize = raw_resize,
	.range = raw_range,
	.hole = raw_hole,
	.check = raw_check,
	.info = raw_info,
	.close = raw_close,
	.map = raw_map,
	.unmap = raw_unmap,
};

int raw_open(struct disk *disk, const struct disk_options *options, struct disk_error *error)
{
	int64_t bytes = file_size(&disk->file);

	(void)options;
	if (bytes < 0)
		return disk_refuse_type(error, (int)bytes, disk->path);
	if (!bytes)
		return disk_refuse(error, REFUSAL_RAW_EMPTY, disk->path, DISK_NOWHERE, "is empty");
	disk->driver = &driver;
	disk->size_bytes = ((uint64_t)bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
	disk->sector_bytes = SECTOR_BYTES;
	return 0;
}
