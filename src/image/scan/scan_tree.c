/*
 * What a scan does with a tree of files (scan_tree.h).
 *
 * Bounds: a directory is entered once, DEPTH deep, FILES_MAX names in all, LINKS symbolic links on
 * a path; a file that is read whole is no longer than FILE_BYTES; what digests are taken of is
 * together no longer than a few times the volume (holes count as what they are read as).
 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "scan_tree.h"

enum {
	DEPTH = 256,
	PATH_DEPTH = 128,
	LINKS = 40,
	FILES_MAX = 2000000,
	FILE_BYTES = 64 << 20,
	PATH_BYTES = 4096,
	ZERO_BYTES = 65536,
	KERNELS = 64,
	DIGEST_FLOOR_BYTES = 64 << 20,
	DIGEST_TIMES = 4
};

#define DIGEST_VOLUME_BYTES (1ull << 50)

/* Numbers that were seen: open addressing, at most half full; 0 is an empty place, so what is kept
 * is one more. */
struct numbers { uint64_t *place; size_t places, used; };

struct walk {
	struct scan_volume *volume;
	const struct scan_tree *tree;
	json_t *files;
	struct numbers entered;
	uint64_t digest_bytes; /* that may still be read for digests */
	unsigned depth, count;
	bool kernels_only;
	char path[PATH_BYTES];
};

/* ---- numbers ---- */

static size_t place_of(const struct numbers *numbers, uint64_t number)
{
	size_t at = (size_t)(number * 0x9e3779b97f4a7c15ull >> 20) & (numbers->places - 1);

	while (numbers->place[at] && numbers->place[at] != number + 1)
		at = (at + 1) & (numbers->places - 1);
	return at;
}

static int numbers_grow(struct numbers *numbers)
{
	const struct numbers before = *numbers;

	numbers->places = before.places ? 2 * before.places : 1024;
	numbers->place = calloc(numbers->places, sizeof(*numbers->place));
	if (!numbers->place) {
		*numbers = before;
		return -ENOMEM;
	}
	for (size_t n = 0; n < before.places; n++)
		if (before.place[n])
			numbers->place[place_of(numbers, before.place[n] - 1)] = before.place[n];
	free(before.place);
	return 0;
}

/* -EEXIST: it was there. */
static int numbers_add(struct numbers *numbers, uint64_t number)
{
	size_t at;
	int error = numbers->used * 2 < numbers->places ? 0 : numbers_grow(numbers);

	if (error || number == UINT64_MAX)
		return error ? error : -EBADMSG;
	at = place_of(numbers, number);
	if (numbers->place[at])
		return -EEXIST;
	numbers->place[at] = number + 1;
	numbers->used++;
	return 0;
}

/* ---- content ---- */

static const char *reason(const struct walk *walk, int error)
{
	const char *why = walk->tree->why(walk->tree->context);

	if (why[0])
		return why;
	if (error == -ELOOP)
		return "more work than any file system needs";
	return error == -EBADMSG ? "is not sound" : strerror(-error);
}

static void note_unread(const struct walk *walk, const char *path, int error)
{
	scan_unread(walk->volume, error != -ENOTSUP, "%s: cannot be read: %s",
		    path[0] ? path : "/", reason(walk, error));
}

struct whole { char *text; uint64_t used, bytes; };

static int keep_piece(void *context, const void *data, uint64_t bytes)
{
	struct whole *whole = context;

	if (bytes > whole->bytes - whole->used)
		return -EBADMSG;
	if (data)
		memcpy(whole->text + whole->used, data, bytes);
	else
		memset(whole->text + whole->used, 0, bytes);
	whole->used += bytes;
	return 0;
}

/* To be freed, ended by 0. */
static int read_whole(const struct scan_tree *tree, const struct scan_node *node, uint64_t most,
		      char **ret, size_t *ret_bytes)
{
	struct whole whole = { .bytes = node->bytes };
	int error;

	if (node->bytes > most)
		return -EFBIG;
	whole.text = malloc(node->bytes + 1);
	if (!whole.text)
		return -ENOMEM;
	error = tree->content(tree->context, node,
			      &(struct scan_pieces){ .piece = keep_piece, .context = &whole });
	if (!error && whole.used != whole.bytes)
		error = -EBADMSG;
	if (error) {
		free(whole.text);
		return error;
	}
	whole.text[whole.used] = 0;
	*ret = whole.text;
	*ret_bytes = whole.used;
	return 0;
}

/* ---- paths ---- */

struct sought { const char *name; size_t bytes; uint64_t number; };

static int seek_name(void *context, const char *name, size_t bytes, uint64_t number, bool elsewhere)
{
	struct sought *sought = context;

	if (elsewhere || bytes != sought->bytes || memcmp(name, sought->name, bytes))
		return 0;
	sought->number = number;
	return 1;
}

static int find_in(const struct scan_tree *tree, uint64_t directory, struct sought *sought)
{
	struct scan_node node;
	int error = tree->node(tree->context, directory, &node);

	if (error)
		return error;
	if (!S_ISDIR(node.mode))
		return -ENOTDIR;
	error = tree->names(tree->context, &node,
			    &(struct scan_names){ .name = seek_name, .context = sought });
	if (error == 1)
		return 0;
	return error ? error : -ENOENT;
}

/* stack: the directories that lead to where the path is now. */
struct path {
	char rest[2 * PATH_BYTES];
	uint64_t stack[PATH_DEPTH];
	unsigned depth, links;
};

static int follow(const struct scan_tree *tree, struct path *path, const struct scan_node *link,
		  const char *rest)
{
	char *target;
	char *joined = NULL;
	size_t bytes;
	int error = ++path->links > LINKS
			    ? -ELOOP
			    : read_whole(tree, link, SCAN_LINK_BYTES, &target, &bytes);

	if (error)
		return error;
	if (asprintf(&joined, "%s/%s", target, rest) < 0)
		error = -ENOMEM;
	else if (strlen(joined) >= sizeof(path->rest))
		error = -ENAMETOOLONG;
	else
		strcpy(path->rest, joined);
	if (!error && target[0] == '/')
		path->depth = 1;
	free(joined);
	free(target);
	return error;
}

/* One part of the path: what is left of it is in path->rest. */
static int take_step(const struct scan_tree *tree, struct path *path, struct scan_node *node)
{
	char part[SCAN_NAME_BYTES + 1];
	const char *at = path->rest + strspn(path->rest, "/");
	struct sought sought = { .name = part, .bytes = strcspn(at, "/") };
	const char *rest = at + sought.bytes;
	int error;

	if (sought.bytes > SCAN_NAME_BYTES)
		return -ENAMETOOLONG;
	memcpy(part, at, sought.bytes);
	part[sought.bytes] = 0;
	if (!strcmp(part, "..") && path->depth > 1)
		path->depth--;
	if (part[0] && strcmp(part, ".") && strcmp(part, "..")) {
		error = find_in(tree, path->stack[path->depth - 1], &sought);
		if (!error)
			error = tree->node(tree->context, sought.number, node);
		if (error)
			return error;
		if (S_ISLNK(node->mode))
			return follow(tree, path, node, rest);
		if (path->depth == PATH_DEPTH)
			return -ENAMETOOLONG;
		path->stack[path->depth++] = sought.number;
	}
	memmove(path->rest, rest, strlen(rest) + 1);
	return 0;
}

static int find_path(const struct scan_tree *tree, const char *text, struct scan_node *ret)
{
	struct path path = { .stack = { tree->root }, .depth = 1 };
	int error = 0;

	if (strlen(text) >= sizeof(path.rest))
		return -ENAMETOOLONG;
	strcpy(path.rest, text);
	for (unsigned steps = 0; path.rest[strspn(path.rest, "/")] && !error; steps++)
		error = steps < PATH_BYTES ? take_step(tree, &path, ret) : -ELOOP;
	return error ? error : tree->node(tree->context, path.stack[path.depth - 1], ret);
}

static char *read_path(void *context, const char *path, size_t *ret_bytes)
{
	struct walk *walk = context;
	struct scan_node node;
	char *text = NULL;
	int error = find_path(walk->tree, path, &node);

	if (!error)
		error = S_ISREG(node.mode)
				? read_whole(walk->tree, &node, FILE_BYTES, &text, ret_bytes)
				: -ENOENT;
	if (error && error != -ENOENT && error != -ENOTDIR)
		note_unread(walk, path, error);
	return error ? NULL : text;
}

/* ---- files ---- */

static int digest_piece(void *context, const void *data, uint64_t bytes)
{
	static const uint8_t zeros[ZERO_BYTES];

	if (data) {
		crypto_generichash_update(context, data, bytes);
		return 0;
	}
	for (uint64_t n; bytes; bytes -= n) {
		n = bytes < sizeof(zeros) ? bytes : sizeof(zeros);
		crypto_generichash_update(context, zeros, n);
	}
	return 0;
}

static bool digest_file(struct walk *walk, const struct scan_node *node, char text[65])
{
	crypto_generichash_state state;
	uint8_t digest[32];
	int error;

	if (node->bytes > walk->digest_bytes) {
		scan_unread(walk->volume, true,
			    "%s: no digest: its file system claims more data than it can hold",
			    walk->path);
		return false;
	}
	walk->digest_bytes -= node->bytes;
	crypto_generichash_init(&state, NULL, 0, sizeof(digest));
	error = walk->tree->content(walk->tree->context, node,
				    &(struct scan_pieces){ digest_piece, &state });
	crypto_generichash_final(&state, digest, sizeof(digest));
	sodium_bin2hex(text, 65, digest, sizeof(digest));
	if (error)
		note_unread(walk, walk->path, error);
	return !error;
}

static bool is_value(const json_t *array, size_t n, uint64_t value)
{
	return json_integer_value(json_array_get(array, n)) == (json_int_t)value;
}

/* [bytes, time of change, digest]: with the same bytes and times as in the last scan its digest is
 * taken over. */
static void note_file(struct walk *walk, const struct scan_node *node)
{
	json_t *entry = json_pack("[I, I]", (json_int_t)node->bytes,
				  (json_int_t)node->change_seconds);
	const json_t *before = json_object_get(walk->volume->before, walk->path);
	const char *known = json_string_value(json_array_get(before, 2));
	json_t *path = scan_text(walk->path); /* a name may be no UTF-8 */
	char digest[65];

	if (walk->volume->options->digests) {
		if (known && is_value(before, 0, node->bytes) &&
		    is_value(before, 1, node->change_seconds))
			json_array_append_new(entry, json_string(known));
		else if (digest_file(walk, node, digest))
			json_array_append_new(entry, json_string(digest));
	}
	json_object_set(walk->files, json_string_value(path), entry);
	json_decref(path);
	json_decref(entry);
}

static void note_kernel(struct walk *walk, const char *name)
{
	json_t *kernels = json_object_get(walk->volume->content, "kernels");

	if (!strncmp(walk->path, "/boot/vmlinuz-", 14) && !strchr(walk->path + 6, '/') &&
	    json_array_size(kernels) < KERNELS)
		json_array_append_new(kernels, scan_text(name + 8));
}

static int visit(void *context, const char *name, size_t bytes, uint64_t number, bool elsewhere);

static void enter(struct walk *walk, const struct scan_node *directory)
{
	int error = walk->depth < DEPTH ? numbers_add(&walk->entered, directory->number) : -ELOOP;

	if (error == -EEXIST) {
		scan_unread(walk->volume, true, "%s: is a directory that another name leads to",
			    walk->path);
		return;
	}
	walk->depth++;
	if (!error)
		error = walk->tree->names(walk->tree->context, directory,
					  &(struct scan_names){ visit, walk });
	if (error && error != 1)
		note_unread(walk, walk->path, error);
	walk->depth--;
}

static void look_at_node(struct walk *walk, const char *name, uint64_t number)
{
	struct scan_node node;
	int error = walk->tree->node(walk->tree->context, number, &node);

	if (error) {
		note_unread(walk, walk->path, error);
	} else if (S_ISREG(node.mode)) {
		note_kernel(walk, name);
		if (!walk->kernels_only)
			note_file(walk, &node);
	} else if (S_ISDIR(node.mode) && !walk->kernels_only) {
		enter(walk, &node);
	}
}

static int visit(void *context, const char *name, size_t bytes, uint64_t number, bool elsewhere)
{
	struct walk *walk = context;
	size_t used = strlen(walk->path);

	if ((bytes == 1 && name[0] == '.') || (bytes == 2 && !memcmp(name, "..", 2)) ||
	    used + bytes + 2 > sizeof(walk->path))
		return 0;
	if (++walk->count > FILES_MAX) {
		if (walk->count == FILES_MAX + 1)
			scan_unread(walk->volume, true, "has more than %d names", FILES_MAX);
		return 1;
	}
	walk->path[used] = '/';
	memcpy(walk->path + used + 1, name, bytes);
	walk->path[used + 1 + bytes] = 0;
	if (elsewhere)
		scan_unread(walk->volume, false, "%s: is another subvolume, not looked into",
			    walk->path);
	else
		look_at_node(walk, walk->path + used + 1, number);
	walk->path[used] = 0;
	return 0;
}

static void walk_from(struct walk *walk, const char *path)
{
	struct scan_node node;
	int error = find_path(walk->tree, path, &node);

	if (error == -ENOENT)
		return;
	strcpy(walk->path, path);
	if (error)
		note_unread(walk, path, error);
	else if (S_ISDIR(node.mode))
		enter(walk, &node);
}

bool scan_tree_system(struct scan_volume *volume, const struct scan_tree *tree)
{
	struct walk walk = { .volume = volume, .tree = tree };

	return scan_os(volume, &(struct scan_reader){ .read = read_path, .context = &walk });
}

void scan_tree_files(struct scan_volume *volume, const struct scan_tree *tree)
{
	const uint64_t bytes =
		volume->bytes < DIGEST_VOLUME_BYTES ? volume->bytes : DIGEST_VOLUME_BYTES;
	struct walk walk = { .volume = volume,
			     .tree = tree,
			     .files = json_object_get(volume->content, "files"),
			     .digest_bytes = DIGEST_FLOOR_BYTES + bytes * DIGEST_TIMES,
			     .kernels_only = !volume->options->files };

	walk_from(&walk, walk.kernels_only ? "/boot" : "");
	free(walk.entered.place);
}

/* ---- what it boots ---- */

static int tell_boot_name(void *context, const char *name, size_t bytes, uint64_t number,
			  bool elsewhere)
{
	(void)number;
	return elsewhere || boot_name(context, name, bytes) ? 0 : 1;
}

static void boot_names(void *context, const char *directory, struct boot_newest *newest)
{
	const struct scan_tree *tree = context;
	const struct scan_names tell = { .name = tell_boot_name, .context = newest };
	struct scan_node node;

	/* of a directory that is not sound the names before that count */
	if (!find_path(tree, directory, &node) && S_ISDIR(node.mode))
		tree->names(tree->context, &node, &tell);
}

static char *boot_read(void *context, const char *path, uint64_t most, size_t *ret_bytes)
{
	const struct scan_tree *tree = context;
	struct scan_node node;
	char *text = NULL;

	if (find_path(tree, path, &node) || !S_ISREG(node.mode) ||
	    read_whole(tree, &node, most, &text, ret_bytes))
		return NULL;
	return text;
}

static bool boot_is_there(void *context, const char *path)
{
	struct scan_node node;

	return !find_path(context, path, &node);
}

void scan_tree_boot(const struct scan_tree *tree, const uint8_t uuid[16], uint64_t subvolume,
		    struct boot_search *search)
{
	const struct boot_reader reader = { .names = boot_names,
					    .read = boot_read,
					    .is_there = boot_is_there,
					    .context = (void *)(uintptr_t)tree };

	boot_look(search, &reader, uuid, subvolume);
}
