/* See fork_wanted.h. */
#include "fork_wanted.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control/names.h"
#include "lib/check.h"
#include "lib/write_all.h"
#include "fork_source.h"

struct file_head { char magic[8]; uint64_t process, started; };
static const char magic[8] = { 'U', 'M', 'B', 'R', 'A', 'W', 'N', 'T' };

enum { COPY_BYTES = 64 << 10 };

void check_fork_wanted(const struct fork_wanted *wanted)
{
	const struct saved_pages *pages = &wanted->pages;

	assert(wanted->runs <= FORK_WANTED_RUNS);
	assert(pages->entry || !pages->entries);
	for (uint32_t n = 0; n < pages->entries; n++) {
		const struct saved_entry *entry = &pages->entry[n];

		assert(entry->pages && entry->pages <= SAVED_ENTRY_PAGES);
		assert(!n || entry[-1].at + saved_entry_bytes(&entry[-1]) <= entry->at);
	}
}

/* ---- the index of what is sent ---- */

/* From the parts on, at their places in a file of that length, whose pages are holes. */
static int copy_front(struct fork_source *source, int fd)
{
	static uint8_t data[COPY_BYTES];
	int error = ftruncate(fd, (off_t)source->machine_bytes) ? -errno : 0;

	for (uint64_t at = source->parts_at; at < source->machine_bytes && !error;) {
		const uint64_t left = source->machine_bytes - at;
		const size_t bytes = left < sizeof(data) ? (size_t)left : sizeof(data);

		error = fork_source_read(source, at, data, bytes);
		if (!error)
			error = write_all_at(fd, data, bytes, (off_t)at);
		at += bytes;
	}
	return error;
}

int fork_wanted_open(struct fork_wanted *wanted, struct fork_source *source)
{
	const int fd = memfd_create("umbra-index", MFD_CLOEXEC);
	int error = fd < 0 ? -errno : copy_front(source, fd);

	*wanted = (struct fork_wanted){ .runs = 0 };
	if (!error)
		error = saved_pages_open(fd, &wanted->pages);
	if (error && fd >= 0)
		close(fd);
	if (!error)
		CHECK(check_fork_wanted(wanted));
	return error;
}

void fork_wanted_close(struct fork_wanted *wanted)
{
	close(wanted->pages.fd);
	saved_pages_close(&wanted->pages);
}

/* ---- runs ---- */

static void add_run(struct fork_wanted *wanted, uint32_t first, uint32_t pages)
{
	for (uint32_t n = 0; n < wanted->runs; n++)
		if (wanted->run[n].first == first && wanted->run[n].pages == pages)
			return;
	if (wanted->runs < FORK_WANTED_RUNS)
		wanted->run[wanted->runs++] =
			(struct fork_wanted_run){ .first = first, .pages = pages };
}

void fork_wanted_join(struct fork_wanted *wanted, const struct fork_wanted *other)
{
	for (uint32_t n = 0; n < other->runs; n++)
		add_run(wanted, other->run[n].first, other->run[n].pages);
	CHECK(check_fork_wanted(wanted));
}

static uint64_t end_in_file(const struct saved_entry *entry)
{
	return entry->at + saved_entry_bytes(entry);
}
static uint64_t end_of_frames(const struct saved_entry *entry)
{
	return (uint64_t)entry->first + entry->pages;
}

/* The first section that ends behind this place; they are laid out in the order of both. */
static uint32_t find_section(const struct saved_pages *pages,
			     uint64_t (*end_of)(const struct saved_entry *entry), uint64_t at)
{
	uint32_t low = 0;
	uint32_t high = pages->entries;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (end_of(&pages->entry[middle]) <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void fork_wanted_add(struct fork_wanted *wanted, uint64_t at, uint64_t bytes)
{
	const struct saved_pages *pages = &wanted->pages;

	for (uint32_t n = find_section(pages, end_in_file, at);
	     n < pages->entries && pages->entry[n].at < at + bytes; n++)
		add_run(wanted, pages->entry[n].first, pages->entry[n].pages);
}

void fork_wanted_find(const struct fork_wanted *wanted,
		      void (*found)(void *context, const struct saved_entry *entry), void *context)
{
	const struct saved_pages *pages = &wanted->pages;

	for (uint32_t n = 0; n < wanted->runs; n++) {
		const struct fork_wanted_run *run = &wanted->run[n];
		const uint64_t end = (uint64_t)run->first + run->pages;

		for (uint32_t entry = find_section(pages, end_of_frames, run->first);
		     entry < pages->entries && pages->entry[entry].first < end; entry++)
			found(context, &pages->entry[entry]);
	}
}

/* ---- the file ---- */

static struct file_head head_of(const json_t *info)
{
	struct file_head head = {
		.process = (uint64_t)json_integer_value(json_object_get(info, "process")),
		.started = (uint64_t)json_integer_value(json_object_get(info, "started")),
	};

	memcpy(head.magic, magic, sizeof(magic));
	return head;
}

bool fork_wanted_is_kept(const char *machine)
{
	char path[PATH_MAX];

	return !name_wanted_path(machine, path, sizeof(path)) && !access(path, R_OK);
}

void fork_wanted_load(struct fork_wanted *wanted, const char *machine, const json_t *info)
{
	const struct file_head right = head_of(info);
	struct file_head head;
	char path[PATH_MAX];
	ssize_t bytes;
	int fd;

	if (name_wanted_path(machine, path, sizeof(path)))
		return;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return;
	bytes = read(fd, &head, sizeof(head));
	if (bytes == sizeof(head) && !memcmp(&head, &right, sizeof(head)))
		bytes = read(fd, wanted->run, sizeof(wanted->run));
	else
		bytes = 0;
	close(fd);
	wanted->runs = bytes > 0 ? (uint32_t)((size_t)bytes / sizeof(wanted->run[0])) : 0;
	CHECK(check_fork_wanted(wanted));
}

void fork_wanted_keep(const struct fork_wanted *wanted, const char *machine, const json_t *info)
{
	const struct file_head head = head_of(info);
	const size_t bytes = wanted->runs * sizeof(wanted->run[0]);
	char path[PATH_MAX - 8];
	char partial[PATH_MAX];
	bool is_written;
	int fd;

	if (name_wanted_path(machine, path, sizeof(path)))
		return;
	snprintf(partial, sizeof(partial), "%s.XXXXXX", path);
	fd = mkostemp(partial, O_CLOEXEC);
	if (fd < 0)
		return;
	is_written = write(fd, &head, sizeof(head)) == sizeof(head) &&
		     write(fd, wanted->run, bytes) == (ssize_t)bytes;
	close(fd);
	if (!is_written || rename(partial, path))
		unlink(partial);
}
