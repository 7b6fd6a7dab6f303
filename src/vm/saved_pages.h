/*
 * The pages of a saved machine, to be read one by one while it runs already (saved.h).
 *
 *   head, PAGE ..., | MACH, parts of units, PAGE ..., | INDX ... END
 *                   parts                              index          both told by END
 *
 * INDX has an entry for each PAGE section, in the order of the file: where it lies, which frames it
 * has, and of one that is packed (packed_pages.h) how long it is. Of a frame that two of them have
 * the later counts.
 *
 *  1. All of it is hostile: offsets and numbers are checked against the file and the machine's
 *     memory before they are used, and a section against its checksums each time that it is read.
 *  2. A file without an index (older ones) is no error: -ENOENT, its machine reads all of it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
	SAVED_PAGE_BYTES = 4096,
	SAVED_OTHER_PAGES = 64, /* behind RAM: the overlays */
	SAVED_ENTRY_PAGES = 256, /* most pages of a section, and of what is read at once */
	SAVED_RUN_ENTRIES = 16,  /* most sections that are read at once */
	SAVED_TAIL_BYTES = 24 + 40, /* of END: its head and its payload */
};

/* What END says. */
struct saved_tail {
	uint64_t parts_at, index_at; /* from the file's begin */
	uint64_t sections_before;    /* those before parts_at */
};

/* A PAGE section. packed_words: all of it, in units of 8 bytes; 0: it is not packed. */
struct saved_entry { uint64_t at; uint32_t first; uint16_t pages, packed_words; };

struct saved_pages {
	int fd;
	uint64_t machine_bytes;
	struct saved_tail tail;
	struct saved_entry *entry;
	uint32_t entries;
	uint8_t *buffer; /* pages; behind them the heads of their sections */
	/* where the index has packed ones; otherwise NULL */
	struct pages_unpacker *unpacker;
	uint8_t *packed; /* sections, as they are in the file */
};

/*
 * Of the last SAVED_TAIL_BYTES of the machine's part of a file, which has machine_bytes. 0;
 * -ENOENT: it has no index; -EBADMSG.
 */
int saved_tail_take(const uint8_t *bytes, uint64_t machine_bytes, struct saved_tail *ret);
/* Of a file. 0; -ENOENT: it has no index; -EBADMSG; -errno. */
int saved_pages_open(int fd, struct saved_pages *ret);
/* Of the file; for who cannot ask otherwise. 0 or -errno. */
int saved_pages_file_bytes(int fd, uint64_t *ret);
void saved_pages_close(struct saved_pages *pages);
/* How long it is in the file. */
uint64_t saved_entry_bytes(const struct saved_entry *entry);
/*
 * How many entries from this one on lie one behind the other in the file and can be read at once;
 * of no more than `most`, and at least one.
 */
uint32_t saved_pages_run(const struct saved_pages *pages, uint32_t number, uint32_t most);
/*
 * The pages of so many entries as saved_pages_run() has said, one's behind the other's, which are
 * right until the next call. 0; -EBADMSG: they are not what their checksums say; -EIO; -errno.
 */
int saved_pages_read(const struct saved_pages *pages, uint32_t number, uint32_t count,
		     const uint8_t **ret);
/*
 * The same of one entry that is not packed, of a section that lies in memory, all of it:
 * -EOPNOTSUPP of one that is.
 */
int saved_pages_of_section(const struct saved_entry *entry, const uint8_t *section,
			   const uint8_t **ret);
