/*
 * The pages of a saved machine's file, plain and packed: sections of the bytes are made right
 * (checksums) before they are read, so that what is behind them is reached. What is read is packed,
 * too (cli/save_pack.h), and what that writes has to be the same pages.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "lib/crc32c.h"
#include "save_pack.h"
#include "vm/packed_pages.h"
#include "vm/saved.h"
#include "vm/saved_pages.h"

enum { FILE_BYTES = 2 * FUZZ_MAX_BYTES, RUN_PAGES = 4, CHUNK_BYTES = 1000 };

struct text { size_t bytes; uint8_t data[FILE_BYTES]; };

static void seal(struct saved_section *head, const uint8_t *payload)
{
	head->crc = crc32c(0, payload, head->bytes);
	head->head_crc = crc32c(0, head, offsetof(struct saved_section, head_crc));
}

/* Up to the first section that is longer than what is there. */
static void seal_all(struct text *text)
{
	struct saved_section head;

	for (size_t at = SAVED_HEAD_BYTES; at + sizeof(head) <= text->bytes;) {
		memcpy(&head, text->data + at, sizeof(head));
		if (head.bytes > text->bytes - at - sizeof(head))
			return;
		seal(&head, text->data + at + sizeof(head));
		memcpy(text->data + at, &head, sizeof(head));
		at += sizeof(head) + head.bytes + -head.bytes % SAVED_ALIGNMENT;
	}
}

static int add(void *context, const void *data, size_t bytes)
{
	struct text *text = context;

	if (bytes > sizeof(text->data) - text->bytes)
		return -1;
	memcpy(text->data + text->bytes, data, bytes);
	text->bytes += bytes;
	return 0;
}

/* All that its index names, one behind the other, as a checksum; whether it could be read. */
static bool sum_pages(const struct text *text, uint32_t *ret_sum)
{
	const int fd = memfd_create("saved", MFD_CLOEXEC);
	struct saved_pages pages;
	const uint8_t *from;
	bool good;

	if (fd < 0 || write(fd, text->data, text->bytes) != (ssize_t)text->bytes)
		abort();
	good = !saved_pages_open(fd, &pages);
	*ret_sum = 0;
	for (uint32_t n = 0; good && n < pages.entries;) {
		const uint32_t count = saved_pages_run(&pages, n, SAVED_RUN_ENTRIES);

		good = !saved_pages_read(&pages, n, count, &from);
		for (uint32_t end = n + count; good && n < end; n++) {
			const struct saved_entry *entry = &pages.entry[n];

			*ret_sum = crc32c(*ret_sum, &entry->first, sizeof(entry->first));
			*ret_sum = crc32c(*ret_sum, from, entry->pages * (size_t)GUEST_PAGE_BYTES);
			from += entry->pages * (size_t)GUEST_PAGE_BYTES;
		}
	}
	saved_pages_close(&pages);
	close(fd);
	return good;
}

/* False: it is not what a machine says. */
static bool pack(const struct text *from, struct text *to)
{
	struct save_pack *pack = save_pack_make(add, to);
	int error = 0;

	to->bytes = 0;
	for (size_t at = 0; at < from->bytes && !error; at += CHUNK_BYTES)
		error = save_pack_take(pack, from->data + at,
				       from->bytes - at < CHUNK_BYTES ? from->bytes - at
								      : CHUNK_BYTES);
	if (!error)
		error = save_pack_end(pack);
	save_pack_free(pack);
	return !error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct text plain, packed;
	uint32_t sum;
	uint32_t packed_sum;

	memcpy(plain.data, data, bytes);
	plain.bytes = bytes;
	seal_all(&plain);
	if (sum_pages(&plain, &sum) && pack(&plain, &packed) &&
	    (!sum_pages(&packed, &packed_sum) || sum != packed_sum))
		abort();
	return 0;
}

/* ---- seeds ---- */

static void put_section(struct text *text, uint32_t name, uint32_t version, const void *payload,
			size_t bytes)
{
	struct saved_section head = { .name = name, .version = version, .bytes = bytes };
	const uint8_t zeros[SAVED_ALIGNMENT] = { 0 };

	seal(&head, payload);
	add(text, &head, sizeof(head));
	add(text, payload, bytes);
	add(text, zeros, -bytes % SAVED_ALIGNMENT);
}

/* Words, numbers and noise: some of them pack well, some not at all. */
static void fill(uint8_t *page, unsigned n)
{
	for (unsigned at = 0; at < GUEST_PAGE_BYTES; at++)
		page[at] = (uint8_t)(n % 3 ? at * (n % 5) / 16 : (unsigned)rand());
}

static void put_pages(struct text *text, struct saved_entry *entry, unsigned n)
{
	uint8_t payload[sizeof(uint64_t) + RUN_PAGES * GUEST_PAGE_BYTES];
	const uint64_t first = entry->first;

	entry->at = text->bytes;
	memcpy(payload, &first, sizeof(first));
	for (unsigned page = 0; page < entry->pages; page++)
		fill(payload + sizeof(first) + page * GUEST_PAGE_BYTES, n + page);
	put_section(text, SECTION_PAGES, SECTION_VERSION, payload,
		    sizeof(first) + entry->pages * (size_t)GUEST_PAGE_BYTES);
}

/* As machine_save() writes one; of each second number packed. */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static struct text text, packed;
	const unsigned entries = n % 5;
	struct saved_entry entry[8] = { { .at = 0 } };
	struct saved_end end = { .sections = entries + 2 + (entries != 0) };
	struct text *said = &text;

	text.bytes = SAVED_HEAD_BYTES;
	for (unsigned k = 0; k < entries; k++) {
		entry[k].first = 100 * k;
		entry[k].pages = (uint16_t)(1 + (n + k) % RUN_PAGES);
		put_pages(&text, &entry[k], n + k);
	}
	end.sections_before = entries;
	end.parts_at = text.bytes;
	put_section(&text, SECTION_MACHINE, 2, "whatever it is", 14);
	entry[entries] = (struct saved_entry){ .first = 7, .pages = 1 };
	put_pages(&text, &entry[entries], n);
	if (entries) {
		end.index_at = text.bytes;
		put_section(&text, SECTION_INDEX, SECTION_VERSION, entry,
			    (entries + 1) * sizeof(entry[0]));
	}
	put_section(&text, SECTION_END, SECTION_END_VERSION, &end, sizeof(end));
	if (n % 2 && pack(&text, &packed))
		said = &packed;
	memcpy(data, said->data, said->bytes);
	return said->bytes;
}
