/*
 * What an image boots: the newest kernel of its root file system (or of another one that holds
 * nothing else), the initial file system that belongs to it, and how the kernel finds its root.
 * Read in a sandbox; what it says is a head and two files, each with a limit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image_internal.h"
#include "lvm.h"
#include "sandbox.h"
#include "scan_internal.h"

struct head { uint64_t kernel_bytes, initrd_bytes, subvolume; char uuid[GUID_TEXT_BYTES]; };

struct search { struct disk *disk; struct image_boot *ret; };

/* ---- in the sandbox ---- */

static void look_at(const struct scan_volume *volume, struct boot_search *found);

/* Volumes of LVM that are read as a whole. */
static void look_at_group(const struct scan_volume *volume, struct boot_search *found)
{
	struct lvm lvm = { 0 };
	int error = volume->segment ? -ENOTSUP : lvm_read(volume, &lvm);

	for (unsigned n = 0; n < lvm.volumes && !error; n++) {
		const struct lvm_volume *lv = &lvm.volume[n];
		const struct scan_volume inner = { .disk = volume->disk,
						   .offset = lv->segments ? lv->segment[0].at : 0,
						   .bytes = lv->bytes,
						   .segment = lv->segment,
						   .segments = lv->segments };

		if (!lv->refused[0] && lv->segments)
			look_at(&inner, found);
	}
	lvm_release(&lvm);
}

static void look_at(const struct scan_volume *volume, struct boot_search *found)
{
	static const struct {
		const char *kind;
		void (*look)(struct scan_volume *volume, struct boot_search *found);
	} readers[] = { { "ext", scan_ext_boot },
			{ "xfs", scan_xfs_boot },
			{ "btrfs", scan_btrfs_boot } };
	struct scan_volume own = *volume;
	char label[64];
	const char *kind = scan_recognise(volume, label);

	if (kind && !strcmp(kind, "lvm2"))
		look_at_group(volume, found);
	for (size_t n = 0; kind && n < sizeof(readers) / sizeof(readers[0]); n++)
		if (!strcmp(kind, readers[n].kind))
			readers[n].look(&own, found);
}

static int search(void *context, int pipe)
{
	struct search *finder = context;
	json_t *partitions = scan_partitions(finder->disk);
	json_t *json;
	struct boot_search found = { .root_subvolume = 0 };
	const struct scan_boot *best = &found.best;
	struct head head;
	size_t n;
	int error;

	json_array_foreach(partitions, n, json)
	{
		const struct scan_volume volume = {
			.disk = finder->disk,
			.offset = (uint64_t)json_integer_value(json_object_get(json, "start")),
			.bytes = (uint64_t)json_integer_value(json_object_get(json, "bytes"))
		};

		look_at(&volume, &found);
	}
	if (!best->kernel || !found.root_uuid[0])
		return -ENOENT;
	head = (struct head){ .kernel_bytes = best->kernel_bytes,
			      .initrd_bytes = best->initrd_bytes,
			      .subvolume = found.root_subvolume };
	memcpy(head.uuid, found.root_uuid, sizeof(head.uuid));
	error = sandbox_write(pipe, &head, sizeof(head));
	if (!error)
		error = sandbox_write(pipe, best->kernel, best->kernel_bytes);
	return error ? error : sandbox_write(pipe, best->initrd, best->initrd_bytes);
}

/* ---- outside ---- */

static int read_all(int pipe, void *to, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = read(pipe, (uint8_t *)to + done, bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return done ? -EBADMSG : -ENOENT;
		done += (size_t)n;
	}
	return 0;
}

static int read_file(int pipe, uint64_t bytes, uint64_t most, void **ret)
{
	int error;

	*ret = NULL;
	if (bytes > most)
		return -EBADMSG;
	if (!bytes)
		return 0;
	*ret = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*ret == MAP_FAILED) {
		*ret = NULL;
		return -ENOMEM;
	}
	error = read_all(pipe, *ret, bytes);
	return error == -ENOENT ? -EBADMSG : error;
}

/* It goes onto the kernel's command line. */
static bool is_identifier(const char text[GUID_TEXT_BYTES])
{
	struct guid unused;

	return !text[GUID_TEXT_BYTES - 1] && guid_parse(text, &unused);
}

static int take(void *context, int pipe)
{
	struct image_boot *boot = ((struct search *)context)->ret;
	struct head head;
	int error = read_all(pipe, &head, sizeof(head));

	if (!error && !is_identifier(head.uuid))
		error = -EBADMSG;
	if (error)
		return error;
	memcpy(boot->root_uuid, head.uuid, sizeof(boot->root_uuid));
	boot->root_subvolume = head.subvolume;
	boot->kernel_bytes = head.kernel_bytes;
	boot->initrd_bytes = head.initrd_bytes;
	error = read_file(pipe, head.kernel_bytes, SCAN_KERNEL_BYTES, &boot->kernel);
	return error ? error : read_file(pipe, head.initrd_bytes, SCAN_INITRD_BYTES, &boot->initrd);
}

int image_find_boot(struct disk *disk, struct image_boot *ret)
{
	struct search finder = { disk, ret };
	int error;

	*ret = (struct image_boot){ 0 };
	error = sandbox_run(&(struct sandbox){ .work = search, .take = take, .context = &finder });
	if (error)
		image_free_boot(ret);
	return error;
}

void image_free_boot(struct image_boot *boot)
{
	if (boot->kernel)
		munmap(boot->kernel, boot->kernel_bytes);
	if (boot->initrd)
		munmap(boot->initrd, boot->initrd_bytes);
	boot->kernel = boot->initrd = NULL;
}
