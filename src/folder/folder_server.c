/* See folder_server.h. */
#include "folder_server.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "abi/agent_layout.h"
#include "tree.h"

enum {
	VALID_SECONDS = 1, ALONE_SECONDS = 3600, BLOCK_BYTES = 4096, OTHER_OWNER = 65534,
	STAT_BLOCK_BYTES = 512,
	ENTRIES_BYTES = 32 << 10, PAGES_MOST = FOLDER_DATA_BYTES / BLOCK_BYTES, MINOR_LEAST = 31,
	NO_ANSWER = 1, REQUESTS_AT_ONCE = 16, SETTLED_SECONDS = 2
};

struct folder_server {
	struct tree *tree;
	uid_t owner;
	unsigned valid_seconds; /* so long a guest believes what was said of a name or a file */
	struct { struct fuse_out_header head; uint8_t body[FOLDER_MESSAGE_BYTES]; } answer;
	uint8_t request[FOLDER_MESSAGE_BYTES];
	size_t held; /* of a request that is on its way */
};

/* What a request is about; body and bytes: behind its head and the least that it has to have. */
struct request { struct fuse_in_header head; const uint8_t *least, *rest; size_t rest_bytes; };

struct folder_server *folder_server_create(int folder, bool read_only, bool alone)
{
	struct folder_server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->owner = geteuid();
	server->valid_seconds = alone ? ALONE_SECONDS : VALID_SECONDS;
	server->tree = tree_create(folder, read_only);
	if (server->tree)
		return server;
	free(server);
	return NULL;
}

void folder_server_destroy(struct folder_server *server)
{
	tree_destroy(server->tree);
	free(server);
}

/* ---- what is said of a file ---- */

/* The user's own are the guest's root's. */
static struct fuse_attr attributes_of(const struct folder_server *server, const struct stat *st)
{
	const uint32_t owner = st->st_uid == server->owner ? 0 : OTHER_OWNER;

	return (struct fuse_attr){ .ino = st->st_ino,
				   .size = (uint64_t)st->st_size,
				   .blocks = (uint64_t)st->st_blocks,
				   .atime = (uint64_t)st->st_atim.tv_sec,
				   .mtime = (uint64_t)st->st_mtim.tv_sec,
				   .ctime = (uint64_t)st->st_ctim.tv_sec,
				   .atimensec = (uint32_t)st->st_atim.tv_nsec,
				   .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
				   .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
				   .mode = st->st_mode,
				   .nlink = (uint32_t)st->st_nlink,
				   .uid = owner,
				   .gid = owner,
				   .blksize = BLOCK_BYTES };
}

static struct fuse_entry_out entry_of(const struct folder_server *server, uint64_t node,
				      const struct stat *st)
{
	return (struct fuse_entry_out){ .nodeid = node,
					.entry_valid = server->valid_seconds,
					.attr_valid = server->valid_seconds,
					.attr = attributes_of(server, st) };
}

static int say(struct folder_server *server, const void *data, size_t bytes)
{
	assert(bytes <= sizeof(server->answer.body));
	memcpy(server->answer.body, data, bytes);
	server->answer.head.len += (uint32_t)bytes;
	return 0;
}

static int say_entry(struct folder_server *server, uint64_t parent, const char *name)
{
	struct fuse_entry_out entry;
	struct stat st;
	uint64_t node;
	const int error = tree_find(server->tree, parent, name, &node, &st);

	if (error)
		return error;
	entry = entry_of(server, node, &st);
	return say(server, &entry, sizeof(entry));
}

static int say_attributes(struct folder_server *server, uint64_t node, uint64_t handle)
{
	struct fuse_attr_out out = { .attr_valid = server->valid_seconds };
	struct stat st;
	const int error = tree_stat(server->tree, node, handle, &st);

	if (error)
		return error;
	out.attr = attributes_of(server, &st);
	return say(server, &out, sizeof(out));
}

static int say_handle(struct folder_server *server, uint64_t handle)
{
	const struct fuse_open_out out = { .fh = handle };

	return say(server, &out, sizeof(out));
}

/* ---- names in requests ---- */

/* The first text of the rest, and in *ret_next what follows it; NULL: it has no end. */
static const char *text_of(const struct request *request, const char **ret_next)
{
	const char *text = (const char *)request->rest;
	const char *end = memchr(text, 0, request->rest_bytes);

	if (ret_next)
		*ret_next = end ? end + 1 : NULL;
	return end ? text : NULL;
}

static const char *second_text_of(const struct request *request)
{
	const char *second;
	const char *end = (const char *)request->rest + request->rest_bytes;

	if (!text_of(request, &second) || !memchr(second, 0, (size_t)(end - second)))
		return NULL;
	return second;
}

/* ---- operations: 0, NO_ANSWER or -errno ---- */

static int begin(struct folder_server *server, const struct request *request)
{
	struct fuse_init_in in = { .major = 0 };
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION, .minor = MINOR_LEAST,
		.max_readahead = FOLDER_DATA_BYTES,
		.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC |
			 FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
			 FUSE_MAX_PAGES | FUSE_AUTO_INVAL_DATA,
		.max_background = REQUESTS_AT_ONCE, .max_write = FOLDER_DATA_BYTES,
		.time_gran = 1, .max_pages = PAGES_MOST,
	};

	memcpy(&in, request->least, 16);
	if (in.major != FUSE_KERNEL_VERSION || in.minor < MINOR_LEAST)
		return -EPROTO;
	out.flags &= in.flags;
	return say(server, &out, sizeof(out));
}

/* That a name is not there is believed as long as what is said of one that is. */
static int lookup(struct folder_server *server, const struct request *request)
{
	const struct fuse_entry_out none = { .entry_valid = server->valid_seconds };
	const char *name = text_of(request, NULL);
	const int error = name ? say_entry(server, request->head.nodeid, name) : -EINVAL;

	return error == -ENOENT ? say(server, &none, sizeof(none)) : error;
}

static int forget(struct folder_server *server, const struct request *request)
{
	struct fuse_forget_in in;

	memcpy(&in, request->least, sizeof(in));
	tree_forget(server->tree, request->head.nodeid, in.nlookup);
	return NO_ANSWER;
}

static int forget_many(struct folder_server *server, const struct request *request)
{
	struct fuse_batch_forget_in in;
	struct fuse_forget_one one;

	memcpy(&in, request->least, sizeof(in));
	for (uint32_t n = 0; n < in.count && (n + 1) * sizeof(one) <= request->rest_bytes; n++) {
		memcpy(&one, request->rest + n * sizeof(one), sizeof(one));
		tree_forget(server->tree, one.nodeid, one.nlookup);
	}
	return NO_ANSWER;
}

static int get_attributes(struct folder_server *server, const struct request *request)
{
	struct fuse_getattr_in in;

	memcpy(&in, request->least, sizeof(in));
	return say_attributes(server, request->head.nodeid,
			      in.getattr_flags & FUSE_GETATTR_FH ? in.fh : 0);
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds,
			       uint32_t nanoseconds)
{
	if (valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	if (!(valid & set))
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	return (struct timespec){ .tv_sec = (time_t)seconds, .tv_nsec = nanoseconds };
}

static int set_attributes(struct folder_server *server, const struct request *request)
{
	enum { TIMES = FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW };
	struct fuse_setattr_in in;
	struct tree_change change = { .times = NULL };
	struct timespec times[2];
	uint64_t handle;
	int error;

	memcpy(&in, request->least, sizeof(in));
	if ((in.valid & FATTR_UID && in.uid) || (in.valid & FATTR_GID && in.gid))
		return -EPERM; /* all is the user's */
	times[0] = time_of(in.valid, FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec);
	times[1] = time_of(in.valid, FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec);
	handle = in.valid & FATTR_FH ? in.fh : 0;
	change.has_mode = in.valid & FATTR_MODE;
	change.mode = in.mode;
	change.has_size = in.valid & FATTR_SIZE;
	change.size = in.size;
	change.times = in.valid & TIMES ? times : NULL;
	error = tree_change(server->tree, request->head.nodeid, handle, &change);
	return error ? error : say_attributes(server, request->head.nodeid, handle);
}

static int read_link(struct folder_server *server, const struct request *request)
{
	size_t bytes = 0;
	const int error = tree_link_text(server->tree, request->head.nodeid,
					 (char *)server->answer.body, BLOCK_BYTES - 1, &bytes);

	server->answer.head.len += error ? 0 : (uint32_t)bytes;
	return error;
}

static int make_link(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);
	const char *text = second_text_of(request);
	const int error = text ? tree_make_link(server->tree, request->head.nodeid, name, text)
			       : -EINVAL;

	return error ? error : say_entry(server, request->head.nodeid, name);
}

/* Files alone: no pipes, no sockets, no devices. */
static int make_node(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);
	struct fuse_mknod_in in;
	uint64_t handle;
	int error;

	memcpy(&in, request->least, sizeof(in));
	if (!name || !S_ISREG(in.mode))
		return name ? -EPERM : -EINVAL;
	error = tree_make_file(server->tree, request->head.nodeid, name, O_RDONLY | O_EXCL,
			       in.mode & ~in.umask, &handle);
	if (error)
		return error;
	tree_close(server->tree, handle);
	return say_entry(server, request->head.nodeid, name);
}

static int make_folder(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);
	struct fuse_mkdir_in in;
	int error;

	memcpy(&in, request->least, sizeof(in));
	error = name ? tree_make_folder(server->tree, request->head.nodeid, name,
					in.mode & ~in.umask)
		     : -EINVAL;
	return error ? error : say_entry(server, request->head.nodeid, name);
}

static int remove_file(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);

	return name ? tree_remove(server->tree, request->head.nodeid, name, false) : -EINVAL;
}

static int remove_folder(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);

	return name ? tree_remove(server->tree, request->head.nodeid, name, true) : -EINVAL;
}

static int rename_to(struct folder_server *server, const struct request *request, uint64_t folder,
		     uint32_t flags)
{
	const char *name = text_of(request, NULL);
	const char *to_name = second_text_of(request);

	if (!to_name || flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	return tree_rename(server->tree, request->head.nodeid, name, folder, to_name, flags);
}

static int rename_file(struct folder_server *server, const struct request *request)
{
	struct fuse_rename_in in;

	memcpy(&in, request->least, sizeof(in));
	return rename_to(server, request, in.newdir, 0);
}

static int rename_file_2(struct folder_server *server, const struct request *request)
{
	struct fuse_rename2_in in;

	memcpy(&in, request->least, sizeof(in));
	return rename_to(server, request, in.newdir, in.flags);
}

static int add_name(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);
	struct fuse_link_in in;
	int error;

	memcpy(&in, request->least, sizeof(in));
	error = name ? tree_add_name(server->tree, in.oldnodeid, request->head.nodeid, name)
		     : -EINVAL;
	return error ? error : say_entry(server, request->head.nodeid, name);
}

/*
 * What the guest has of its bytes from before is as good as what is said of its time and size, by
 * which it notices a change; but for a file that may change once more within the same tick.
 */
static bool is_settled(const struct folder_server *server, uint64_t handle)
{
	struct timespec now;
	struct stat st;

	return !tree_stat(server->tree, 0, handle, &st) && !clock_gettime(CLOCK_REALTIME, &now) &&
	       now.tv_sec - st.st_mtim.tv_sec >= SETTLED_SECONDS;
}

static int open_file(struct folder_server *server, const struct request *request)
{
	struct fuse_open_out out = { .open_flags = 0 };
	struct fuse_open_in in;
	int error;

	memcpy(&in, request->least, sizeof(in));
	error = tree_open(server->tree, request->head.nodeid, (int)in.flags, &out.fh);
	if (error)
		return error;
	out.open_flags = is_settled(server, out.fh) ? FOPEN_KEEP_CACHE : 0;
	return say(server, &out, sizeof(out));
}

static int make_file(struct folder_server *server, const struct request *request)
{
	const char *name = text_of(request, NULL);
	struct { struct fuse_entry_out entry; struct fuse_open_out open; } out = { 0 };
	struct fuse_create_in in;
	struct stat st;
	int error;

	memcpy(&in, request->least, sizeof(in));
	if (!name)
		return -EINVAL;
	error = tree_make_file(server->tree, request->head.nodeid, name, (int)in.flags,
			       in.mode & ~in.umask, &out.open.fh);
	if (error)
		return error;
	error = tree_find(server->tree, request->head.nodeid, name, &out.entry.nodeid, &st);
	if (error) {
		tree_close(server->tree, out.open.fh);
		return error;
	}
	out.entry = entry_of(server, out.entry.nodeid, &st);
	return say(server, &out, sizeof(out));
}

static int read_file(struct folder_server *server, const struct request *request)
{
	struct fuse_read_in in;
	ssize_t got;
	int fd;

	memcpy(&in, request->least, sizeof(in));
	fd = tree_descriptor(server->tree, in.fh);
	if (fd < 0)
		return fd;
	if (in.size > FOLDER_DATA_BYTES)
		return -EINVAL;
	got = pread(fd, server->answer.body, in.size, (off_t)in.offset);
	if (got < 0)
		return -errno;
	server->answer.head.len += (uint32_t)got;
	return 0;
}

static int write_file(struct folder_server *server, const struct request *request)
{
	struct fuse_write_out out = { .size = 0 };
	struct fuse_write_in in;
	ssize_t put;
	int fd;

	memcpy(&in, request->least, sizeof(in));
	fd = tree_descriptor(server->tree, in.fh);
	if (fd < 0)
		return fd;
	if (in.size > request->rest_bytes)
		return -EINVAL;
	put = pwrite(fd, request->rest, in.size, (off_t)in.offset);
	if (put < 0)
		return -errno;
	out.size = (uint32_t)put;
	return say(server, &out, sizeof(out));
}

static int say_space(struct folder_server *server, const struct request *request)
{
	struct fuse_statfs_out out = { .st = { .bsize = BLOCK_BYTES } };
	struct statfs space;

	(void)request;
	if (fstatfs(tree_folder(server->tree), &space))
		return -errno;
	out.st = (struct fuse_kstatfs){ .blocks = space.f_blocks, .bfree = space.f_bfree,
					.bavail = space.f_bavail, .files = space.f_files,
					.ffree = space.f_ffree,
					.bsize = (uint32_t)space.f_bsize,
					.namelen = TREE_NAME_BYTES,
					.frsize = (uint32_t)space.f_frsize };
	return say(server, &out, sizeof(out));
}

static int close_file(struct folder_server *server, const struct request *request)
{
	struct fuse_release_in in;

	memcpy(&in, request->least, sizeof(in));
	tree_close(server->tree, in.fh);
	return 0;
}

static int sync_file(struct folder_server *server, const struct request *request)
{
	struct fuse_fsync_in in;
	int fd;

	memcpy(&in, request->least, sizeof(in));
	fd = tree_descriptor(server->tree, in.fh);
	if (fd < 0)
		return fd;
	return fsync(fd) ? -errno : 0;
}

static int nothing(struct folder_server *server, const struct request *request)
{
	(void)server;
	(void)request;
	return 0;
}

static int silence(struct folder_server *server, const struct request *request)
{
	(void)server;
	(void)request;
	return NO_ANSWER;
}

/* ---- folders ---- */

static int open_folder(struct folder_server *server, const struct request *request)
{
	uint64_t handle;
	const int error = tree_open_folder(server->tree, request->head.nodeid, &handle);

	return error ? error : say_handle(server, handle);
}

/* An entry of a folder, as getdents64() has it. */
struct entry { uint64_t ino; int64_t next; uint16_t bytes; uint8_t type; char name[]; };
/* What has been put into the answer, and how much may be. */
struct listing { size_t used, room; bool with_attributes; uint64_t folder; };

static bool is_dots(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

static bool is_listed(uint8_t type)
{
	return type == DT_REG || type == DT_DIR || type == DT_LNK || type == DT_UNKNOWN;
}

/* False: no room. What cannot be found is listed without: it is looked for again, or not. */
static bool put_entry(struct folder_server *server, struct listing *listing,
		      const struct entry *entry)
{
	const size_t name_bytes = strlen(entry->name);
	const size_t head_bytes = listing->with_attributes ? sizeof(struct fuse_entry_out) : 0;
	const size_t bytes = FUSE_DIRENT_ALIGN(head_bytes + FUSE_NAME_OFFSET + name_bytes);
	uint8_t *at = server->answer.body + listing->used;
	const struct fuse_dirent out = { .ino = entry->ino,
					 .off = (uint64_t)entry->next,
					 .namelen = (uint32_t)name_bytes,
					 .type = entry->type };
	struct fuse_entry_out found = { .nodeid = 0 };
	struct stat st;

	if (listing->used + bytes > listing->room)
		return false;
	memset(at, 0, bytes);
	if (head_bytes && !is_dots(entry->name) &&
	    !tree_find(server->tree, listing->folder, entry->name, &found.nodeid, &st))
		found = entry_of(server, found.nodeid, &st);
	memcpy(at, &found, head_bytes);
	memcpy(at + head_bytes, &out, FUSE_NAME_OFFSET);
	memcpy(at + head_bytes + FUSE_NAME_OFFSET, entry->name, name_bytes);
	listing->used += bytes;
	return true;
}

/* What getdents64() has said: how far it goes, or false where there is no room for more. */
static bool put_entries(struct folder_server *server, struct listing *listing,
			const uint8_t *entries, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		const struct entry *entry = (const struct entry *)(const void *)(entries + at);

		if (is_listed(entry->type) && !put_entry(server, listing, entry))
			return false;
		at += entry->bytes;
	}
	return true;
}

static int list(struct folder_server *server, const struct request *request, bool with_attributes)
{
	_Alignas(8) uint8_t entries[ENTRIES_BYTES];
	struct listing listing = { .with_attributes = with_attributes,
				   .folder = request->head.nodeid };
	struct fuse_read_in in;
	long got;
	int fd;

	memcpy(&in, request->least, sizeof(in));
	fd = tree_descriptor(server->tree, in.fh);
	listing.room = in.size < FOLDER_DATA_BYTES ? in.size : FOLDER_DATA_BYTES;
	if (fd < 0 || lseek(fd, (off_t)in.offset, SEEK_SET) < 0)
		return fd < 0 ? fd : -errno;
	do {
		got = syscall(SYS_getdents64, fd, entries, sizeof(entries));
	} while (got > 0 && put_entries(server, &listing, entries, (size_t)got));
	if (got < 0 && !listing.used)
		return -errno;
	server->answer.head.len += (uint32_t)listing.used;
	return 0;
}

static int list_names(struct folder_server *server, const struct request *request)
{
	return list(server, request, false);
}

static int list_entries(struct folder_server *server, const struct request *request)
{
	return list(server, request, true);
}

/* ---- all of them ---- */

struct operation {
	size_t least_bytes; /* behind the head */
	int (*answer)(struct folder_server *server, const struct request *request);
};

static const struct operation operations[] = {
	[FUSE_LOOKUP] = { 0, lookup },
	[FUSE_FORGET] = { sizeof(struct fuse_forget_in), forget },
	[FUSE_GETATTR] = { sizeof(struct fuse_getattr_in), get_attributes },
	[FUSE_SETATTR] = { sizeof(struct fuse_setattr_in), set_attributes },
	[FUSE_READLINK] = { 0, read_link },
	[FUSE_SYMLINK] = { 0, make_link },
	[FUSE_MKNOD] = { sizeof(struct fuse_mknod_in), make_node },
	[FUSE_MKDIR] = { sizeof(struct fuse_mkdir_in), make_folder },
	[FUSE_UNLINK] = { 0, remove_file },
	[FUSE_RMDIR] = { 0, remove_folder },
	[FUSE_RENAME] = { sizeof(struct fuse_rename_in), rename_file },
	[FUSE_LINK] = { sizeof(struct fuse_link_in), add_name },
	[FUSE_OPEN] = { sizeof(struct fuse_open_in), open_file },
	[FUSE_READ] = { sizeof(struct fuse_read_in), read_file },
	[FUSE_WRITE] = { sizeof(struct fuse_write_in), write_file },
	[FUSE_STATFS] = { 0, say_space },
	[FUSE_RELEASE] = { sizeof(struct fuse_release_in), close_file },
	[FUSE_FSYNC] = { sizeof(struct fuse_fsync_in), sync_file },
	/* FUSE_FLUSH is none: what was written is with the host's kernel already, and a guest that
	 * has heard so once does not ask again at each close() */
	[FUSE_INIT] = { 16, begin },
	[FUSE_OPENDIR] = { 0, open_folder },
	[FUSE_READDIR] = { sizeof(struct fuse_read_in), list_names },
	[FUSE_RELEASEDIR] = { sizeof(struct fuse_release_in), close_file },
	[FUSE_FSYNCDIR] = { sizeof(struct fuse_fsync_in), sync_file },
	[FUSE_CREATE] = { sizeof(struct fuse_create_in), make_file },
	[FUSE_INTERRUPT] = { 0, silence },
	[FUSE_DESTROY] = { 0, nothing },
	[FUSE_BATCH_FORGET] = { sizeof(struct fuse_batch_forget_in), forget_many },
	[FUSE_READDIRPLUS] = { sizeof(struct fuse_read_in), list_entries },
	[FUSE_RENAME2] = { sizeof(struct fuse_rename2_in), rename_file_2 },
};

/* NO_ANSWER, 0 or -errno. */
static int act(struct folder_server *server, struct request *request, const uint8_t *body,
	       size_t bytes)
{
	const uint32_t count = sizeof(operations) / sizeof(operations[0]);
	const struct operation *operation =
		request->head.opcode < count ? &operations[request->head.opcode] : NULL;

	if (!operation || !operation->answer)
		return -ENOSYS;
	if (bytes < operation->least_bytes)
		return -EINVAL;
	request->least = body;
	request->rest = body + operation->least_bytes;
	request->rest_bytes = bytes - operation->least_bytes;
	return operation->answer(server, request);
}

int folder_server_answer(struct folder_server *server, const void *data, size_t bytes,
			 const uint8_t **ret)
{
	struct fuse_out_header *head = &server->answer.head;
	struct request request;
	int error;

	*ret = (const uint8_t *)&server->answer;
	if (bytes < sizeof(request.head) || bytes > FOLDER_MESSAGE_BYTES)
		return -EBADMSG;
	memcpy(&request.head, data, sizeof(request.head));
	if (request.head.len != bytes)
		return -EBADMSG;
	*head = (struct fuse_out_header){ .len = sizeof(*head), .unique = request.head.unique };
	error = act(server, &request, (const uint8_t *)data + sizeof(request.head),
		    bytes - sizeof(request.head));
	if (error == NO_ANSWER)
		return 0;
	head->error = error;
	if (error)
		head->len = sizeof(*head);
	return (int)head->len;
}

/* ---- the line ---- */

static int receive(int line, void *to, size_t bytes)
{
	uint8_t *at = to;

	while (bytes) {
		const ssize_t got = recv(line, at, bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EPIPE;
		at += got;
		bytes -= (size_t)got;
	}
	return 0;
}

static int send_all(int line, const void *from, size_t bytes)
{
	const uint8_t *at = from;

	while (bytes) {
		const ssize_t put = send(line, at, bytes, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		bytes -= (size_t)put;
	}
	return 0;
}

static int send_answer(int line, const uint8_t *answer, size_t bytes)
{
	int error = 0;

	while (bytes && !error) {
		struct { struct agent_frame head; uint8_t data[AGENT_FRAME_BYTES]; } frame;
		const size_t part = bytes < AGENT_FRAME_BYTES ? bytes : AGENT_FRAME_BYTES;

		frame.head = (struct agent_frame){ .kind = AGENT_FUSE, .bytes = (uint32_t)part };
		memcpy(frame.data, answer, part);
		error = send_all(line, &frame, sizeof(frame.head) + part);
		answer += part;
		bytes -= part;
	}
	return error;
}

/* One more frame of a request. */
static int receive_frame(struct folder_server *server, int line)
{
	struct agent_frame head;
	int error = receive(line, &head, sizeof(head));

	if (error)
		return error;
	if (head.kind != AGENT_FUSE || !head.bytes || head.bytes > AGENT_FRAME_BYTES ||
	    head.bytes > sizeof(server->request) - server->held)
		return -EBADMSG;
	error = receive(line, server->request + server->held, head.bytes);
	server->held += head.bytes;
	return error;
}

/* Whole requests alone: a frame has no more than what belongs to one. */
static int answer_request(struct folder_server *server, int line)
{
	uint32_t bytes;
	const uint8_t *answer;
	int got;

	if (server->held < sizeof(bytes))
		return 0;
	memcpy(&bytes, server->request, sizeof(bytes));
	if (bytes > server->held)
		return bytes > sizeof(server->request) ? -EBADMSG : 0;
	got = folder_server_answer(server, server->request, server->held, &answer);
	server->held = 0;
	if (got <= 0)
		return got;
	return send_answer(line, answer, (size_t)got);
}

int folder_server_run(struct folder_server *server, int line)
{
	const struct agent_frame begin = { .kind = AGENT_FUSE };
	int error = send_all(line, &begin, sizeof(begin));

	while (!error) {
		error = receive_frame(server, line);
		if (!error)
			error = answer_request(server, line);
	}
	return error == -EPIPE || error == -ECONNRESET ? 0 : error;
}
