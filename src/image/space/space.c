/*
 * What the file systems on a disk do not use: of partitions, of disks without a table, of volumes
 * of LVM. Read in a sandbox; what comes out of it is looked at like anything hostile. One file
 * system that is not clean, or not sound, is a reason for the whole disk: whoever shrinks it has
 * named the disk.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/scan/lvm.h"
#include "image/scan/sandbox.h"
#include "space_map.h"

/* ALIGNMENT: what lies within a host's block frees nothing */
enum { RANGES_MAX = 1 << 20, ALIGNMENT = 4096, RESULT_BYTES = 128 << 20 };

struct finder {
	struct disk *disk;
	json_t *volumes, *free; /* free: offset, bytes, offset ... */
	uint64_t unlisted_bytes;
	char refused[512];
};

struct kind {
	const char *name;
	int (*space)(const struct scan_volume *volume, struct space_map *map);
};
static const struct kind kinds[] = {
	{ "ext", space_ext },
	{ "xfs", space_xfs },
	{ "ntfs", space_ntfs },
};

/* ---- in the sandbox ---- */

static void refuse(struct finder *finder, const struct scan_volume *volume, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void refuse(struct finder *finder, const struct scan_volume *volume, const char *format, ...)
{
	size_t used;
	va_list arguments;

	if (finder->refused[0])
		return;
	snprintf(finder->refused, sizeof(finder->refused), "at offset %lu: ", volume->offset);
	used = strlen(finder->refused);
	va_start(arguments, format);
	vsnprintf(finder->refused + used, sizeof(finder->refused) - used, format, arguments);
	va_end(arguments);
}

/* Of the disk. */
static uint64_t add_range(struct finder *finder, uint64_t at, uint64_t bytes)
{
	uint64_t begin = (at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	uint64_t end = (at + bytes) / ALIGNMENT * ALIGNMENT;

	if (begin >= end)
		return 0;
	if (json_array_size(finder->free) / 2 == RANGES_MAX) {
		finder->unlisted_bytes += end - begin;
		return 0;
	}
	json_array_append_new(finder->free, json_integer((json_int_t)begin));
	json_array_append_new(finder->free, json_integer((json_int_t)(end - begin)));
	return end - begin;
}

/* Of the volume. */
static uint64_t add_part(struct finder *finder, const struct scan_volume *volume, uint64_t at,
			 uint64_t bytes)
{
	uint64_t begin = 0;
	uint64_t added = 0;

	if (!volume->segment)
		return add_range(finder, volume->offset + at, bytes);
	for (unsigned n = 0; n < volume->segments && bytes; n++) {
		const struct scan_segment *segment = &volume->segment[n];

		if (at - begin < segment->bytes) {
			uint64_t there = segment->bytes - (at - begin);

			there = there < bytes ? there : bytes;
			added += add_range(finder, segment->at + (at - begin), there);
			at += there;
			bytes -= there;
		}
		begin += segment->bytes;
	}
	return added;
}

static uint64_t add_map(struct finder *finder, const struct scan_volume *volume,
			const struct space_map *map)
{
	uint64_t added = 0;

	for (uint64_t block = 0; block < map->blocks;) {
		uint64_t end = block;

		if (!(block & 7) && !map->free[block / 8]) {
			block += 8;
			continue;
		}
		while (end < map->blocks && map->free[end / 8] >> (end & 7) & 1)
			end++;
		if (end > block)
			added += add_part(finder, volume, block * map->block_bytes,
					  (end - block) * map->block_bytes);
		block = end + 1;
	}
	return added;
}

static void note(struct finder *finder, const struct scan_volume *volume, const char *name,
		 const char *kind, uint64_t free_bytes, const char *skipped)
{
	json_t *json = json_pack("{s:I, s:I, s:s}", "start", (json_int_t)volume->offset, "bytes",
				 (json_int_t)volume->bytes, "kind", kind);

	if (name)
		json_object_set_new(json, "name", scan_text(name));
	if (skipped)
		json_object_set_new(json, "skipped", scan_text(skipped));
	else
		json_object_set_new(json, "free", json_integer((json_int_t)free_bytes));
	json_array_append_new(finder->volumes, json);
}

static void look_at_files(struct finder *finder, const struct scan_volume *volume, const char *name,
			  const struct kind *kind)
{
	struct space_map map = { 0 };
	int error = kind->space(volume, &map);

	if (!error && map.blocks > volume->bytes / map.block_bytes)
		error = space_refuse(&map, -EBADMSG, "is larger than what it lies in");
	if (error)
		refuse(finder, volume, "%s: %s", kind->name, map.why[0] ? map.why : "is not sound");
	else
		note(finder, volume, name, kind->name, add_map(finder, volume, &map), NULL);
	space_end(&map);
}

static void look_at(struct finder *finder, const struct scan_volume *volume, const char *name);

static void look_at_group(struct finder *finder, const struct scan_volume *volume)
{
	struct lvm lvm;
	int error = volume->segment ? -ENOTSUP : lvm_read(volume, &lvm);

	if (error) {
		refuse(finder, volume, "lvm2: its description is not sound, or it lies in another");
		if (error != -ENOTSUP)
			lvm_release(&lvm);
		return;
	}
	if (lvm.has_snapshots) /* they read from their origin what that says is free */
		refuse(finder, volume, "lvm2: has snapshots");
	for (unsigned n = 0; n < lvm.volumes; n++) {
		const struct lvm_volume *lv = &lvm.volume[n];
		const struct scan_volume inner = { .disk = volume->disk,
						   .offset = lv->segments ? lv->segment[0].at
									  : volume->offset,
						   .bytes = lv->bytes,
						   .segment = lv->segment,
						   .segments = lv->segments };

		if (lv->refused[0])
			note(finder, &inner, lv->name, "lvm2", 0, lv->refused);
		else
			look_at(finder, &inner, lv->name);
	}
	lvm_release(&lvm);
}

static void look_at(struct finder *finder, const struct scan_volume *volume, const char *name)
{
	char label[64];
	const char *is = scan_recognise(volume, label);

	if (is && scan_is_ambiguous(volume)) {
		refuse(finder, volume, "has the marks of several file systems");
		return;
	}
	if (is && !strcmp(is, "lvm2")) {
		look_at_group(finder, volume);
		return;
	}
	for (size_t n = 0; is && n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if (!strcmp(is, kinds[n].name)) {
			look_at_files(finder, volume, name, &kinds[n]);
			return;
		}
	note(finder, volume, name, is ? is : "unknown", 0,
	     "is of no kind whose free space is known");
}

static struct scan_volume volume_of(struct finder *finder, const json_t *partition)
{
	return (struct scan_volume){
		.disk = finder->disk,
		.offset = (uint64_t)json_integer_value(json_object_get(partition, "start")),
		.bytes = (uint64_t)json_integer_value(json_object_get(partition, "bytes")),
	};
}

/* Free in the one may be data of the other. */
static void check_overlap(struct finder *finder, const json_t *partitions)
{
	json_t *one, *other;
	size_t n, k;

	json_array_foreach(partitions, n, one)
	{
		const struct scan_volume volume = volume_of(finder, one);

		json_array_foreach(partitions, k, other)
		{
			const struct scan_volume second = volume_of(finder, other);

			if (k > n && volume.offset < second.offset + second.bytes &&
			    second.offset < volume.offset + volume.bytes)
				refuse(finder, &second, "partitions lie over each other");
		}
	}
}

static int work(void *context, int pipe)
{
	struct finder *finder = context;
	json_t *partitions = scan_partitions(finder->disk);
	json_t *one;
	size_t n;
	char *text;
	int error;

	finder->volumes = json_array();
	finder->free = json_array();
	check_overlap(finder, partitions);
	json_array_foreach(partitions, n, one)
	{
		const struct scan_volume volume = volume_of(finder, one);

		if (!finder->refused[0])
			look_at(finder, &volume, NULL);
	}
	json_decref(partitions);
	one = json_pack("{s:o, s:o, s:I, s:o}", "volumes", finder->volumes, "free", finder->free,
			"unlisted", (json_int_t)finder->unlisted_bytes, "refused",
			scan_text(finder->refused));
	text = one ? json_dumps(one, JSON_COMPACT) : NULL;
	error = text ? sandbox_write(pipe, text, strlen(text)) : -ENOMEM;
	free(text);
	json_decref(one);
	return error;
}

/* ---- in the one that asked ---- */

static int take(void *context, int pipe)
{
	struct finder *finder = context;

	return sandbox_take_json(pipe, RESULT_BYTES, &finder->volumes);
}

/* The ranges of an answer: within the disk, aligned, in any order. */
static int take_ranges(const struct disk *disk, const json_t *free, struct image_space *ret)
{
	size_t count = json_array_size(free) / 2;

	ret->range = calloc(count + 1, sizeof(*ret->range));
	if (!ret->range)
		return -ENOMEM;
	for (size_t n = 0; n < count; n++) {
		json_int_t at = json_integer_value(json_array_get(free, 2 * n));
		json_int_t bytes = json_integer_value(json_array_get(free, 2 * n + 1));

		if (at < 0 || bytes <= 0 || (uint64_t)at >= disk_size_bytes(disk) ||
		    (uint64_t)bytes > disk_size_bytes(disk) - (uint64_t)at || at % ALIGNMENT ||
		    bytes % ALIGNMENT)
			return -EBADMSG;
		ret->range[n] = (struct disk_extent){ (uint64_t)at, (uint64_t)bytes };
		ret->free_bytes += (uint64_t)bytes;
	}
	ret->ranges = count;
	return 0;
}

void image_space_release(struct image_space *space)
{
	free(space->range);
	json_decref(space->volumes);
	*space = (struct image_space){ 0 };
}

int image_find_space(struct disk *disk, struct image_space *ret, struct disk_error *error)
{
	struct finder finder = { .disk = disk };
	const char *refused;
	json_t *answer;
	int result = sandbox_run(&(struct sandbox){ NULL, work, take, &finder });

	*ret = (struct image_space){ 0 };
	*error = (struct disk_error){ .kind = REFUSAL_NONE };
	answer = finder.volumes;
	refused = json_string_value(json_object_get(answer, "refused"));
	if (!result && (!refused || !json_is_array(json_object_get(answer, "volumes"))))
		result = -EBADMSG;
	if (result)
		disk_refuse_host(error, result, disk_path(disk), "reading its file systems");
	if (!result && *refused)
		result = disk_refuse(error, REFUSAL_FILE_SYSTEMS, disk_path(disk), DISK_NOWHERE,
				     "%.300s", refused);
	if (!result)
		result = take_ranges(disk, json_object_get(answer, "free"), ret);
	if (!result)
		ret->volumes = json_incref(json_object_get(answer, "volumes"));
	json_decref(answer);
	if (result)
		image_space_release(ret);
	return result;
}
