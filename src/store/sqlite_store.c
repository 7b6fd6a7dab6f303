/*
 * The store in an SQLite file (store.h): a write-ahead log, so that readers and the one writer do
 * not wait for each other, and one prepared statement for each function.
 *
 * The file is the user's own, but may be damaged: what SQLite says of that becomes -EBADMSG, and
 * nothing is mended behind the user's back.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STORE_VERSION = 1 };

enum statement { PUT, GET, DROP, EACH, TRIM, APPEND, SINCE, LAST, FORGET, STATEMENTS };

static const char *const statement_texts[STATEMENTS] = {
	[PUT] = ("INSERT INTO document (kind, key, text) VALUES (?1, ?2, ?3)"
		" ON CONFLICT (kind, key) DO UPDATE SET text = excluded.text"),
	[GET] = "SELECT text FROM document WHERE kind = ?1 AND key = ?2",
	[DROP] = "DELETE FROM document WHERE kind = ?1 AND key = ?2",
	[EACH] = "SELECT key, text FROM document WHERE kind = ?1 ORDER BY key",
	/* what is no JSON is the oldest */
	[TRIM] = ("DELETE FROM document WHERE kind = ?1 AND key IN (SELECT key FROM"
		" (SELECT key, at, ROW_NUMBER() OVER young AS place, SUM(bytes) OVER young AS bytes"
		" FROM (SELECT key, length(CAST(text AS BLOB)) AS bytes, CASE WHEN json_valid(text)"
		" THEN COALESCE(json_extract(text, '$.at'), 0) ELSE 0 END AS at"
		" FROM document WHERE kind = ?1) WINDOW young AS (ORDER BY at DESC, key"
		" ROWS UNBOUNDED PRECEDING)) WHERE at < ?2 OR place > ?3 OR bytes > ?4)"),
	[APPEND] = "INSERT INTO event (text) VALUES (?1)",
	[SINCE] = "SELECT sequence, text FROM event WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
	[LAST] = "SELECT seq FROM sqlite_sequence WHERE name = 'event'",
	[FORGET] = "DELETE FROM event WHERE sequence <= (SELECT MAX(sequence) FROM event) - ?1",
};

static const char schema[] =
	"PRAGMA journal_mode = WAL;"
	"PRAGMA synchronous = NORMAL;"
	"CREATE TABLE IF NOT EXISTS document (kind TEXT NOT NULL, key TEXT NOT NULL,"
	" text TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS event (sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
	" text TEXT NOT NULL);";

struct sqlite_store {
	sqlite3 *base;
	sqlite3_stmt *statement[STATEMENTS];
};

static int error_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_OK: case SQLITE_DONE: case SQLITE_ROW: return 0;
	case SQLITE_BUSY: case SQLITE_LOCKED: return -EBUSY;
	case SQLITE_FULL: return -ENOSPC;
	case SQLITE_CORRUPT: case SQLITE_NOTADB: case SQLITE_SCHEMA: return -EBADMSG;
	case SQLITE_READONLY: return -EROFS;
	case SQLITE_PERM: case SQLITE_CANTOPEN: return -EACCES;
	case SQLITE_NOMEM: return -ENOMEM;
	default: return -EIO;
	}
}

static void sqlite_store_close(void *self)
{
	struct sqlite_store *store = self;

	for (unsigned n = 0; n < STATEMENTS; n++)
		sqlite3_finalize(store->statement[n]);
	sqlite3_close(store->base);
	free(store);
}

/* A later version's tables are not understood: -EBADMSG. */
static int check_version(sqlite3 *base)
{
	sqlite3_stmt *statement;
	int code = sqlite3_prepare_v2(base, "PRAGMA user_version", -1, &statement, NULL);
	int version = 0;

	if (code)
		return error_of(code);
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		version = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	if (code != SQLITE_ROW)
		return error_of(code);
	if (version != 0 && version != STORE_VERSION)
		return -EBADMSG;
	return version ? 0 : error_of(sqlite3_exec(base, "PRAGMA user_version = 1", 0, 0, 0));
}

/* Only its owner may read it, also if it was there before, and others made it. */
static int make_private(const char *path, int more_flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | more_flags, 0600);
	struct stat status;
	int error = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) || ((status.st_mode & 077) && fchmod(fd, 0600)))
		error = -errno;
	close(fd);
	return error;
}

/* And what SQLite lays beside it, which begins as the file was. */
static int make_all_private(const char *path)
{
	static const char *const more[] = { "-wal", "-shm" };
	int error = make_private(path, O_CREAT);

	for (unsigned n = 0; !error && n < sizeof(more) / sizeof(more[0]); n++) {
		char *beside;

		if (asprintf(&beside, "%s%s", path, more[n]) < 0)
			return -ENOMEM;
		error = make_private(beside, 0);
		error = error == -ENOENT ? 0 : error;
		free(beside);
	}
	return error;
}

static int prepare(struct sqlite_store *store, const char *path)
{
	int error = make_all_private(path);

	if (!error)
		error = error_of(sqlite3_open_v2(path, &store->base, SQLITE_OPEN_READWRITE, NULL));
	if (error)
		return error;
	sqlite3_busy_timeout(store->base, STORE_WAIT_MS);
	error = check_version(store->base);
	if (!error)
		error = error_of(sqlite3_exec(store->base, schema, NULL, NULL, NULL));
	for (unsigned n = 0; !error && n < STATEMENTS; n++)
		error = error_of(sqlite3_prepare_v3(store->base, statement_texts[n], -1,
						    SQLITE_PREPARE_PERSISTENT,
						    &store->statement[n], NULL));
	return error;
}

/* The file is one user's of one host. */
static int sqlite_store_open(const char *where, const char *host, void **ret_self)
{
	struct sqlite_store *store = calloc(1, sizeof(*store));
	int error = store ? prepare(store, where) : -ENOMEM;

	(void)host;
	if (error && store)
		sqlite_store_close(store);
	else if (!error)
		*ret_self = store;
	return error;
}

static sqlite3_stmt *bind_texts(struct sqlite_store *store, enum statement which,
				const char *const *texts, int count)
{
	sqlite3_stmt *statement = store->statement[which];

	for (int n = 0; n < count; n++)
		sqlite3_bind_text(statement, n + 1, texts[n], -1, SQLITE_STATIC);
	return statement;
}

/* One step of a statement that answers nothing. */
static int run(sqlite3_stmt *statement)
{
	int error = error_of(sqlite3_step(statement));

	sqlite3_reset(statement);
	return error;
}

static int sqlite_store_put(void *self, const char *kind, const char *key, const char *text)
{
	const char *const texts[] = { kind, key, text };

	return run(bind_texts(self, PUT, texts, 3));
}

static int sqlite_store_drop(void *self, const char *kind, const char *key)
{
	const char *const texts[] = { kind, key };

	return run(bind_texts(self, DROP, texts, 2));
}

static const char *column(sqlite3_stmt *statement, int n)
{
	const unsigned char *text = sqlite3_column_text(statement, n);

	return text ? (const char *)text : "";
}

static int sqlite_store_get(void *self, const char *kind, const char *key, char **ret_text)
{
	const char *const texts[] = { kind, key };
	sqlite3_stmt *statement = bind_texts(self, GET, texts, 2);
	int code = sqlite3_step(statement);
	int error = error_of(code);

	if (code == SQLITE_DONE)
		error = -ENOENT;
	if (code == SQLITE_ROW) {
		*ret_text = strdup(column(statement, 0));
		error = *ret_text ? 0 : -ENOMEM;
	}
	sqlite3_reset(statement);
	return error;
}

static int sqlite_store_each(void *self, const char *kind, store_taker *take, void *context)
{
	sqlite3_stmt *statement = bind_texts(self, EACH, &kind, 1);
	int code;

	while ((code = sqlite3_step(statement)) == SQLITE_ROW)
		if (!take(context, column(statement, 0), column(statement, 1)))
			break;
	sqlite3_reset(statement);
	return error_of(code);
}

static int sqlite_store_trim(void *self, const char *kind, int64_t before, uint64_t keep,
			     uint64_t keep_bytes)
{
	sqlite3_stmt *statement = bind_texts(self, TRIM, &kind, 1);

	sqlite3_bind_int64(statement, 2, before);
	sqlite3_bind_int64(statement, 3, (sqlite3_int64)keep);
	sqlite3_bind_int64(statement, 4, (sqlite3_int64)keep_bytes);
	return run(statement);
}

/* What did not succeed was not kept (3): nobody is between who may lose an answer. */
static int sqlite_store_append(void *self, const char *id, const char *text, uint64_t *ret_sequence)
{
	struct sqlite_store *store = self;
	int error = run(bind_texts(store, APPEND, &text, 1));

	(void)id;
	if (!error)
		*ret_sequence = (uint64_t)sqlite3_last_insert_rowid(store->base);
	return error;
}

static int sqlite_store_since(void *self, uint64_t sequence, unsigned most, store_event_taker *take,
			      void *context)
{
	struct sqlite_store *store = self;
	sqlite3_stmt *statement = store->statement[SINCE];
	int code;

	sqlite3_bind_int64(statement, 1, (sqlite3_int64)sequence);
	sqlite3_bind_int64(statement, 2, most);
	while ((code = sqlite3_step(statement)) == SQLITE_ROW)
		if (!take(context, (uint64_t)sqlite3_column_int64(statement, 0),
			  column(statement, 1)))
			break;
	sqlite3_reset(statement);
	return error_of(code);
}

static int sqlite_store_last(void *self, uint64_t *ret_sequence)
{
	struct sqlite_store *store = self;
	sqlite3_stmt *statement = store->statement[LAST];
	const int code = sqlite3_step(statement);

	if (code == SQLITE_ROW)
		*ret_sequence = (uint64_t)sqlite3_column_int64(statement, 0);
	else if (code == SQLITE_DONE)
		*ret_sequence = 0;
	sqlite3_reset(statement);
	return error_of(code);
}

static int sqlite_store_forget(void *self, uint64_t keep)
{
	struct sqlite_store *store = self;

	sqlite3_bind_int64(store->statement[FORGET], 1, (sqlite3_int64)keep);
	return run(store->statement[FORGET]);
}

const struct store_driver store_sqlite = {
	.open = sqlite_store_open,
	.close = sqlite_store_close,
	.put = sqlite_store_put,
	.get = sqlite_store_get,
	.drop = sqlite_store_drop,
	.each = sqlite_store_each,
	.trim = sqlite_store_trim,
	.append = sqlite_store_append,
	.since = sqlite_store_since,
	.last = sqlite_store_last,
	.forget = sqlite_store_forget,
};
