/*
 * Virtual disks: files that hold the contents of a disk, alone or as a chain of differences.
 *
 * A disk may be used by several threads at once: reads and writes run beside each other, and each
 * completes on its caller's thread; queue.h puts an asynchronous interface on top. Offsets and
 * lengths are in bytes and multiples of the logical sector, else -EINVAL; beyond the end -ENOSPC.
 * What disk_flush() has returned for survives a power cut.
 *
 * A disk is hostile until it is opened, and its text is never printed as it is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/guid.h"
#include "refusal.h"

enum disk_format { DISK_VHDX, DISK_RAW, DISK_VHD, DISK_QCOW2, DISK_VMDK, DISK_FORMATS };
/* What a file has of a range that begins at an offset. Where it is absent, the parents are asked,
 * and zero is what nobody has. */
enum disk_range_kind { DISK_RANGE_ABSENT, DISK_RANGE_ZERO, DISK_RANGE_PRESENT };
struct disk_range { enum disk_range_kind kind; uint64_t bytes; };

/* "vhdx", ... */
const char *disk_format_name(enum disk_format format);
bool disk_format_parse(const char *name, enum disk_format *ret);

struct disk;
struct parent_search;

struct disk_options {
	enum disk_format format;
	bool write;
	/* this file alone: what it does not hold reads as zero. Not with write */
	bool without_parents;
	/* what the file carries beside its data, quickly: the data is not looked at, and cannot be
	 * read. Not with write */
	bool items_only;
	/* Directories and files, ended by NULL, under which a parent may lie; NULL: the directory
	 * of the child. */
	const char *const *parents;
	/* NULL, or asked for a parent that is in none of them by its name or by looking: 0 with a
	 * path, to be freed; -ENOENT. What it says has to be allowed and to be the parent like
	 * everything else. */
	int (*find)(void *context, struct guid data_id, char **ret_path);
	void *find_context;
	/* Opens though a parent is not what the child was made on: to find out what differs, or to
	 * accept it. */
	bool accept_changed;
	/* already open, instead of the one that would be looked for; belongs to the disk once that
	 * is open */
	struct disk *parent;
	/* past the host's cache, where offsets, lengths and memory are multiples of 4096 bytes */
	bool direct;
	/* flushes make nothing durable: for files that are made anew when the power goes away */
	bool no_sync;
	/* With write: for disk_shrink() alone, also of formats that are otherwise only read */
	bool to_shrink;
	bool thaw; /* opens for writing though frozen: for disk_thaw() */
	/* Also while somebody else writes it, as it was last flushed: for what is said about it,
	 * not for its data. Not with write */
	bool beside_writer;
	/* The same, and nobody who wants to write it meanwhile is refused */
	bool unlocked;
	/* by disk_snapshot(): it goes on as it was made, and is durable with its first flush */
	bool just_made;
	const struct disk_side_keeper *side_keeper; /* of this file alone; NULL: none */
	struct parent_search *search; /* NULL; of a parent the one for its whole chain (search.h) */
};

/*
 * Who reads and replaces PATH.umbra (side.c) for a process that may open no files. load: -ENOENT:
 * there is none; *ret is freed by the caller. store: *ret_unsynced: it may not be on the disk.
 * Each: 0 or -errno.
 */
struct disk_side_keeper {
	int (*load)(void *context, uint8_t **ret, size_t *ret_bytes);
	int (*store)(void *context, const uint8_t *bytes, size_t count, bool *ret_unsynced);
	void *context;
};

struct disk_info {
	enum disk_format format;
	/* allocated: what the host's file system keeps for it */
	uint64_t size_bytes, file_bytes, allocated_bytes;
	uint32_t block_bytes, logical_sector_bytes, physical_sector_bytes;
	bool fixed, has_parent;
	/* of VHDX: FileWriteGuid, DataWriteGuid, virtual disk id */
	struct guid file_id, data_id, disk_id, parent_data_id;
	/* of a child with an open parent: it is the one that the child was made on, as far as
	 * identifiers say */
	bool is_linked;
	uint64_t blocks, blocks_present;
	bool has_log; /* was not closed; what its log says is replayed in memory */
	bool in_use;  /* by somebody who writes it */
};

enum disk_packing { DISK_UNPACKED, DISK_PACKED_ZLIB, DISK_PACKED_ZSTD };
struct disk_create {
	enum disk_format format;
	uint64_t size_bytes;
	uint32_t block_bytes, logical_sector_bytes; /* 0: 2 MiB (of a child its parent's), 512 */
	bool fixed;
	const char *parent; /* a file; then the size is its */
	enum disk_format parent_format;
	const char *const *parents; /* where its own may lie, as disk_options.parents */
	/* the parent, already open, which stays the caller's; `parent` is not looked at. The child
	 * names it by its path */
	struct disk *opened_parent;
	bool no_digests;
	/* of disk_snapshot(): the parent is being written, so what it holds is not noted; the file
	 * is as if it was open */
	bool in_use;
	bool resolved; /* its path and its parent's are absolute, and lead through no links */
	/* of disk_convert() to qcow2; block_bytes is then the cluster: 4 KiB to 2 MiB, 0: 64 KiB */
	enum disk_packing packing;
	bool no_sync; /* does not wait until it is on the host's disk */
	const char *name; /* of disk_convert(): what it is going to be called; NULL: as its path */
};

/* Of one that is in use: whether it was changed since it was opened. */
bool disk_has_moved(const struct disk *disk);

/* What an error of a request means. */
const char *disk_strerror(int error);

/* 0, or: -ESTALE a parent is not what the child was made on; -EBADMSG the file is not sound; -EBUSY
 * somebody else writes it; -ENOTSUP; -EPERM the parent is not allowed; -ELOOP the chain has no end;
 * -EMEDIUMTYPE it is of another format; -EROFS it is frozen; other errors of the host. *error
 * says which file. */
int disk_open(const char *path, const struct disk_options *options, struct disk **ret_disk,
	      struct disk_error *error);
/* Begins to read what opening this file will need, and does not wait for it: for those who will
 * open many. */
void disk_prefetch(const char *path, enum disk_format format);
/* Makes durable what is not yet, and the file clean. What fails here was not flushed. */
int disk_close(struct disk *disk);
/* The keeper stays the caller's, as long as the disk is open. */
/* For a keeper: the whole of PATH.umbra. What is not sound is neither read nor written (-EBADMSG).
 * */
int disk_side_load(const char *path, uint8_t **ret, size_t *ret_bytes);
int disk_side_store(const char *path, const uint8_t *bytes, size_t count, bool *ret_unsynced);
int disk_create(const char *path, const struct disk_create *what, struct disk_error *error);

int disk_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, int count);
int disk_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, int count);
/* Reads as zero afterwards, also where a parent has data; whole blocks give their space back. */
int disk_zero(struct disk *disk, uint64_t offset, uint64_t bytes);
int disk_flush(struct disk *disk);
/* Larger; smaller is -EBUSY where the range cut off holds data. Blocks other users meanwhile. */
int disk_resize(struct disk *disk, uint64_t size_bytes);
/* What this file has from an offset on, and how far that is the same, at most `bytes`. */
int disk_range(struct disk *disk, uint64_t offset, uint64_t bytes, struct disk_range *ret);
/* Everything that can be wrong with the file alone; what was found is said by `report`. The number
 * of faults. */
typedef void disk_fault_report(void *context, const struct disk_error *fault);
int disk_check(struct disk *disk, disk_fault_report *report, void *context);
/*
 * Why a request at an offset ended with `error`: the file of the chain, the place in that file,
 * and what is wrong there, as far as it can be found. Fills *why, and returns `error`.
 */
int disk_explain(struct disk *disk, uint64_t offset, int error, struct disk_error *why);
void disk_info(const struct disk *disk, struct disk_info *ret);
/*
 * Each file that the disk's own data lies in, the one that it was opened by first, as the host says
 * of it; none of its parents'. What `report` returns, when that is not 0, ends it and is returned.
 */
typedef int disk_file_report(void *context, uint64_t bytes, uint64_t mtime_ns);
int disk_each_file(const struct disk *disk, disk_file_report *report, void *context);
uint64_t disk_size_bytes(const struct disk *disk);
enum disk_format disk_format_of(const struct disk *disk);
uint32_t disk_sector_bytes(const struct disk *disk);
const char *disk_path(const struct disk *disk);
struct disk *disk_parent(const struct disk *disk);
/*
 * What a file carries beside its data, by identifier: user metadata items of a VHDX file, of
 * another the side file PATH.umbra. A value is replaced whole or not at all, and durable then; NULL
 * removes it. The data identifier stays. -ENOENT; -EFBIG: more than 31 MiB, or than the file has
 * room for; -EROFS. To be freed.
 *
 * An item is about this file, or about the virtual disk (MS-VHDX 2.6.1.2, IsVirtualDisk): then a
 * VHDX child that is made on a VHDX file begins with a copy, and a commit puts the child's in the
 * place of its parent's.
 */
enum disk_item_subject { DISK_ITEM_OF_FILE, DISK_ITEM_OF_DISK };
int disk_read_item(struct disk *disk, struct guid id, uint8_t **ret_value, size_t *ret_bytes);
int disk_write_item(struct disk *disk, struct guid id, enum disk_item_subject subject,
		    const void *value, size_t bytes);

/*
 * Content and its digests. Both call `report` with ranges in order; a value that is not 0 ends it
 * and is returned. disk_verify(): where a file's content is not what its own digests say. -ENOENT:
 * it has none; -ESTALE: they are of older data. disk_verify_link(): where a child's parent, open,
 * is not what it was when the child was made. -ENOENT: it is not known.
 */
typedef int disk_range_report(void *context, uint64_t offset, uint64_t bytes);
int disk_verify(struct disk *disk, disk_range_report *report, void *context);
int disk_verify_link(struct disk *child, disk_range_report *report, void *context);
/* Computes the digests anew and keeps them. */
int disk_digest(struct disk *disk);
/* One digest of all that this file itself says (BLAKE2b), computed now: what a signature is made
 * over. */
int disk_content_root(struct disk *disk, uint8_t ret[16]);
/* The child takes its parent as it is now: opened for writing with accept_changed. */
int disk_repair_link(struct disk *child, struct disk_error *error);
enum { DISK_REASON_BYTES = 248 };
/* From now on opening for writing is -EROFS, with this reason. */
int disk_freeze(struct disk *disk, const char *reason, struct disk_error *error);
/* The same, without what other programs see of it: for a process that knows no names of files. */
int disk_freeze_in_file(struct disk *disk, const char *reason);
/* Why it is frozen. -ENOENT: it is not. */
int disk_frozen_reason(struct disk *disk, char reason[DISK_REASON_BYTES]);
/* Whether somebody else has it open, as locks say; of one that cannot be opened it is not known. */
bool disk_is_used(const char *path);
/* The file, and what lies beside it (PATH.umbra). -EBUSY: somebody has it open. */
int disk_remove(const char *path);
/* -EBUSY: a file in one of these directories (NULL at the end) is made on it. */
int disk_thaw(struct disk *disk, const char *const *places, struct disk_error *error);
/*
 * Long operations. A job is told how far it is, and ends with what `step` returns when that is not
 * 0: everything is sound then, and can be done again. `alone`, where not NULL, is called before and
 * after the moments in which nobody may use the disk.
 */
struct disk_job {
	int (*step)(void *context, uint64_t done, uint64_t all);
	void (*alone)(void *context, bool begin);
	void *context;
};

/*
 * Puts a child's data into its parent, which is opened for writing for it, and makes the parent
 * what the child was. The child is then empty. Both VHDX. With `alone`, others may use the disk
 * meanwhile.
 */
int disk_commit(struct disk *disk, const struct disk_job *job, struct disk_error *error);
/* All of a disk into a new, empty one of the same size, or the first part of a larger raw one that
 * is zero there, durably, with what that keeps of digests. *error says which of them failed. */
int disk_copy(struct disk *from, struct disk *to, const struct disk_job *job,
	      struct disk_error *error);
/* Of formats whose files are written once: by disk_convert() alone. */
bool disk_is_written_once(enum disk_format format);
/*
 * All of a disk into a new file of such a format: qcow2, of what->packing, and with what->parent
 * only what differs from that; VMDK, stream-optimised. Durable, and no such file before it is
 * whole. A child knows its parent's content afterwards, as every child does.
 */
int disk_convert(struct disk *from, const char *path, const struct disk_create *what,
		 const struct disk_job *job, struct disk_error *error);
/* The same into a pipe: raw, or a VMDK without a parent. */
int disk_convert_stream(struct disk *from, int fd, const struct disk_create *what,
			const struct disk_job *job, struct disk_error *error);
/*
 * What can be read of a disk into a new, empty one of the same size; the rest is zero there, and
 * reported in order. `why`: -errno of the reading, -ENOENT for what only a parent had that is not
 * there. A value that is not 0 ends it and is returned.
 */
typedef int disk_loss_report(void *context, uint64_t offset, uint64_t bytes, int why);
int disk_rescue(struct disk *from, struct disk *to, const struct disk_job *job,
		disk_loss_report *report, void *context);
/* A child takes in what its parents hold, and stands alone. Others may use the disk meanwhile. */
int disk_stream(struct disk *disk, const struct disk_job *job);
/* Another parent; the child reads the same afterwards. Not while others use the disk. */
int disk_rebase(struct disk *disk, const char *path, enum disk_format format,
		const struct disk_job *job, struct disk_error *error);
/* Of a disk. */
struct disk_extent { uint64_t offset, bytes; };
/*
 * Frees what nobody needs any more: it reads as zero afterwards, in this file alone; of a child
 * what its own file has. Blocks that are empty then are given back, where the format can (VHDX);
 * the rest are holes in the file. Cut off at any moment, each is as it was or zero. *ret_bytes:
 * what the file had of it. Not while others use the disk. -ENOTSUP: formats that are written once.
 */
int disk_shrink(struct disk *disk, const struct disk_extent *extent, size_t count,
		const struct disk_job *job, uint64_t *ret_bytes);
/* How much of that the file has. */
int disk_count_present(struct disk *disk, const struct disk_extent *extent, size_t count,
		       uint64_t *ret_bytes);
/* Gives back blocks of zeros, and moves the others together. Not while others use the disk. */
int disk_compact(struct disk *disk, const struct disk_job *job);
/* A new file, child of the ancestor `since`, that holds what changed since. */
int disk_export_changes(struct disk *disk, const char *since, const char *path,
			const struct disk_job *job, struct disk_error *error);
/*
 * A child of a disk that is in use, open for writing, of which the disk is the parent. From the
 * moment at which the caller sends requests to the child instead, the parent must not be written;
 * disk_settle() then makes the parent clean, with readers beside it. The parent belongs to the
 * child, and is closed with it.
 */
int disk_snapshot(struct disk *disk, const char *path, struct disk **ret_child,
		  struct disk_error *error);
int disk_settle(struct disk *child);
/*
 * The same into a file that somebody else has made (disk_file_adopt()), which is taken over in any
 * case; for a process that opens none. Its path and the disk's are absolute, and lead through no
 * links.
 */
int disk_snapshot_into(struct disk *disk, int fd, const char *path, struct disk **ret_child,
		       struct disk_error *error);

static inline int disk_read(struct disk *disk, uint64_t offset, void *to, size_t bytes)
{
	return disk_readv(disk, offset, &(struct iovec){ to, bytes }, 1);
}
static inline int disk_write(struct disk *disk, uint64_t offset, const void *from, size_t bytes)
{
	return disk_writev(disk, offset, &(struct iovec){ (void *)(uintptr_t)from, bytes }, 1);
}
