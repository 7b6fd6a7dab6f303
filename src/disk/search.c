/* See search.h. */
#include "search.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "abi/vhdx.h"
#include "lib/check.h"
#include "lib/path.h"

struct file_name { dev_t device; ino_t inode; };
/* A file that could not be opened as a parent. */
struct failure {
	struct file_name file;
	enum disk_format format;
	int result;
	struct disk_error error;
};
/* A VHDX file of an allowed place, with the data identifiers of its two headers. */
struct placed { char *path; struct guid data_id[2]; };

struct parent_search {
	struct file_name open[SEARCH_DEPTH_MAX + 1]; /* each a parent of the one before it */
	unsigned depth, opens;
	struct failure *failures;
	size_t failure_count;
	struct placed *placed;
	size_t placed_count;
	bool places_read;
};

static void check_search(const struct parent_search *search)
{
	assert(search->depth <= SEARCH_DEPTH_MAX + 1);
	for (unsigned n = 0; n < search->depth; n++) /* invariant 2 */
		for (unsigned other = 0; other < n; other++)
			assert(search->open[n].inode != search->open[other].inode ||
			       search->open[n].device != search->open[other].device);
	/* 3 */
	assert(search->opens <= SEARCH_OPENS_MAX && search->placed_count <= SEARCH_FILES_MAX * 32);
}

static bool file_name_of(const char *path, struct file_name *ret)
{
	struct stat st;

	if (stat(path, &st))
		return false;
	*ret = (struct file_name){ .device = st.st_dev, .inode = st.st_ino };
	return true;
}

static bool file_name_equal(struct file_name one, struct file_name other)
{
	return one.inode == other.inode && one.device == other.device;
}

/* ---- one search ---- */

int search_begin(struct parent_search **ret)
{
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	return 0;
}

void search_end(struct parent_search *search)
{
	assert(!search->depth);
	for (size_t n = 0; n < search->placed_count; n++)
		free(search->placed[n].path);
	free(search->placed);
	free(search->failures);
	free(search);
}

int search_enter(struct parent_search *search, const char *path, struct disk_error *error)
{
	struct file_name file = { .inode = 0 };

	if (search->depth > SEARCH_DEPTH_MAX)
		return disk_refuse(error, REFUSAL_CHAIN_LONG, path, DISK_NOWHERE,
				   "the chain is longer than %d", SEARCH_DEPTH_MAX);
	if (file_name_of(path, &file))
		for (unsigned n = 0; n < search->depth; n++)
			if (file_name_equal(file, search->open[n]))
				return disk_refuse(error, REFUSAL_CHAIN_LOOP, path, DISK_NOWHERE,
						   n + 1 == search->depth
							   ? "names itself as its parent"
							   : "is a parent of itself");
	search->open[search->depth++] = file;
	CHECK(check_search(search));
	return 0;
}

void search_leave(struct parent_search *search)
{
	assert(search->depth);
	search->depth--;
}

/* ---- allowed places ---- */

/* PLACE/NAME, where NAME is no link: the usual case, without resolving anything. */
static bool is_plainly_in(const char *path, const char *place)
{
	size_t length = strlen(place);
	struct stat st;

	if (strncmp(path, place, length) || path[length] != '/' || !path[length + 1] ||
	    strchr(path + length + 1, '/'))
		return false;
	return !lstat(path, &st) && S_ISREG(st.st_mode);
}

/* Whether the file lies under one of the allowed places. */
static bool is_allowed(const char *path, const char *const *places)
{
	bool allowed = *places && is_plainly_in(path, *places);
	char *file = allowed ? NULL : realpath(path, NULL);

	for (; file && *places && !allowed; places++) {
		char *place = realpath(*places, NULL);

		/* a place may be the file itself */
		allowed = place && (!strcmp(file, place) || path_is_below(file, place));
		free(place);
	}
	free(file);
	return allowed;
}

/* ---- one candidate ---- */

/* What is wrong with the host or with the chain as a whole: no other file is the answer. */
static bool ends_search(int result)
{
	return result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ELOOP;
}

static int open_candidate(const char *path, enum disk_format format,
			  const struct disk_options *options, struct disk **ret,
			  struct disk_error *error)
{
	const struct disk_options parent = {
		.format = format,
		.parents = options->parents,
		.find = options->find,
		.find_context = options->find_context,
		.accept_changed = options->accept_changed,
		.search = options->search,
	};

	if (access(path, F_OK))
		return disk_refuse_as(error, REFUSAL_OPEN, -errno, path, DISK_NOWHERE, "%s",
				      strerror(errno));
	if (!is_allowed(path, options->parents))
		return disk_refuse(error, REFUSAL_PARENT_PLACE, path, DISK_NOWHERE,
				   "a parent there is not allowed");
	if (options->search->opens++ >= SEARCH_OPENS_MAX)
		return disk_refuse(error, REFUSAL_CHAIN_OPENS, path, DISK_NOWHERE,
				   "more than %d files were opened to find its parents",
				   SEARCH_OPENS_MAX);
	return disk_open(path, &parent, ret, error);
}

static void remember_failure(struct parent_search *search, struct file_name file,
			     enum disk_format format, int result, const struct disk_error *error)
{
	struct failure *more =
		realloc(search->failures, (search->failure_count + 1) * sizeof(*more));

	if (!more) /* then it may be opened once more: the number of opens is bounded as well */
		return;
	search->failures = more;
	more[search->failure_count++] = (struct failure){
		.file = file, .format = format, .result = result, .error = *error
	};
}

/* Opens it, and keeps it when it is the one, or when that does not matter. */
static int try_candidate(struct disk *child, const struct parent_query *query, const char *path,
			 const struct disk_options *options, struct disk_error *error)
{
	struct parent_search *search = options->search;
	struct file_name file;
	struct disk *parent;
	int result;

	assert(!child->parent);
	if (!file_name_of(path, &file))
		return disk_refuse_as(error, REFUSAL_OPEN, -errno, path, DISK_NOWHERE, "%s",
				      strerror(errno));
	for (size_t n = 0; n < search->failure_count; n++)
		if (file_name_equal(search->failures[n].file, file) &&
		    search->failures[n].format == query->format) {
			*error = search->failures[n].error;
			return search->failures[n].result;
		}
	result = open_candidate(path, query->format, options, &parent, error);
	if (result) {
		if (result != -EPERM) /* another name of it may be allowed */
			remember_failure(search, file, query->format, result, error);
		return result;
	}
	result = options->accept_changed ? 0 : query->check(child, parent, error);
	if (result)
		disk_close(parent);
	else
		child->parent = parent;
	return result;
}

/* ---- places ---- */

/* The data identifiers in the headers of a file, without opening it as a disk. */
static bool read_data_ids(const char *path, struct guid ret[2])
{
	struct vhdx_header header;
	uint64_t identifier = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	bool found = false;

	if (fd < 0)
		return false;
	ret[0] = ret[1] = (struct guid){ 0 };
	if (pread(fd, &identifier, sizeof(identifier), 0) == sizeof(identifier) &&
	    identifier == VHDX_IDENTIFIER)
		for (int n = 0; n < 2; n++)
			if (pread(fd, &header, sizeof(header), (off_t)VHDX_HEADER_OFFSET(n)) ==
				    sizeof(header) &&
			    header.signature == VHDX_HEAD) {
				ret[n] = header.data_write;
				found = true;
			}
	close(fd);
	return found;
}

static int add_placed(struct parent_search *search, char *path)
{
	struct placed entry = { .path = path };
	struct placed *more;

	if (!read_data_ids(path, entry.data_id)) {
		free(path);
		return 0;
	}
	more = realloc(search->placed, (search->placed_count + 1) * sizeof(*more));
	if (!more) {
		free(path);
		return -ENOMEM;
	}
	search->placed = more;
	more[search->placed_count++] = entry;
	return 0;
}

static int read_place(struct parent_search *search, const char *place)
{
	DIR *directory = opendir(place);
	int error = 0;

	for (int n = 0; directory && n < SEARCH_FILES_MAX && !error; n++) {
		const struct dirent *entry = readdir(directory);
		char *path;

		if (!entry)
			break;
		if (entry->d_name[0] == '.' ||
		    (entry->d_type != DT_REG && entry->d_type != DT_UNKNOWN))
			continue;
		error = asprintf(&path, "%s/%s", place, entry->d_name) < 0
				? -ENOMEM
				: add_placed(search, path);
	}
	if (directory)
		closedir(directory);
	return error;
}

/* Once a chain: also a chain of which every file was renamed costs one look at each. */
static int read_places(struct parent_search *search, const char *const *places)
{
	int error = 0;

	if (search->places_read)
		return 0;
	search->places_read = true;
	for (; *places && !error; places++)
		error = read_place(search, *places);
	return error;
}

static bool has_data_of(const struct placed *placed, const struct parent_query *query)
{
	for (int n = 0; n < 2; n++) {
		if (guid_is_zero(placed->data_id[n]))
			continue;
		if (guid_equal(placed->data_id[n], query->data_id) ||
		    guid_equal(placed->data_id[n], query->other_data_id))
			return true;
	}
	return false;
}

/* ---- the parent ---- */

/* The first that is there and wrong says more than those that are not there. */
static void keep_result(int tried, const struct disk_error *why, int *result,
			struct disk_error *error)
{
	if (tried && *result != -ENOENT && tried != -ESTALE && !ends_search(tried))
		return;
	*result = tried;
	*error = *why;
}

/* Another file may still be the one. */
static bool goes_on(int result)
{
	return result == -ENOENT || result == -ESTALE || result == -EPERM;
}

static int search_by_name(struct disk *child, const struct parent_query *query,
			  const struct disk_options *options, struct disk_error *error)
{
	char *copy = query->name ? strdup(query->name) : NULL;
	const char *name = copy ? basename(copy) : NULL;
	int result = -ENOENT;

	for (const char *const *place = options->parents;
	     name && *place && result && !ends_search(result); place++) {
		char *path;

		if (asprintf(&path, "%s/%s", *place, name) < 0)
			break;
		if (!access(path, F_OK))
			result = try_candidate(child, query, path, options, error);
		free(path);
	}
	free(copy);
	return result;
}

static int search_by_data(struct disk *child, const struct parent_query *query,
			  const struct disk_options *options, struct disk_error *error)
{
	struct parent_search *search = options->search;
	int result = -ENOENT;

	if (guid_is_zero(query->data_id))
		return result;
	if (read_places(search, options->parents))
		return disk_refuse_host(error, -ENOMEM, child->path, "looking for its parent");
	for (size_t n = 0; n < search->placed_count && result && !ends_search(result); n++)
		if (has_data_of(&search->placed[n], query))
			result =
				try_candidate(child, query, search->placed[n].path, options, error);
	return result;
}

/* Where the opener has seen this data: it may lie deeper below an allowed place than is looked
 * here. */
static int ask_opener(struct disk *child, const struct parent_query *query,
		      const struct disk_options *options, struct disk_error *error)
{
	const struct guid ids[2] = { query->data_id, query->other_data_id };
	int result = -ENOENT;

	for (int n = 0; options->find && n < 2 && result == -ENOENT; n++) {
		char *path = NULL;

		if (guid_is_zero(ids[n]) || options->find(options->find_context, ids[n], &path))
			continue;
		result = try_candidate(child, query, path, options, error);
		free(path);
	}
	return result;
}

static int search_everywhere(struct disk *child, const struct parent_query *query,
			     const struct disk_options *options, struct disk_error *error)
{
	int result = -ENOENT;

	disk_refuse(error, REFUSAL_PARENT_NOWHERE, child->path, DISK_NOWHERE,
		    "names no place where its parent is");
	for (int n = 0; n < 4 && result && !ends_search(result); n++) {
		struct disk_error why;
		int tried = query->path[n]
				    ? try_candidate(child, query, query->path[n], options, &why)
				    : -ENOENT;

		if (query->path[n])
			keep_result(tried, &why, &result, error);
	}
	for (int n = 0; n < 3 && goes_on(result); n++) {
		static int (*const ways[])(struct disk *, const struct parent_query *,
					   const struct disk_options *, struct disk_error *) = {
			search_by_name,
			search_by_data,
			ask_opener,
		};
		struct disk_error why;
		int tried = ways[n](child, query, options, &why);

		/* that it is there and not allowed says more than that it is not found */
		if (!tried || ends_search(tried) ||
		    (result == -ENOENT && (tried == -EPERM || tried == -ESTALE))) {
			result = tried;
			*error = why;
		}
	}
	return result;
}

int search_parent(struct disk *child, const struct parent_query *query,
		  const struct disk_options *options, struct disk_error *error)
{
	struct disk_options own_place = *options;
	const char *own[2] = { NULL, NULL };
	char *copy;
	int result;

	assert(options->search && !child->parent);
	if (options->parent) {
		result = query->check(child, options->parent, error);
		child->parent = result ? NULL : options->parent;
		return result;
	}
	copy = strdup(child->path);
	if (!copy)
		return disk_refuse_host(error, -ENOMEM, child->path, "looking for its parent");
	own[0] = dirname(copy);
	if (!options->parents)
		own_place.parents = own;
	result = search_everywhere(child, query, &own_place, error);
	free(copy);
	return result;
}
