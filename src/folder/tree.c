/* See tree.h. */
#include "tree_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/check.h"

enum { PERMISSIONS = 0777, DEPTH_MOST = 1000 };
/* A larger one is not looked at again and again. */
enum { CHECKED_NODES = 512 };

struct tree *tree_create(int folder, bool read_only)
{
	struct tree *tree = calloc(1, sizeof(*tree));

	if (!tree)
		return NULL;
	tree->folder = folder;
	tree->read_only = read_only;
	tree->made = TREE_ROOT + 1;
	tree->node[TREE_ROOT].lookups = 1;
	return tree;
}

void tree_destroy(struct tree *tree)
{
	for (unsigned n = 0; n < TREE_HANDLES; n++)
		if (tree->handle[n])
			close(tree->handle[n] - 1);
	for (uint32_t n = 0; n < tree->made; n++)
		free(tree->node[n].name);
	free(tree);
}

int tree_folder(const struct tree *tree) { return tree->folder; }

/* ---- nodes ---- */

static bool is_name(const char *name)
{
	const size_t bytes = strnlen(name, TREE_NAME_BYTES + 1);

	return bytes && bytes <= TREE_NAME_BYTES && !strchr(name, '/') && strcmp(name, ".") &&
	       strcmp(name, "..");
}

static struct node *node_of(struct tree *tree, uint64_t number)
{
	struct node *node = number && number < tree->made ? &tree->node[number] : NULL;

	return node && (node->lookups || node->children) ? node : NULL;
}

static uint32_t *bucket_of(struct tree *tree, uint32_t parent, const char *name)
{
	uint32_t sum = parent * 2654435761u;

	for (; *name; name++)
		sum = (sum ^ (uint8_t)*name) * 16777619u;
	return &tree->bucket[(sum ^ sum >> 16) % TREE_BUCKETS];
}

/* Where its number stands; *0: there is none. */
static uint32_t *place_of(struct tree *tree, uint32_t parent, const char *name)
{
	uint32_t *at = bucket_of(tree, parent, name);

	while (*at && (tree->node[*at].parent != parent || strcmp(tree->node[*at].name, name) != 0))
		at = &tree->node[*at].next;
	return at;
}

static void take_name(struct tree *tree, uint32_t number)
{
	struct node *node = &tree->node[number];
	uint32_t *at;

	if (!node->is_named)
		return;
	at = place_of(tree, node->parent, node->name);
	*at = node->next;
	node->next = 0;
	node->is_named = false;
}

static void give_name(struct tree *tree, uint32_t number)
{
	struct node *node = &tree->node[number];
	uint32_t *at = bucket_of(tree, node->parent, node->name);

	node->next = *at;
	*at = number;
	node->is_named = true;
}

/* Those that nobody knows any more, up to the root. */
static void release(struct tree *tree, uint32_t number)
{
	while (number != TREE_ROOT && !tree->node[number].lookups &&
	       !tree->node[number].children) {
		struct node *node = &tree->node[number];
		const uint32_t parent = node->parent;

		assert(node->name); /* it is not free */
		take_name(tree, number);
		free(node->name);
		*node = (struct node){ .next = tree->free };
		tree->free = number;
		tree->node[parent].children--;
		number = parent;
	}
}

static uint32_t make_node(struct tree *tree, uint32_t parent, const char *name)
{
	char *copy = strdup(name);
	uint32_t number = tree->free;

	if (!copy || (!number && tree->made == TREE_NODES)) {
		free(copy);
		return 0;
	}
	if (number)
		tree->free = tree->node[number].next;
	else
		number = tree->made++;
	tree->node[number] = (struct node){ .parent = parent, .name = copy };
	tree->node[parent].children++;
	give_name(tree, number);
	return number;
}

/* Of a tree whose guest has more than it may know: what it forgets makes room. */
static int know(struct tree *tree, uint64_t parent, const char *name, uint64_t *ret)
{
	uint32_t number = *place_of(tree, (uint32_t)parent, name);

	if (!number)
		number = make_node(tree, (uint32_t)parent, name);
	if (!number)
		return -ENFILE;
	tree->node[number].lookups++;
	*ret = number;
	return 0;
}

/* How many nodes are free; each of those that are not is in the tree, and found by its name. */
static uint32_t check_nodes(struct tree *tree)
{
	uint32_t children = 0;
	uint32_t used = 0;
	uint32_t free_nodes = 0;

	for (uint32_t n = TREE_ROOT; n < tree->made; n++) {
		const struct node *node = &tree->node[n];

		children += node->children;
		if (n == TREE_ROOT)
			continue;
		if (!node->name) {
			assert(!node->lookups && !node->children && !node->is_named);
			free_nodes++;
			continue;
		}
		used++;
		assert((node->lookups || node->children) && is_name(node->name));
		assert(node->parent == TREE_ROOT ||
		       (node->parent < tree->made && tree->node[node->parent].name));
		assert(!node->is_named || *place_of(tree, node->parent, node->name) == n);
	}
	assert(children == used);
	return free_nodes;
}

void check_tree(struct tree *tree)
{
	uint32_t listed = 0;

	assert(tree->made > TREE_ROOT && tree->made <= TREE_NODES);
	assert(tree->node[TREE_ROOT].lookups && !tree->node[TREE_ROOT].name);
	for (uint32_t at = tree->free; at; at = tree->node[at].next) {
		assert(at > TREE_ROOT && at < tree->made && !tree->node[at].name);
		listed++;
		assert(listed < tree->made);
	}
	assert(check_nodes(tree) == listed);
}

void tree_forget(struct tree *tree, uint64_t number, uint64_t times)
{
	struct node *node = node_of(tree, number);

	if (!node || number == TREE_ROOT)
		return;
	node->lookups -= times < node->lookups ? times : node->lookups;
	release(tree, (uint32_t)number);
	if (tree->made <= CHECKED_NODES)
		CHECK(check_tree(tree));
}

/* How many folders it is below the root; -ENOENT: it was removed. */
static int depth_of(const struct tree *tree, uint64_t number)
{
	int depth = 0;

	for (; number != TREE_ROOT; number = tree->node[number].parent) {
		if (!tree->node[number].is_named || ++depth > DEPTH_MOST)
			return -ENOENT;
	}
	return depth;
}

/* From the folder on: "." of the root. */
static int path_of(struct tree *tree, uint64_t number, char path[PATH_MAX])
{
	size_t at = PATH_MAX - 1;

	if (!node_of(tree, number))
		return -ESTALE;
	if (depth_of(tree, number) < 0)
		return -ENOENT;
	path[at] = 0;
	for (; number != TREE_ROOT; number = tree->node[number].parent) {
		const char *name = tree->node[number].name;
		const size_t bytes = strlen(name);

		if (at < bytes + 1)
			return -ENAMETOOLONG;
		if (path[at])
			path[--at] = '/';
		at -= bytes;
		memcpy(path + at, name, bytes);
	}
	memmove(path, path + at, PATH_MAX - at);
	if (!*path)
		strcpy(path, ".");
	return 0;
}

/* ---- what is opened ---- */

static int open_beneath(int folder, const char *path, int flags, mode_t mode)
{
	const struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
				      .mode = mode,
				      .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
						 RESOLVE_NO_MAGICLINKS };
	const long fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));

	if (fd >= 0)
		return (int)fd;
	/* what led out, or was a link where a folder was expected */
	return errno == EXDEV || errno == ELOOP ? -EACCES : -errno;
}

static int open_node(struct tree *tree, uint64_t number, int flags)
{
	char path[PATH_MAX];
	const int error = path_of(tree, number, path);

	return error ? error : open_beneath(tree->folder, path, flags, 0);
}

static int open_parent(struct tree *tree, uint64_t number, const char *name)
{
	if (!is_name(name))
		return strnlen(name, TREE_NAME_BYTES + 1) > TREE_NAME_BYTES ? -ENAMETOOLONG
									    : -EINVAL;
	return open_node(tree, number, O_PATH | O_DIRECTORY);
}

static bool is_shown(const struct stat *st)
{
	return S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode);
}

/* Closes it. */
static int stat_open(int fd, struct stat *ret)
{
	const int error = fstat(fd, ret) ? -errno : 0;

	close(fd);
	if (error)
		return error;
	return is_shown(ret) ? 0 : -EACCES;
}

static int may_change(const struct tree *tree) { return tree->read_only ? -EROFS : 0; }

/* Of a call that has set errno; closes what it was about. */
static int outcome(int result, int fd)
{
	const int error = result < 0 ? -errno : 0;

	close(fd);
	return error;
}

int tree_find(struct tree *tree, uint64_t parent, const char *name, uint64_t *ret,
	      struct stat *ret_stat)
{
	const int folder = open_parent(tree, parent, name);
	int fd;
	int error;

	if (folder < 0)
		return folder;
	fd = open_beneath(folder, name, O_PATH, 0);
	close(folder);
	error = fd < 0 ? fd : stat_open(fd, ret_stat);
	return error ? error : know(tree, parent, name, ret);
}

int tree_stat(struct tree *tree, uint64_t number, uint64_t handle, struct stat *ret)
{
	int fd = tree_descriptor(tree, handle);

	if (fd >= 0)
		return fstat(fd, ret) ? -errno : 0;
	fd = open_node(tree, number, O_PATH);
	return fd < 0 ? fd : stat_open(fd, ret);
}

int tree_link_text(struct tree *tree, uint64_t number, char *to, size_t room, size_t *ret_bytes)
{
	const int fd = open_node(tree, number, O_PATH);
	ssize_t got;

	if (fd < 0)
		return fd;
	got = readlinkat(fd, "", to, room);
	*ret_bytes = got < 0 ? 0 : (size_t)got;
	return outcome(got < 0 ? -1 : 0, fd);
}

/* ---- what is changed ---- */

/* For a change: readable, or where that is not allowed writable. */
static int open_to_change(struct tree *tree, uint64_t number, int access)
{
	struct stat st;
	const int error = tree_stat(tree, number, 0, &st);

	if (error)
		return error;
	if (S_ISLNK(st.st_mode))
		return -EOPNOTSUPP;
	return open_node(tree, number, access | O_NONBLOCK);
}

static int change_mode(struct tree *tree, uint64_t number, mode_t mode)
{
	int fd = open_to_change(tree, number, O_RDONLY);

	if (fd == -EACCES)
		fd = open_to_change(tree, number, O_WRONLY);
	return fd < 0 ? fd : outcome(fchmod(fd, mode & PERMISSIONS), fd);
}

static int change_size(struct tree *tree, uint64_t number, uint64_t handle, uint64_t size)
{
	int fd = tree_descriptor(tree, handle);

	if (size > INT64_MAX)
		return -EFBIG;
	if (fd >= 0)
		return ftruncate(fd, (off_t)size) ? -errno : 0;
	fd = open_to_change(tree, number, O_WRONLY);
	return fd < 0 ? fd : outcome(ftruncate(fd, (off_t)size), fd);
}

/* Of a link its own: by its name in its folder, which for the root is its own. */
static int change_times(struct tree *tree, uint64_t number, const struct timespec times[2])
{
	const struct node *node = node_of(tree, number);
	int folder;

	if (!node)
		return -ESTALE;
	if (number == TREE_ROOT)
		return utimensat(tree->folder, ".", times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
	if (!node->is_named)
		return -ENOENT;
	folder = open_node(tree, node->parent, O_PATH | O_DIRECTORY);
	if (folder < 0)
		return folder;
	return outcome(utimensat(folder, node->name, times, AT_SYMLINK_NOFOLLOW), folder);
}

int tree_change(struct tree *tree, uint64_t number, uint64_t handle,
		const struct tree_change *change)
{
	int error = may_change(tree);

	if (!error && change->has_mode)
		error = change_mode(tree, number, change->mode);
	if (!error && change->has_size)
		error = change_size(tree, number, handle, change->size);
	if (!error && change->times)
		error = change_times(tree, number, change->times);
	return error;
}

int tree_make_folder(struct tree *tree, uint64_t parent, const char *name, mode_t mode)
{
	const int error = may_change(tree);
	const int folder = error ? error : open_parent(tree, parent, name);

	return folder < 0 ? folder : outcome(mkdirat(folder, name, mode & PERMISSIONS), folder);
}

/*
 * A relative one that climbs first, if at all, and not above the folder from where it stands:
 * behind a name, which may be a link itself, nobody knows what ".." is.
 */
static bool stays_within(const char *text, int depth)
{
	bool is_below = false;

	if (*text == '/' || !*text)
		return false;
	while (*text && depth >= 0) {
		const size_t bytes = strcspn(text, "/");
		const bool climbs = bytes == 2 && text[0] == '.' && text[1] == '.';

		if (climbs && is_below)
			return false;
		depth -= climbs;
		is_below |= !climbs && !(bytes == 1 && text[0] == '.');
		text += bytes;
		text += strspn(text, "/");
	}
	return depth >= 0;
}

int tree_make_link(struct tree *tree, uint64_t parent, const char *name, const char *text)
{
	const int error = may_change(tree);
	const int folder = error ? error : open_parent(tree, parent, name);

	if (folder < 0)
		return folder;
	if (!stays_within(text, depth_of(tree, parent))) {
		close(folder);
		return -EPERM;
	}
	return outcome(symlinkat(text, folder, name), folder);
}

int tree_add_name(struct tree *tree, uint64_t number, uint64_t parent, const char *name)
{
	const struct node *node = node_of(tree, number);
	int error = may_change(tree);
	struct stat st;
	int from;
	int to;

	if (!error && (!node || number == TREE_ROOT || !node->is_named))
		error = -ENOENT;
	if (!error)
		error = tree_stat(tree, number, 0, &st);
	if (!error && !S_ISREG(st.st_mode))
		error = -EPERM;
	if (error)
		return error;
	from = open_node(tree, node->parent, O_PATH | O_DIRECTORY);
	to = from < 0 ? from : open_parent(tree, parent, name);
	if (to >= 0)
		error = outcome(linkat(from, node->name, to, name, 0), to);
	if (from >= 0)
		close(from);
	return to < 0 ? to : error;
}

int tree_remove(struct tree *tree, uint64_t parent, const char *name, bool is_folder)
{
	int error = may_change(tree);
	const int folder = error ? error : open_parent(tree, parent, name);
	uint32_t number;

	if (folder < 0)
		return folder;
	error = outcome(unlinkat(folder, name, is_folder ? AT_REMOVEDIR : 0), folder);
	number = error ? 0 : *place_of(tree, (uint32_t)parent, name);
	if (number)
		take_name(tree, number);
	return error;
}

/* The node under the one name has the other now. */
static int move_node(struct tree *tree, uint32_t number, uint32_t parent, const char *name)
{
	struct node *node = &tree->node[number];
	char *copy = strdup(name);
	const uint32_t before = node->parent;

	take_name(tree, number);
	if (!copy)
		return -ENOMEM;
	free(node->name);
	node->name = copy;
	node->parent = parent;
	tree->node[parent].children++;
	tree->node[before].children--;
	give_name(tree, number);
	release(tree, before);
	return 0;
}

/* Stays while it is held, with what is above it. */
static void hold(struct tree *tree, uint32_t number) { tree->node[number].children++; }

static void let_go(struct tree *tree, uint32_t number)
{
	tree->node[number].children--;
	release(tree, number);
}

/* Nodes 0: there is none. */
static int move_nodes(struct tree *tree, uint32_t number, uint32_t to_parent, const char *to_name,
		      uint32_t other, uint32_t parent, const char *name)
{
	int error = number ? move_node(tree, number, to_parent, to_name) : 0;

	return other && !error ? move_node(tree, other, parent, name) : error;
}

/*
 * Both were there, or it is RENAME_EXCHANGE that found them. A parent that was forgotten would be
 * released with the child that leaves first, before the other comes.
 */
static int renamed(struct tree *tree, uint32_t parent, const char *name, uint32_t to_parent,
		   const char *to_name, bool exchanged)
{
	const uint32_t number = *place_of(tree, parent, name);
	const uint32_t other = *place_of(tree, to_parent, to_name);
	int error;

	if (number == other)
		return 0;
	if (number)
		take_name(tree, number);
	if (other)
		take_name(tree, other);
	hold(tree, parent);
	hold(tree, to_parent);
	error = move_nodes(tree, number, to_parent, to_name, exchanged ? other : 0, parent, name);
	let_go(tree, parent);
	let_go(tree, to_parent);
	return error;
}

int tree_rename(struct tree *tree, uint64_t parent, const char *name, uint64_t to_parent,
		const char *to_name, unsigned flags)
{
	int error = may_change(tree);
	const int from = error ? error : open_parent(tree, parent, name);
	const int to = from < 0 ? from : open_parent(tree, to_parent, to_name);

	if (to >= 0)
		error = outcome((int)syscall(SYS_renameat2, from, name, to, to_name, flags), to);
	if (from >= 0)
		close(from);
	if (to < 0)
		return to;
	return error ? error
		     : renamed(tree, (uint32_t)parent, name, (uint32_t)to_parent, to_name,
			       flags & RENAME_EXCHANGE);
}

/* ---- handles ---- */

int tree_descriptor(const struct tree *tree, uint64_t handle)
{
	return handle && handle <= TREE_HANDLES && tree->handle[handle - 1]
		       ? tree->handle[handle - 1] - 1
		       : -EBADF;
}

/* Closes what finds no place. */
static int keep(struct tree *tree, int fd, uint64_t *ret)
{
	for (unsigned n = 0; n < TREE_HANDLES; n++)
		if (!tree->handle[n]) {
			tree->handle[n] = fd + 1;
			*ret = n + 1;
			return 0;
		}
	close(fd);
	return -ENFILE;
}

static int keep_file(struct tree *tree, int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return -EACCES;
	}
	return keep(tree, fd, ret);
}

int tree_open(struct tree *tree, uint64_t number, int flags, uint64_t *ret)
{
	const bool writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
	const int error = writes ? may_change(tree) : 0;
	const int fd = error ? error
			     : open_to_change(tree, number, flags & (O_ACCMODE | O_TRUNC));

	return fd < 0 ? fd : keep_file(tree, fd, ret);
}

int tree_open_folder(struct tree *tree, uint64_t number, uint64_t *ret)
{
	const int fd = open_node(tree, number, O_RDONLY | O_DIRECTORY);

	return fd < 0 ? fd : keep(tree, fd, ret);
}

int tree_make_file(struct tree *tree, uint64_t parent, const char *name, int flags, mode_t mode,
		   uint64_t *ret)
{
	const int error = may_change(tree);
	const int folder = error ? error : open_parent(tree, parent, name);
	int fd;

	if (folder < 0)
		return folder;
	fd = open_beneath(folder, name,
			  (flags & (O_ACCMODE | O_TRUNC | O_EXCL)) | O_CREAT | O_NONBLOCK,
			  mode & PERMISSIONS);
	close(folder);
	return fd < 0 ? fd : keep_file(tree, fd, ret);
}

void tree_close(struct tree *tree, uint64_t handle)
{
	const int fd = tree_descriptor(tree, handle);

	if (fd < 0)
		return;
	close(fd);
	tree->handle[handle - 1] = 0;
}
