/*
 * What the daemon keeps when it ends: documents, each a text under a kind and a key, and a journal
 * of events, which are numbered as they come and never get a number twice.
 *
 * Where it lies is the caller's text: the path of an SQLite file, or the address of a PostgreSQL
 * database (postgresql://...). A driver is a table of functions (struct store_driver), so that
 * another engine is one file more.
 *
 *   - What store_put() or store_append() has returned 0 for is found after a crash of the process.
 *     (After a crash of the host the last seconds may be missing, and nothing else.)
 *   - Nothing waits for longer than STORE_WAIT_MS for somebody else's lock.
 *   - An event that could not be appended, as far as its answer says, and is appended again under
 *     the same id, is kept once.
 *   - A text of a kind that is trimmed is a JSON object whose "at" says when it was made.
 *
 * Errors: -EBUSY locked by another process, -ENOSPC no room, -EBADMSG not a store or damaged,
 * -EROFS, -EACCES, -ENOENT no such document, -ENOTCONN no such server, -EPROTONOSUPPORT built
 * without it, -EIO everything else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { STORE_WAIT_MS = 200 };

struct store;

/* What is shown one by one; false: no more. The texts are good until it returns. */
typedef bool store_taker(void *context, const char *key, const char *text);
typedef bool store_event_taker(void *context, uint64_t sequence, const char *text);

/* As the functions below. */
struct store_driver {
	int (*open)(const char *where, const char *host, void **ret_self);
	void (*close)(void *self);
	int (*put)(void *self, const char *kind, const char *key, const char *text);
	int (*get)(void *self, const char *kind, const char *key, char **ret_text);
	int (*drop)(void *self, const char *kind, const char *key);
	int (*each)(void *self, const char *kind, store_taker *take, void *context);
	int (*trim)(void *self, const char *kind, int64_t before, uint64_t keep,
		    uint64_t keep_bytes);
	int (*append)(void *self, const char *id, const char *text, uint64_t *ret_sequence);
	int (*since)(void *self, uint64_t sequence, unsigned most, store_event_taker *take,
		     void *context);
	int (*last)(void *self, uint64_t *ret_sequence);
	int (*forget)(void *self, uint64_t keep);
};

extern const struct store_driver store_sqlite, store_postgres;

/*
 * Made if it is not there. host: by what this host's users are told from others' where many have
 * the same store; NULL: its name. 0 or an error; *ret is closed with store_close().
 */
int store_open(const char *where, const char *host, struct store **ret);
void store_close(struct store *store);
/* Puts a document, or replaces it. */
int store_put(struct store *store, const char *kind, const char *key, const char *text);
/* *ret_text is to be freed. */
int store_get(struct store *store, const char *kind, const char *key, char **ret_text);
/* 0 also when there is none. */
int store_drop(struct store *store, const char *kind, const char *key);
/* All documents of a kind, by key. Nothing may be put or dropped meanwhile. */
int store_each(struct store *store, const char *kind, store_taker *take, void *context);
/*
 * Of the kind's documents only the youngest `keep` stay, as many of them as are within `keep_bytes`
 * together, and none whose "at" is less than `before`.
 */
int store_trim(struct store *store, const char *kind, int64_t before, uint64_t keep,
	       uint64_t keep_bytes);
/*
 * id: no other event has it. Where the same was appended before, and nobody knows whether it was
 * kept, *ret_sequence is what it has.
 */
int store_append(struct store *store, const char *id, const char *text, uint64_t *ret_sequence);
/* Events after this number, `most` at most. */
int store_since(struct store *store, uint64_t sequence, unsigned most, store_event_taker *take,
		void *context);
/* The number of the event that was appended last, also where it was dropped since; 0: none was. */
int store_last(struct store *store, uint64_t *ret_sequence);
/* All events but the last `keep` are dropped. */
int store_forget(struct store *store, uint64_t keep);
