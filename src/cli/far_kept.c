/* See far_kept.h. */
#include "far_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define MAGIC 0x3170656b72616675u
#define PORT_END ".port"

static void read_boot(char ret[FAR_KEPT_BOOT_BYTES])
{
	const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	const ssize_t got = fd < 0 ? 0 : read(fd, ret, FAR_KEPT_BOOT_BYTES);

	if (got <= 0)
		memset(ret, 0, FAR_KEPT_BOOT_BYTES);
	if (fd >= 0)
		close(fd);
}

/*
 * Its bytes are there: who maps what a full file system has no room for is ended. One that the hub
 * maps, too, is not locked: its lock would be the hub's.
 */
static int map_file(const char *path, size_t bytes, bool locks, int *ret_fd, void **ret)
{
	int error = 0;

	*ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*ret_fd < 0)
		return -errno;
	if (locks && flock(*ret_fd, LOCK_EX | LOCK_NB))
		error = errno == EWOULDBLOCK ? -EBUSY : -errno;
	else if (ftruncate(*ret_fd, (off_t)bytes))
		error = -errno;
	else
		error = -posix_fallocate(*ret_fd, 0, (off_t)bytes);
	if (!error) {
		*ret = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *ret_fd, 0);
		error = *ret == MAP_FAILED ? -errno : 0;
	}
	if (error)
		close(*ret_fd);
	return error;
}

/* The magic is the last: what is not whole is nothing. */
static int begin_anew(struct far_files *files, const struct far_kept *wanted)
{
	struct far_kept *kept = files->kept;

	__atomic_store_n(&kept->magic, 0, __ATOMIC_SEQ_CST);
	memset(files->memory, 0, sizeof(*files->memory));
	*kept = *wanted;
	if (getrandom(&kept->epoch, sizeof(kept->epoch), 0) != sizeof(kept->epoch) ||
	    getrandom(&kept->stream.session, sizeof(kept->stream.session), 0) !=
		    sizeof(kept->stream.session))
		return -errno;
	kept->openings = 1;
	files->memory->side = (uint32_t)wanted->side;
	files->memory->class = SHARE_CLASS_PACKET;
	files->memory->epoch = kept->epoch;
	__atomic_store_n(&kept->magic, MAGIC, __ATOMIC_RELEASE);
	return 0;
}

static bool is_of(const struct far_kept *kept, const struct far_kept *wanted)
{
	bool is_sound = kept->magic == MAGIC && kept->side == wanted->side &&
			!memcmp(kept->what, wanted->what, sizeof(kept->what)) &&
			!memcmp(kept->boot, wanted->boot, sizeof(kept->boot)) &&
			far_kept_held(kept) <= SHARE_RECEIVE_SLOTS;

	for (uint64_t n = kept->stream.acked + 1; is_sound && n <= kept->stream.sent; n++)
		is_sound = kept->held[n % SHARE_RECEIVE_SLOTS].slot < SHARE_RECEIVE_SLOTS &&
			   kept->held[n % SHARE_RECEIVE_SLOTS].bytes <= SHARE_PACKET_MAX_BYTES;
	return is_sound;
}

int far_kept_open(const char *path, const char *what, uint32_t side, struct far_files *ret,
		  bool *ret_is_new)
{
	struct far_kept wanted = { .side = side };
	char port[PATH_MAX];
	void *kept = NULL;
	void *memory = NULL;
	int error;
	int fd; /* open for as long as this process lives: with it goes the lock */

	if ((size_t)snprintf(port, sizeof(port), "%s" PORT_END, path) >= sizeof(port))
		return -ENAMETOOLONG;
	snprintf(wanted.what, sizeof(wanted.what), "%s", what);
	read_boot(wanted.boot);
	error = map_file(path, sizeof(*ret->kept), true, &fd, &kept);
	if (!error)
		error = map_file(port, sizeof(*ret->memory), false, &ret->memory_fd, &memory);
	if (error)
		return error;
	ret->kept = kept;
	ret->memory = memory;
	*ret_is_new = !is_of(ret->kept, &wanted);
	return *ret_is_new ? begin_anew(ret, &wanted) : 0;
}

void far_kept_recover(struct far_kept *kept)
{
	const struct far_held *last = &kept->held[kept->stream.sent % SHARE_RECEIVE_SLOTS];

	if (kept->stream.sent && last->epoch == kept->peer_epoch && last->number > kept->had)
		kept->had = last->number;
	for (unsigned n = SHARE_RECEIVE_SLOTS; n < SHARE_SLOTS; n++) {
		const struct far_given *given = &kept->given[n];

		if (given->number > kept->number_sent)
			kept->number_sent = given->number;
		if (given->number && given->session == kept->stream.other &&
		    given->far_number > kept->stream.had)
			kept->stream.had = given->far_number;
	}
}

bool far_kept_holds(const struct far_kept *kept, unsigned slot)
{
	for (uint64_t n = kept->stream.acked + 1; n <= kept->stream.sent; n++)
		if (kept->held[n % SHARE_RECEIVE_SLOTS].slot == slot)
			return true;
	return false;
}

unsigned far_kept_order(const struct far_kept *kept, uint8_t order[SHARE_SEND_SLOTS])
{
	unsigned count = 0;

	for (unsigned n = SHARE_RECEIVE_SLOTS; n < SHARE_SLOTS; n++) {
		unsigned at = count;

		if (!kept->given[n].number)
			continue;
		for (; at && kept->given[order[at - 1]].number > kept->given[n].number; at--)
			order[at] = order[at - 1];
		order[at] = (uint8_t)n;
		count++;
	}
	return count;
}
