/* What the parts of the catalog share: its data base, and sets of images. */
#pragma once

#include <sqlite3.h>

#include "image/image.h"

/* Prepared once, in the order of sql[] in catalog.c. */
enum statement {
	S_TERM_FIND,
	S_TERM_ADD,
	S_POSTING_READ,
	S_POSTING_ALL,
	S_POSTING_WRITE,
	S_TERM_RANGE,
	S_PATH_ADD,
	S_PATH_GLOB,
	S_IMAGE_BY_PATH,
	S_IMAGE_BY_IDENTITY,
	S_IMAGE_ADD,
	S_IMAGE_CHANGE,
	S_IMAGE_MOVE,
	S_IMAGE_REMOVE,
	S_IMAGE_ROW,
	S_IMAGE_TERMS,
	S_IMAGE_BELOW,
	S_IMAGE_BY_DATA,
	S_CONTENT_FIND,
	S_CONTENT_ADD,
	S_TEXT_ADD,
	S_TEXT_REMOVE,
	S_TEXT_MATCH,
	S_OF_READ,
	S_OF_ALL,
	S_OF_WRITE,
	S_IMAGES_MAX,
	S_CONTENTS_MAX,
	STATEMENTS
};

struct catalog { sqlite3 *db; sqlite3_stmt *of[STATEMENTS]; };

/* The statement, reset, with no parameters bound. */
sqlite3_stmt *catalog_statement(struct catalog *catalog, enum statement which);
/* -EIO, -ENOSPC or -EBADMSG of what SQLite says. */
int catalog_error(struct catalog *catalog);
/* Of a statement that gives one number; 0: no row, negative: an error. */
int64_t catalog_number(struct catalog *catalog, sqlite3_stmt *statement);
/* Runs a statement that gives no rows, or one that does not matter. */
int catalog_done(struct catalog *catalog, sqlite3_stmt *statement);
int catalog_execute(struct catalog *catalog, const char *text);

/* ---- catalog_rows.c ---- */

/* What an image says, in a transaction of the caller; image 0: a new one. */
int catalog_put_row(struct catalog *catalog, int64_t image, const struct catalog_entry *entry);
/* Takes what was known of an image out of everything but its row. */
int catalog_forget_row(struct catalog *catalog, int64_t image);

/* ---- postings.c ---- */

/* A set of small numbers. */
struct set { uint64_t *words; uint64_t limit; };
int set_make(struct set *set, uint64_t limit);
void set_free(struct set *set);
static inline bool set_has(const struct set *set, uint64_t n)
{
	return n < set->limit && set->words[n / 64] >> (n % 64) & 1;
}
static inline void set_add(struct set *set, uint64_t n)
{
	if (n < set->limit)
		set->words[n / 64] |= 1ull << n % 64;
}
uint64_t set_count(const struct set *set);
/* Whether image or content `member` has a term. */
int posting_change(struct catalog *catalog, int64_t term, uint64_t member, bool has);
/* Adds the members of a row that has chunk and members in these columns. */
int posting_row(sqlite3_stmt *row, int column, struct set *to);
/* Adds those that have it. */
int posting_load(struct catalog *catalog, int64_t term, struct set *to);
/* Which content an image has; 0: none. */
int content_of_change(struct catalog *catalog, uint64_t image, uint32_t content);
/* Adds the images whose content is in `contents`. */
int content_of_load(struct catalog *catalog, const struct set *contents, struct set *to);
