/* See share_record.h. */
#include "share_record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define MAGIC 0x32726873u
#define FOLDER "/run"
#define HASH_FIRST 0xcbf29ce484222325ull
#define HASH_FACTOR 0x100000001b3ull

static int choose_place(const char *path, char *ret, size_t room)
{
	char whole[PATH_MAX];
	uint64_t hash = HASH_FIRST;

	if (!realpath(path, whole))
		return -errno;
	for (const char *at = whole; *at; at++)
		hash = (hash ^ (uint8_t)*at) * HASH_FACTOR;
	snprintf(ret, room, FOLDER "/umbra-share-disk-%016lx", hash);
	return 0;
}

static void read_boot(char ret[SHARE_RECORD_BOOT_BYTES])
{
	const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	const ssize_t got = fd < 0 ? 0 : read(fd, ret, SHARE_RECORD_BOOT_BYTES);

	if (got <= 0)
		memset(ret, 0, SHARE_RECORD_BOOT_BYTES);
	if (fd >= 0)
		close(fd);
}

static bool is_of(const struct share_record *record, const struct share_record *wanted)
{
	return record->magic == MAGIC && record->device == wanted->device &&
	       record->inode == wanted->inode && record->size_bytes == wanted->size_bytes &&
	       !memcmp(record->boot, wanted->boot, sizeof(record->boot));
}

/* Its magic is the last: one that is not whole is none. */
static int begin_anew(struct share_record *record, const struct share_record *wanted)
{
	__atomic_store_n(&record->magic, 0, __ATOMIC_SEQ_CST);
	*record = *wanted;
	if (getrandom(record->id, sizeof(record->id), 0) != sizeof(record->id))
		return -errno;
	__atomic_store_n(&record->magic, MAGIC, __ATOMIC_RELEASE);
	return 0;
}

/* The descriptor stays open, and with it the lock, as long as the program lives. */
static int map(const char *where, struct share_record **ret)
{
	const int fd = open(where, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	void *at;
	int error;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (ftruncate(fd, sizeof(**ret)))
		return -errno;
	/* its bytes are there: a mapping of what a folder that is full has no room for ends it */
	error = posix_fallocate(fd, 0, sizeof(**ret));
	if (error)
		return -error;
	at = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	*ret = at;
	return 0;
}

static int map_own(struct share_record **ret)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *at = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, flags, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	*ret = at;
	return 0;
}

int share_record_open(const char *path, const struct stat *st, uint64_t size_bytes,
		      const char *where, struct share_record **ret)
{
	const bool is_device = S_ISBLK(st->st_mode);
	struct share_record wanted = { .device = is_device ? st->st_rdev : st->st_dev,
				       .inode = is_device ? 0 : st->st_ino,
				       .size_bytes = size_bytes };
	char chosen[sizeof(FOLDER) + 64];
	int error;

	read_boot(wanted.boot);
	error = where ? 0 : choose_place(path, chosen, sizeof(chosen));
	if (!error)
		error = map(where ? where : chosen, ret);
	if (error && error != -EBUSY && !where)
		error = map_own(ret);
	if (error || is_of(*ret, &wanted))
		return error;
	return begin_anew(*ret, &wanted);
}

/* Its session is the last: who is killed meanwhile clears it once more. */
void share_record_begin(struct share_record *record, uint64_t session)
{
	if (record->session == session)
		return;
	memset(record->outcome, 0, sizeof(record->outcome));
	__atomic_store_n(&record->session, session, __ATOMIC_RELEASE);
}

const struct share_outcome *share_record_find(const struct share_record *record, uint64_t number)
{
	const struct share_outcome *outcome = &record->outcome[number % SHARE_DISK_SPAN];

	return outcome->number >= number ? outcome : NULL;
}

void share_record_put(struct share_record *record, const struct share_outcome *outcome)
{
	struct share_outcome *to = &record->outcome[outcome->number % SHARE_DISK_SPAN];

	__atomic_store_n(&to->number, 0, __ATOMIC_RELEASE);
	to->window = outcome->window;
	to->act = outcome->act;
	to->status = outcome->status;
	__atomic_store_n(&to->number, outcome->number, __ATOMIC_RELEASE);
}
