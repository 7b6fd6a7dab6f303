/*
 * ext2, ext3, ext4 by libext2fs, which reads through the disk: nothing is mounted, and the journal
 * is not replayed (what lies in it alone is not seen).
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "ext_volume.h"

enum {
	DEPTH = 256,
	FILES_MAX = 2000000,
	FILE_BYTES = 64 << 20,
	PATH_BYTES = 4096,
	BUFFER_BYTES = 1 << 20
};

/* ---- files ---- */

struct ext {
	struct scan_volume *volume;
	ext2_filsys fs;
	json_t *files;
	uint8_t *buffer;
	char path[PATH_BYTES];
	unsigned depth, count;
	bool kernels_only;
	/* a bit an inode: a directory is walked once, however many names lead to it */
	uint8_t *entered;
	ext2_ino_t inodes;
};

static void note_unread(struct ext *ext, const char *path, errcode_t error)
{
	scan_unread(ext->volume, true, "%s: cannot be read (%ld)", path, (long)error);
}

static char *read_inode(struct ext *ext, ext2_ino_t inode, uint64_t most, size_t *ret_bytes)
{
	ext2_file_t file;
	unsigned got = 0;
	__u64 size;
	char *text = NULL;

	if (ext2fs_file_open(ext->fs, inode, 0, &file))
		return NULL;
	if (!ext2fs_file_get_lsize(file, &size) && size <= most)
		text = malloc(size + 1);
	if (text && (ext2fs_file_read(file, text, (unsigned)size, &got) || got != size)) {
		free(text);
		text = NULL;
	}
	ext2fs_file_close(file);
	if (text)
		text[got] = 0;
	*ret_bytes = got;
	return text;
}

static char *read_path(void *context, const char *path, size_t *ret_bytes)
{
	struct ext *ext = context;
	ext2_ino_t inode;

	errcode_t error = ext2fs_namei_follow(ext->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode);
	char *text = error ? NULL : read_inode(ext, inode, FILE_BYTES, ret_bytes);

	if (!text && error != EXT2_ET_FILE_NOT_FOUND && error != EXT2_ET_NO_DIRECTORY)
		note_unread(ext, path, error);
	return text;
}

static bool digest_file(struct ext *ext, ext2_ino_t inode, char text[65])
{
	crypto_generichash_state state;
	uint8_t digest[32];
	ext2_file_t file;
	unsigned got = 0;
	errcode_t error;

	if (ext2fs_file_open(ext->fs, inode, 0, &file))
		return false;
	crypto_generichash_init(&state, NULL, 0, sizeof(digest));
	do {
		error = ext2fs_file_read(file, ext->buffer, BUFFER_BYTES, &got);
		crypto_generichash_update(&state, ext->buffer, got);
	} while (!error && got);
	ext2fs_file_close(file);
	crypto_generichash_final(&state, digest, sizeof(digest));
	sodium_bin2hex(text, 65, digest, sizeof(digest));
	return !error;
}

static bool is_value(const json_t *array, size_t n, json_int_t value)
{
	return json_integer_value(json_array_get(array, n)) == value;
}

/* [bytes, time of change, digest]: with the same bytes and times as in the last scan its digest is
 * taken over. */
static void note_file(struct ext *ext, ext2_ino_t inode, const struct ext2_inode *file)
{
	uint64_t bytes = EXT2_I_SIZE(file);
	json_t *entry = json_pack("[I, I]", (json_int_t)bytes, (json_int_t)file->i_ctime);
	const json_t *before = json_object_get(ext->volume->before, ext->path);
	const char *known = json_string_value(json_array_get(before, 2));
	char digest[65];

	if (ext->volume->options->digests) {
		if (known && is_value(before, 0, (json_int_t)bytes) &&
		    is_value(before, 1, (json_int_t)file->i_ctime))
			json_array_append_new(entry, json_string(known));
		else if (digest_file(ext, inode, digest))
			json_array_append_new(entry, json_string(digest));
	}
	if (json_object_set(ext->files, ext->path, entry)) { /* a name that is no UTF-8 */
		json_t *path = scan_text(ext->path);

		json_object_set(ext->files, json_string_value(path), entry);
		json_decref(path);
	}
	json_decref(entry);
}

static int visit(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block,
		 void *context);

static void walk(struct ext *ext, ext2_ino_t directory)
{
	errcode_t error = 0;

	if (directory > ext->inodes || ext->depth >= DEPTH) {
		note_unread(ext, ext->path, EXT2_ET_BAD_INODE_NUM);
		return;
	}
	if (ext->entered[directory / 8] >> (directory & 7) & 1) {
		scan_unread(ext->volume, true, "%s: is a directory that another name leads to",
			    ext->path);
		return;
	}
	ext->entered[directory / 8] |= (uint8_t)(1 << (directory & 7));
	ext->depth++;
	error = ext2fs_dir_iterate(ext->fs, directory, 0, NULL, visit, ext);
	if (error)
		note_unread(ext, ext->path[0] ? ext->path : "/", error);
	ext->depth--;
}

static void note_kernel(struct ext *ext, const char *name)
{
	json_t *kernels = json_object_get(ext->volume->content, "kernels");

	if (!strncmp(ext->path, "/boot/vmlinuz-", 14) && !strchr(ext->path + 6, '/') &&
	    json_array_size(kernels) < 64)
		json_array_append_new(kernels, json_string(name + 8));
}

static int visit(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block,
		 void *context)
{
	struct ext *ext = context;
	size_t used = strlen(ext->path);
	size_t length = (size_t)ext2fs_dirent_name_len(entry);
	struct ext2_inode inode;
	errcode_t error;

	(void)offset;
	(void)block_bytes;
	(void)block;
	if ((length == 1 && entry->name[0] == '.') ||
	    (length == 2 && !memcmp(entry->name, "..", 2)))
		return 0;
	if (used + length + 2 > sizeof(ext->path))
		return 0;
	if (++ext->count > FILES_MAX) {
		if (ext->count == FILES_MAX + 1)
			scan_unread(ext->volume, true, "has more than %d names", FILES_MAX);
		return DIRENT_ABORT;
	}
	error = ext2fs_read_inode(ext->fs, entry->inode, &inode);
	if (error) {
		note_unread(ext, ext->path, error);
		return 0;
	}
	ext->path[used] = '/';
	memcpy(ext->path + used + 1, entry->name, length);
	ext->path[used + 1 + length] = 0;
	if (LINUX_S_ISREG(inode.i_mode)) {
		note_kernel(ext, ext->path + used + 1);
		if (!ext->kernels_only)
			note_file(ext, entry->inode, &inode);
	} else if (LINUX_S_ISDIR(inode.i_mode) && !ext->kernels_only) {
		walk(ext, entry->inode);
	}
	ext->path[used] = 0;
	return 0;
}

static void walk_boot(struct ext *ext)
{
	ext2_ino_t inode;

	if (ext2fs_namei(ext->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, "/boot", &inode))
		return;
	strcpy(ext->path, "/boot");
	ext->kernels_only = true;
	walk(ext, inode);
}

bool scan_ext(struct scan_volume *volume)
{
	struct ext ext = { .volume = volume,
			   .files = json_object_get(volume->content, "files"),
			   .buffer = malloc(BUFFER_BYTES) };
	struct scan_reader reader = { .read = read_path, .context = &ext };
	uint64_t bytes;
	bool found = false;

	if (!ext.buffer || !ext_volume_open(volume, EXT2_FLAG_SOFTSUPP_FEATURES, &ext.fs)) {
		scan_unread(volume, true, "its file system cannot be opened");
		free(ext.buffer);
		return false;
	}
	/* whatever is said of that: no more than have room in the volume */
	ext.inodes = ext.fs->super->s_inodes_count;
	if (ext.inodes > volume->bytes / EXT2_GOOD_OLD_INODE_SIZE)
		ext.inodes = (ext2_ino_t)(volume->bytes / EXT2_GOOD_OLD_INODE_SIZE);
	ext.entered = calloc(1, (size_t)ext.inodes / 8 + 1);
	bytes = ext2fs_blocks_count(ext.fs->super) * ext.fs->blocksize;
	if (bytes > volume->bytes)
		scan_unread(volume, true,
			    "is cut off: a file system of %lu bytes, of which %lu are there", bytes,
			    volume->bytes);
	found = ext.entered && scan_os(volume, &reader);
	if (ext.entered && volume->options->files)
		walk(&ext, EXT2_ROOT_INO);
	else if (ext.entered)
		walk_boot(&ext);
	ext2fs_free(ext.fs);
	free(ext.entered);
	free(ext.buffer);
	return found;
}

/* ---- what it boots ---- */

static int visit_kernel(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block,
			void *context)
{
	(void)offset;
	(void)block_bytes;
	(void)block;
	return boot_name(context, entry->name, (size_t)ext2fs_dirent_name_len(entry))
		       ? 0
		       : DIRENT_ABORT;
}

static bool find_inode(const struct ext *ext, const char *path, ext2_ino_t *ret)
{
	return !ext2fs_namei_follow(ext->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ret);
}

static void boot_names(void *context, const char *directory, struct boot_newest *newest)
{
	struct ext *ext = context;
	ext2_ino_t inode;

	if (find_inode(ext, directory, &inode))
		ext2fs_dir_iterate(ext->fs, inode, 0, NULL, visit_kernel, newest);
}

static char *boot_read(void *context, const char *path, uint64_t most, size_t *ret_bytes)
{
	struct ext *ext = context;
	ext2_ino_t inode;

	return find_inode(ext, path, &inode) ? read_inode(ext, inode, most, ret_bytes) : NULL;
}

static bool boot_is_there(void *context, const char *path)
{
	ext2_ino_t inode;

	return find_inode(context, path, &inode);
}

void scan_ext_boot(struct scan_volume *volume, struct boot_search *search)
{
	struct ext ext = { .volume = volume };
	const struct boot_reader reader = { .names = boot_names,
					    .read = boot_read,
					    .is_there = boot_is_there,
					    .context = &ext };

	if (!ext_volume_open(volume, EXT2_FLAG_SOFTSUPP_FEATURES, &ext.fs))
		return;
	boot_look(search, &reader, ext.fs->super->s_uuid, 0);
	ext2fs_free(ext.fs);
}
