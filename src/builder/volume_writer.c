/* See volume_writer.h. */
#include "volume_writer.h"

#include <assert.h>
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

enum {
	PIECE_BYTES = 1 << 20, PATH_ROOM = 4096, TEXT_BYTES = 1 << 16, PERMISSIONS = 07777,
	OLD_DEVICE_NUMBERS = 256, FOLDER_MODE = 0755
};

struct volume_writer { ext2_filsys fs; uint8_t *piece; time_t now; };

/* Its own numbers are beyond errno's. */
static int error_of(errcode_t error)
{
	switch (error) {
	case 0: return 0;
	case EXT2_ET_BLOCK_ALLOC_FAIL: case EXT2_ET_INODE_ALLOC_FAIL: case EXT2_ET_EA_NO_SPACE:
		return -ENOSPC;
	case EXT2_ET_NO_MEMORY: return -ENOMEM;
	case EXT2_ET_FILE_NOT_FOUND: return -ENOENT;
	case EXT2_ET_NO_DIRECTORY: return -ENOTDIR;
	case EXT2_ET_DIR_EXISTS: case EXT2_ET_FILE_EXISTS: return -EEXIST;
	default: return error > 0 && error < EXT2_ET_BASE ? -(int)error : -EIO;
	}
}

int volume_writer_open(const char *path, struct volume_writer **ret)
{
	struct volume_writer *writer = calloc(1, sizeof(*writer));
	int error;

	assert(path);
	if (!writer)
		return -ENOMEM;
	writer->piece = malloc(PIECE_BYTES);
	writer->now = time(NULL);
	error = writer->piece ? error_of(ext2fs_open(path, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0,
						     unix_io_manager, &writer->fs))
			      : -ENOMEM;
	if (!error)
		error = error_of(ext2fs_read_bitmaps(writer->fs));
	*ret = writer;
	if (!error)
		return 0;
	if (writer->fs)
		ext2fs_free(writer->fs);
	free(writer->piece);
	free(writer);
	return error;
}

int volume_writer_close(struct volume_writer *writer)
{
	int error = error_of(ext2fs_close_free(&writer->fs));

	if (error && writer->fs)
		ext2fs_free(writer->fs);
	free(writer->piece);
	free(writer);
	return error;
}

void volume_writer_uuid(const struct volume_writer *writer, char ret[VOLUME_UUID_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *from = writer->fs->super->s_uuid;
	char *to = ret;

	for (unsigned n = 0; n < sizeof(writer->fs->super->s_uuid); n++) {
		if (n == 4 || n == 6 || n == 8 || n == 10)
			*to++ = '-';
		*to++ = digits[from[n] >> 4];
		*to++ = digits[from[n] & 15];
	}
	*to = 0;
}

/* ---- where it is ---- */

int volume_check_path(const char *path, char *ret, size_t room, size_t *ret_bytes)
{
	size_t used = 0;

	while (*path) {
		size_t bytes = strcspn(path, "/");

		if (bytes == 2 && !memcmp(path, "..", 2))
			return -EINVAL;
		if (bytes > VOLUME_NAME_BYTES || used + bytes + 2 > room)
			return -ENAMETOOLONG;
		if (bytes && !(bytes == 1 && *path == '.')) {
			if (used)
				ret[used++] = '/';
			memcpy(ret + used, path, bytes);
			used += bytes;
		}
		path += bytes;
		path += *path == '/';
	}
	ret[used] = 0;
	*ret_bytes = used;
	return 0;
}

/* An entry's folder and its name in there, which ends with a NUL. */
struct place { ext2_ino_t folder; char text[PATH_ROOM]; const char *name; };

static int read_mode(struct volume_writer *writer, ext2_ino_t number, unsigned *ret_mode)
{
	struct ext2_inode inode;
	int error = error_of(ext2fs_read_inode(writer->fs, number, &inode));

	*ret_mode = inode.i_mode;
	return error;
}

static int look_up(struct volume_writer *writer, ext2_ino_t folder, const char *name,
		   ext2_ino_t *ret)
{
	return error_of(
		ext2fs_lookup(writer->fs, folder, name, (int)strlen(name), NULL, ret));
}

static int link_into(struct volume_writer *writer, ext2_ino_t folder, const char *name,
		     ext2_ino_t number, int kind)
{
	errcode_t error = ext2fs_link(writer->fs, folder, name, number, kind);

	if (error != EXT2_ET_DIR_NO_SPACE)
		return error_of(error);
	error = ext2fs_expand_dir(writer->fs, folder);
	return error_of(error ? error : ext2fs_link(writer->fs, folder, name, number, kind));
}

/* How an entry is, but for its kind and what it holds. */
static void describe(struct ext2_inode *inode, const struct stat *st)
{
	inode->i_mode = (uint16_t)((inode->i_mode & ~PERMISSIONS) | (st->st_mode & PERMISSIONS));
	inode->i_uid = (uint16_t)st->st_uid;
	ext2fs_set_i_uid_high(*inode, st->st_uid >> 16);
	inode->i_gid = (uint16_t)st->st_gid;
	ext2fs_set_i_gid_high(*inode, st->st_gid >> 16);
	inode->i_mtime = inode->i_ctime = inode->i_atime = (uint32_t)st->st_mtim.tv_sec;
}

static int describe_at(struct volume_writer *writer, ext2_ino_t number, const struct stat *st)
{
	struct ext2_inode inode;
	int error = error_of(ext2fs_read_inode(writer->fs, number, &inode));

	if (error)
		return error;
	describe(&inode, st);
	return error_of(ext2fs_write_inode(writer->fs, number, &inode));
}

static int make_folder(struct volume_writer *writer, ext2_ino_t parent, const char *name,
		       const struct stat *st, ext2_ino_t *ret)
{
	errcode_t error = ext2fs_mkdir(writer->fs, parent, 0, name);
	int failed;

	if (error == EXT2_ET_DIR_NO_SPACE) {
		error = ext2fs_expand_dir(writer->fs, parent);
		if (!error)
			error = ext2fs_mkdir(writer->fs, parent, 0, name);
	}
	failed = error_of(error);
	if (!failed)
		failed = look_up(writer, parent, name, ret);
	return failed ? failed : describe_at(writer, *ret, st);
}

/* Into the folder of this name; one that is not there is made. */
static int enter(struct volume_writer *writer, ext2_ino_t *folder, const char *name)
{
	const struct stat st = { .st_mode = FOLDER_MODE, .st_mtim = { .tv_sec = writer->now } };
	ext2_ino_t next;
	unsigned mode;
	int error = look_up(writer, *folder, name, &next);

	if (error == -ENOENT)
		error = make_folder(writer, *folder, name, &st, &next);
	if (!error)
		error = read_mode(writer, next, &mode);
	if (!error && !LINUX_S_ISDIR(mode))
		error = -ENOTDIR;
	if (!error)
		*folder = next;
	return error;
}

/* -EISDIR: it is the top. */
static int find_place(struct volume_writer *writer, const char *path, struct place *ret)
{
	size_t bytes;
	int error = volume_check_path(path, ret->text, sizeof(ret->text), &bytes);
	char *at = ret->text;
	char *slash;

	ret->folder = EXT2_ROOT_INO;
	if (!error && !bytes)
		error = -EISDIR;
	while (!error && (slash = strchr(at, '/'))) {
		*slash = 0;
		error = enter(writer, &ret->folder, at);
		at = slash + 1;
	}
	ret->name = at;
	return error;
}

/* What is there already; -ENOENT. */
static int find(struct volume_writer *writer, const char *path, ext2_ino_t *ret)
{
	struct place place;
	int error = find_place(writer, path, &place);

	return error ? error : look_up(writer, place.folder, place.name, ret);
}

bool volume_has(struct volume_writer *writer, const char *path)
{
	ext2_ino_t number;

	return !find(writer, path, &number);
}

/* ---- what is replaced ---- */

static int drop_name(struct volume_writer *writer, const struct place *place, ext2_ino_t number)
{
	struct ext2_inode inode;
	int error = error_of(ext2fs_read_inode(writer->fs, number, &inode));

	if (!error && LINUX_S_ISDIR(inode.i_mode))
		return -EISDIR;
	if (!error)
		error = error_of(ext2fs_unlink(writer->fs, place->folder, place->name, number, 0));
	if (error)
		return error;
	if (--inode.i_links_count)
		return error_of(ext2fs_write_inode(writer->fs, number, &inode));
	if (ext2fs_inode_has_valid_blocks2(writer->fs, &inode))
		error = error_of(ext2fs_punch(writer->fs, number, &inode, NULL, 0, ~0ULL));
	inode.i_dtime = (uint32_t)writer->now;
	if (!error)
		error = error_of(ext2fs_write_inode(writer->fs, number, &inode));
	ext2fs_inode_alloc_stats2(writer->fs, number, -1, 0);
	return error;
}

/* The place of an entry, where nothing is. */
static int clear_place(struct volume_writer *writer, const char *path, struct place *ret)
{
	ext2_ino_t number;
	int error = find_place(writer, path, ret);

	if (error)
		return error;
	error = look_up(writer, ret->folder, ret->name, &number);
	if (error == -ENOENT)
		return 0;
	return error ? error : drop_name(writer, ret, number);
}

/* ---- entries ---- */

int volume_add_folder(struct volume_writer *writer, const char *path, const struct stat *st)
{
	struct place place;
	ext2_ino_t number = EXT2_ROOT_INO;
	int error = find_place(writer, path, &place);

	if (error == -EISDIR)
		return describe_at(writer, EXT2_ROOT_INO, st);
	if (!error)
		error = enter(writer, &place.folder, place.name);
	number = place.folder;
	return error ? error : describe_at(writer, number, st);
}

int volume_add_link(struct volume_writer *writer, const char *path, const struct stat *st,
		    const char *target)
{
	struct place place;
	ext2_ino_t number;
	int error = clear_place(writer, path, &place);
	errcode_t made;

	if (error)
		return error;
	made = ext2fs_symlink(writer->fs, place.folder, 0, place.name, target);
	if (made == EXT2_ET_DIR_NO_SPACE) {
		made = ext2fs_expand_dir(writer->fs, place.folder);
		if (!made)
			made = ext2fs_symlink(writer->fs, place.folder, 0, place.name, target);
	}
	error = error_of(made);
	if (!error)
		error = look_up(writer, place.folder, place.name, &number);
	return error ? error : describe_at(writer, number, st);
}

/* An inode with one name. kind: EXT2_FT_*. */
static int make_inode(struct volume_writer *writer, const struct place *place,
		      struct ext2_inode *inode, int kind, ext2_ino_t *ret)
{
	ext2_extent_handle_t extents;
	int error = error_of(
		ext2fs_new_inode(writer->fs, place->folder, inode->i_mode, NULL, ret));

	if (!error)
		error = link_into(writer, place->folder, place->name, *ret, kind);
	if (error)
		return error;
	ext2fs_inode_alloc_stats2(writer->fs, *ret, 1, 0);
	inode->i_links_count = 1;
	if (kind == EXT2_FT_REG_FILE && ext2fs_has_feature_extents(writer->fs->super)) {
		error = error_of(ext2fs_extent_open2(writer->fs, *ret, inode, &extents));
		if (error)
			return error;
		ext2fs_extent_free(extents);
	}
	return error_of(ext2fs_write_new_inode(writer->fs, *ret, inode));
}

int volume_add_device(struct volume_writer *writer, const char *path, const struct stat *st)
{
	const unsigned low = minor(st->st_rdev);
	const unsigned high = major(st->st_rdev);
	const bool is_block = S_ISBLK(st->st_mode);
	struct ext2_inode inode = { .i_mode = is_block ? LINUX_S_IFBLK : LINUX_S_IFCHR };
	struct place place;
	ext2_ino_t number;
	int error = clear_place(writer, path, &place);

	if (error)
		return error;
	describe(&inode, st);
	if (high < OLD_DEVICE_NUMBERS && low < OLD_DEVICE_NUMBERS)
		inode.i_block[0] = high * OLD_DEVICE_NUMBERS + low;
	else
		inode.i_block[1] = (low & 0xff) | high << 8 | (low & ~0xffu) << 12;
	return make_inode(writer, &place, &inode, is_block ? EXT2_FT_BLKDEV : EXT2_FT_CHRDEV,
			  &number);
}

static int file_kind(unsigned mode)
{
	if (LINUX_S_ISLNK(mode))
		return EXT2_FT_SYMLINK;
	if (LINUX_S_ISBLK(mode))
		return EXT2_FT_BLKDEV;
	return LINUX_S_ISCHR(mode) ? EXT2_FT_CHRDEV : EXT2_FT_REG_FILE;
}

int volume_add_name(struct volume_writer *writer, const char *path, const char *other)
{
	struct place place;
	struct ext2_inode inode;
	ext2_ino_t number;
	ext2_ino_t there;
	int error = find(writer, other, &number);

	if (!error)
		error = find_place(writer, path, &place);
	if (!error && !look_up(writer, place.folder, place.name, &there) && there == number)
		return 0;
	if (!error)
		error = clear_place(writer, path, &place);
	if (!error)
		error = error_of(ext2fs_read_inode(writer->fs, number, &inode));
	if (!error && LINUX_S_ISDIR(inode.i_mode))
		error = -EISDIR;
	if (!error)
		error = link_into(writer, place.folder, place.name, number,
				  file_kind(inode.i_mode));
	if (error)
		return error;
	inode.i_links_count++;
	return error_of(ext2fs_write_inode(writer->fs, number, &inode));
}

static int fill(struct volume_writer *writer, ext2_ino_t number, volume_source *source,
		void *context)
{
	ext2_file_t file;
	unsigned put;
	long got = 1;
	int error = error_of(ext2fs_file_open(writer->fs, number, EXT2_FILE_WRITE, &file));
	int closed;

	if (error)
		return error;
	while (!error && (got = source(context, writer->piece, PIECE_BYTES)) > 0) {
		error = error_of(
			ext2fs_file_write(file, writer->piece, (unsigned)got, &put));
		if (!error && put != (unsigned)got)
			error = -ENOSPC;
	}
	closed = error_of(ext2fs_file_close(file));
	if (!error && got < 0)
		error = (int)got;
	return error ? error : closed;
}

int volume_add_file(struct volume_writer *writer, const char *path, const struct stat *st,
		    volume_source *source, void *context)
{
	struct ext2_inode inode = { .i_mode = LINUX_S_IFREG };
	struct place place;
	ext2_ino_t number;
	int error = clear_place(writer, path, &place);

	if (error)
		return error;
	describe(&inode, st);
	error = make_inode(writer, &place, &inode, EXT2_FT_REG_FILE, &number);
	return error ? error : fill(writer, number, source, context);
}

struct text { const char *at; size_t left; };

static long read_text(void *context, void *to, size_t bytes)
{
	struct text *text = context;
	size_t part = bytes < text->left ? bytes : text->left;

	memcpy(to, text->at, part);
	text->at += part;
	text->left -= part;
	return (long)part;
}

int volume_add_text(struct volume_writer *writer, const char *path, unsigned mode,
		    const char *text)
{
	const struct stat st = { .st_mode = mode, .st_mtim = { .tv_sec = writer->now } };
	struct text source = { .at = text, .left = strlen(text) };

	return volume_add_file(writer, path, &st, read_text, &source);
}

int volume_add_attribute(struct volume_writer *writer, const char *path, const char *name,
			 const void *value, size_t bytes)
{
	struct ext2_xattr_handle *handle;
	ext2_ino_t number;
	int error = find(writer, path, &number);

	if (!error)
		error = error_of(ext2fs_xattrs_open(writer->fs, number, &handle));
	if (error)
		return error;
	error = error_of(ext2fs_xattrs_read(handle));
	if (!error)
		error = error_of(ext2fs_xattr_set(handle, name, value, bytes));
	ext2fs_xattrs_close(&handle);
	return error;
}

char *volume_read_text(struct volume_writer *writer, const char *path)
{
	char *text = calloc(1, TEXT_BYTES + 1);
	ext2_file_t file;
	ext2_ino_t number;
	unsigned got = 0;

	if (!text || find(writer, path, &number) ||
	    ext2fs_file_open(writer->fs, number, 0, &file)) {
		free(text);
		return NULL;
	}
	if (ext2fs_file_read(file, text, TEXT_BYTES, &got))
		got = 0;
	ext2fs_file_close(file);
	text[got] = 0;
	return text;
}
