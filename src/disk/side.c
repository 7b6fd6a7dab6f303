/*
 * PATH.umbra: what a file carries beside its data when its format has no place for it.
 *
 *   magic, version, count, CRC-32C of everything behind it   then each: identifier, length, value
 *
 * Replaced whole: a new file, synced, renamed over the old one, the directory synced.
 */
#include <assert.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/crc32c.h"
#include "lib/write_all.h"
#include "disk_internal.h"

enum { MAGIC = 0x44495355, VERSION = 1, ITEMS_MAX = 1024 };
#define BYTES_MAX (64u << 20)

struct side_head { uint32_t magic, version, count, checksum; };
struct side_item { struct guid id; uint64_t bytes; };
struct side { uint8_t *bytes; size_t count; };

static int side_path(const char *path, const char *suffix, char **ret)
{
	return asprintf(ret, "%s.umbra%s", path, suffix) < 0 ? -ENOMEM : 0;
}

static bool side_is_sound(const struct side *side)
{
	struct side_head head;
	size_t at = sizeof(head);

	if (side->count < sizeof(head))
		return false;
	memcpy(&head, side->bytes, sizeof(head));
	if (head.magic != MAGIC || head.version != VERSION || head.count > ITEMS_MAX ||
	    crc32c(0, side->bytes + at, side->count - at) != head.checksum)
		return false;
	for (uint32_t n = 0; n < head.count; n++) {
		struct side_item item;

		if (side->count - at < sizeof(item))
			return false;
		memcpy(&item, side->bytes + at, sizeof(item));
		at += sizeof(item);
		if (item.bytes > side->count - at)
			return false;
		at += item.bytes;
	}
	return at == side->count;
}

/* -ENOENT: there is none. */
static int side_load_file(const char *path, struct side *ret)
{
	char *name;
	struct stat st = { 0 };
	int error = side_path(path, "", &name);
	int fd;

	*ret = (struct side){ 0 };
	if (error)
		return error;
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	free(name);
	if (fd < 0)
		return -errno;
	error = fstat(fd, &st) ? -errno : 0;
	if (!error && (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > BYTES_MAX))
		error = -EBADMSG;
	if (!error) {
		ret->count = (size_t)st.st_size;
		ret->bytes = malloc(ret->count + 1);
		error = ret->bytes ? 0 : -ENOMEM;
	}
	if (!error && pread(fd, ret->bytes, ret->count, 0) != (ssize_t)ret->count)
		error = -EIO;
	if (!error && !side_is_sound(ret))
		error = -EBADMSG;
	close(fd);
	if (error) {
		free(ret->bytes);
		ret->bytes = NULL;
	}
	return error;
}

/* Where the item with this identifier begins, and what follows it; false: none. */
static bool side_find(const struct side *side, struct guid id, size_t *ret_at, size_t *ret_bytes)
{
	for (size_t at = sizeof(struct side_head); at < side->count;) {
		struct side_item item;

		memcpy(&item, side->bytes + at, sizeof(item));
		*ret_at = at;
		*ret_bytes = sizeof(item) + item.bytes;
		if (guid_equal(item.id, id))
			return true;
		at += *ret_bytes;
	}
	return false;
}

int disk_side_load(const char *path, uint8_t **ret, size_t *ret_bytes)
{
	struct side side;
	int error = side_load_file(path, &side);

	*ret = side.bytes;
	*ret_bytes = side.count;
	return error;
}

/* By the keeper where there is one; what it says is checked like a file. */
static int side_load(const struct disk_side_keeper *keeper, const char *path, struct side *ret)
{
	int error;

	if (!keeper)
		return side_load_file(path, ret);
	*ret = (struct side){ 0 };
	error = keeper->load(keeper->context, &ret->bytes, &ret->count);
	if (error || side_is_sound(ret))
		return error;
	free(ret->bytes);
	ret->bytes = NULL;
	return -EBADMSG;
}

int side_read(const struct disk_side_keeper *keeper, const char *path, struct guid id,
	      uint8_t **ret, size_t *ret_bytes)
{
	struct side side;
	size_t at, bytes;
	int error = side_load(keeper, path, &side);

	if (error)
		return error;
	if (!side_find(&side, id, &at, &bytes)) {
		free(side.bytes);
		return -ENOENT;
	}
	assert(bytes >= sizeof(struct side_item) && at <= side.count && bytes <= side.count - at);
	*ret_bytes = bytes - sizeof(struct side_item);
	memmove(side.bytes, side.bytes + at + sizeof(struct side_item), *ret_bytes);
	*ret = side.bytes;
	return 0;
}

static int side_sync_directory(char *name)
{
	int fd = open(dirname(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error;

	if (fd < 0)
		return -errno;
	error = fsync(fd) ? -errno : 0;
	close(fd);
	return error;
}

static int side_store(const char *path, const struct side *side, bool *ret_unsynced)
{
	char *name = NULL;
	char *fresh = NULL;
	int fd = -1;
	int error = side_path(path, "", &name);

	if (!error)
		error = side_path(path, ".new", &fresh);
	if (!error) {
		fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
		error = fd < 0 ? -errno : write_all(fd, side->bytes, side->count);
	}
	if (!error && fsync(fd)) {
		error = -errno;
		*ret_unsynced = true;
	}
	if (fd >= 0)
		close(fd);
	if (error && fd >= 0)
		unlink(fresh);
	if (!error && rename(fresh, name))
		error = -errno;
	else if (!error) {
		error = side_sync_directory(name);
		*ret_unsynced = error;
	}
	free(name);
	free(fresh);
	return error;
}

int disk_side_store(const char *path, const uint8_t *bytes, size_t count, bool *ret_unsynced)
{
	const struct side side = { .bytes = (uint8_t *)(uintptr_t)bytes, .count = count };

	*ret_unsynced = false;
	return side_is_sound(&side) ? side_store(path, &side, ret_unsynced) : -EBADMSG;
}

/* All of a file but `count` bytes of it. */
static void copy_around(const struct side *side, size_t at, size_t count, uint8_t *to)
{
	if (!side->bytes)
		return;
	assert(at <= side->count && count <= side->count - at);
	memcpy(to, side->bytes, at);
	memcpy(to + at, side->bytes + at + count, side->count - at - count);
}

/* All other items, then this one. */
int side_write(const struct disk_side_keeper *keeper, const char *path, struct guid id,
	       const void *value, size_t bytes, bool *ret_unsynced)
{
	struct side old;
	struct side now = { 0 };
	struct side_head head = { .magic = MAGIC, .version = VERSION };
	struct side_item item = { .id = id, .bytes = bytes };
	size_t at = 0;
	size_t found = 0;
	bool had;
	int error = side_load(keeper, path, &old);

	*ret_unsynced = false;
	if (error && error != -ENOENT)
		return error;
	if (old.bytes)
		memcpy(&head, old.bytes, sizeof(head));
	else
		old.count = sizeof(head);
	had = old.bytes && side_find(&old, id, &at, &found);
	if (!value && !had) {
		free(old.bytes);
		return 0;
	}
	now.count = old.count - (had ? found : 0) + (value ? sizeof(item) + bytes : 0);
	now.bytes = now.count > BYTES_MAX ? NULL : malloc(now.count);
	if (!now.bytes) {
		free(old.bytes);
		return now.count > BYTES_MAX ? -EFBIG : -ENOMEM;
	}
	if (!had) {
		at = old.count;
		found = 0;
	}
	copy_around(&old, at, found, now.bytes);
	if (value) {
		memcpy(now.bytes + old.count - found, &item, sizeof(item));
		memcpy(now.bytes + old.count - found + sizeof(item), value, bytes);
	}
	head.count = head.count - had + (value != NULL);
	head.checksum = crc32c(0, now.bytes + sizeof(head), now.count - sizeof(head));
	memcpy(now.bytes, &head, sizeof(head));
	if (head.count > ITEMS_MAX)
		error = -EFBIG;
	else if (keeper)
		error = keeper->store(keeper->context, now.bytes, now.count, ret_unsynced);
	else
		error = side_store(path, &now, ret_unsynced);
	free(old.bytes);
	free(now.bytes);
	return error;
}
