/*
 * Files, directories and symbolic links of btrfs (btrfs.h), for scans: of the default subvolume, or
 * where that has no operating system of the first one that has. Other subvolumes are not looked
 * into. The log tree is not replayed: what lies in it alone is not seen.
 *
 *   a subvolume's tree:  inode N: INODE | of a directory: DIR_INDEX (name, where it leads to)...
 *                                       | of a file: EXTENT_DATA (in the item, or where it lies)...
 *
 * What is packed is unpacked with zlib or zstd, at most UNPACKED_BYTES at once; LZO is refused.
 * Data whose checksum is wrong is not used: of two copies the one where it is right. Data of files
 * without checksums (nodatacow) is taken as it is.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "btrfs.h"
#include "lib/crc32c.h"
#include "scan_tree.h"

enum {
	INODE_BYTES = 160,
	ENTRY_BYTES = 30,
	INLINE_BYTES = 21,
	EXTENT_BYTES = 53,
	UNPACKED_BYTES = 1 << 20,
	SECTOR_MIN_BYTES = 4096,
	SECTORS = UNPACKED_BYTES / SECTOR_MIN_BYTES,
	WINDOW_LOG = 20,
	SUBVOLUMES = 64,
	TOP = 5,
	ROOT_DIRECTORY = 256,
	FIRST_SUBVOLUME = 256
};
enum { PACKED_NOT, PACKED_ZLIB, PACKED_LZO, PACKED_ZSTD };
enum { EXTENT_INLINE, EXTENT_REGULAR, EXTENT_RESERVED };
#define LAST_SUBVOLUME (UINT64_MAX - 256)
#define SUM_OBJECT (UINT64_MAX - 9) /* -10 */
#define WITHOUT_SUMS 1u

struct files { struct btrfs btrfs; struct btrfs_tree tree; };

static int each_of(struct files *files, uint64_t inode, enum btrfs_type type,
		   int (*item)(void *context, const struct btrfs_key *key, const uint8_t *data,
			       uint32_t bytes),
		   void *context)
{
	return btrfs_each_item(&files->btrfs, &files->tree,
			       &(struct btrfs_items){
				       .from = { inode, (uint8_t)type, 0 },
				       .to = { inode, (uint8_t)type, UINT64_MAX },
				       .item = item,
				       .context = context });
}

/* ---- inodes ---- */

struct inode { struct scan_node node; uint64_t flags; bool found; };

static int take_inode(void *context, const struct btrfs_key *key, const uint8_t *data,
		      uint32_t bytes)
{
	struct inode *inode = context;

	if (bytes < INODE_BYTES || btrfs_64(data + 16) > INT64_MAX)
		return -EBADMSG;
	inode->node = (struct scan_node){ .number = key->object,
					  .bytes = btrfs_64(data + 16),
					  .change_seconds = btrfs_64(data + 124),
					  .mode = btrfs_32(data + 52) };
	inode->flags = btrfs_64(data + 64);
	inode->found = true;
	return 0;
}

static int read_inode(struct files *files, uint64_t number, struct inode *ret)
{
	int error;

	*ret = (struct inode){ 0 };
	files->btrfs.why[0] = 0;
	error = each_of(files, number, BTRFS_INODE, take_inode, ret);
	if (error || ret->found)
		return error;
	return btrfs_refuse(&files->btrfs, -EBADMSG, "there is no inode %lu", number);
}

/* ---- data with checksums ---- */

struct sums {
	struct files *files;
	uint64_t logical;
	uint32_t sum[SECTORS], sectors;
	bool known[SECTORS];
};

static int take_sums(void *context, const struct btrfs_key *key, const uint8_t *data,
		     uint32_t bytes)
{
	struct sums *sums = context;
	const uint32_t sector = sums->files->btrfs.sector_bytes;

	for (uint32_t n = 0; n < bytes / 4; n++) {
		uint64_t at = (key->offset + (uint64_t)n * sector - sums->logical) / sector;

		if (key->offset + (uint64_t)n * sector < sums->logical || at >= sums->sectors)
			continue;
		sums->sum[at] = btrfs_32(data + n * 4ull);
		sums->known[at] = true;
	}
	return 0;
}

static int find_sums(struct sums *sums)
{
	struct btrfs *btrfs = &sums->files->btrfs;
	/* what an item may begin before its last sector */
	const uint64_t reach = (uint64_t)btrfs->node_bytes / 4 * btrfs->sector_bytes;
	const uint64_t from = sums->logical > reach ? sums->logical - reach : 0;
	const uint64_t to = sums->logical + (uint64_t)sums->sectors * btrfs->sector_bytes - 1;

	return btrfs_each_item(btrfs, &btrfs->sums,
			       &(struct btrfs_items){
				       .from = { SUM_OBJECT, BTRFS_EXTENT_CSUM, from },
				       .to = { SUM_OBJECT, BTRFS_EXTENT_CSUM, to },
				       .item = take_sums,
				       .context = sums });
}

static bool sums_hold(const struct sums *sums, const uint8_t *data)
{
	const uint32_t sector = sums->files->btrfs.sector_bytes;

	for (uint32_t n = 0; n < sums->sectors; n++)
		if (sums->known[n] &&
		    crc32c(0, data + (size_t)n * sector, sector) != sums->sum[n])
			return false;
	return true;
}

/* Whole sectors, at most UNPACKED_BYTES. */
static int read_data(struct files *files, uint64_t logical, uint8_t *to, uint32_t bytes,
		     bool has_sums)
{
	struct btrfs *btrfs = &files->btrfs;
	struct sums sums = { .files = files,
			     .logical = logical,
			     .sectors = bytes / btrfs->sector_bytes };
	int error = 0;

	assert(bytes <= UNPACKED_BYTES && !(bytes % btrfs->sector_bytes));
	if (logical % btrfs->sector_bytes || logical > INT64_MAX)
		return btrfs_refuse(btrfs, -EBADMSG, "data at %lu", logical);
	if (has_sums && btrfs->has_sums)
		error = find_sums(&sums);
	for (unsigned copy = 0; !error; copy++) {
		error = btrfs_read(btrfs, logical, copy, to, bytes);
		if (!error && sums_hold(&sums, to))
			return 0;
	}
	return error == -ENOENT
		       ? btrfs_refuse(btrfs, -EBADMSG, "the checksum of data at %lu is wrong",
				      logical)
		       : error;
}

/* ---- what is packed ---- */

static bool unpack_zlib(const uint8_t *from, size_t bytes, uint8_t *to, size_t room)
{
	z_stream stream = { .next_in = (uint8_t *)(uintptr_t)from,
			    .avail_in = (uInt)bytes,
			    .next_out = to,
			    .avail_out = (uInt)room };
	int result;

	if (inflateInit(&stream) != Z_OK)
		return false;
	result = inflate(&stream, Z_SYNC_FLUSH);
	inflateEnd(&stream);
	return result == Z_STREAM_END || (result == Z_OK && !stream.avail_out);
}

static bool unpack_zstd(const uint8_t *from, size_t bytes, uint8_t *to, size_t room)
{
	ZSTD_DCtx *unpacker = ZSTD_createDCtx();
	ZSTD_inBuffer in = { .src = from, .size = bytes };
	ZSTD_outBuffer out = { .dst = to, .size = room };
	size_t result = 1;

	if (!unpacker)
		return false;
	ZSTD_DCtx_setParameter(unpacker, ZSTD_d_windowLogMax, WINDOW_LOG);
	while (result && !ZSTD_isError(result) && out.pos < room) {
		size_t before = in.pos + out.pos;

		result = ZSTD_decompressStream(unpacker, &out, &in);
		if (in.pos + out.pos == before)
			break;
	}
	ZSTD_freeDCtx(unpacker);
	return !result || out.pos == room;
}

/* What is missing behind the end of what was packed is zero. */
static int unpack(struct files *files, uint8_t kind, const uint8_t *from, size_t bytes, uint8_t *to,
		  size_t room)
{
	bool good;

	memset(to, 0, room);
	if (kind == PACKED_LZO)
		return btrfs_refuse(&files->btrfs, -ENOTSUP, "is compressed with LZO");
	if (kind != PACKED_ZLIB && kind != PACKED_ZSTD)
		return btrfs_refuse(&files->btrfs, -ENOTSUP, "is compressed in a way of kind %u",
				    kind);
	good = kind == PACKED_ZLIB ? unpack_zlib(from, bytes, to, room)
				   : unpack_zstd(from, bytes, to, room);
	return good ? 0 : btrfs_refuse(&files->btrfs, -EBADMSG, "what is compressed is not sound");
}

/* ---- content ---- */

struct sender {
	struct files *files;
	const struct scan_pieces *tell;
	uint8_t *packed, *plain; /* UNPACKED_BYTES each */
	uint64_t at, bytes;      /* in the file; its length */
	bool has_sums;
};
struct extent { uint64_t disk, disk_bytes, offset, bytes, unpacked_bytes; uint8_t packing; };

static int send_data(struct sender *sender, const void *data, uint64_t bytes)
{
	uint64_t left = sender->bytes - sender->at;

	bytes = bytes < left ? bytes : left;
	sender->at += bytes;
	return bytes ? sender->tell->piece(sender->tell->context, data, bytes) : 0;
}

static int send_zeros(struct sender *sender, uint64_t to)
{
	return to > sender->at ? send_data(sender, NULL, to - sender->at) : 0;
}

static int not_sound(struct sender *sender)
{
	return btrfs_refuse(&sender->files->btrfs, -EBADMSG, "its extent at %lu is not sound",
			    sender->at);
}

static int send_inline(struct sender *sender, const uint8_t *data, uint32_t bytes)
{
	uint64_t room = btrfs_64(data + 8);
	uint8_t packing = data[16];
	int error;

	if (packing == PACKED_NOT)
		return send_data(sender, data + INLINE_BYTES, bytes - INLINE_BYTES);
	if (room > UNPACKED_BYTES)
		return not_sound(sender);
	error = unpack(sender->files, packing, data + INLINE_BYTES, bytes - INLINE_BYTES,
		       sender->plain, room);
	return error ? error : send_data(sender, sender->plain, room);
}

static int send_packed(struct sender *sender, const struct extent *extent)
{
	int error;

	if (extent->disk_bytes > UNPACKED_BYTES || extent->unpacked_bytes > UNPACKED_BYTES ||
	    extent->disk_bytes % sender->files->btrfs.sector_bytes)
		return not_sound(sender);
	error = read_data(sender->files, extent->disk, sender->packed, (uint32_t)extent->disk_bytes,
			  sender->has_sums);
	if (!error)
		error = unpack(sender->files, extent->packing, sender->packed, extent->disk_bytes,
			       sender->plain, extent->unpacked_bytes);
	return error ? error : send_data(sender, sender->plain + extent->offset, extent->bytes);
}

static int send_plain(struct sender *sender, const struct extent *extent)
{
	const uint32_t sector = sender->files->btrfs.sector_bytes;
	int error = 0;

	if (extent->offset % sector || extent->bytes % sector)
		return not_sound(sender);
	for (uint64_t done = 0; done < extent->bytes && sender->at < sender->bytes && !error;) {
		uint64_t bytes = extent->bytes - done < UNPACKED_BYTES ? extent->bytes - done
								       : UNPACKED_BYTES;

		error = read_data(sender->files, extent->disk + extent->offset + done,
				  sender->plain, (uint32_t)bytes, sender->has_sums);
		if (!error)
			error = send_data(sender, sender->plain, bytes);
		done += bytes;
	}
	return error;
}

static int send_regular(struct sender *sender, const uint8_t *data)
{
	const struct extent extent = { .disk = btrfs_64(data + 21),
				       .disk_bytes = btrfs_64(data + 29),
				       .offset = btrfs_64(data + 37),
				       .bytes = btrfs_64(data + 45),
				       .unpacked_bytes = btrfs_64(data + 8),
				       .packing = data[16] };
	const uint64_t whole =
		extent.packing == PACKED_NOT ? extent.disk_bytes : extent.unpacked_bytes;

	if (extent.bytes > INT64_MAX - sender->at)
		return not_sound(sender);
	if (data[20] == EXTENT_RESERVED || !extent.disk)
		return send_zeros(sender, sender->at + extent.bytes);
	if (extent.offset > whole || extent.bytes > whole - extent.offset ||
	    extent.disk > INT64_MAX || extent.disk_bytes > INT64_MAX - extent.disk)
		return not_sound(sender);
	return extent.packing == PACKED_NOT ? send_plain(sender, &extent)
					    : send_packed(sender, &extent);
}

static int send_item(void *context, const struct btrfs_key *key, const uint8_t *data,
		     uint32_t bytes)
{
	struct sender *sender = context;
	int error;

	if (sender->at == sender->bytes) /* room behind the end */
		return 0;
	if (bytes < INLINE_BYTES || data[20] > EXTENT_RESERVED || key->offset < sender->at ||
	    (data[20] != EXTENT_INLINE && bytes < EXTENT_BYTES))
		return not_sound(sender);
	if (data[17] || btrfs_16(data + 18))
		return btrfs_refuse(&sender->files->btrfs, -ENOTSUP, "is encrypted");
	error = send_zeros(sender, key->offset);
	if (error || sender->at == sender->bytes)
		return error;
	return data[20] == EXTENT_INLINE ? send_inline(sender, data, bytes)
					 : send_regular(sender, data);
}

static int send_file(struct files *files, const struct inode *inode, const struct scan_pieces *tell)
{
	uint8_t *room = malloc(2 * (size_t)UNPACKED_BYTES);
	struct sender sender = { .files = files,
				 .tell = tell,
				 .packed = room,
				 .plain = room ? room + UNPACKED_BYTES : NULL,
				 .bytes = inode->node.bytes,
				 .has_sums = !(inode->flags & WITHOUT_SUMS) };
	int error = room ? each_of(files, inode->node.number, BTRFS_EXTENT_DATA, send_item, &sender)
			 : -ENOMEM;

	if (!error)
		error = send_zeros(&sender, sender.bytes);
	free(room);
	return error;
}

/* ---- directories ---- */

struct teller { struct files *files; const struct scan_names *tell; };

static int tell_entry(void *context, const struct btrfs_key *key, const uint8_t *data,
		      uint32_t bytes)
{
	const struct teller *teller = context;
	uint32_t length = bytes < ENTRY_BYTES ? 0 : btrfs_16(data + 27);
	struct btrfs_key leads_to;

	if (!length || length > SCAN_NAME_BYTES || length > bytes - ENTRY_BYTES)
		return btrfs_refuse(&teller->files->btrfs, -EBADMSG,
				    "a name in the directory %lu is not sound", key->object);
	leads_to = btrfs_key_at(data);
	return teller->tell->name(teller->tell->context, (const char *)data + ENTRY_BYTES, length,
				  leads_to.object, leads_to.type != BTRFS_INODE);
}

/* ---- as a tree ---- */

static int btrfs_node(void *context, uint64_t number, struct scan_node *ret)
{
	struct inode inode;
	int error = read_inode(context, number, &inode);

	*ret = inode.node;
	return error;
}

static int btrfs_names(void *context, const struct scan_node *directory,
		       const struct scan_names *tell)
{
	struct teller teller = { .files = context, .tell = tell };

	teller.files->btrfs.why[0] = 0;
	return each_of(teller.files, directory->number, BTRFS_DIR_INDEX, tell_entry, &teller);
}

static int btrfs_content(void *context, const struct scan_node *file,
			 const struct scan_pieces *tell)
{
	struct inode inode;
	int error = read_inode(context, file->number, &inode);

	if (!error && inode.node.bytes != file->bytes)
		error = -EBADMSG; /* the disk has changed since */
	return error ? error : send_file(context, &inode, tell);
}

static const char *btrfs_why(void *context) { return ((const struct files *)context)->btrfs.why; }

/* ---- subvolumes ---- */

static int take_default(void *context, const struct btrfs_key *key, const uint8_t *data,
			uint32_t bytes)
{
	static const char name[] = "default";
	const uint32_t length = sizeof(name) - 1;

	(void)key;
	if (bytes >= ENTRY_BYTES + length && btrfs_16(data + 27) == length &&
	    !memcmp(data + ENTRY_BYTES, name, length))
		*(uint64_t *)context = btrfs_64(data);
	return 0;
}

static int find_default(struct btrfs *btrfs, uint64_t *ret)
{
	const uint64_t directory = 6; /* of the tree of roots */

	*ret = TOP;
	return btrfs_each_item(btrfs, &btrfs->roots,
			       &(struct btrfs_items){
				       .from = { directory, BTRFS_DIR_ITEM, 0 },
				       .to = { directory, BTRFS_DIR_ITEM, UINT64_MAX },
				       .item = take_default,
				       .context = ret });
}

struct subvolumes { uint64_t number[SUBVOLUMES]; unsigned count; };

static int take_subvolume(void *context, const struct btrfs_key *key, const uint8_t *data,
			  uint32_t bytes)
{
	struct subvolumes *all = context;

	(void)data;
	(void)bytes;
	if (key->type == BTRFS_ROOT && all->count < SUBVOLUMES)
		all->number[all->count++] = key->object;
	return 0;
}

static int list_subvolumes(struct btrfs *btrfs, struct subvolumes *ret)
{
	int error;

	*ret = (struct subvolumes){ .count = 1 };
	error = find_default(btrfs, &ret->number[0]);
	return error ? error
		     : btrfs_each_item(btrfs, &btrfs->roots,
				       &(struct btrfs_items){
					       .from = { FIRST_SUBVOLUME, BTRFS_ROOT, 0 },
					       .to = { LAST_SUBVOLUME, BTRFS_ROOT, UINT64_MAX },
					       .item = take_subvolume,
					       .context = ret });
}

static bool has_system(struct scan_volume *volume, struct files *files,
		       const struct scan_tree *tree, uint64_t number)
{
	int error = btrfs_find_tree(&files->btrfs, number, &files->tree);

	if (!error)
		return scan_tree_system(volume, tree);
	scan_unread(volume, true, "btrfs: subvolume %lu: %s", number,
		    files->btrfs.why[0] ? files->btrfs.why : "there is no such tree");
	return false;
}

static bool look_at_subvolumes(struct scan_volume *volume, struct files *files,
			       const struct scan_tree *tree, const struct subvolumes *all)
{
	bool found = false;

	for (unsigned n = 0; n < all->count && !found; n++)
		if (!n || all->number[n] != all->number[0])
			found = has_system(volume, files, tree, all->number[n]);
	if (found || !btrfs_find_tree(&files->btrfs, all->number[0], &files->tree))
		scan_tree_files(volume, tree);
	return found;
}

static struct scan_tree tree_of(struct files *files)
{
	return (struct scan_tree){ .node = btrfs_node,
				   .names = btrfs_names,
				   .content = btrfs_content,
				   .why = btrfs_why,
				   .context = files,
				   .root = ROOT_DIRECTORY };
}

/* The default subvolume is the root that is mounted by itself; of others the number has to be
 * said. */
void scan_btrfs_boot(struct scan_volume *volume, struct boot_search *search)
{
	struct files files;
	struct subvolumes all = { .count = 0 };
	const struct scan_tree tree = tree_of(&files);
	int error = btrfs_open(volume, &files.btrfs);

	if (!error)
		error = list_subvolumes(&files.btrfs, &all);
	for (unsigned n = 0; n < all.count && !error && !search->best.is_root; n++)
		if ((!n || all.number[n] != all.number[0]) &&
		    !btrfs_find_tree(&files.btrfs, all.number[n], &files.tree))
			scan_tree_boot(&tree, files.btrfs.uuid, n ? all.number[n] : 0, search);
	btrfs_close(&files.btrfs);
}

bool scan_btrfs(struct scan_volume *volume)
{
	struct files files;
	struct subvolumes all;
	const struct scan_tree tree = tree_of(&files);
	int error = btrfs_open(volume, &files.btrfs);
	bool found = false;

	if (!error)
		error = list_subvolumes(&files.btrfs, &all);
	if (error)
		scan_unread(volume, error != -ENOTSUP, "btrfs: %s",
			    files.btrfs.why[0] ? files.btrfs.why : "is not sound");
	else
		found = look_at_subvolumes(volume, &files, &tree, &all);
	btrfs_close(&files.btrfs);
	return found;
}
