/*
 * ext2, ext3, ext4 by libext2fs, which reads through the disk: nothing is mounted, and the journal is not replayed (what lies in it
 * alone is not seen).
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "scan_internal.h"

enum { DEPTH = 48, FILES_MAX = 2000000, FILE_BYTES = 64 << 20, PATH_BYTES = 4096, BUFFER_BYTES = 1 << 20 };

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

static errcode_t read_blocks32(io_channel c, unsigned long block, int count, void *to) { return read_blocks(c, block, count, to); }
static errcode_t no_write(io_channel c, unsigned long block, int count, const void *from) { return (void)c, (void)block, (void)count, (void)from, EROFS; }
static errcode_t no_write64(io_channel c, unsigned long long block, int count, const void *from) { return (void)c, (void)block, (void)count, (void)from, EROFS; }
static errcode_t nothing(io_channel c) { return (void)c, 0; }

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER, .name = "umbra", .open = volume_open, .close = volume_close, .set_blksize = volume_block_size, .read_blk = read_blocks32,
	.write_blk = no_write, .flush = nothing, .read_blk64 = read_blocks, .write_blk64 = no_write64,
};

/* ---- files ---- */

struct ext { struct scan_volume *volume; ext2_filsys fs; json_t *files; uint8_t *buffer; char path[PATH_BYTES]; unsigned depth, count; bool kernels_only; };

static char *read_inode(struct ext *e, ext2_ino_t inode, size_t *ret_bytes)
{
	ext2_file_t file;
	unsigned got = 0;
	__u64 size;
	char *text = NULL;

	if (ext2fs_file_open(e->fs, inode, 0, &file))
		return NULL;
	if (!ext2fs_file_get_lsize(file, &size) && size <= FILE_BYTES)
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

	if (ext2fs_namei_follow(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode))
		return NULL;
	return read_inode(e, inode, ret_bytes);
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

static bool is_value(const json_t *array, size_t n, json_int_t value) { return json_integer_value(json_array_get(array, n)) == value; }

/* [bytes, time of change, digest]: with the same bytes and times as in the last scan its digest is taken over. */
static void note_file(struct ext *e, ext2_ino_t inode, const struct ext2_inode *i)
{
	uint64_t bytes = EXT2_I_SIZE(i);
	json_t *entry = json_pack("[I, I]", (json_int_t)bytes, (json_int_t)i->i_ctime);
	const json_t *before = json_object_get(e->volume->before, e->path);
	const char *known = json_string_value(json_array_get(before, 2));
	char digest[65];

	if (e->volume->options->digests) {
		if (known && is_value(before, 0, (json_int_t)bytes) && is_value(before, 1, (json_int_t)i->i_ctime))
			json_array_append_new(entry, json_string(known));
		else if (digest_file(e, inode, digest))
			json_array_append_new(entry, json_string(digest));
	}
	if (json_object_set_new(e->files, e->path, entry))
		e->count++; /* a name that is no UTF-8: it is counted and not listed */
}

static int visit(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block, void *context);

static void walk(struct ext *e, ext2_ino_t directory)
{
	if (e->depth++ < DEPTH)
		ext2fs_dir_iterate(e->fs, directory, 0, NULL, visit, e);
	e->depth--;
}

static void note_kernel(struct ext *e, const char *name)
{
	json_t *kernels = json_object_get(e->volume->content, "kernels");

	if (!strncmp(e->path, "/boot/vmlinuz-", 14) && !strchr(e->path + 6, '/') && json_array_size(kernels) < 64)
		json_array_append_new(kernels, json_string(name + 8));
}

static int visit(struct ext2_dir_entry *entry, int offset, int block_bytes, char *block, void *context)
{
	struct ext *e = context;
	size_t used = strlen(e->path), length = (size_t)ext2fs_dirent_name_len(entry);
	struct ext2_inode inode;

	(void)offset, (void)block_bytes, (void)block;
	if ((length == 1 && entry->name[0] == '.') || (length == 2 && !memcmp(entry->name, "..", 2)))
		return 0;
	if (used + length + 2 > sizeof(e->path) || ++e->count > FILES_MAX || ext2fs_read_inode(e->fs, entry->inode, &inode))
		return e->count > FILES_MAX ? DIRENT_ABORT : 0;
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

bool scan_ext(struct scan_volume *v)
{
	struct ext e = { .volume = v, .files = json_object_get(v->content, "files"), .buffer = malloc(BUFFER_BYTES) };
	struct scan_reader reader = { read_path, &e };
	char name[32];
	bool found = false;

	snprintf(name, sizeof(name), "%p", (void *)v);
	if (!e.buffer || ext2fs_open2(name, NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0, &manager, &e.fs)) {
		free(e.buffer);
		return false;
	}
	found = scan_os(v, &reader);
	if (v->options->files)
		walk(&e, EXT2_ROOT_INO);
	else
		walk_boot(&e);
	ext2fs_free(e.fs);
	free(e.buffer);
	return found;
}
