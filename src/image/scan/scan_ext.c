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
	io_channel c = calloc(1, sizeof(*c));
	void *volume;

	(void)flags;
	if (!c || sscanf(name, "%p", &volume) != 1) {
		free(c);
		return ENOMEM;
	}
	c->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	c->manager = &manager;
	c->block_size = 1024;
	c->refcount = 1;
	c->private_data = volume;
	c->name = strdup("volume");
	*ret = c;
	return 0;
}

static errcode_t volume_close(io_channel c)
{
	if (--c->refcount > 0)
		return 0;
	free(c->name);
	free(c);
	return 0;
}

static errcode_t volume_block_size(io_channel c, int bytes)
{
	c->block_size = bytes;
	return 0;
}

/* A negative count is in bytes. */
static errcode_t read_blocks(io_channel c, unsigned long long block, int count, void *to)
{
	size_t bytes = count < 0 ? (size_t)-count : (size_t)count * (size_t)c->block_size;

	if (block > UINT64_MAX / 2 / (unsigned)c->block_size)
		return EIO;
	return (errcode_t)-volume_read(c->private_data, block * (unsigned)c->block_size, to, bytes);
}

static errcode_t read_blocks32(io_channel c, unsigned long block, int count, void *to)
{
	return read_blocks(c, block, count, to);
}
static errcode_t no_write(io_channel c, unsigned long block, int count, const void *from)
{
	(void)c;
	(void)block;
	(void)count;
	(void)from;
	return EROFS;
}
static errcode_t no_write64(io_channel c, unsigned long long block, int count, const void *from)
{
	(void)c;
	(void)block;
	(void)count;
	(void)from;
	return EROFS;
}
static errcode_t nothing(io_channel c)
{
	(void)c;
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

static void note_unread(struct ext *e, const char *path, errcode_t error)
{
	scan_unread(e->volume, true, "%s: cannot be read (%ld)", path, (long)error);
}

static char *read_inode(struct ext *e, ext2_ino_t inode, uint64_t most, size_t *ret_bytes)
{
	ext2_file_t file;
	unsigned got = 0;
	__u64 size;
	char *text = NULL;

	if (ext2fs_file_open(e->fs, inode, 0, &file))
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
	struct ext *e = context;
	ext2_ino_t inode;

	errcode_t error = ext2fs_namei_follow(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode);
	char *text = error ? NULL : read_inode(e, inode, FILE_BYTES, ret_bytes);

	if (!text && error != EXT2_ET_FILE_NOT_FOUND && error != EXT2_ET_NO_DIRECTORY)
		note_unread(e, path, error);
	return text;
}

static bool digest_file(struct ext *e, ext2_ino_t inode, char text[65])
{
	crypto_generichash_state state;
	uint8_t digest[32];
	ext2_file_t file;
	unsigned got = 0;
	errcode_t error;

	if (ext2fs_file_open(e->fs, inode, 0, &file))
		return false;
	crypto_generichash_init(&state, NULL, 0, sizeof(digest));
	do {
		error = ext2fs_file_read(file, e->buffer, BUFFER_BYTES, &got);
		crypto_generichash_update(&state, e->buffer, got);
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
static void note_file(struct ext *e, ext2_ino_t inode, const struct ext2_inode *i)
{
	uint64_t bytes = EXT2_I_SIZE(i);
	json_t *entry = json_pack("[I, I]", (json_int_t)bytes, (json_int_t)i->i_ctime);
	const json_t *before = json_object_get(e->volume->before, e->path);
	const char *known = json_string_value(json_array_get(before, 2));
	char digest[65];

	if (e->volume->options->digests) {
		if (known && is_value(before, 0, (json_int_t)bytes) &&
		    is_value(before, 1, (json_int_t)i->i_ctime))
			json_array_append_new(entry, json_string(known));
		else if (digest_file(e, inode, digest))
			json_array_append_new(entry, json_string(digest));
	}
	if (json_object_set(e->files, e->path, entry)) { /* a name that is no UTF-8 */
		json_t *path = scan_text(e->path);

		json_object_set(e->files, json_string_value(path), entry);
		json_decref(path);
	}
	json_decref(entry);
}

static int visit(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block,
		 void *context);

static void walk(struct ext *e, ext2_ino_t directory)
{
	errcode_t error = 0;

	if (directory > e->inodes || e->depth >= DEPTH) {
		note_unread(e, e->path, EXT2_ET_BAD_INODE_NUM);
		return;
	}
	if (e->entered[directory / 8] >> (directory & 7) & 1) {
		scan_unread(e->volume, true, "%s: is a directory that another name leads to",
			    e->path);
		return;
	}
	e->entered[directory / 8] |= (uint8_t)(1 << (directory & 7));
	e->depth++;
	error = ext2fs_dir_iterate(e->fs, directory, 0, NULL, visit, e);
	if (error)
		note_unread(e, e->path[0] ? e->path : "/", error);
	e->depth--;
}

static void note_kernel(struct ext *e, const char *name)
{
	json_t *kernels = json_object_get(e->volume->content, "kernels");

	if (!strncmp(e->path, "/boot/vmlinuz-", 14) && !strchr(e->path + 6, '/') &&
	    json_array_size(kernels) < 64)
		json_array_append_new(kernels, json_string(name + 8));
}

static int visit(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block,
		 void *context)
{
	struct ext *e = context;
	size_t used = strlen(e->path);
	size_t length = (size_t)ext2fs_dirent_name_len(entry);
	struct ext2_inode inode;
	errcode_t error;

	(void)offset;
	(void)block_bytes;
	(void)block;
	if ((length == 1 && entry->name[0] == '.') ||
	    (length == 2 && !memcmp(entry->name, "..", 2)))
		return 0;
	if (used + length + 2 > sizeof(e->path))
		return 0;
	if (++e->count > FILES_MAX) {
		if (e->count == FILES_MAX + 1)
			scan_unread(e->volume, true, "has more than %d names", FILES_MAX);
		return DIRENT_ABORT;
	}
	error = ext2fs_read_inode(e->fs, entry->inode, &inode);
	if (error) {
		note_unread(e, e->path, error);
		return 0;
	}
	e->path[used] = '/';
	memcpy(e->path + used + 1, entry->name, length);
	e->path[used + 1 + length] = 0;
	if (LINUX_S_ISREG(inode.i_mode)) {
		note_kernel(e, e->path + used + 1);
		if (!e->kernels_only)
			note_file(e, entry->inode, &inode);
	} else if (LINUX_S_ISDIR(inode.i_mode) && !e->kernels_only) {
		walk(e, entry->inode);
	}
	e->path[used] = 0;
	return 0;
}

static void walk_boot(struct ext *e)
{
	ext2_ino_t inode;

	if (ext2fs_namei(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, "/boot", &inode))
		return;
	strcpy(e->path, "/boot");
	e->kernels_only = true;
	walk(e, inode);
}

static bool open_volume(struct ext *e, struct scan_volume *v)
{
	char name[32];

	snprintf(name, sizeof(name), "%p", (void *)v);
	return !ext2fs_open2(name, NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0,
			     &manager, &e->fs);
}

bool scan_ext(struct scan_volume *v)
{
	struct ext e = { .volume = v,
			 .files = json_object_get(v->content, "files"),
			 .buffer = malloc(BUFFER_BYTES) };
	struct scan_reader reader = { .read = read_path, .context = &e };
	uint64_t bytes;
	bool found = false;

	if (!e.buffer || !open_volume(&e, v)) {
		scan_unread(v, true, "its file system cannot be opened");
		free(e.buffer);
		return false;
	}
	e.inodes = e.fs->super->s_inodes_count;
	e.entered = calloc(1, (size_t)e.inodes / 8 + 1);
	bytes = ext2fs_blocks_count(e.fs->super) * e.fs->blocksize;
	if (bytes > v->bytes)
		scan_unread(v, true,
			    "is cut off: a file system of %lu bytes, of which %lu are there", bytes,
			    v->bytes);
	found = e.entered && scan_os(v, &reader);
	if (e.entered && v->options->files)
		walk(&e, EXT2_ROOT_INO);
	else if (e.entered)
		walk_boot(&e);
	ext2fs_free(e.fs);
	free(e.entered);
	free(e.buffer);
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
	struct newest *n = context;
	char version[SCAN_BOOT_VERSION_BYTES] = "";

	(void)offset;
	(void)block_bytes;
	(void)block;
	if (++n->count > FILES_MAX)
		return DIRENT_ABORT;
	if (length <= skip || length - skip >= sizeof(version) || memcmp(entry->name, before, skip))
		return 0;
	memcpy(version, entry->name + skip, length - skip);
	if (strstr(version, "rescue") || strstr(version, ".dpkg-") || strchr(version, '%') ||
	    strchr(version, '/'))
		return 0;
	if (!n->version[0] || version_compare(version, n->version) > 0)
		memcpy(n->version, version, sizeof(version));
	return 0;
}

static char *read_at(struct ext *e, const char *directory, const char *format, const char *version,
		     uint64_t most, size_t *ret_bytes)
{
	char name[SCAN_BOOT_VERSION_BYTES + 32], path[SCAN_BOOT_VERSION_BYTES + 64];
	ext2_ino_t inode;

	snprintf(name, sizeof(name), format, version);
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (ext2fs_namei_follow(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode))
		return NULL;
	return read_inode(e, inode, most, ret_bytes);
}

/* directory: "": the top */
static void find_kernel(struct ext *e, const char *directory, struct scan_boot *ret)
{
	static const char *const initrds[] = { "initrd.img-%s", "initramfs-%s.img", "initrd-%s",
					       "initramfs-%s" };
	struct newest n = { 0 };
	ext2_ino_t inode;

	if (ext2fs_namei(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, directory[0] ? directory : "/",
			 &inode))
		return;
	ext2fs_dir_iterate(e->fs, inode, 0, NULL, visit_kernel, &n);
	ret->kernel = n.version[0] ? read_at(e, directory, "vmlinuz-%s", n.version,
					     SCAN_KERNEL_BYTES, &ret->kernel_bytes)
				   : NULL;
	if (!ret->kernel)
		return;
	memcpy(ret->version, n.version, sizeof(ret->version));
	for (size_t k = 0; k < sizeof(initrds) / sizeof(initrds[0]) && !ret->initrd; k++)
		ret->initrd = read_at(e, directory, initrds[k], n.version, SCAN_INITRD_BYTES,
				      &ret->initrd_bytes);
}

static bool is_there(struct ext *e, const char *path)
{
	ext2_ino_t inode;

	return !ext2fs_namei_follow(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode);
}

bool scan_ext_boot(struct scan_volume *v, struct scan_boot *ret)
{
	struct ext e = { .volume = v };
	const uint8_t *u;

	*ret = (struct scan_boot){ 0 };
	if (!open_volume(&e, v))
		return false;
	u = e.fs->super->s_uuid;
	snprintf(ret->uuid, sizeof(ret->uuid),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		 u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
		 u[15]);
	ret->is_root = is_there(&e, "/etc/os-release") || is_there(&e, "/sbin/init");
	find_kernel(&e, "/boot", ret);
	if (!ret->kernel && !ret->is_root)
		find_kernel(&e, "", ret);
	ext2fs_free(e.fs);
	return true;
}
