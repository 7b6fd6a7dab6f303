/*
 * What a tree consists of (tree.h), for its own files and for who breaks it: nodes that the guest
 * knows, by number, found by their parent and their name.
 */
#pragma once

#include "tree.h"

enum { TREE_BUCKETS = 1 << 14 };

struct node {
	uint32_t parent, next; /* next: of its bucket, or of those that are free; 0: none */
	uint32_t children;     /* nodes whose parent it is */
	bool is_named;         /* in a bucket; what was removed is not */
	uint64_t lookups;
	char *name;
};

struct tree {
	int folder;
	bool read_only;
	uint32_t free, made; /* nodes: free ones; how many were ever used */
	uint32_t bucket[TREE_BUCKETS];
	int handle[TREE_HANDLES]; /* a descriptor and 1; 0: free */
	struct node node[TREE_NODES];
};

/* Invariants 1 and 2. */
void check_tree(struct tree *tree);
