/* What the parts of a scan share; all of it runs in the process that can only read the disk. */
#pragma once

#include "image/image.h"

/* A part of a volume that lies together on the disk. */
struct scan_segment { uint64_t at, bytes; };
struct scan_volume {
	struct disk *disk;
	uint64_t offset, bytes; /* of the volume on the disk */
	/* NULL: it lies together; else its parts in order, `bytes` together, and offset is of the
	 * first */
	const struct scan_segment *segment;
	unsigned segments;
	const struct scan_options *options;
	json_t *about, *content; /* what is filled */
	const json_t *before;    /* the files of the last scan, NULL: none */
	json_t *unread;          /* what could not be looked into: {start, says, damaged} */
};

/* A scan that could not read something says so; at most a few lines, with what a file system says
 * made to be text. damaged: it should have been readable. */
void scan_unread(const struct scan_volume *volume, bool damaged, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Text of a hostile file system as JSON wants it: bytes that are no UTF-8 become \xNN. */
json_t *scan_text(const char *text);

/* Reads zero behind the volume's end. 0 or -errno. Any offset and length. */
int volume_read(const struct scan_volume *volume, uint64_t at, void *to, size_t bytes);
/* partitions.c: an array of {start, bytes, type, name}; of a disk without a table its whole. */
json_t *scan_partitions(struct disk *disk);
/* The name of what a volume begins with; NULL: not known. A label in *ret_label. */
const char *scan_recognise(const struct scan_volume *volume, char ret_label[64]);
/* It has the marks of more than one kind: one of them is of what was there before. */
bool scan_is_ambiguous(const struct scan_volume *volume);
/* True when an operating system was found. */
bool scan_ext(struct scan_volume *volume);
bool scan_xfs(struct scan_volume *volume);
bool scan_btrfs(struct scan_volume *volume);

/* What a volume boots: the newest kernel in /boot or, of a volume that is no root, at its top, and
 * what belongs to it. The files to be freed. */
enum {
	SCAN_BOOT_VERSION_BYTES = 128,
	SCAN_KERNEL_BYTES = 128 << 20,
	SCAN_INITRD_BYTES = 768 << 20
};
struct scan_boot {
	bool is_root; /* it has an operating system */
	char version[SCAN_BOOT_VERSION_BYTES];
	char *kernel, *initrd; /* NULL: there is none */
	size_t kernel_bytes, initrd_bytes;
};
/* The best of those that were looked at, and the first root; uuid "": none. subvolume: of btrfs,
 * not 0 where the root is another one than what is mounted by itself. */
struct boot_search {
	struct scan_boot best;
	char root_uuid[37];
	uint64_t root_subvolume;
};
/* A volume that cannot be read has nothing to boot. */
void scan_ext_boot(struct scan_volume *volume, struct boot_search *search);
void scan_xfs_boot(struct scan_volume *volume, struct boot_search *search);
void scan_btrfs_boot(struct scan_volume *volume, struct boot_search *search);

/* boot_files.c: the newest kernel of a directory that was told of so far. */
struct boot_newest { char version[SCAN_BOOT_VERSION_BYTES]; unsigned names; };
/* False: there are more names than any directory needs. */
bool boot_name(struct boot_newest *newest, const char *name, size_t bytes);
/* How a file system's files are looked for. `names` tells boot_name() of a directory; paths begin
 * with a slash; `read` has at most `most` bytes, to be freed, NULL: not there. */
struct boot_reader {
	void (*names)(void *context, const char *directory, struct boot_newest *newest);
	char *(*read)(void *context, const char *path, uint64_t most, size_t *ret_bytes);
	bool (*is_there)(void *context, const char *path);
	void *context;
};
void boot_look(struct boot_search *search, const struct boot_reader *reader, const uint8_t uuid[16],
	       uint64_t subvolume);

/* scan_os.c: files of an operating system, by a function that reads them (NULL: not there; to be
 * freed, ended by 0). */
struct scan_reader {
	char *(*read)(void *context, const char *path, size_t *ret_bytes);
	void *context;
};
bool scan_os(struct scan_volume *volume, const struct scan_reader *reader);
/* Into the list of packages; text that is no UTF-8 is made to be. */
void scan_add_package(json_t *all, const char *kind, const char *name, const char *version,
		      const char *arch);

/* scan_rpm.c: begin: before the process is locked down, what SQLite wants to open then. The file's
 * bytes are changed. */
void scan_rpm_begin(void);
bool scan_rpm(json_t *all, uint8_t *file, size_t bytes);
