/*
 * ext2, ext3, ext4 by libext2fs, which reads through the disk: nothing is mounted, and the journal
 * is not replayed (what lies in it alone is not seen).
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "scan_internal.h"

enum {
	DEPTH = 256,
	FILES_MAX = 2000000,
	FILE_BYTES = 64 << 20,
	PATH_BYTES = 4096,
	BUFFER_BYTES = 1 << 20
};

/* ---- the library's view of the volume ---- */

static struct struct_io_manager manager;

static errcode_t volume_open(const char *name, int flags, io_channel *ret)
{
	io_channel channel = calloc(1, sizeof(*channel));
	void *volume;

	(void)flags;
	if (!channel || sscanf(name, "%p", &volume) != 1) {
		free(channel);
		return ENOMEM;
	}
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = &manager;
	channel->block_size = 1024;
	channel->refcount = 1;
	channel->private_data = volume;
	channel->name = strdup("volume");
	*ret = channel;
	return 0;
}

static errcode_t volume_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t volume_block_size(io_channel channel, int bytes)
{
	channel->block_size = bytes;
	return 0;
}

/* A negative count is in bytes. */
static errcode_t read_blocks(io_channel channel, unsigned long long block, int count, void *to)
{
	size_t bytes = count < 0 ? (size_t)-count : (size_t)count * (size_t)channel->block_size;

	if (block > UINT64_MAX / 2 / (unsigned)channel->block_size)
		return EIO;
	return (errcode_t)-volume_read(channel->private_data, block * (unsigned)channel->block_size,
				       to, bytes);
}

static errcode_t read_blocks32(io_channel channel, unsigned long block, int count, void *to)
{
	return read_blocks(channel, block, count, to);
}
static errcode_t no_write(io_channel channel, unsigned long block, int count, const void *from)
{
	(void)channel;
	(void)block;
	(void)count;
	(void)from;
	return EROFS;
}
static errcode_t no_write64(io_channel channel, unsigned long long block, int count,
			    const void *from)
{
	(void)channel;
	(void)block;
	(void)count;
	(void)from;
	return EROFS;
}
static errcode_t nothing(io_channel channel)
{
	(void)channel;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "umbra",
	.open = volume_open,
	.close = volume_close,
	.set_blksize = volume_block_size,
	.read_blk = read_blocks32,
	.write_blk = no_write,
	.flush = nothing,
	.read_blk64 = read_blocks,
	.write_blk64 = no_write64,
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

static bool open_volume(struct ext *ext, struct scan_volume *volume)
{
	char name[32];

	snprintf(name, sizeof(name), "%p", (void *)volume);
	return !ext2fs_open2(name, NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0,
			     &manager, &ext->fs);
}

bool scan_ext(struct scan_volume *volume)
{
	struct ext ext = { .volume = volume,
			   .files = json_object_get(volume->content, "files"),
			   .buffer = malloc(BUFFER_BYTES) };
	struct scan_reader reader = { .read = read_path, .context = &ext };
	uint64_t bytes;
	bool found = false;

	if (!ext.buffer || !open_volume(&ext, volume)) {
		scan_unread(volume, true, "its file system cannot be opened");
		free(ext.buffer);
		return false;
	}
	ext.inodes = ext.fs->super->s_inodes_count;
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

struct newest { char version[SCAN_BOOT_VERSION_BYTES]; unsigned count; };

static int visit_kernel(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block,
			void *context)
{
	static const char before[] = "vmlinuz-";
	const size_t length = (size_t)ext2fs_dirent_name_len(entry);
	const size_t skip = sizeof(before) - 1;
	struct newest *newest = context;
	char version[SCAN_BOOT_VERSION_BYTES] = "";

	(void)offset;
	(void)block_bytes;
	(void)block;
	if (++newest->count > FILES_MAX)
		return DIRENT_ABORT;
	if (length <= skip || length - skip >= sizeof(version) || memcmp(entry->name, before, skip))
		return 0;
	memcpy(version, entry->name + skip, length - skip);
	if (strstr(version, "rescue") || strstr(version, ".dpkg-") || strchr(version, '%') ||
	    strchr(version, '/'))
		return 0;
	if (!newest->version[0] || version_compare(version, newest->version) > 0)
		memcpy(newest->version, version, sizeof(version));
	return 0;
}

static char *read_at(struct ext *ext, const char *directory, const char *format,
		     const char *version, uint64_t most, size_t *ret_bytes)
{
	char name[SCAN_BOOT_VERSION_BYTES + 32], path[SCAN_BOOT_VERSION_BYTES + 64];
	ext2_ino_t inode;

	snprintf(name, sizeof(name), format, version);
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (ext2fs_namei_follow(ext->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode))
		return NULL;
	return read_inode(ext, inode, most, ret_bytes);
}

/* directory: "": the top */
static void find_kernel(struct ext *ext, const char *directory, struct scan_boot *ret)
{
	static const char *const initrds[] = { "initrd.img-%s", "initramfs-%s.img", "initrd-%s",
					       "initramfs-%s" };
	struct newest newest = { 0 };
	ext2_ino_t inode;

	if (ext2fs_namei(ext->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, directory[0] ? directory : "/",
			 &inode))
		return;
	ext2fs_dir_iterate(ext->fs, inode, 0, NULL, visit_kernel, &newest);
	ret->kernel = newest.version[0] ? read_at(ext, directory, "vmlinuz-%s", newest.version,
						  SCAN_KERNEL_BYTES, &ret->kernel_bytes)
					: NULL;
	if (!ret->kernel)
		return;
	memcpy(ret->version, newest.version, sizeof(ret->version));
	for (size_t k = 0; k < sizeof(initrds) / sizeof(initrds[0]) && !ret->initrd; k++)
		ret->initrd = read_at(ext, directory, initrds[k], newest.version, SCAN_INITRD_BYTES,
				      &ret->initrd_bytes);
}

static bool is_there(struct ext *ext, const char *path)
{
	ext2_ino_t inode;

	return !ext2fs_namei_follow(ext->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode);
}

bool scan_ext_boot(struct scan_volume *volume, struct scan_boot *ret)
{
	struct ext ext = { .volume = volume };
	const uint8_t *uuid;

	*ret = (struct scan_boot){ 0 };
	if (!open_volume(&ext, volume))
		return false;
	uuid = ext.fs->super->s_uuid;
	snprintf(ret->uuid, sizeof(ret->uuid),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", uuid[0],
		 uuid[1], uuid[2], uuid[3], uuid[4], uuid[5], uuid[6], uuid[7], uuid[8], uuid[9],
		 uuid[10], uuid[11], uuid[12], uuid[13], uuid[14], uuid[15]);
	ret->is_root = is_there(&ext, "/etc/os-release") || is_there(&ext, "/sbin/init");
	find_kernel(&ext, "/boot", ret);
	if (!ret->kernel && !ret->is_root)
		find_kernel(&ext, "", ret);
	ext2fs_free(ext.fs);
	return true;
}
