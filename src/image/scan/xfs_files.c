/*
 * Files, directories and symbolic links of XFS (xfs.h), for scans. The log is not replayed: what
 * lies in it alone is not seen. (Source: "XFS Algorithms & Data Structures", 3rd edition, chapters
 * on directories and symbolic links.)
 *
 *   directory, short:  in the inode: count, wide, parent, {length, offset, name, [type], inode}...
 *   block:             one directory block: head, entries, leaf, tail
 *   leaf, node:        data blocks (below 32 GiB of the directory's own addresses); the rest is an
 *                      index, which is not needed here
 *   entry:             inode, length, name, [type], where it begins; rounded up to 8 bytes
 *
 * Bounds: a file has at most EXTENTS extents, in order; a directory block that has checksums says
 * which directory it is of, and where it lies.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "scan_tree.h"
#include "xfs.h"

enum { EXTENTS = 1 << 20, PIECE_BYTES = 1 << 20, LINK_HEAD_BYTES = 56, TAIL_BYTES = 8 };
#define BLOCK_MAGIC 0x58443242u /* XD2B */
#define DATA_MAGIC 0x58443244u
#define BLOCK_MAGIC_SUMS 0x58444233u /* XDB3 */
#define DATA_MAGIC_SUMS 0x58444433u
#define LINK_MAGIC 0x58534c4du /* XSLM */
#define INDEX_BEGINS_BYTES (32ull << 30)
#define NOT_USED 0xffffu

struct files { struct xfs xfs; const char *why; };

/* ---- where a file lies ---- */

struct places { struct xfs_extent *extent; size_t count, room; };

static int add_place(void *context, const struct xfs_extent *extent)
{
	struct places *places = context;
	const struct xfs_extent *last =
		places->count ? &places->extent[places->count - 1] : NULL;

	if (last && extent->file_block < last->file_block + last->count)
		return -EBADMSG;
	if (places->count == EXTENTS)
		return -ELOOP;
	if (places->count == places->room) {
		size_t room = places->room ? 2 * places->room : 16;
		void *more = realloc(places->extent, room * sizeof(*places->extent));

		if (!more)
			return -ENOMEM;
		places->extent = more;
		places->room = room;
	}
	places->extent[places->count++] = *extent;
	return 0;
}

/* places->extent is to be freed in any case. */
static int find_places(struct files *files, const struct xfs_inode *inode, struct places *places)
{
	*places = (struct places){ 0 };
	if (inode->is_realtime) {
		files->why = "lies on a realtime device";
		return -ENOTSUP;
	}
	return xfs_each_extent(&files->xfs, inode, false,
			       &(struct xfs_extents){ .extent = add_place, .context = places });
}

/* The block of the volume with a file's block; false: a hole. *at goes up from call to call. */
static bool block_at(const struct places *places, size_t *at, uint64_t file_block, uint64_t *ret)
{
	while (*at < places->count &&
	       places->extent[*at].file_block + places->extent[*at].count <= file_block)
		++*at;
	if (*at == places->count || places->extent[*at].file_block > file_block)
		return false;
	*ret = places->extent[*at].block + (file_block - places->extent[*at].file_block);
	return true;
}

/* ---- content ---- */

struct sender {
	struct files *files;
	const struct scan_pieces *tell;
	uint8_t *buffer;
	uint64_t at, bytes; /* in the file; its length */
};

static int send_zeros(struct sender *sender, uint64_t to)
{
	uint64_t bytes = to < sender->bytes ? to : sender->bytes;

	if (bytes <= sender->at)
		return 0;
	bytes -= sender->at;
	sender->at += bytes;
	return sender->tell->piece(sender->tell->context, NULL, bytes);
}

static int send_extent(struct sender *sender, const struct xfs_extent *extent)
{
	struct xfs *xfs = &sender->files->xfs;
	const uint32_t most = PIECE_BYTES >> xfs->block_log;
	int error = send_zeros(sender, extent->file_block << xfs->block_log);

	if (!error && extent->unwritten)
		return send_zeros(sender, (extent->file_block + extent->count) << xfs->block_log);
	for (uint64_t done = 0; done < extent->count && sender->at < sender->bytes && !error;) {
		uint64_t left = extent->count - done;
		uint32_t blocks = left < most ? (uint32_t)left : most;
		uint64_t bytes = (uint64_t)blocks << xfs->block_log;

		/* not of the budget: whoever takes it bounds it */
		error = volume_read(xfs->volume, (extent->block + done) << xfs->block_log,
				    sender->buffer, bytes);
		bytes = bytes < sender->bytes - sender->at ? bytes : sender->bytes - sender->at;
		if (!error)
			error = sender->tell->piece(sender->tell->context, sender->buffer, bytes);
		sender->at += bytes;
		done += blocks;
	}
	return error;
}

static int send_file(struct files *files, const struct xfs_inode *inode,
		     const struct scan_pieces *tell)
{
	struct sender sender = {
		.files = files, .tell = tell, .buffer = malloc(PIECE_BYTES), .bytes = inode->bytes
	};
	struct places places = { 0 };
	int error = sender.buffer ? find_places(files, inode, &places) : -ENOMEM;

	if (inode->format == XFS_LOCAL)
		error = -EBADMSG;
	for (size_t n = 0; n < places.count && !error; n++)
		error = send_extent(&sender, &places.extent[n]);
	if (!error)
		error = send_zeros(&sender, inode->bytes);
	free(places.extent);
	free(sender.buffer);
	return error;
}

/* ---- symbolic links ---- */

/* One block of a link that is not in the inode: how much of it is text, and where. */
static int check_link(const struct xfs *xfs, const struct xfs_inode *inode, const uint8_t *block,
		      uint64_t at, uint32_t *ret_head, uint32_t *ret_bytes)
{
	*ret_head = 0;
	*ret_bytes = xfs->block_bytes;
	if (!xfs->has_sums)
		return 0;
	*ret_head = LINK_HEAD_BYTES;
	*ret_bytes = xfs_32(block + 8);
	if (xfs_32(block) != LINK_MAGIC || xfs_32(block + 4) != at ||
	    *ret_bytes > xfs->block_bytes - LINK_HEAD_BYTES || !*ret_bytes ||
	    xfs_64(block + 32) != inode->number ||
	    !xfs_sum_holds(xfs, block, xfs->block_bytes, 12))
		return -EBADMSG;
	return 0;
}

static int send_link_blocks(struct files *files, const struct xfs_inode *inode,
			    const struct places *places, const struct scan_pieces *tell)
{
	uint8_t *block = malloc(files->xfs.block_bytes);
	uint64_t at = 0;
	size_t place = 0;
	int error = block ? 0 : -ENOMEM;

	for (uint64_t n = 0; at < inode->bytes && !error; n++) {
		uint64_t number;
		uint32_t head, bytes;

		error = block_at(places, &place, n, &number)
				? xfs_read_blocks(&files->xfs, number, 1, block)
				: -EBADMSG;
		if (!error)
			error = check_link(&files->xfs, inode, block, at, &head, &bytes);
		if (error)
			break;
		bytes = bytes < inode->bytes - at ? bytes : (uint32_t)(inode->bytes - at);
		error = tell->piece(tell->context, block + head, bytes);
		at += bytes;
	}
	free(block);
	return error;
}

static int send_link(struct files *files, const struct xfs_inode *inode,
		     const struct scan_pieces *tell)
{
	struct places places;
	int error;

	if (inode->format == XFS_LOCAL)
		return inode->bytes > inode->data_bytes
			       ? -EBADMSG
			       : tell->piece(tell->context, inode->raw + inode->data_at,
					     inode->bytes);
	if (inode->bytes > SCAN_LINK_BYTES)
		return -EBADMSG;
	error = find_places(files, inode, &places);
	if (!error)
		error = send_link_blocks(files, inode, &places, tell);
	free(places.extent);
	return error;
}

/* ---- directories ---- */

static int tell_short(const struct files *files, const struct xfs_inode *inode,
		      const struct scan_names *tell)
{
	const uint8_t *all = inode->raw + inode->data_at;
	const uint32_t number_bytes = all[1] ? 8 : 4;
	const uint32_t type_bytes = files->xfs.has_file_types ? 1 : 0;
	const uint64_t bytes = inode->bytes < inode->data_bytes ? inode->bytes : inode->data_bytes;
	uint64_t at = 2 + number_bytes;
	int error = 0;

	for (unsigned n = 0; n < all[0] && !error; n++) {
		uint64_t length = at < bytes ? all[at] : 0;
		const uint8_t *number = all + at + 3 + length + type_bytes;

		if (!length || at + 3 + length + type_bytes + number_bytes > bytes)
			return -EBADMSG;
		error = tell->name(tell->context, (const char *)all + at + 3, length,
				   number_bytes == 8 ? xfs_64(number) : xfs_32(number), false);
		at += 3 + length + type_bytes + number_bytes;
	}
	return error;
}

/* Where the entries of a directory block are. */
static int check_block(const struct xfs *xfs, const struct xfs_inode *inode, const uint8_t *block,
		       uint64_t number, uint32_t *ret_begin, uint32_t *ret_end)
{
	const uint32_t bytes = xfs->block_bytes << xfs->directory_log;
	bool one = xfs_32(block) == (xfs->has_sums ? BLOCK_MAGIC_SUMS : BLOCK_MAGIC);
	uint64_t leaves = xfs_32(block + bytes - TAIL_BYTES);

	if (!one && xfs_32(block) != (xfs->has_sums ? DATA_MAGIC_SUMS : DATA_MAGIC))
		return -EBADMSG;
	if (xfs->has_sums && (!xfs_sum_holds(xfs, block, bytes, 4) ||
			      xfs_64(block + 8) != number << (xfs->block_log - 9) ||
			      xfs_64(block + 40) != inode->number))
		return -EBADMSG;
	*ret_begin = xfs->has_sums ? 64 : 16;
	*ret_end = bytes;
	if (one && leaves > (bytes - *ret_begin - TAIL_BYTES) / 8)
		return -EBADMSG;
	if (one)
		*ret_end = bytes - TAIL_BYTES - (uint32_t)leaves * 8;
	return 0;
}

static int tell_block(const struct xfs *xfs, const uint8_t *block, uint32_t at, uint32_t end,
		      const struct scan_names *tell)
{
	const uint32_t type_bytes = xfs->has_file_types ? 1 : 0;
	int error = 0;

	while (at < end && !error) {
		bool used = end - at >= 12 && xfs_16(block + at) != NOT_USED;
		uint32_t bytes = end - at < 8 ? 0 : xfs_16(block + at + 2);

		if (used)
			bytes = (8u + 1 + block[at + 8] + type_bytes + 2 + 7) & ~7u;
		if (bytes < 8 || bytes & 7 || bytes > end - at ||
		    (used ? !block[at + 8] : xfs_16(block + at) != NOT_USED))
			return -EBADMSG;
		if (used)
			error = tell->name(tell->context, (const char *)block + at + 9,
					   block[at + 8], xfs_64(block + at), false);
		at += bytes;
	}
	return error;
}

/* A directory block; its blocks of the volume need not lie together. -ENODATA: some are missing. */
static int read_block(struct xfs *xfs, const struct places *places, size_t *place, uint64_t first,
		      uint8_t *to, uint64_t *ret_number)
{
	int error = 0;

	for (uint32_t n = 0; n < 1u << xfs->directory_log && !error; n++) {
		uint64_t number;

		if (!block_at(places, place, first + n, &number))
			return -ENODATA;
		if (!n)
			*ret_number = number;
		error = xfs_read_blocks(xfs, number, 1, to + ((size_t)n << xfs->block_log));
	}
	return error;
}

static int tell_blocks(struct files *files, const struct xfs_inode *inode,
		       const struct places *places, const struct scan_names *tell)
{
	struct xfs *xfs = &files->xfs;
	const uint64_t index = INDEX_BEGINS_BYTES >> xfs->block_log;
	const uint64_t step = 1ull << xfs->directory_log;
	uint8_t *block = malloc((size_t)xfs->block_bytes << xfs->directory_log);
	uint64_t next = 0;
	size_t place = 0;
	int error = block ? 0 : -ENOMEM;

	for (size_t n = 0; n < places->count && !error; n++) {
		const struct xfs_extent *extent = &places->extent[n];
		uint64_t end = extent->file_block + extent->count;

		if (next < extent->file_block)
			next = extent->file_block & ~(step - 1);
		for (; next < end && next < index && !error; next += step) {
			uint32_t begin, stop;
			uint64_t number;

			error = read_block(xfs, places, &place, next, block, &number);
			if (!error)
				error = check_block(xfs, inode, block, number, &begin, &stop);
			if (!error)
				error = tell_block(xfs, block, begin, stop, tell);
		}
	}
	free(block);
	return error == -ENODATA ? -EBADMSG : error;
}

/* ---- as a tree ---- */

static int xfs_node(void *context, uint64_t number, struct scan_node *ret)
{
	struct files *files = context;
	struct xfs_inode inode;
	int error = xfs_read_inode(&files->xfs, number, &inode);

	files->why = "";
	*ret = (struct scan_node){ .number = number,
				   .bytes = inode.bytes,
				   .change_seconds = inode.change_seconds,
				   .mode = inode.mode };
	if (!error && inode.bytes > INT64_MAX)
		error = -EBADMSG;
	return error == -ENOENT ? -EBADMSG : error; /* a name led here */
}

static int xfs_names(void *context, const struct scan_node *directory,
		     const struct scan_names *tell)
{
	struct files *files = context;
	struct xfs_inode inode;
	struct places places = { 0 };
	int error = xfs_read_inode(&files->xfs, directory->number, &inode);

	files->why = "";
	if (!error && inode.format == XFS_LOCAL)
		return inode.data_bytes < 6 ? -EBADMSG : tell_short(files, &inode, tell);
	if (!error)
		error = find_places(files, &inode, &places);
	if (!error)
		error = tell_blocks(files, &inode, &places, tell);
	free(places.extent);
	return error;
}

static int xfs_content(void *context, const struct scan_node *file, const struct scan_pieces *tell)
{
	struct files *files = context;
	struct xfs_inode inode;
	int error = xfs_read_inode(&files->xfs, file->number, &inode);

	files->why = "";
	if (!error && inode.bytes != file->bytes)
		error = -EBADMSG; /* the disk has changed since */
	if (error)
		return error;
	return S_ISLNK(inode.mode) ? send_link(files, &inode, tell)
				   : send_file(files, &inode, tell);
}

static const char *xfs_why(void *context) { return ((const struct files *)context)->why; }

static const char *open_files(const struct scan_volume *volume, struct files *files, int *ret_error)
{
	*ret_error = xfs_open(volume, &files->xfs);
	if (*ret_error == -ENOTSUP)
		return "has features that are not known here";
	if (*ret_error)
		return "its superblock is not sound";
	if (!files->xfs.not_finished)
		return NULL;
	*ret_error = -EUCLEAN;
	return "mkfs.xfs or xfs_repair was cut off";
}

static struct scan_tree tree_of(struct files *files)
{
	return (struct scan_tree){ .node = xfs_node,
				   .names = xfs_names,
				   .content = xfs_content,
				   .why = xfs_why,
				   .context = files,
				   .root = files->xfs.root_inode };
}

void scan_xfs_boot(struct scan_volume *volume, struct boot_search *search)
{
	struct files files = { .why = "" };
	struct scan_tree tree;
	int error;

	if (open_files(volume, &files, &error))
		return;
	tree = tree_of(&files);
	scan_tree_boot(&tree, files.xfs.uuid, 0, search);
}

bool scan_xfs(struct scan_volume *volume)
{
	struct files files = { .why = "" };
	struct scan_tree tree;
	int error;
	const char *why = open_files(volume, &files, &error);
	bool found;

	if (why) {
		scan_unread(volume, error != -ENOTSUP, "xfs: %s", why);
		return false;
	}
	if (files.xfs.blocks > volume->bytes >> files.xfs.block_log)
		scan_unread(volume, true,
			    "is cut off: a file system of %lu bytes, of which %lu are there",
			    files.xfs.blocks << files.xfs.block_log, volume->bytes);
	tree = tree_of(&files);
	found = scan_tree_system(volume, &tree);
	scan_tree_files(volume, &tree);
	return found;
}
