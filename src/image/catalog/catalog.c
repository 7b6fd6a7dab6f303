/*
 * The catalog: one SQLite file that says which images there are, and what they say about
 * themselves, so that a shelf of them is searched without opening any.
 *
 *   images      a row for each: path, identity, data identifier, what `search` prints, its terms
 *   terms       "KEY:VALUE", "pkg:NAME\x1fVERSION", "file:PATH"
 *   postings    which images (contents, for pkg and file) have a term
 *   contents    package and file lists, by digest: the same list is kept once
 *   content_of  which content an image has
 *   texts       FTS5 over titles, tags and names
 *   paths       FTS5 trigrams over the paths of files
 *
 * 1. What a row of images says is what terms and postings say: both are changed in one transaction
 *    (catalog_rows.c).
 * 2. An image that moves keeps its row: it is known by its identity. One that is gone loses it
 *    (catalog_index.c).
 * 3. A content stays when its last image goes: it comes back often, and costs only room.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog_internal.h"
#include "image/sqlite.h"

enum { APPLICATION = 0x554d4354, SCHEMA = 1 };

static const char schema[] =
	"PRAGMA application_id=1431126868; PRAGMA user_version=1;"
	"CREATE TABLE images(id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, "
	"identity TEXT NOT NULL, data_id TEXT NOT NULL, bytes INTEGER NOT NULL,"
	" mtime INTEGER NOT NULL, content INTEGER NOT NULL, row TEXT NOT NULL, "
	"terms TEXT NOT NULL);"
	"CREATE INDEX images_identity ON images(identity); "
	"CREATE INDEX images_data ON images(data_id);"
	"CREATE TABLE terms(id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL);"
	"CREATE TABLE postings(term INTEGER NOT NULL, chunk INTEGER NOT NULL, "
	"members BLOB NOT NULL, PRIMARY KEY(term, chunk)) WITHOUT ROWID;"
	"CREATE TABLE contents(id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL);"
	"CREATE TABLE content_of(chunk INTEGER PRIMARY KEY, ids BLOB NOT NULL);"
	"CREATE VIRTUAL TABLE texts USING fts5(body, content='');"
	"CREATE VIRTUAL TABLE paths USING fts5(text, content='terms', content_rowid='id', "
	"tokenize='trigram case_sensitive 1');";

static const char *const sql[STATEMENTS] = {
	[S_TERM_FIND] = "SELECT id FROM terms WHERE text=?",
	[S_TERM_ADD] = "INSERT INTO terms(text) VALUES(?)",
	[S_POSTING_READ] = "SELECT members FROM postings WHERE term=? AND chunk=?",
	[S_POSTING_ALL] = "SELECT chunk, members FROM postings WHERE term=?",
	[S_POSTING_WRITE] = "INSERT OR REPLACE INTO postings VALUES(?,?,?)",
	[S_TERM_RANGE] =
		"SELECT text, chunk, members FROM terms CROSS JOIN postings ON term=id WHERE "
		"text>=? AND text<?",
	[S_PATH_ADD] = "INSERT INTO paths(rowid, text) VALUES(?,?)",
	[S_PATH_GLOB] = "SELECT rowid FROM paths WHERE text GLOB ? LIMIT ?",
	[S_IMAGE_BY_PATH] = "SELECT id, bytes, mtime, identity FROM images WHERE path=?",
	[S_IMAGE_BY_IDENTITY] = "SELECT id, path FROM images WHERE identity=?",
	[S_IMAGE_ADD] =
		"INSERT INTO images(path, identity, data_id, bytes, mtime, content, row, "
		"terms) VALUES(?,?,?,?,?,?,?,?)",
	[S_IMAGE_CHANGE] =
		"UPDATE images SET path=?, identity=?, data_id=?, bytes=?, mtime=?, content=?, "
		"row=?, terms=? WHERE id=?",
	[S_IMAGE_MOVE] = "UPDATE images SET path=? WHERE id=?",
	[S_IMAGE_REMOVE] = "DELETE FROM images WHERE id=?",
	[S_IMAGE_ROW] = "SELECT path, row FROM images WHERE id=?",
	[S_IMAGE_TERMS] = "SELECT terms, row FROM images WHERE id=?",
	[S_IMAGE_BELOW] = "SELECT id, path FROM images WHERE path>=? AND path<?",
	[S_IMAGE_BY_DATA] = "SELECT path FROM images WHERE data_id=?",
	[S_CONTENT_FIND] = "SELECT id FROM contents WHERE digest=?",
	[S_CONTENT_ADD] = "INSERT INTO contents(digest) VALUES(?)",
	[S_TEXT_ADD] = "INSERT INTO texts(rowid, body) VALUES(?,?)",
	[S_TEXT_REMOVE] = "INSERT INTO texts(texts, rowid, body) VALUES('delete',?,?)",
	[S_TEXT_MATCH] = "SELECT rowid FROM texts WHERE texts MATCH ?",
	[S_OF_READ] = "SELECT ids FROM content_of WHERE chunk=?",
	[S_OF_ALL] = "SELECT chunk, ids FROM content_of",
	[S_OF_WRITE] = "INSERT OR REPLACE INTO content_of VALUES(?,?)",
	[S_IMAGES_MAX] = "SELECT coalesce(max(id),0) FROM images",
	[S_CONTENTS_MAX] = "SELECT coalesce(max(id),0) FROM contents",
};

/* ---- the data base ---- */

sqlite3_stmt *catalog_statement(struct catalog *catalog, enum statement which)
{
	assert(which < STATEMENTS && catalog->of[which]);
	sqlite3_reset(catalog->of[which]);
	sqlite3_clear_bindings(catalog->of[which]);
	return catalog->of[which];
}

int catalog_error(struct catalog *catalog)
{
	switch (sqlite3_errcode(catalog->db)) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE: return 0;
	case SQLITE_FULL: return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED: return -EBUSY;
	case SQLITE_NOMEM: return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB: return -EBADMSG;
	case SQLITE_READONLY:
	case SQLITE_PERM: return -EACCES;
	case SQLITE_CANTOPEN: return -ENOENT;
	default: return -EIO;
	}
}

int64_t catalog_number(struct catalog *catalog, sqlite3_stmt *statement)
{
	int result = sqlite3_step(statement);
	int64_t n = 0;

	if (result == SQLITE_ROW)
		n = sqlite3_column_int64(statement, 0);
	else if (result != SQLITE_DONE)
		n = catalog_error(catalog);
	sqlite3_reset(statement);
	return n;
}

int catalog_done(struct catalog *catalog, sqlite3_stmt *statement)
{
	int result = sqlite3_step(statement);

	sqlite3_reset(statement);
	return result == SQLITE_DONE || result == SQLITE_ROW ? 0 : catalog_error(catalog);
}

int catalog_execute(struct catalog *catalog, const char *text)
{
	return sqlite3_exec(catalog->db, text, NULL, NULL, NULL) ? catalog_error(catalog) : 0;
}

static int64_t pragma(struct catalog *catalog, const char *text)
{
	sqlite3_stmt *statement;
	int64_t n = -1;

	if (!sqlite3_prepare_v2(catalog->db, text, -1, &statement, NULL) &&
	    sqlite3_step(statement) == SQLITE_ROW)
		n = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return n;
}

/* A fresh file gets its tables; another program's is left alone. */
static int check_schema(struct catalog *catalog)
{
	int64_t application = pragma(catalog, "PRAGMA application_id");
	int64_t tables = pragma(catalog, "SELECT count(*) FROM sqlite_master");
	int error;

	if (tables < 0)
		return catalog_error(catalog);
	if (tables && application != APPLICATION)
		return -EBADMSG;
	if (tables)
		return pragma(catalog, "PRAGMA user_version") != SCHEMA ? -ENOTSUP : 0;
	error = catalog_execute(catalog, "PRAGMA journal_mode=WAL; BEGIN IMMEDIATE");
	if (!error)
		error = catalog_execute(catalog, schema);
	return error ? error : catalog_execute(catalog, "COMMIT");
}

void catalog_close(struct catalog *catalog)
{
	for (int n = 0; n < STATEMENTS; n++)
		sqlite3_finalize(catalog->of[n]);
	sqlite3_close(catalog->db);
	free(catalog);
}

int catalog_open(const char *path, struct catalog **ret)
{
	struct catalog *catalog = calloc(1, sizeof(*catalog));
	int error;

	if (!catalog)
		return -ENOMEM;
	if (!sqlite_load()) {
		free(catalog);
		return -ELIBACC;
	}
	error = sqlite3_open_v2(path, &catalog->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
				NULL)
			? catalog_error(catalog)
			: 0;
	if (!error) {
		sqlite3_busy_timeout(catalog->db, 10000);
		sqlite3_db_config(catalog->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		sqlite3_db_config(catalog->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		error = catalog_execute(catalog,
					"PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536; "
					"PRAGMA mmap_size=268435456");
	}
	if (!error)
		error = check_schema(catalog);
	for (int n = 0; n < STATEMENTS && !error; n++)
		error = sqlite3_prepare_v3(catalog->db, sql[n], -1, SQLITE_PREPARE_PERSISTENT,
					   &catalog->of[n], NULL)
				? catalog_error(catalog)
				: 0;
	if (error)
		catalog_close(catalog);
	else
		*ret = catalog;
	return error;
}

int catalog_begin(struct catalog *catalog) { return catalog_execute(catalog, "BEGIN IMMEDIATE"); }

int catalog_end(struct catalog *catalog)
{
	int error = catalog_execute(catalog, "COMMIT");

	if (error)
		catalog_execute(catalog, "ROLLBACK");
	return error;
}
