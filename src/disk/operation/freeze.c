/*
 * A frozen file: one that must stay as it is because others are made on it. It refuses to be opened
 * for writing, for the reason that it keeps; it thaws only while no child of it is found. Other
 * programs see a file that nobody may write.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "disk/format/vhdx_internal.h"

#define FREEZE_ITEM GUID(0x5f1d7c52, 0x6f3a, 0x4d0e, 0x9b, 0x51, 0x7a, 0x20, 0xe4, 0x6f, 0x00, 0x00)

enum { FILES_MAX = 4096, PATH_BYTES = 4096 };
struct freeze_record { uint64_t seconds; char reason[DISK_REASON_BYTES]; };

/* -ENOENT: there is none. */
static int read_record(struct disk *disk, struct freeze_record *ret)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(disk, FREEZE_ITEM, &bytes, &count);

	memset(ret, 0, sizeof(*ret));
	if (error)
		return error;
	memcpy(ret, bytes, count < sizeof(*ret) ? count : sizeof(*ret));
	free(bytes);
	ret->reason[sizeof(ret->reason) - 1] = 0;
	return 0;
}

int disk_frozen_reason(struct disk *disk, char reason[DISK_REASON_BYTES])
{
	struct freeze_record record;
	int error = read_record(disk, &record);

	memcpy(reason, record.reason, DISK_REASON_BYTES);
	return error;
}

int disk_check_frozen(struct disk *disk, struct disk_error *error)
{
	struct freeze_record record;
	char when[32] = "";
	struct tm tm;
	time_t seconds;
	int result = read_record(disk, &record);

	if (result)
		return result == -ENOENT
			       ? 0
			       : disk_refuse_as(error, REFUSAL_FREEZE_UNREADABLE, result,
						disk->path, DISK_NOWHERE, "it cannot be read: %s",
						disk_strerror(result));
	seconds = (time_t)record.seconds;
	if (gmtime_r(&seconds, &tm))
		strftime(when, sizeof(when), "%F %T UTC", &tm);
	return disk_refuse(error, REFUSAL_FROZEN, disk->path, DISK_NOWHERE,
			   "is frozen since %s: %s", when, record.reason);
}

int disk_freeze_in_file(struct disk *disk, const char *reason)
{
	struct freeze_record record = { .seconds = (uint64_t)time(NULL) };

	snprintf(record.reason, sizeof(record.reason), "%s", reason);
	return disk_write_item(disk, FREEZE_ITEM, DISK_ITEM_OF_FILE, &record, sizeof(record));
}

int disk_freeze(struct disk *disk, const char *reason, struct disk_error *error)
{
	struct stat st;
	int result = disk_freeze_in_file(disk, reason);

	if (!result && (stat(disk->path, &st) || chmod(disk->path, st.st_mode & 07555)))
		result = -errno;
	return result ? disk_refuse_host(error, result, disk->path, "writing its freeze record")
		      : 0;
}

/* Whether a file of this directory names `id` as its parent's data; its own parents do not matter.
 * */
static bool find_child(const char *place, struct guid id, char *ret, size_t bytes)
{
	DIR *directory = opendir(place);
	bool found = false;

	for (int n = 0; directory && n < FILES_MAX && !found; n++) {
		const struct dirent *dirent = readdir(directory);
		struct disk_options options = { .format = DISK_VHDX, .without_parents = true };
		struct disk_error error;
		struct disk *child;

		if (!dirent)
			break;
		if (dirent->d_type != DT_REG ||
		    snprintf(ret, bytes, "%s/%s", place, dirent->d_name) >= (int)bytes ||
		    disk_open(ret, &options, &child, &error))
			continue;
		found = guid_equal(vhdx_of(child)->parent_id, id) ||
			guid_equal(vhdx_of(child)->parent_id2, id);
		disk_close(child);
	}
	if (directory)
		closedir(directory);
	return found;
}

int disk_thaw(struct disk *disk, const char *const *places, struct disk_error *error)
{
	char child[PATH_BYTES];
	struct stat st;
	int result;

	for (; *places; places++)
		if (disk->data_id && find_child(*places, *disk->data_id, child, sizeof(child)))
			return disk_refuse(error, REFUSAL_HAS_CHILD, disk->path, DISK_NOWHERE,
					   "%s is made on it", child);
	result = disk_write_item(disk, FREEZE_ITEM, DISK_ITEM_OF_FILE, NULL, 0);
	if (!result && (stat(disk->path, &st) || chmod(disk->path, st.st_mode | S_IWUSR)))
		result = -errno;
	return result ? disk_refuse_host(error, result, disk->path, "writing its freeze record")
		      : 0;
}
