/*
 * A file system as a tree of nodes with numbers: what the readers of our own (XFS, btrfs) provide,
 * and what a scan does with it. Numbers are the reader's own; no two nodes share one.
 */
#pragma once

#include "scan_internal.h"

enum { SCAN_NAME_BYTES = 255, SCAN_LINK_BYTES = 4096 };

struct scan_node { uint64_t number, bytes, change_seconds; uint32_t mode; };

/* elsewhere: what the name leads to is of another tree (a subvolume); number says nothing then.
 * Not 0: ends it, and is returned. */
struct scan_names {
	int (*name)(void *context, const char *name, size_t bytes, uint64_t number, bool elsewhere);
	void *context;
};
/* Pieces of a file in order, together as long as the file; data NULL: zeros. Not 0: ends it, and is
 * returned. */
struct scan_pieces {
	int (*piece)(void *context, const void *data, uint64_t bytes);
	void *context;
};

/* Functions return 0 or -errno: -EBADMSG: not sound; -ENOTSUP: of a kind that is not read; -ELOOP:
 * more work than any file system needs. */
struct scan_tree {
	int (*node)(void *context, uint64_t number, struct scan_node *ret);
	/* of a directory; "." and ".." may be among them */
	int (*names)(void *context, const struct scan_node *directory,
		     const struct scan_names *tell);
	/* of a file or a symbolic link (where it leads to) */
	int (*content)(void *context, const struct scan_node *file, const struct scan_pieces *tell);
	/* what was refused last; "": nothing to add to the error */
	const char *(*why)(void *context);
	void *context;
	uint64_t root;
};

/* What could not be read is told by scan_unread(). scan_tree_system(): what an operating system
 * says of itself, and its packages; true when there is one. scan_tree_files(): kernels and, where
 * the options ask for them, files. */
bool scan_tree_system(struct scan_volume *volume, const struct scan_tree *tree);
void scan_tree_files(struct scan_volume *volume, const struct scan_tree *tree);
/* What the tree boots; of btrfs with the subvolume's number where it has to be said. */
void scan_tree_boot(const struct scan_tree *tree, const uint8_t uuid[16], uint64_t subvolume,
		    struct boot_search *search);
