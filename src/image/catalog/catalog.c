/*
 * The catalog: one SQLite file that says which images there are, and what they say about themselves, so that a shelf of them is
 * searched without opening any.
 *
 *   images    a row for each: path, identity, data identifier, what `search` prints, its terms
 *   terms     "KEY:VALUE", "pkg:NAME\x1fVERSION", "file:PATH"      postings   which images (contents, for pkg and file) have it
 *   contents  package and file lists, by digest: the same list is kept once      content_of   which content an image has
 *   texts     FTS5 over titles, tags and names      paths   FTS5 trigrams over the paths of files
 *
 * 1. What a row of images says is what terms and postings say: both are changed in one transaction.
 * 2. An image that moves keeps its row: it is known by its identity. One that is gone loses it.
 * 3. A content stays when its last image goes: it comes back often, and costs only room.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog_internal.h"

enum { APPLICATION = 0x554d4354, SCHEMA = 1, TERMS_MAX = 512, TERM_BYTES = 256, DEPTH = 32, AHEAD = 16 };

static const char schema[] =
	"PRAGMA application_id=1431126868; PRAGMA user_version=1;"
	"CREATE TABLE images(id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, identity TEXT NOT NULL, data_id TEXT NOT NULL, bytes INTEGER NOT NULL,"
	" mtime INTEGER NOT NULL, content INTEGER NOT NULL, row TEXT NOT NULL, terms TEXT NOT NULL);"
	"CREATE INDEX images_identity ON images(identity); CREATE INDEX images_data ON images(data_id);"
	"CREATE TABLE terms(id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL);"
	"CREATE TABLE postings(term INTEGER NOT NULL, chunk INTEGER NOT NULL, members BLOB NOT NULL, PRIMARY KEY(term, chunk)) WITHOUT ROWID;"
	"CREATE TABLE contents(id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL);"
	"CREATE TABLE content_of(chunk INTEGER PRIMARY KEY, ids BLOB NOT NULL);"
	"CREATE VIRTUAL TABLE texts USING fts5(body, content='');"
	"CREATE VIRTUAL TABLE paths USING fts5(text, content='terms', content_rowid='id', tokenize='trigram case_sensitive 1');";

static const char *const sql[STATEMENTS] = {
	[S_TERM_FIND] = "SELECT id FROM terms WHERE text=?",
	[S_TERM_ADD] = "INSERT INTO terms(text) VALUES(?)",
	[S_POSTING_READ] = "SELECT members FROM postings WHERE term=? AND chunk=?",
	[S_POSTING_ALL] = "SELECT chunk, members FROM postings WHERE term=?",
	[S_POSTING_WRITE] = "INSERT OR REPLACE INTO postings VALUES(?,?,?)",
	[S_TERM_RANGE] = "SELECT text, chunk, members FROM terms CROSS JOIN postings ON term=id WHERE text>=? AND text<?",
	[S_PATH_ADD] = "INSERT INTO paths(rowid, text) VALUES(?,?)",
	[S_PATH_GLOB] = "SELECT rowid FROM paths WHERE text GLOB ? LIMIT ?",
	[S_IMAGE_BY_PATH] = "SELECT id, bytes, mtime, identity FROM images WHERE path=?",
	[S_IMAGE_BY_IDENTITY] = "SELECT id, path FROM images WHERE identity=?",
	[S_IMAGE_ADD] = "INSERT INTO images(path, identity, data_id, bytes, mtime, content, row, terms) VALUES(?,?,?,?,?,?,?,?)",
	[S_IMAGE_CHANGE] = "UPDATE images SET path=?, identity=?, data_id=?, bytes=?, mtime=?, content=?, row=?, terms=? WHERE id=?",
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

sqlite3_stmt *catalog_statement(struct catalog *c, enum statement which)
{
	sqlite3_reset(c->of[which]);
	sqlite3_clear_bindings(c->of[which]);
	return c->of[which];
}

int catalog_error(struct catalog *c)
{
	switch (sqlite3_errcode(c->db)) {
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

int64_t catalog_number(struct catalog *c, sqlite3_stmt *s)
{
	int result = sqlite3_step(s);
	int64_t n = result == SQLITE_ROW ? sqlite3_column_int64(s, 0) : result == SQLITE_DONE ? 0 : catalog_error(c);

	sqlite3_reset(s);
	return n;
}

static int done(struct catalog *c, sqlite3_stmt *s)
{
	int result = sqlite3_step(s);

	sqlite3_reset(s);
	return result == SQLITE_DONE || result == SQLITE_ROW ? 0 : catalog_error(c);
}

static int execute(struct catalog *c, const char *text) { return sqlite3_exec(c->db, text, NULL, NULL, NULL) ? catalog_error(c) : 0; }

static int64_t pragma(struct catalog *c, const char *text)
{
	sqlite3_stmt *s;
	int64_t n = -1;

	if (!sqlite3_prepare_v2(c->db, text, -1, &s, NULL) && sqlite3_step(s) == SQLITE_ROW)
		n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return n;
}

/* A fresh file gets its tables; another program's is left alone. */
static int check_schema(struct catalog *c)
{
	int64_t application = pragma(c, "PRAGMA application_id"), tables = pragma(c, "SELECT count(*) FROM sqlite_master");
	int error;

	if (tables < 0)
		return catalog_error(c);
	if (tables)
		return application != APPLICATION ? -EBADMSG : pragma(c, "PRAGMA user_version") != SCHEMA ? -ENOTSUP : 0;
	error = execute(c, "PRAGMA journal_mode=WAL; BEGIN IMMEDIATE");
	if (!error)
		error = execute(c, schema);
	return error ? error : execute(c, "COMMIT");
}

void catalog_close(struct catalog *c)
{
	for (int n = 0; n < STATEMENTS; n++)
		sqlite3_finalize(c->of[n]);
	sqlite3_close(c->db);
	free(c);
}

int catalog_open(const char *path, struct catalog **ret)
{
	struct catalog *c = calloc(1, sizeof(*c));
	int error;

	if (!c)
		return -ENOMEM;
	error = sqlite3_open_v2(path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) ? catalog_error(c) : 0;
	if (!error) {
		sqlite3_busy_timeout(c->db, 10000);
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		error = execute(c, "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536; PRAGMA mmap_size=268435456");
	}
	if (!error)
		error = check_schema(c);
	for (int n = 0; n < STATEMENTS && !error; n++)
		error = sqlite3_prepare_v3(c->db, sql[n], -1, SQLITE_PREPARE_PERSISTENT, &c->of[n], NULL) ? catalog_error(c) : 0;
	if (error)
		catalog_close(c);
	else
		*ret = c;
	return error;
}

int catalog_begin(struct catalog *c) { return execute(c, "BEGIN IMMEDIATE"); }

int catalog_end(struct catalog *c)
{
	int error = execute(c, "COMMIT");

	if (error)
		execute(c, "ROLLBACK");
	return error;
}

/* ---- what an image says, as terms ---- */

static int term_id(struct catalog *c, const char *text, bool is_path, int64_t *ret)
{
	sqlite3_stmt *s = catalog_statement(c, S_TERM_FIND);

	sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
	*ret = catalog_number(c, s);
	if (*ret)
		return *ret < 0 ? (int)*ret : 0;
	s = catalog_statement(c, S_TERM_ADD);
	sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
	if (done(c, s))
		return catalog_error(c);
	*ret = sqlite3_last_insert_rowid(c->db);
	if (!is_path)
		return 0;
	s = catalog_statement(c, S_PATH_ADD);
	sqlite3_bind_int64(s, 1, *ret);
	sqlite3_bind_text(s, 2, text, -1, SQLITE_STATIC);
	return done(c, s);
}

static void add_term(json_t *terms, const char *key, const char *value)
{
	if (json_array_size(terms) < TERMS_MAX && *value && strlen(key) + strlen(value) < TERM_BYTES)
		json_array_append_new(terms, json_sprintf("%s:%s", key, value));
}

/* Every value of what an image says, by its dotted name; those of lists by the list's. */
static void add_leaves(json_t *terms, const char *key, const json_t *value, unsigned depth)
{
	char longer[TERM_BYTES], number[32];
	const char *name;
	json_t *part;
	size_t n;

	if (depth > DEPTH)
		return;
	if (json_is_string(value))
		add_term(terms, key, json_string_value(value));
	if (json_is_integer(value)) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
		add_term(terms, key, number);
	}
	if (json_is_boolean(value))
		add_term(terms, key, json_is_true(value) ? "true" : "false");
	json_array_foreach((json_t *)(uintptr_t)value, n, part)
		add_leaves(terms, key, part, depth + 1);
	json_object_foreach((json_t *)(uintptr_t)value, name, part)
		if ((size_t)snprintf(longer, sizeof(longer), "%s%s%s", key, *key ? "." : "", name) < sizeof(longer))
			add_leaves(terms, longer, part, depth + 1);
}

static json_t *terms_of(const struct catalog_entry *e)
{
	json_t *terms = json_array();

	add_leaves(terms, "", e->about, 0);
	return terms;
}

static void copy_value(json_t *row, const char *as, const json_t *value)
{
	if (value)
		json_object_set(row, as, (json_t *)(uintptr_t)value);
}

static json_t *and_word(json_t *text, const json_t *word)
{
	json_t *longer;

	if (!json_is_string(word) || json_string_length(word) > 4096)
		return text;
	longer = json_sprintf("%s\n%s", json_string_value(text), json_string_value(word));
	json_decref(text);
	return longer;
}

/* What a search prints, and in "text" what free words look in. */
static json_t *row_of(const struct catalog_entry *e)
{
	char id[GUID_TEXT_BYTES];
	const char *const words[] = { "title", "os.name", "os.id", "os.codename", "description" };
	const json_t *tags = json_object_get(e->about, "tags");
	json_t *row = json_object(), *text = json_string(e->path);

	guid_print(e->data_id, id);
	copy_value(row, "title", json_object_get(e->about, "title"));
	copy_value(row, "os", image_get(e->about, "os.name"));
	copy_value(row, "tags", tags);
	copy_value(row, "expires", json_object_get(e->about, "expires"));
	copy_value(row, "packages", json_object_get(e->about, "packages"));
	json_object_set_new(row, "data-id", json_string(id));
	for (size_t n = 0; n < sizeof(words) / sizeof(words[0]); n++)
		text = and_word(text, image_get(e->about, words[n]));
	for (size_t n = 0; n < json_array_size(tags) && n < 64; n++)
		text = and_word(text, json_array_get(tags, n));
	json_object_set_new(row, "text", text);
	return row;
}

/* ---- changing rows ---- */

static int change_terms(struct catalog *c, int64_t image, const json_t *terms, bool has)
{
	const json_t *value;
	size_t n;
	int error = 0;

	json_array_foreach((json_t *)(uintptr_t)terms, n, value)
	{
		int64_t id;

		error = json_is_string(value) ? term_id(c, json_string_value(value), false, &id) : -EBADMSG;
		if (!error)
			error = posting_change(c, id, (uint64_t)image, has);
		if (error)
			break;
	}
	return error;
}

static int change_text(struct catalog *c, enum statement how, int64_t image, const json_t *row)
{
	const char *text = json_string_value(json_object_get(row, "text"));
	sqlite3_stmt *s = catalog_statement(c, how);

	if (!text)
		return 0;
	sqlite3_bind_int64(s, 1, image);
	sqlite3_bind_text(s, 2, text, -1, SQLITE_STATIC);
	return done(c, s);
}

/* Takes what was known of an image out of everything but its row. */
static int forget(struct catalog *c, int64_t image)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_TERMS);
	json_t *terms = NULL, *row = NULL;
	int error = 0;

	sqlite3_bind_int64(s, 1, image);
	if (sqlite3_step(s) == SQLITE_ROW) {
		terms = json_loads((const char *)sqlite3_column_text(s, 0) ?: "", 0, NULL);
		row = json_loads((const char *)sqlite3_column_text(s, 1) ?: "", 0, NULL);
		error = terms && row ? 0 : -EBADMSG;
	}
	sqlite3_reset(s);
	if (!error)
		error = change_terms(c, image, terms, false);
	if (!error)
		error = change_text(c, S_TEXT_REMOVE, image, row);
	if (!error)
		error = content_of_change(c, (uint64_t)image, 0);
	json_decref(terms);
	json_decref(row);
	return error;
}

static int add_to_content(struct catalog *c, int64_t content, const char *text, bool is_path)
{
	int64_t id;
	int error = term_id(c, text, is_path, &id);

	return error ? error : posting_change(c, id, (uint64_t)content, true);
}

static int fill_content(struct catalog *c, int64_t content, const struct catalog_entry *e)
{
	char text[5000];
	const char *path;
	json_t *p;
	size_t n;
	int error = 0;

	json_array_foreach(json_object_get(e->content, "packages"), n, p)
	{
		const char *name = json_string_value(json_object_get(p, "name")), *version = json_string_value(json_object_get(p, "version"));

		if (error || !name || !version || (size_t)snprintf(text, sizeof(text), "pkg:%s\x1f%s", name, version) >= sizeof(text))
			continue;
		error = add_to_content(c, content, text, false);
	}
	json_object_foreach((json_t *)(uintptr_t)e->files, path, p)
		if (!error && (size_t)snprintf(text, sizeof(text), "file:%s", path) < sizeof(text))
			error = add_to_content(c, content, text, true);
	return error;
}

static void digest_part(crypto_generichash_state *state, const json_t *part)
{
	char *text = part ? json_dumps(part, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

	if (text)
		crypto_generichash_update(state, (const uint8_t *)text, strlen(text) + 1);
	free(text);
}

/* The number of a content; 0: the image says nothing about it. */
static int content_id(struct catalog *c, const struct catalog_entry *e, int64_t *ret)
{
	const json_t *packages = json_object_get(e->content, "packages");
	crypto_generichash_state state;
	uint8_t digest[32];
	sqlite3_stmt *s = catalog_statement(c, S_CONTENT_FIND);

	*ret = 0;
	if (!packages && !e->files)
		return 0;
	crypto_generichash_init(&state, NULL, 0, sizeof(digest));
	digest_part(&state, packages);
	digest_part(&state, e->files);
	crypto_generichash_final(&state, digest, sizeof(digest));
	sqlite3_bind_blob(s, 1, digest, sizeof(digest), SQLITE_STATIC);
	*ret = catalog_number(c, s);
	if (*ret)
		return *ret < 0 ? (int)*ret : 0;
	s = catalog_statement(c, S_CONTENT_ADD);
	sqlite3_bind_blob(s, 1, digest, sizeof(digest), SQLITE_STATIC);
	if (done(c, s))
		return catalog_error(c);
	*ret = sqlite3_last_insert_rowid(c->db);
	return fill_content(c, *ret, e);
}

static int write_row(struct catalog *c, int64_t *image, const struct catalog_entry *e, int64_t content, const json_t *row, const json_t *terms)
{
	sqlite3_stmt *s = catalog_statement(c, *image ? S_IMAGE_CHANGE : S_IMAGE_ADD);
	char *row_text = json_dumps(row, JSON_COMPACT), *terms_text = json_dumps(terms, JSON_COMPACT), id[GUID_TEXT_BYTES];
	int error;

	guid_print(e->data_id, id);
	sqlite3_bind_text(s, 1, e->path, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, e->identity, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 3, id, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 4, (int64_t)e->file_bytes);
	sqlite3_bind_int64(s, 5, (int64_t)e->mtime_ns);
	sqlite3_bind_int64(s, 6, content);
	sqlite3_bind_text(s, 7, row_text, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 8, terms_text, -1, SQLITE_STATIC);
	if (*image)
		sqlite3_bind_int64(s, 9, *image);
	error = row_text && terms_text ? done(c, s) : -ENOMEM;
	sqlite3_clear_bindings(s);
	if (!error && !*image)
		*image = sqlite3_last_insert_rowid(c->db);
	free(row_text);
	free(terms_text);
	return error;
}

/* Image 0: a new one. */
static int put(struct catalog *c, int64_t image, const struct catalog_entry *e)
{
	json_t *row = row_of(e), *terms = terms_of(e);
	int64_t content;
	int error = content_id(c, e, &content);

	json_array_append_new(terms, json_string("image:all"));
	if (!error && image)
		error = forget(c, image);
	if (!error)
		error = write_row(c, &image, e, content, row, terms);
	if (!error)
		error = change_terms(c, image, terms, true);
	if (!error)
		error = change_text(c, S_TEXT_ADD, image, row);
	if (!error)
		error = content_of_change(c, (uint64_t)image, (uint32_t)content);
	json_decref(row);
	json_decref(terms);
	return error;
}

int catalog_put(struct catalog *c, const struct catalog_entry *e)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_BY_PATH);
	int64_t image;

	sqlite3_bind_text(s, 1, e->path, -1, SQLITE_STATIC);
	image = catalog_number(c, s);
	return image < 0 ? (int)image : put(c, image, e);
}

int catalog_find_data(struct catalog *c, struct guid data_id, char **ret)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_BY_DATA);
	char id[GUID_TEXT_BYTES];
	int error = -ENOENT;

	guid_print(data_id, id);
	sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC);
	while (error && sqlite3_step(s) == SQLITE_ROW) {
		const char *path = (const char *)sqlite3_column_text(s, 0);

		if (path && !access(path, R_OK)) {
			*ret = strdup(path);
			error = *ret ? 0 : -ENOMEM;
		}
	}
	sqlite3_reset(s);
	return error;
}

/* ---- indexing a directory ---- */

struct walk { struct catalog *catalog; struct catalog_result *result; };

/* The format that a name promises. */
static bool format_of(const char *name, enum disk_format *ret)
{
	const char *suffix = strrchr(name, '.');

	if (!suffix)
		return false;
	if (!strcmp(suffix, ".img")) {
		*ret = DISK_RAW;
		return true;
	}
	return disk_format_parse(suffix + 1, ret);
}

static uint64_t mtime_ns(const struct stat *st) { return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec; }

/* What a side file says changes, too, when what an image says is changed. */
static uint64_t newest(const char *path, const struct stat *st)
{
	uint64_t image = mtime_ns(st), side = 0;
	struct stat other;
	char *name;

	if (asprintf(&name, "%s.umbra", path) >= 0) {
		side = !stat(name, &other) ? mtime_ns(&other) : 0;
		free(name);
	}
	return image > side ? image : side;
}

/* A file that is where it was and not changed since. */
static bool is_known(struct catalog *c, const char *path, const struct stat *st)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_BY_PATH);
	bool known;

	sqlite3_bind_text(s, 1, path, -1, SQLITE_STATIC);
	known = sqlite3_step(s) == SQLITE_ROW && sqlite3_column_int64(s, 1) == (int64_t)st->st_size && sqlite3_column_int64(s, 2) == (int64_t)newest(path, st);
	sqlite3_reset(s);
	return known;
}

/* The row of the image at this path, or of the one that was elsewhere and is not there any more. */
static int64_t row_for(struct catalog *c, const char *path, const char *identity, bool *ret_moved)
{
	sqlite3_stmt *s = catalog_statement(c, S_IMAGE_BY_PATH);
	int64_t image;

	*ret_moved = false;
	sqlite3_bind_text(s, 1, path, -1, SQLITE_STATIC);
	image = catalog_number(c, s);
	if (image)
		return image;
	s = catalog_statement(c, S_IMAGE_BY_IDENTITY);
	sqlite3_bind_text(s, 1, identity, -1, SQLITE_STATIC);
	while (!image && sqlite3_step(s) == SQLITE_ROW) {
		const char *was = (const char *)sqlite3_column_text(s, 1);

		if (was && access(was, F_OK) && errno == ENOENT)
			image = sqlite3_column_int64(s, 0);
	}
	sqlite3_reset(s);
	*ret_moved = image != 0;
	return image;
}

/* A disk's own identifier; of a format without one the file's number. A child is not its parent, though it has the same disk's. */
static void identity_of(const struct disk *d, const struct stat *st, char text[128])
{
	struct disk_info i;
	char disk[GUID_TEXT_BYTES], parent[GUID_TEXT_BYTES];

	disk_info(d, &i);
	guid_print(i.disk_id, disk);
	guid_print(i.parent_data_id, parent);
	if (guid_is_zero(i.disk_id))
		snprintf(text, 128, "file %lu:%lu", (unsigned long)st->st_dev, (unsigned long)st->st_ino);
	else
		snprintf(text, 128, "%s %s", disk, i.has_parent ? parent : "");
}

static int take_in(struct walk *w, const char *path, struct disk *d, const struct stat *st)
{
	struct catalog_entry e = { .path = path, .file_bytes = (uint64_t)st->st_size, .mtime_ns = newest(path, st) };
	json_t *about, *content = NULL, *files = NULL;
	struct disk_info i;
	char identity[128];
	bool moved;
	int64_t image;
	int error = image_load_about(d, &about);

	if (error)
		return error;
	disk_info(d, &i);
	identity_of(d, st, identity);
	image_load_content(d, &content); /* what is not there, or not sound, cannot be searched */
	image_load_files(d, &files);
	e.identity = identity;
	e.data_id = i.data_id;
	e.about = about;
	e.content = content;
	e.files = files;
	image = row_for(w->catalog, path, identity, &moved);
	error = image < 0 ? (int)image : put(w->catalog, image, &e);
	*(!image ? &w->result->added : moved ? &w->result->moved : &w->result->changed) += !error;
	json_decref(about);
	json_decref(content);
	json_decref(files);
	return error;
}

/* An error of the catalog; an image that cannot be read is only counted. */
static int index_file(struct walk *w, const char *path, enum disk_format format)
{
	struct disk_error why;
	struct disk *d;
	struct stat st;
	int error;

	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return 0;
	w->result->seen++;
	if (is_known(w->catalog, path, &st))
		return 0;
	if (disk_open(path, &(struct disk_options){ .format = format, .items_only = true }, &d, &why)) {
		w->result->unreadable++;
		return 0;
	}
	error = take_in(w, path, d, &st);
	disk_close(d);
	if (error == -EBADMSG || error == -ENOTSUP) {
		w->result->unreadable++;
		error = 0;
	}
	return error;
}

static int index_entries(struct walk *w, const char *path, struct dirent **entries, int count, unsigned depth);

/* Links are not followed; names in order. */
static int index_directory(struct walk *w, const char *path, unsigned depth)
{
	struct dirent **entries = NULL;
	int count = depth < DEPTH ? scandir(path, &entries, NULL, alphasort) : 0;
	int error = count > 0 ? index_entries(w, path, entries, count, depth) : 0;

	for (int n = 0; n < count; n++)
		free(entries[n]);
	free(entries);
	return error;
}

/* What comes soon is read from the host's disks while this is looked at. */
static void look_ahead(struct walk *w, const char *path, const char *name)
{
	enum disk_format format;
	struct stat st;
	char *below;

	if (!format_of(name, &format) || asprintf(&below, "%s/%s", path, name) < 0)
		return;
	if (!lstat(below, &st) && S_ISREG(st.st_mode) && !is_known(w->catalog, below, &st))
		disk_prefetch(below, format);
	free(below);
}

static int index_entries(struct walk *w, const char *path, struct dirent **entries, int count, unsigned depth)
{
	int error = 0;

	for (int n = 0; n < count && !error; n++) {
		const char *name = entries[n]->d_name;
		enum disk_format format;
		struct stat st;
		char *below = NULL;

		for (int k = n ? n + AHEAD - 1 : 0; k < n + AHEAD && k < count; k++)
			look_ahead(w, path, entries[k]->d_name);
		if (name[0] == '.')
			continue;
		if (asprintf(&below, "%s/%s", path, name) < 0)
			error = -ENOMEM;
		else if (lstat(below, &st))
			error = 0; /* gone meanwhile */
		else if (S_ISDIR(st.st_mode))
			error = index_directory(w, below, depth + 1);
		else if (S_ISREG(st.st_mode) && format_of(name, &format))
			error = index_file(w, below, format);
		free(below);
	}
	return error;
}

/* Rows of files that are not there any more. */
static int remove_gone(struct walk *w, const char *directory)
{
	sqlite3_stmt *s = catalog_statement(w->catalog, S_IMAGE_BELOW);
	char *from = NULL, *to = NULL;
	json_t *gone = json_array(), *id;
	size_t n;
	int error = asprintf(&from, "%s/", directory) < 0 || asprintf(&to, "%s0", directory) < 0 ? -ENOMEM : 0; /* '0' follows '/' */

	sqlite3_bind_text(s, 1, from, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, to, -1, SQLITE_STATIC);
	while (!error && sqlite3_step(s) == SQLITE_ROW) {
		const char *path = (const char *)sqlite3_column_text(s, 1);

		if (path && access(path, F_OK) && errno == ENOENT)
			json_array_append_new(gone, json_integer(sqlite3_column_int64(s, 0)));
	}
	catalog_statement(w->catalog, S_IMAGE_BELOW);
	json_array_foreach(gone, n, id)
	{
		if (!error)
			error = forget(w->catalog, json_integer_value(id));
		s = catalog_statement(w->catalog, S_IMAGE_REMOVE);
		sqlite3_bind_int64(s, 1, json_integer_value(id));
		if (!error)
			error = done(w->catalog, s);
		w->result->gone += !error;
	}
	json_decref(gone);
	free(from);
	free(to);
	return error;
}

int catalog_index(struct catalog *c, const char *directory, struct catalog_result *ret)
{
	struct walk w = { c, ret };
	char *path = realpath(directory, NULL);
	struct stat st;
	int error = !path ? -errno : stat(path, &st) ? -errno : !S_ISDIR(st.st_mode) ? -ENOTDIR : 0;

	*ret = (struct catalog_result){ 0 };
	if (!error && sodium_init() < 0)
		error = -EIO;
	if (!error)
		error = catalog_begin(c);
	if (!error) {
		error = index_directory(&w, path, 0);
		if (!error)
			error = remove_gone(&w, path);
		if (error)
			execute(c, "ROLLBACK");
		else
			error = catalog_end(c);
	}
	free(path);
	return error;
}
