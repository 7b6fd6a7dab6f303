/*
 * Looking for the parents of a chain.
 *
 * A child's paths are tried first, then its parent's name in every allowed place, then the parent's
 * identifier among the files there, then where whoever opens the chain has seen that data. All of a
 * chain is one search, with one memory:
 *
 * 1. A file that could not be opened as a parent is not opened again; its error is told again.
 * 2. A file that is being opened is not opened as an ancestor of itself: -ELOOP. Files are told
 *    apart by device and inode.
 * 3. At most SEARCH_OPENS_MAX files are opened, and every place is read once, for at most
 *    SEARCH_FILES_MAX files.
 */
#pragma once

#include "disk_internal.h"

enum { SEARCH_DEPTH_MAX = 1024, SEARCH_OPENS_MAX = 4 * SEARCH_DEPTH_MAX, SEARCH_FILES_MAX = 4096 };

struct parent_search;

/* What a child says about its parent. */
struct parent_query {
	enum disk_format format;
	char *path[4]; /* of this host; NULL: none */
	/* is looked for in the allowed places by the last part of this; NULL: not */
	const char *name;
	struct guid data_id, other_data_id; /* of a VHDX parent; zero: not known */
	/* 0, or -ESTALE with *error: this is not the one that the child was made on. */
	int (*check)(struct disk *child, struct disk *parent, struct disk_error *error);
};

/* For the file that everything else is opened for. -ENOMEM. */
int search_begin(struct parent_search **ret);
void search_end(struct parent_search *search);
/* Before and after a file is opened, whose ancestors are looked for meanwhile. -ELOOP. */
int search_enter(struct parent_search *search, const char *path, struct disk_error *error);
void search_leave(struct parent_search *search);

/* Opens the parent, and makes it child->parent. With options->parent: only checks that one. */
int search_parent(struct disk *child, const struct parent_query *query,
		  const struct disk_options *options, struct disk_error *error);
