/*
 * Who writes a machine as a stream of bytes (saved.h): its sections, one after the other, and the
 * index of its pages. save.c writes a machine that runs, served.c one that was forked.
 *
 *   - Of RAM nothing is believed to stay as it is but what is copied first.
 *   - `at` is where the next byte lies in the stream, also where nothing is written (lays_out).
 */
#pragma once

#include "saved.h"
#include "saved_pages.h"

/*
 * Pages of a section; of one that is laid out, and sent where somebody waits for a page of it,
 * fewer.
 */
enum { SAVER_RUN_PAGES = 16, SAVER_LAID_OUT_PAGES = 3, SAVER_INDEX_ENTRIES = 4095 };

/* A block of the index is one section, and what is taken of memory at once. */
struct saver_index {
	struct saver_index *next;
	uint64_t entries;
	struct saved_entry entry[SAVER_INDEX_ENTRIES];
};

struct saver {
	struct machine *machine;
	int (*write)(void *context, const void *data, size_t bytes);
	void *context;
	uint8_t *buffer;
	uint64_t *wanted; /* a bit for each frame */
	uint64_t sections, at; /* that were written; bytes that were */
	struct saved_end end;
	struct saver_index *index, *last;
	bool has_no_index; /* there was no memory for it */
	bool lays_out; /* pages are left out of what is written, but have their places */
	int error;
};

/* 0 or -ENOMEM. */
int saver_make(struct saver *saver, struct machine *machine,
	       int (*write)(void *context, const void *data, size_t bytes), void *context);
void saver_free(struct saver *saver);
void saver_forget_wanted(struct saver *saver);
/* Of this machine nothing can be saved: -EOPNOTSUPP. 0 */
int saver_check(const struct machine *machine);
void saver_put_head(struct saver *saver);
/* The frames that is_wanted() has, from this one on, in runs. */
void saver_put_pages(struct saver *saver, uint64_t first,
		     bool (*is_wanted)(const struct saver *saver, uint64_t frame));
/*
 * For saver_put_pages(): those that hold something; overlays that do, of processors that there are:
 * who looks at another's has the host make it; those of `wanted`.
 */
bool saver_is_used(const struct saver *saver, uint64_t frame);
bool saver_is_used_overlay(const struct saver *saver, uint64_t frame);
bool saver_is_wanted(const struct saver *saver, uint64_t frame);
/* Everything that is no memory, while the machine stands still. */
void saver_put_parts(struct saver *saver);
/* Likewise: which code was come to while use was noted. */
void saver_put_code(struct saver *saver);
/* Behind the last page: the index, and where all is. */
void saver_put_end(struct saver *saver);
/* A PAGE section's head and the number of its first frame, before its pages. */
struct saver_page_head { struct saved_section section; uint64_t first; };
void saver_page_head(const struct saved_entry *entry, const uint8_t *pages,
		     struct saver_page_head *ret);
