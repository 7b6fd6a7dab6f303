/*
 * What a file system boots, by functions that read it: the newest kernel, what belongs to it, and
 * whether there is an operating system.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "scan_internal.h"

enum { NAMES_MAX = 2000000 };

bool boot_name(struct boot_newest *newest, const char *name, size_t bytes)
{
	static const char before[] = "vmlinuz-";
	const size_t skip = sizeof(before) - 1;
	char version[SCAN_BOOT_VERSION_BYTES] = "";

	if (++newest->names > NAMES_MAX)
		return false;
	if (bytes <= skip || bytes - skip >= sizeof(version) || memcmp(name, before, skip))
		return true;
	memcpy(version, name + skip, bytes - skip);
	if (strstr(version, "rescue") || strstr(version, ".dpkg-") || strchr(version, '%') ||
	    strchr(version, '/'))
		return true;
	if (!newest->version[0] || version_compare(version, newest->version) > 0)
		memcpy(newest->version, version, sizeof(version));
	return true;
}

static char *read_at(const struct boot_reader *reader, const char *directory, const char *format,
		     const char *version, uint64_t most, size_t *ret_bytes)
{
	char name[SCAN_BOOT_VERSION_BYTES + 32], path[SCAN_BOOT_VERSION_BYTES + 64];

	snprintf(name, sizeof(name), format, version);
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return reader->read(reader->context, path, most, ret_bytes);
}

/* directory: "": the top */
static void find_kernel(const struct boot_reader *reader, const char *directory,
			struct scan_boot *ret)
{
	static const char *const initrds[] = { "initrd.img-%s", "initramfs-%s.img", "initrd-%s",
					       "initramfs-%s" };
	struct boot_newest newest = { 0 };

	reader->names(reader->context, directory[0] ? directory : "/", &newest);
	ret->kernel = newest.version[0] ? read_at(reader, directory, "vmlinuz-%s", newest.version,
						  SCAN_KERNEL_BYTES, &ret->kernel_bytes)
					: NULL;
	if (!ret->kernel)
		return;
	memcpy(ret->version, newest.version, sizeof(ret->version));
	for (size_t k = 0; k < sizeof(initrds) / sizeof(initrds[0]) && !ret->initrd; k++)
		ret->initrd = read_at(reader, directory, initrds[k], newest.version,
				      SCAN_INITRD_BYTES, &ret->initrd_bytes);
}

static void keep_better(struct scan_boot *best, struct scan_boot *other)
{
	if (other->kernel && (!best->kernel || (other->is_root && !best->is_root))) {
		struct scan_boot was = *best;

		*best = *other;
		*other = was;
	}
	free(other->kernel);
	free(other->initrd);
}

static void print_uuid(const uint8_t uuid[16], char text[37])
{
	for (unsigned n = 0; n < 16; n++) {
		bool behind_part = n == 4 || n == 6 || n == 8 || n == 10;

		text += sprintf(text, "%s%02x", behind_part ? "-" : "", uuid[n]);
	}
}

void boot_look(struct boot_search *search, const struct boot_reader *reader, const uint8_t uuid[16],
	       uint64_t subvolume)
{
	struct scan_boot found = { .is_root = reader->is_there(reader->context,
							       "/etc/os-release") ||
					      reader->is_there(reader->context, "/sbin/init") };

	find_kernel(reader, "/boot", &found);
	if (!found.kernel && !found.is_root)
		find_kernel(reader, "", &found);
	if (found.is_root && !search->root_uuid[0]) {
		print_uuid(uuid, search->root_uuid);
		search->root_subvolume = subvolume;
	}
	keep_better(&search->best, &found);
}
