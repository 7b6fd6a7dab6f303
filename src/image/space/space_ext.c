/* ext2, ext3, ext4 by libext2fs: its block bitmaps, against its own structures and the blocks of
 * every inode that is in use. */
#include <errno.h>
#include <ext2fs/ext2fs.h>

#include "image/scan/ext_volume.h"
#include "space_map.h"

struct ext_space { ext2_filsys fs; struct space_map *map; ext2_ino_t inode; int error; };

static int library_failed(struct space_map *map, const char *what, errcode_t error)
{
	return space_refuse(map, -EBADMSG, "%s cannot be read (%ld)", what, (long)error);
}

/* ---- whether it was left as it should be ---- */

static int check_state(const struct ext2_super_block *super, struct space_map *map)
{
	if (super->s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER)
		return space_refuse(map, -EBUSY, "its journal has to be replayed");
	if (super->s_feature_incompat & EXT3_FEATURE_INCOMPAT_JOURNAL_DEV)
		return space_refuse(map, -ENOTSUP, "is a journal of another file system");
	if (!(super->s_state & EXT2_VALID_FS) || super->s_state & EXT2_ERROR_FS ||
	    super->s_last_orphan ||
	    super->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT)
		return space_refuse(map, -EBUSY, "was not unmounted, or has errors");
	if (super->s_feature_ro_compat & ~(uint32_t)EXT2_LIB_FEATURE_RO_COMPAT_SUPP)
		return space_refuse(map, -ENOTSUP, "has features that are not known here (%x)",
				    super->s_feature_ro_compat &
					    ~(uint32_t)EXT2_LIB_FEATURE_RO_COMPAT_SUPP);
	return 0;
}

/* ---- what is free ---- */

static int read_free(struct ext_space *space)
{
	blk64_t end = ext2fs_blocks_count(space->fs->super);
	blk64_t first, next;
	errcode_t failed = ext2fs_read_block_bitmap(space->fs);
	int error = failed ? library_failed(space->map, "its block bitmap", failed) : 0;

	for (blk64_t at = space->fs->super->s_first_data_block; at < end && !error; at = next) {
		if (ext2fs_find_first_zero_block_bitmap2(space->fs->block_map, at, end - 1, &first))
			break;
		if (ext2fs_find_first_set_block_bitmap2(space->fs->block_map, first, end - 1,
							&next))
			next = end;
		error = space_free(space->map, first, next - first);
	}
	return error;
}

/* ---- what is used ---- */

static void use(struct ext_space *space, uint64_t block, uint64_t count)
{
	if (!space->error && block && count)
		space->error = space_used(space->map, block, count);
}

static int use_structures(struct ext_space *space)
{
	ext2_filsys fs = space->fs;
	blk_t reserved = fs->super->s_reserved_gdt_blocks;

	for (dgrp_t group = 0; group < fs->group_desc_count && !space->error; group++) {
		blk64_t super, table, own_table;

		ext2fs_super_and_bgd_loc2(fs, group, &super, &table, &own_table, NULL);
		if (super || !group)
			use(space, super ? super : fs->super->s_first_data_block, 1);
		if (table)
			use(space, table,
			    (ext2fs_has_feature_meta_bg(fs->super)
				     ? fs->super->s_first_meta_bg
				     : fs->desc_blocks + (uint64_t)reserved));
		use(space, own_table, 1);
		use(space, ext2fs_block_bitmap_loc(fs, group), 1);
		use(space, ext2fs_inode_bitmap_loc(fs, group), 1);
		use(space, ext2fs_inode_table_loc(fs, group), fs->inode_blocks_per_group);
	}
	return space->error;
}

static int visit(ext2_filsys fs, blk64_t *block, e2_blkcnt_t number, blk64_t above, int offset,
		 void *context)
{
	struct ext_space *space = context;

	(void)fs;
	(void)number;
	(void)above;
	(void)offset;
	use(space, *block, 1);
	return space->error ? BLOCK_ABORT : 0;
}

static int use_inode(struct ext_space *space, struct ext2_inode *inode)
{
	errcode_t failed = 0;

	if (!inode->i_links_count && inode->i_dtime) /* deleted */
		return 0;
	use(space, ext2fs_file_acl_block(space->fs, inode), 1);
	if (ext2fs_inode_has_valid_blocks2(space->fs, inode))
		failed = ext2fs_block_iterate3(space->fs, space->inode, BLOCK_FLAG_READ_ONLY, NULL,
					       visit, space);
	if (failed && !space->error)
		space->error = space_refuse(space->map, -EBADMSG,
					    "the blocks of inode %u cannot be read (%ld)",
					    space->inode, (long)failed);
	return space->error;
}

static int use_files(struct ext_space *space)
{
	struct ext2_inode inode;
	ext2_inode_scan scan;
	errcode_t failed = ext2fs_open_inode_scan(space->fs, 0, &scan);
	int error = 0;

	if (failed)
		return library_failed(space->map, "its inodes", failed);
	do {
		failed = ext2fs_get_next_inode(scan, &space->inode, &inode);
		if (failed)
			error = library_failed(space->map, "an inode", failed);
		else if (space->inode && (inode.i_mode || inode.i_links_count))
			error = use_inode(space, &inode);
	} while (!error && space->inode);
	ext2fs_close_inode_scan(scan);
	return error;
}

int space_ext(const struct scan_volume *volume, struct space_map *map)
{
	struct ext_space space = { .map = map };
	int error;

	if (!ext_volume_open(volume, 0, &space.fs))
		return space_refuse(map, -EBADMSG,
				    "cannot be opened, or has features that are not known here");
	error = check_state(space.fs->super, map);
	if (!error)
		error = space_begin(map, ext2fs_blocks_count(space.fs->super),
				    space.fs->blocksize);
	if (!error)
		error = read_free(&space);
	if (!error)
		error = use_structures(&space);
	if (!error)
		error = use_files(&space);
	ext2fs_free(space.fs);
	return error;
}
