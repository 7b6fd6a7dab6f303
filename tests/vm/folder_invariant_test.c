/*
 * The invariants of a folder's tree, each broken: check_tree() sees it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/caught.h"
#include "folder/tree_internal.h"

enum { FIRST = TREE_ROOT + 1, WITHIN, FORGOTTEN };

static struct tree *tree_in(void *tree) { return tree; }
static void check_tree_of(void *tree) { check_tree(tree); }

static void more_nodes_than_there_are(void *tree) { tree_in(tree)->made = TREE_NODES + 1; }
static void root_that_is_forgotten(void *tree) { tree_in(tree)->node[TREE_ROOT].lookups = 0; }
static void free_and_named(void *tree) { tree_in(tree)->free = FIRST; }
static void free_twice(void *tree) { tree_in(tree)->node[FORGOTTEN].next = FORGOTTEN; }
static void nowhere(void *tree) { tree_in(tree)->free = 0; }
static void known_to_nobody(void *tree) { tree_in(tree)->node[WITHIN].lookups = 0; }
static void another_child(void *tree) { tree_in(tree)->node[FIRST].children++; }
static void parent_that_is_free(void *tree) { tree_in(tree)->node[WITHIN].parent = FORGOTTEN; }
static void not_found(void *tree)
{
	memset(tree_in(tree)->bucket, 0, sizeof(tree_in(tree)->bucket));
}
static void name_that_leads_up(void *tree)
{
	tree_in(tree)->node[FIRST].is_named = false;
	tree_in(tree)->node[FIRST].name = strdup("..");
}

static const struct spoiling of_tree[] = {
	{ "more nodes than there may be", more_nodes_than_there_are },
	{ "a root that was forgotten", root_that_is_forgotten },
	{ "a free node with a name", free_and_named },
	{ "a node that is free twice", free_twice },
	{ "a node that is neither free nor named", nowhere },
	{ "a node that nobody knows", known_to_nobody },
	{ "a child that there is not", another_child },
	{ "a node within one that is free", parent_that_is_free },
	{ "names that are not found", not_found },
	{ "a name that leads up", name_that_leads_up },
};

/* A folder with one in it, and one that was known and is forgotten. */
static int make(struct tree *tree)
{
	uint64_t node = 0;
	struct stat status;

	if (tree_make_folder(tree, TREE_ROOT, "one", 0700) ||
	    tree_find(tree, TREE_ROOT, "one", &node, &status) ||
	    tree_make_folder(tree, node, "in", 0700) ||
	    tree_find(tree, node, "in", &node, &status) ||
	    tree_make_folder(tree, TREE_ROOT, "gone", 0700) ||
	    tree_find(tree, TREE_ROOT, "gone", &node, &status))
		return -1;
	tree_forget(tree, node, 1);
	return 0;
}

int main(void)
{
	char path[] = "/tmp/umbra-tree-XXXXXX";
	int folder = mkdtemp(path) ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	struct tree *tree = folder >= 0 ? tree_create(folder, false) : NULL;
	unsigned missed = !tree || make(tree);

	if (!missed)
		missed = CAUGHT_MISSED("tree", check_tree_of, tree, of_tree);
	else
		puts("tree: none was made");
	if (tree)
		tree_destroy(tree);
	unlinkat(folder, "one/in", AT_REMOVEDIR);
	unlinkat(folder, "one", AT_REMOVEDIR);
	unlinkat(folder, "gone", AT_REMOVEDIR);
	rmdir(path);
	return missed != 0;
}
