/* See saved_pages.h. */
#include "saved_pages.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/crc32c.h"
#include "packed_pages.h"
#include "saved.h"
#include "saved_file.h"

enum {
	PAGE_HEAD_BYTES = SAVED_SECTION_HEAD_BYTES + 8, /* with the first frame */
	ENTRIES_MOST = 1 << 27,
};

/* Of a PAGE section. */
struct page_head { struct saved_section section; uint64_t first; };
_Static_assert(sizeof(struct page_head) == PAGE_HEAD_BYTES, "as in the file");
enum {
	BUFFER_BYTES = (SAVED_ENTRY_PAGES + 1) * GUEST_PAGE_BYTES, /* whole pages */
};
_Static_assert(SAVED_RUN_ENTRIES * sizeof(struct page_head) <= GUEST_PAGE_BYTES, "the last page");
_Static_assert(SAVED_TAIL_BYTES == SAVED_SECTION_HEAD_BYTES + sizeof(struct saved_end), "END");
_Static_assert(sizeof(struct saved_entry) == 16, "as in the file");
_Static_assert((int)SAVED_PAGE_BYTES == (int)GUEST_PAGE_BYTES &&
		       (int)SAVED_OTHER_PAGES == (int)GUEST_OVERLAYS,
	       "as memory has them");

/* What says to be a section of this name and version is one. */
static bool is_head(const struct saved_section *head, uint32_t name, uint32_t version)
{
	return head->name == name && head->version == version &&
	       head->head_crc == crc32c(0, head, offsetof(struct saved_section, head_crc));
}

int saved_tail_take(const uint8_t *bytes, uint64_t machine_bytes, struct saved_tail *ret)
{
	struct saved_section head;
	struct saved_end end;

	memcpy(&head, bytes, sizeof(head));
	memcpy(&end, bytes + sizeof(head), sizeof(end));
	if (!is_head(&head, SECTION_END, SECTION_END_VERSION) || head.bytes != sizeof(end) ||
	    head.crc != crc32c(0, &end, sizeof(end)) || !end.index_at)
		return -ENOENT;
	if (end.parts_at < SAVED_HEAD_BYTES || end.parts_at > end.index_at ||
	    end.index_at > machine_bytes - SAVED_TAIL_BYTES ||
	    end.sections_before > end.sections)
		return -EBADMSG;
	*ret = (struct saved_tail){ .parts_at = end.parts_at,
				    .index_at = end.index_at,
				    .sections_before = end.sections_before };
	return 0;
}

/* All of it: 0, -EIO or -errno. */
static int read_at(int fd, void *to, size_t bytes, uint64_t at)
{
	uint8_t *place = to;

	while (bytes) {
		ssize_t got = pread(fd, place, bytes, (off_t)at);

		if (got <= 0)
			return got ? -errno : -EIO;
		place += got;
		at += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

uint64_t saved_entry_bytes(const struct saved_entry *entry)
{
	return entry->packed_words
		       ? (uint64_t)entry->packed_words * PACKED_WORD_BYTES
		       : PAGE_HEAD_BYTES + (uint64_t)entry->pages * GUEST_PAGE_BYTES;
}

/* A packed one is smaller than it would be otherwise: so as much as is read at once has a limit. */
static bool is_length(const struct saved_entry *entry)
{
	return saved_entry_bytes(entry) <=
		       PAGE_HEAD_BYTES + (uint64_t)entry->pages * GUEST_PAGE_BYTES &&
	       (!entry->packed_words || saved_entry_bytes(entry) > PAGE_HEAD_BYTES);
}

static bool is_entry(const struct saved_pages *pages, const struct saved_entry *entry,
		     uint64_t after)
{
	return entry->pages && entry->pages <= SAVED_ENTRY_PAGES && is_length(entry) &&
	       entry->at >= after &&
	       entry->at < pages->tail.index_at &&
	       saved_entry_bytes(entry) <= pages->tail.index_at - entry->at;
}

/* The order of the file, and that each is a section's place: what they say comes with them. */
static int check_entries(const struct saved_pages *pages)
{
	uint64_t after = SAVED_HEAD_BYTES;

	for (uint32_t n = 0; n < pages->entries; n++) {
		if (!is_entry(pages, &pages->entry[n], after))
			return -EBADMSG;
		after = pages->entry[n].at + saved_entry_bytes(&pages->entry[n]);
	}
	return 0;
}

/* One INDX section; *at: behind it. */
static int read_block(struct saved_pages *pages, uint64_t *at, uint64_t end)
{
	struct saved_section head;
	int error = end - *at < sizeof(head) ? -EBADMSG
					     : read_at(pages->fd, &head, sizeof(head), *at);
	const struct saved_entry *from = &pages->entry[pages->entries];

	if (error)
		return error;
	*at += sizeof(head);
	if ((!is_head(&head, SECTION_INDEX, SECTION_VERSION) &&
	     !is_head(&head, SECTION_INDEX, SECTION_PACKED_VERSION)) ||
	    !head.bytes ||
	    head.bytes % sizeof(*from) || head.bytes > end - *at)
		return -EBADMSG;
	error = read_at(pages->fd, &pages->entry[pages->entries], head.bytes, *at);
	if (!error && crc32c(0, from, head.bytes) != head.crc)
		error = -EBADMSG;
	*at += head.bytes;
	pages->entries += (uint32_t)(head.bytes / sizeof(*from));
	return error;
}

static int make_room_for_packed(struct saved_pages *pages)
{
	uint32_t n = 0;

	while (n < pages->entries && !pages->entry[n].packed_words)
		n++;
	if (n == pages->entries)
		return 0;
	pages->unpacker = pages_unpacker_make();
	pages->packed = malloc(BUFFER_BYTES);
	return pages->unpacker && pages->packed ? 0 : -ENOMEM;
}

static int read_index(struct saved_pages *pages)
{
	const uint64_t end = pages->machine_bytes - SAVED_TAIL_BYTES;
	uint64_t at = pages->tail.index_at;
	int error = 0;

	/* as many as there can be, with heads between them */
	if ((end - at) / sizeof(*pages->entry) > ENTRIES_MOST)
		return -EBADMSG;
	pages->entry = malloc(end - at + 1);
	pages->buffer = aligned_alloc(GUEST_PAGE_BYTES, BUFFER_BYTES);
	if (!pages->entry || !pages->buffer)
		return -ENOMEM;
	while (at < end && !error)
		error = read_block(pages, &at, end);
	if (!error)
		error = check_entries(pages);
	return error ? error : make_room_for_packed(pages);
}

int saved_pages_open(int fd, struct saved_pages *ret)
{
	uint8_t bytes[SAVED_TAIL_BYTES];
	struct saved_file file;
	int error = saved_file_look(fd, &file);

	*ret = (struct saved_pages){ .fd = fd, .machine_bytes = file.machine_bytes };
	if (error)
		return error;
	if (file.machine_bytes < SAVED_HEAD_BYTES + SAVED_TAIL_BYTES)
		return -ENOENT;
	error = read_at(fd, bytes, sizeof(bytes), file.machine_bytes - SAVED_TAIL_BYTES);
	if (!error)
		error = saved_tail_take(bytes, file.machine_bytes, &ret->tail);
	if (!error)
		error = read_index(ret);
	if (error)
		saved_pages_close(ret);
	return error;
}

int saved_pages_file_bytes(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*ret = (uint64_t)st.st_size;
	return 0;
}

void saved_pages_close(struct saved_pages *pages)
{
	free(pages->entry);
	free(pages->buffer);
	pages_unpacker_free(pages->unpacker);
	free(pages->packed);
	*pages = (struct saved_pages){ .fd = -1 };
}

uint32_t saved_pages_run(const struct saved_pages *pages, uint32_t number, uint32_t most)
{
	const struct saved_entry *entry = &pages->entry[number];
	uint32_t count = 1;
	uint64_t sum_pages = entry->pages;

	assert(number < pages->entries);
	most = most < SAVED_RUN_ENTRIES ? most : SAVED_RUN_ENTRIES;
	for (; count < most && number + count < pages->entries; count++, entry++) {
		sum_pages += entry[1].pages;
		if (sum_pages > SAVED_ENTRY_PAGES ||
		    entry[1].at != entry->at + saved_entry_bytes(entry))
			break;
	}
	return count;
}

static struct page_head *heads_of(const struct saved_pages *pages)
{
	return (struct page_head *)(pages->buffer + SAVED_ENTRY_PAGES * GUEST_PAGE_BYTES);
}

/* Of one entry: heads and pages lie apart. */
static int read_entry(const struct saved_pages *pages, uint32_t number, struct page_head *head,
		      uint8_t *to)
{
	const struct saved_entry *entry = &pages->entry[number];
	const int error = read_at(pages->fd, head, sizeof(*head), entry->at);

	return error ? error
		     : read_at(pages->fd, to, entry->pages * (size_t)GUEST_PAGE_BYTES,
			       entry->at + sizeof(*head));
}

/* By one call; where that does not do all of it, one by one. */
static int read_run(const struct saved_pages *pages, uint32_t number, uint32_t count)
{
	const struct saved_entry *entry = &pages->entry[number];
	struct page_head *heads = heads_of(pages);
	struct iovec part[2 * SAVED_RUN_ENTRIES] = { { .iov_len = 0 } };
	uint8_t *to = pages->buffer;
	uint64_t bytes = 0;
	int error = 0;

	for (uint32_t n = 0; n < count; n++) {
		part[2 * n] = (struct iovec){ .iov_base = &heads[n], .iov_len = sizeof(*heads) };
		part[2 * n + 1] =
			(struct iovec){ .iov_base = to,
					.iov_len = entry[n].pages * (size_t)GUEST_PAGE_BYTES };
		to += part[2 * n + 1].iov_len;
		bytes += saved_entry_bytes(&entry[n]);
	}
	if (preadv(pages->fd, part, (int)(2 * count), (off_t)entry->at) == (ssize_t)bytes)
		return 0;
	for (uint32_t n = 0; n < count && !error; n++)
		error = read_entry(pages, number + n, &heads[n], part[2 * n + 1].iov_base);
	return error;
}

static bool is_right(const struct saved_entry *entry, const struct page_head *head,
		     const uint8_t *from)
{
	const size_t bytes = entry->pages * (size_t)GUEST_PAGE_BYTES;

	return is_head(&head->section, SECTION_PAGES, SECTION_VERSION) &&
	       head->first == entry->first && head->section.bytes == sizeof(head->first) + bytes &&
	       head->section.crc ==
		       crc32c(crc32c(0, &head->first, sizeof(head->first)), from, bytes);
}

/* The pages of a packed section, which is at `section`. */
static int unpack_entry(const struct saved_pages *pages, const struct saved_entry *entry,
			const uint8_t *section, uint8_t *to)
{
	const uint64_t room = saved_entry_bytes(entry) - SAVED_SECTION_HEAD_BYTES;
	const uint8_t *payload = section + SAVED_SECTION_HEAD_BYTES;
	struct saved_section head;
	struct packed_pages_head about;
	const uint8_t *from = NULL;
	int error;

	memcpy(&head, section, sizeof(head));
	if (!is_head(&head, SECTION_PAGES, SECTION_PACKED_VERSION) || head.bytes > room ||
	    head.crc != crc32c(0, payload, head.bytes))
		return -EBADMSG;
	error = pages_unpacker_unpack(pages->unpacker, payload, head.bytes, &about, &from);
	if (!error && (about.first != entry->first || about.pages != entry->pages))
		error = -EBADMSG;
	if (!error)
		memcpy(to, from, entry->pages * (size_t)GUEST_PAGE_BYTES);
	return error;
}

/* One that is not packed, between others. */
static int take_entry(const struct saved_entry *entry, const uint8_t *section, uint8_t *to)
{
	struct page_head head;

	memcpy(&head, section, sizeof(head));
	if (!is_right(entry, &head, section + sizeof(head)))
		return -EBADMSG;
	memcpy(to, section + sizeof(head), entry->pages * (size_t)GUEST_PAGE_BYTES);
	return 0;
}

/* As saved_pages_read(), where some are packed: they lie one behind the other in the file. */
static int read_packed(const struct saved_pages *pages, uint32_t number, uint32_t count)
{
	const struct saved_entry *entry = &pages->entry[number];
	const uint8_t *section = pages->packed;
	uint8_t *to = pages->buffer;
	uint64_t bytes = 0;
	int error;

	for (uint32_t n = 0; n < count; n++)
		bytes += saved_entry_bytes(&entry[n]);
	assert(bytes <= BUFFER_BYTES);
	error = read_at(pages->fd, pages->packed, bytes, entry->at);
	for (uint32_t n = 0; n < count && !error; n++) {
		error = entry[n].packed_words ? unpack_entry(pages, &entry[n], section, to)
					      : take_entry(&entry[n], section, to);
		section += saved_entry_bytes(&entry[n]);
		to += entry[n].pages * (size_t)GUEST_PAGE_BYTES;
	}
	return error;
}

int saved_pages_read(const struct saved_pages *pages, uint32_t number, uint32_t count,
		     const uint8_t **ret)
{
	const struct saved_entry *entry = &pages->entry[number];
	const uint8_t *from = pages->buffer;
	int error;

	assert(count == saved_pages_run(pages, number, count));
	*ret = pages->buffer;
	if (pages->unpacker)
		return read_packed(pages, number, count);
	error = read_run(pages, number, count);
	for (uint32_t n = 0; n < count && !error; n++) {
		if (!is_right(&entry[n], &heads_of(pages)[n], from))
			error = -EBADMSG;
		from += entry[n].pages * (size_t)GUEST_PAGE_BYTES;
	}
	return error;
}

int saved_pages_of_section(const struct saved_entry *entry, const uint8_t *section,
			   const uint8_t **ret)
{
	struct page_head head;

	if (entry->packed_words)
		return -EOPNOTSUPP;
	memcpy(&head, section, sizeof(head));
	*ret = section + sizeof(head);
	return is_right(entry, &head, *ret) ? 0 : -EBADMSG;
}
