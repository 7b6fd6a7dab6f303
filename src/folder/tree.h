/*
 * A folder of the host as a tree of numbered nodes, for somebody who is not trusted: the guest that
 * it is shared with (docs/bus.md).
 *
 *   node   number -> parent and name; the path of a node is theirs, one after the other
 *   open   openat2() from the folder, beneath it, without following any link
 *
 *  1. Nodes have a limit; names are of 1 to 255 bytes, and none of them leads anywhere else.
 *  2. Each node is known to the guest, or the parent of one that is, and found by its name while it
 *     has one; all others are free.
 *
 *   - Nothing outside of the folder is reached: no path is absolute, none has "..", the kernel
 *     refuses what leads out, and follows no symbolic link on the way or at the end.
 *   - Only files, folders and symbolic links are there; a link is what it says, and never followed
 *     here. One that is made leads to a place within the folder, as long as it stays where it was
 *     made: one that is renamed to a place nearer the root, or whose folder is, may lead out, for
 *     whoever follows it on the host.
 *   - A folder that is shared read-only is changed by nothing.
 *
 * One thread. All functions: 0 (or what they say) or -errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum { TREE_ROOT = 1, TREE_NODES = 1 << 16, TREE_HANDLES = 1024, TREE_NAME_BYTES = 255 };

struct tree;

/* Over an open folder, which stays the caller's. NULL: no memory. */
struct tree *tree_create(int folder, bool read_only);
void tree_destroy(struct tree *tree);
/* One that is found counts once more for its guest, until it is forgotten as often. */
int tree_find(struct tree *tree, uint64_t parent, const char *name, uint64_t *ret,
	      struct stat *ret_stat);
void tree_forget(struct tree *tree, uint64_t node, uint64_t times);
/* handle: of a file that is open; 0: none. */
int tree_stat(struct tree *tree, uint64_t node, uint64_t handle, struct stat *ret);

/* What is changed; of times NULL: nothing. */
struct tree_change {
	bool has_mode, has_size;
	mode_t mode;
	uint64_t size;
	const struct timespec *times;
};
int tree_change(struct tree *tree, uint64_t node, uint64_t handle,
		const struct tree_change *change);
/* ret_bytes: without a NUL. */
int tree_link_text(struct tree *tree, uint64_t node, char *to, size_t room, size_t *ret_bytes);

int tree_make_folder(struct tree *tree, uint64_t parent, const char *name, mode_t mode);
int tree_make_link(struct tree *tree, uint64_t parent, const char *name, const char *text);
/* A second name of a file. */
int tree_add_name(struct tree *tree, uint64_t node, uint64_t parent, const char *name);
int tree_remove(struct tree *tree, uint64_t parent, const char *name, bool is_folder);
/* flags: RENAME_NOREPLACE or RENAME_EXCHANGE. */
int tree_rename(struct tree *tree, uint64_t parent, const char *name, uint64_t to_parent,
		const char *to_name, unsigned flags);

/* flags: of open(), of which access and O_TRUNC count. *ret: a handle. */
int tree_open(struct tree *tree, uint64_t node, int flags, uint64_t *ret);
int tree_open_folder(struct tree *tree, uint64_t node, uint64_t *ret);
/* A new file, or with O_EXCL not there before. */
int tree_make_file(struct tree *tree, uint64_t parent, const char *name, int flags, mode_t mode,
		   uint64_t *ret);
void tree_close(struct tree *tree, uint64_t handle);
/* The descriptor of a handle; -EBADF. */
int tree_descriptor(const struct tree *tree, uint64_t handle);
/* Of the folder. */
int tree_folder(const struct tree *tree);
