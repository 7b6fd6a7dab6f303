/* What a format provides to the disk in front of it. */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "buffer.h"
#include "chain.h"
#include "disk.h"
#include "file.h"

/* What a file says of the disk beneath that does not say it itself. */
enum { PHYSICAL_SECTOR_BYTES = 4096 };

/*
 * Each format's own functions, for what one file holds; what is asked for is right when it arrives
 * (chain.h, 1). NULL where a format can only be read.
 */
struct disk_driver {
	/* What begins at an offset: into the buffer, where the file has it. */
	int (*read)(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		    uint64_t bytes, struct disk_range *ret);
	int (*write)(struct disk *disk, uint64_t offset, const struct disk_buffer *buffer,
		     uint64_t bytes);
	int (*zero)(struct disk *disk, uint64_t offset, uint64_t bytes);
	/* NULL, or instead of `zero` for disk_shrink(): what of a range can be given back reads as
	 * zero afterwards, the rest stays; any range of the disk */
	int (*give_back)(struct disk *disk, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes);
	int (*flush)(struct disk *disk);
	int (*resize)(struct disk *disk, uint64_t size_bytes);
	int (*range)(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret);
	/* NULL, or: how much from there on the file has no room for, though range() says that it is
	 * there; for who copies */
	uint64_t (*hole)(const struct disk *disk, uint64_t offset, uint64_t bytes);
	/* NULL, or: what of this file alone is wrong with what lies at an offset, or -errno and
	 * *why; 0: nothing is, as far as its tables say */
	int (*explain)(struct disk *disk, uint64_t offset, struct disk_error *why);
	int (*check)(struct disk *disk, disk_fault_report *report, void *context);
	void (*info)(const struct disk *disk, struct disk_info *ret);
	/* What the host says of each file beside disk->file; NULL: there are none */
	int (*further_files)(const struct disk *disk,
			     int (*report)(void *context, const struct file_stamp *stamp),
			     void *context);
	int (*close)(struct disk *disk);
	/* NULL where the format has no place for them: then a side file has */
	int (*read_item)(struct disk *disk, struct guid id, uint8_t **ret, size_t *ret_bytes);
	int (*write_item)(struct disk *disk, struct guid id, enum disk_item_subject subject,
			  const void *value, size_t bytes);
	/* NULL, or: the whole range lies together in the file at *ret_at, and stays there until
	 * unmap(); for a write, what a write needs to be told of first is told. Not for ranges that
	 * only a parent has. */
	bool (*map)(struct disk *disk, bool write, uint64_t offset, uint64_t bytes,
		    uint64_t *ret_at);
	void (*unmap)(struct disk *disk, bool write);
};

struct disk {
	const struct disk_driver *driver;
	char *path;
	struct disk_file file;
	const struct disk_side_keeper *side_keeper; /* NULL: none */
	bool write, items_only;
	bool only_shrinks; /* write: for disk_shrink() alone */
	bool in_use; /* somebody else writes it, and it was opened beside him */
	struct file_stamp opened; /* of one in use */
	uint64_t size_bytes;
	uint32_t sector_bytes;
	enum disk_format format_id;
	const struct guid *data_id; /* NULL: the format has none */
	uint32_t block_bytes;       /* 0: the format has none */
	/* says nothing about some of its ranges, even while its parent is not open */
	bool is_child;
	struct disk *parent;
	struct chain chain; /* of ancestors */
	struct link *link; /* to the parent, while its content has to be verified (digest.h) */
	void *format; /* the driver's */
	/* What was changed since opening: a bit for each touched_bytes, and everything from
	 * touched_from on. */
	uint8_t *touched;
	uint64_t touched_blocks, touched_from;
	uint32_t touched_bytes;
	/* while a commit runs: a bit for each touched_bytes that it has to copy once more; else
	 * NULL */
	uint8_t *copied;
	struct guid opened_id;
	bool opened_current; /* the digests, of a format without an identifier */
};

/* Where a stamp still holds, nobody has changed the files since it was taken. One taken within a
 * clock tick of a change never does. */
void disk_stamp_take(const struct disk *disk, struct file_stamp *ret);
/* Another file that counts, before a byte of it is read. */
void disk_stamp_add(const struct disk_file *file, struct file_stamp *all);
/* Waits for the next tick where it has to, so that the stamp holds until a file is changed. */
void disk_stamp_settle(const struct disk *disk, struct file_stamp *ret);
bool disk_stamp_holds(const struct disk *disk, const struct file_stamp *stamp);

/* detect.c: for messages only. False: like none. */
bool disk_looks_like(const char *path, enum disk_format *ret);
/* 0, or what is wrong with a range: -EINVAL, -ENOSPC. */
int disk_check_request(const struct disk *disk, uint64_t offset, uint64_t bytes);
/* 0, -EROFS, or the sticky error: nothing is written any more after a flush that failed. */
int disk_may_write(const struct disk *disk);

/* raw.c, vhdx_open.c: disk->file is open; sets what it learns. */
int raw_open(struct disk *disk, const struct disk_options *options, struct disk_error *error);
int vhdx_open(struct disk *disk, const struct disk_options *options, struct disk_error *error);
int qcow2_open(struct disk *disk, const struct disk_options *options, struct disk_error *error);
int vmdk_open(struct disk *disk, const struct disk_options *options, struct disk_error *error);
int vhd_open(struct disk *disk, const struct disk_options *options, struct disk_error *error);
int vhd_create(struct disk_file *file, const char *path, const struct disk_create *what,
	       struct disk *parent, struct disk_error *error);
int vhdx_create(struct disk_file *file, const char *path, const struct disk_create *what,
		struct disk *parent, struct disk_error *error);
/*
 * What disk_convert() writes into an empty file. `parent`: open, and NULL where there is none.
 * *error says which of the two failed.
 */
struct disk_conversion {
	struct disk *from, *parent;
	struct disk_file *file;
	const char *path;
	const struct disk_create *what;
	const struct disk_job *job;
};
int qcow2_write_file(const struct disk_conversion *conversion, struct disk_error *error);
int vmdk_write_file(const struct disk_conversion *conversion, struct disk_error *error);
int raw_write_stream(const struct disk_conversion *conversion, struct disk_error *error);
/* parent.c: UTF-16 as UTF-8; NULL where it is none. To be freed. */
char *parent_utf8(const uint8_t *from, size_t bytes, bool big_endian);
/* UTF-8 as UTF-16; its length in bytes, -EILSEQ where it is none, -ENAMETOOLONG. */
int parent_utf16(const char *text, uint8_t *to, size_t room, bool big_endian);
/* Backslashes to slashes, without \\?\ and a drive; relative paths from the child's directory. To
 * be freed. */
char *parent_host_path(const char *child_path, const char *path, bool relative);
/* How to reach `to` from the directory `from`, both resolved: begins with "./". To be freed. */
char *parent_relative_path(const char *from, const char *to);
/* Of the data, as the format has one; zero: it has none. */
struct guid disk_data_id(const struct disk *disk);
/* snapshot.c: what was written is durable, and nothing is written any more; others may read beside
 * it. */
int disk_make_clean(struct disk *disk);
/* freeze.c: -EROFS when it is. */
int disk_check_frozen(struct disk *disk, struct disk_error *error);
/* side.c: items of a file whose format has no place for them, in PATH.umbra beside it. */
int side_read(const struct disk_side_keeper *keeper, const char *path, struct guid id,
	      uint8_t **ret, size_t *ret_bytes);
/* *ret_unsynced: it failed at a sync, so that nobody knows which of the two files a power cut
 * leaves. */
int side_write(const struct disk_side_keeper *keeper, const char *path, struct guid id,
	       const void *value, size_t bytes, bool *ret_unsynced);
/* On an open file; takes it over in any case. For tests of formats. */
int disk_open_file(struct disk_file file, const char *path, const struct disk_options *options,
		   struct disk **ret, struct disk_error *error);

static inline int job_step(const struct disk_job *job, uint64_t done, uint64_t all)
{
	return job && job->step ? job->step(job->context, done, all) : 0;
}
static inline void job_alone(const struct disk_job *job, bool begin)
{
	if (job && job->alone)
		job->alone(job->context, begin);
}

/* At least one byte. */
static inline bool is_zero(const uint8_t *at, size_t bytes)
{
	return !at[0] && !memcmp(at, at + 1, bytes - 1);
}
