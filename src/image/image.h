/*
 * What an image says about itself, kept inside it (docs/image.md): read without running anything,
 * ignored by programs that do not know it, and carried along by those that copy the file.
 *
 *   about     a JSON object, small: what people and policies ask for
 *   content   packages and kernels, files, and once more the packages' versions, compressed
 *   kept      names and digests of files that are kept in it
 *   history   what was done, each entry chained to the one before
 *   signature over all of it and the data's digests
 *
 * About and content are of the virtual disk: children begin with a copy of them, and a commit puts
 * the child's in the place of its parent's. The others are of the file.
 *
 * All of it is hostile: sizes are limited before anything is unpacked, JSON is limited in depth by
 * its parser, and text is only printed escaped. Functions return 0 or -errno; what cannot be
 * understood is -EBADMSG.
 */
#pragma once

#include <jansson.h>

#include "disk/disk.h"

enum {
	IMAGE_VERSION = 1,
	IMAGE_ABOUT_BYTES = 1 << 20,
	IMAGE_CONTENT_BYTES = 256 << 20,
	IMAGE_HISTORY_BYTES = 16 << 20
};

/* An object; empty when the image says nothing. To be released. */
int image_load_about(struct disk *disk, json_t **ret);
int image_save_about(struct disk *disk, const json_t *about);
/* {"packages": [{name, version, arch, kind}...], "kernels": [...]}; -ENOENT: never scanned. */
int image_load_content(struct disk *disk, json_t **ret);
int image_save_content(struct disk *disk, const json_t *content);
/* Of the packages alone, a line "NAME<tab>VERSION" each; to be freed. */
int image_load_versions(struct disk *disk, char **ret);
/* {PATH: [bytes, time, digest]...}; -ENOENT: never scanned for files. */
int image_load_files(struct disk *disk, json_t **ret);
int image_save_files(struct disk *disk, const json_t *files);
/* a.b.c in an object; a value that is not JSON is text; an empty one removes. -EINVAL: no section
 * with that name. */
int image_set(json_t *about, const char *assignment);
json_t *image_get(const json_t *about, const char *key);
/* schema.c: -EINVAL, and what is wrong with the sections that people set. */
int image_check_about(const json_t *about, char why[160]);

/* What is said of the data, to a copy of the data: about, content, files. What is true of the scan
 * of one is true of the other. */
int image_carry(struct disk *from, struct disk *to);

/* Files inside the image: configuration, saved states; bytes NULL removes one. -ENOENT; -EINVAL: a
 * bad name. */
int image_keep(struct disk *disk, const char *name, const void *bytes, size_t count);
/* {NAME: {bytes, blake2b}...}; empty when there are none. */
int image_load_kept(struct disk *disk, json_t **ret);
int image_fetch(struct disk *disk, const char *name, uint8_t **ret, size_t *ret_count);

/* ---- history.c ---- */
/* An array, oldest first. */
int image_load_history(struct disk *disk, json_t **ret);
/* Adds {time, host, by, event, data-id, ...more}; more may be NULL and is released. */
int image_add_history(struct disk *disk, const char *by, const char *event, json_t *more);
/* -EBADMSG: entry *ret_wrong is not the one that was written. */
int image_verify_history(const json_t *history, size_t *ret_wrong);
/* The time as in ISO 8601, UTC. */
void image_now(char text[32]);

/* ---- sign.c ---- */
/* A key file holds 64 bytes: an Ed25519 secret key; KEY.pub its 32 bytes in hexadecimal. */
int image_make_key(const char *path);
int image_sign(struct disk *disk, const char *key_path);
/*
 * -ENOENT: not signed; -EBADMSG: something has changed since, *ret_what says what. ret_key:
 * hexadecimal. Quick: the file list and the data are not read again, the data identifier stands for
 * them; not for a format that has none.
 */
int image_verify(struct disk *disk, bool quick, char ret_key[65], const char **ret_what);

/* ---- scan.c ---- */
struct scan_options { bool files, digests; };
/* Fills content and the parts of about that follow from it, in a process of its own that can only
 * read the disk. */
int image_scan(struct disk *disk, const struct scan_options *options, bool *ret_unchanged);

/* ---- space.c ---- */
/* What no file system on a disk uses: aligned to 4096 bytes, nothing twice. volumes: {start, bytes,
 * kind, name, free or skipped}. */
struct image_space {
	struct disk_extent *range;
	size_t ranges;
	uint64_t free_bytes;
	json_t *volumes;
};
/*
 * Of partitions, and of volumes of LVM that lie on this disk alone: ext2 to ext4, XFS, NTFS; others
 * are skipped. What a file system says is free is compared with everything that its files lie in.
 * -EUCLEAN with *error: one of them is not clean, not sound, or not known well enough; -EBADMSG.
 * Nothing is written. To be released.
 */
int image_find_space(struct disk *disk, struct image_space *ret, struct disk_error *error);
void image_space_release(struct image_space *space);

/* ---- boot.c ---- */
/* root_subvolume: of btrfs, and not 0: the root is not the subvolume that is mounted by itself */
struct image_boot {
	void *kernel, *initrd;
	size_t kernel_bytes, initrd_bytes;
	char root_uuid[37];
	uint64_t root_subvolume;
};
/*
 * The kernel that an image boots, the initial file system that belongs to it (NULL: none), and the
 * identifier of its root file system; to be freed. -ENOENT: none is found (ext2 to ext4, XFS and
 * btrfs are looked at, also in volumes of LVM); -EBADMSG.
 */
int image_find_boot(struct disk *disk, struct image_boot *ret);
void image_free_boot(struct image_boot *boot);

/* ---- version.c: Debian's order of versions; negative, 0, positive ---- */
int version_compare(const char *a, const char *b);
/* "openssl<3.0.15": the name, the operator's and the version's place; op NULL: none. */
struct version_term { char name[128]; char op[3]; char version[128]; };
bool version_parse(const char *text, struct version_term *ret);
bool version_matches(const struct version_term *term, const char *version);

/* ---- policy.c ---- */
/* the last is always allowed */
enum image_action {
	ACTION_READ,
	ACTION_WRITE,
	ACTION_FORK,
	ACTION_EXPORT,
	ACTION_ATTACH,
	ACTION_ANNOTATE,
	ACTION_INSPECT
};
struct image_refusal { char rule[64], who[256], text[512]; bool overridable; };
/* Policy files: JSON; NULL or a file that is not there says nothing. One that cannot be understood
 * refuses everything. */
struct image_policies { const char *user, *system, *user_name; }; /* NULL: looked up */
/* Who this process runs as. */
void image_user_name(char name[64]);
/*
 * Whether the image's own terms, the user's and the system's, and those of its parents, allow an
 * action; the strictest decides. -EPERM with *refusal. With an override's reason, where each rule
 * that refuses allows one, it is 0 and *ret_overridden says so: the caller writes it into the
 * history.
 */
int image_admit(struct disk *disk, enum image_action action, const struct image_policies *files,
		const char *override, bool *ret_overridden, struct image_refusal *refusal);

/* ---- open.c ---- */
#define IMAGE_ACTION(action) (1u << (action))
/* On whose behalf: policies, the reason why a rule may be passed over (NULL: none), and the name
 * that the history gets. */
struct image_opener { struct image_policies policies; const char *override, *by; };
/*
 * disk_open() for all of these actions (a set of IMAGE_ACTION()). Where a policy refuses: -EPERM,
 * and refusal->rule is not empty; everything else is disk_open()'s, or means that an override could
 * not be recorded, with *error. *ret is NULL where it is not open.
 */
int image_open(const char *path, const struct disk_options *options, unsigned actions,
	       const struct image_opener *who, struct disk **ret, struct image_refusal *refusal,
	       struct disk_error *error);

/* ---- export.c: what is installed, for other programs ---- */
json_t *image_to_spdx(const json_t *about, const json_t *content, const char *name);
json_t *image_to_cyclonedx(const json_t *about, const json_t *content, const char *name);

/* ---- catalog.c ---- */
struct catalog;
/* One SQLite file, made when it is not there. */
int catalog_open(const char *path, struct catalog **ret);
void catalog_close(struct catalog *catalog);
/* Changes between these are one transaction. */
int catalog_begin(struct catalog *catalog);
int catalog_end(struct catalog *catalog);
struct catalog_result { unsigned seen, added, changed, moved, gone, unreadable; };
/* Every image below a directory; formats by suffix. An image that was not changed is not opened. */
int catalog_index(struct catalog *catalog, const char *directory, struct catalog_result *ret);
/* What is known of one file: its place and what it says; content and files may be NULL. */
struct catalog_entry {
	const char *path, *identity;
	uint64_t file_bytes, mtime_ns;
	struct guid data_id;
	const json_t *about, *content, *files;
};
int catalog_put(struct catalog *catalog, const struct catalog_entry *entry);
/* The path of a file that had this data when it was seen; to be freed. -ENOENT. */
int catalog_find_data(struct catalog *catalog, struct guid data_id, char **ret);

/* ---- query.c (docs/image.md) ---- */
struct catalog_found { json_t *rows; uint64_t count; char *explain; };
/* The first `limit` rows, how many there are, and how it was looked for. -EINVAL: error says where
 * the query is wrong. */
int catalog_search(struct catalog *catalog, const char *query, unsigned limit,
		   struct catalog_found *ret, char error[256]);
