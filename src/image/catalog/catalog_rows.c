/* What an image says about itself as a row, terms and texts of the catalog; all of them change
 * together. */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog_internal.h"

enum { TERMS_MAX = 512, TERM_BYTES = 256, VALUE_DEPTH = 32, WORD_BYTES = 4096 };

/* ---- what an image says, as terms ---- */

static int term_id(struct catalog *catalog, const char *text, bool is_path, int64_t *ret)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_TERM_FIND);

	sqlite3_bind_text(statement, 1, text, -1, SQLITE_STATIC);
	*ret = catalog_number(catalog, statement);
	if (*ret)
		return *ret < 0 ? (int)*ret : 0;
	statement = catalog_statement(catalog, S_TERM_ADD);
	sqlite3_bind_text(statement, 1, text, -1, SQLITE_STATIC);
	if (catalog_done(catalog, statement))
		return catalog_error(catalog);
	*ret = sqlite3_last_insert_rowid(catalog->db);
	if (!is_path)
		return 0;
	statement = catalog_statement(catalog, S_PATH_ADD);
	sqlite3_bind_int64(statement, 1, *ret);
	sqlite3_bind_text(statement, 2, text, -1, SQLITE_STATIC);
	return catalog_done(catalog, statement);
}

static void add_term(json_t *terms, const char *key, const char *value)
{
	if (json_array_size(terms) < TERMS_MAX && *value &&
	    strlen(key) + strlen(value) < TERM_BYTES)
		json_array_append_new(terms, json_sprintf("%s:%s", key, value));
}

/* Every value of what an image says, by its dotted name; those of lists by the list's. */
static void add_leaves(json_t *terms, const char *key, const json_t *value, unsigned depth)
{
	char longer[TERM_BYTES], number[32];
	const char *name;
	json_t *part;
	size_t n;

	if (depth > VALUE_DEPTH)
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
	json_object_foreach((json_t *)(uintptr_t)value, name,
			    part) if ((size_t)snprintf(longer, sizeof(longer), "%s%s%s", key,
						       *key ? "." : "", name) < sizeof(longer))
		add_leaves(terms, longer, part, depth + 1);
}

static json_t *terms_of(const struct catalog_entry *entry)
{
	json_t *terms = json_array();

	add_leaves(terms, "", entry->about, 0);
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

	if (!json_is_string(word) || json_string_length(word) > WORD_BYTES)
		return text;
	longer = json_sprintf("%s\n%s", json_string_value(text), json_string_value(word));
	json_decref(text);
	return longer;
}

/* What a search prints, and in "text" what free words look in. */
static json_t *row_of(const struct catalog_entry *entry)
{
	char id[GUID_TEXT_BYTES];
	const char *const words[] = { "title", "os.name", "os.id", "os.codename", "description" };
	const json_t *tags = json_object_get(entry->about, "tags");
	json_t *row = json_object();
	json_t *text = json_string(entry->path);

	guid_print(entry->data_id, id);
	copy_value(row, "title", json_object_get(entry->about, "title"));
	copy_value(row, "os", image_get(entry->about, "os.name"));
	copy_value(row, "tags", tags);
	copy_value(row, "expires", json_object_get(entry->about, "expires"));
	copy_value(row, "packages", json_object_get(entry->about, "packages"));
	json_object_set_new(row, "data-id", json_string(id));
	for (size_t n = 0; n < sizeof(words) / sizeof(words[0]); n++)
		text = and_word(text, image_get(entry->about, words[n]));
	for (size_t n = 0; n < json_array_size(tags) && n < 64; n++)
		text = and_word(text, json_array_get(tags, n));
	json_object_set_new(row, "text", text);
	return row;
}

/* ---- changing rows ---- */

static int change_terms(struct catalog *catalog, int64_t image, const json_t *terms, bool has)
{
	const json_t *value;
	size_t n;
	int error = 0;

	json_array_foreach((json_t *)(uintptr_t)terms, n, value)
	{
		int64_t id;

		error = json_is_string(value)
				? term_id(catalog, json_string_value(value), false, &id)
				: -EBADMSG;
		if (!error)
			error = posting_change(catalog, id, (uint64_t)image, has);
		if (error)
			break;
	}
	return error;
}

static int change_text(struct catalog *catalog, enum statement how, int64_t image,
		       const json_t *row)
{
	const char *text = json_string_value(json_object_get(row, "text"));
	sqlite3_stmt *statement = catalog_statement(catalog, how);

	if (!text)
		return 0;
	sqlite3_bind_int64(statement, 1, image);
	sqlite3_bind_text(statement, 2, text, -1, SQLITE_STATIC);
	return catalog_done(catalog, statement);
}

int catalog_forget_row(struct catalog *catalog, int64_t image)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_IMAGE_TERMS);
	json_t *terms = NULL;
	json_t *row = NULL;
	int error = 0;

	sqlite3_bind_int64(statement, 1, image);
	if (sqlite3_step(statement) == SQLITE_ROW) {
		terms = json_loads((const char *)sqlite3_column_text(statement, 0) ?: "", 0, NULL);
		row = json_loads((const char *)sqlite3_column_text(statement, 1) ?: "", 0, NULL);
		error = terms && row ? 0 : -EBADMSG;
	}
	sqlite3_reset(statement);
	if (!error)
		error = change_terms(catalog, image, terms, false);
	if (!error)
		error = change_text(catalog, S_TEXT_REMOVE, image, row);
	if (!error)
		error = content_of_change(catalog, (uint64_t)image, 0);
	json_decref(terms);
	json_decref(row);
	return error;
}

static int add_to_content(struct catalog *catalog, int64_t content, const char *text, bool is_path)
{
	int64_t id;
	int error = term_id(catalog, text, is_path, &id);

	return error ? error : posting_change(catalog, id, (uint64_t)content, true);
}

static int fill_content(struct catalog *catalog, int64_t content, const struct catalog_entry *entry)
{
	char text[5000];
	const char *path;
	json_t *json;
	size_t n;
	int error = 0;

	json_array_foreach(json_object_get(entry->content, "packages"), n, json)
	{
		const char *name = json_string_value(json_object_get(json, "name"));
		const char *version = json_string_value(json_object_get(json, "version"));

		if (error || !name || !version ||
		    (size_t)snprintf(text, sizeof(text), "pkg:%s\x1f%s", name, version) >=
			    sizeof(text))
			continue;
		error = add_to_content(catalog, content, text, false);
	}
	json_object_foreach((json_t *)(uintptr_t)entry->files, path,
			    json) if (!error && (size_t)snprintf(text, sizeof(text), "file:%s",
								 path) < sizeof(text)) error =
		add_to_content(catalog, content, text, true);
	return error;
}

static void digest_part(crypto_generichash_state *state, const json_t *part)
{
	char *text =
		part ? json_dumps(part, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

	if (text)
		crypto_generichash_update(state, (const uint8_t *)text, strlen(text) + 1);
	free(text);
}

/* The number of a content; 0: the image says nothing about it. */
static int content_id(struct catalog *catalog, const struct catalog_entry *entry, int64_t *ret)
{
	const json_t *packages = json_object_get(entry->content, "packages");
	crypto_generichash_state state;
	uint8_t digest[32];
	sqlite3_stmt *statement = catalog_statement(catalog, S_CONTENT_FIND);

	*ret = 0;
	if (!packages && !entry->files)
		return 0;
	crypto_generichash_init(&state, NULL, 0, sizeof(digest));
	digest_part(&state, packages);
	digest_part(&state, entry->files);
	crypto_generichash_final(&state, digest, sizeof(digest));
	sqlite3_bind_blob(statement, 1, digest, sizeof(digest), SQLITE_STATIC);
	*ret = catalog_number(catalog, statement);
	if (*ret)
		return *ret < 0 ? (int)*ret : 0;
	statement = catalog_statement(catalog, S_CONTENT_ADD);
	sqlite3_bind_blob(statement, 1, digest, sizeof(digest), SQLITE_STATIC);
	if (catalog_done(catalog, statement))
		return catalog_error(catalog);
	*ret = sqlite3_last_insert_rowid(catalog->db);
	return fill_content(catalog, *ret, entry);
}

static int write_row(struct catalog *catalog, int64_t *image, const struct catalog_entry *entry,
		     int64_t content, const json_t *row, const json_t *terms)
{
	sqlite3_stmt *statement = catalog_statement(catalog, *image ? S_IMAGE_CHANGE : S_IMAGE_ADD);
	char *row_text = json_dumps(row, JSON_COMPACT);
	char *terms_text = json_dumps(terms, JSON_COMPACT);
	char id[GUID_TEXT_BYTES];
	int error;

	guid_print(entry->data_id, id);
	sqlite3_bind_text(statement, 1, entry->path, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, entry->identity, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 3, id, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 4, (int64_t)entry->file_bytes);
	sqlite3_bind_int64(statement, 5, (int64_t)entry->mtime_ns);
	sqlite3_bind_int64(statement, 6, content);
	sqlite3_bind_text(statement, 7, row_text, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 8, terms_text, -1, SQLITE_STATIC);
	if (*image)
		sqlite3_bind_int64(statement, 9, *image);
	error = row_text && terms_text ? catalog_done(catalog, statement) : -ENOMEM;
	sqlite3_clear_bindings(statement);
	if (!error && !*image)
		*image = sqlite3_last_insert_rowid(catalog->db);
	free(row_text);
	free(terms_text);
	return error;
}

int catalog_put_row(struct catalog *catalog, int64_t image, const struct catalog_entry *entry)
{
	json_t *row = row_of(entry);
	json_t *terms = terms_of(entry);
	int64_t content;
	int error = content_id(catalog, entry, &content);

	json_array_append_new(terms, json_string("image:all"));
	if (!error && image)
		error = catalog_forget_row(catalog, image);
	if (!error)
		error = write_row(catalog, &image, entry, content, row, terms);
	if (!error)
		error = change_terms(catalog, image, terms, true);
	if (!error)
		error = change_text(catalog, S_TEXT_ADD, image, row);
	if (!error)
		error = content_of_change(catalog, (uint64_t)image, (uint32_t)content);
	json_decref(row);
	json_decref(terms);
	return error;
}

int catalog_put(struct catalog *catalog, const struct catalog_entry *entry)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_IMAGE_BY_PATH);
	int64_t image;

	assert(entry->path && entry->identity);
	sqlite3_bind_text(statement, 1, entry->path, -1, SQLITE_STATIC);
	image = catalog_number(catalog, statement);
	return image < 0 ? (int)image : catalog_put_row(catalog, image, entry);
}

int catalog_find_data(struct catalog *catalog, struct guid data_id, char **ret)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_IMAGE_BY_DATA);
	char id[GUID_TEXT_BYTES];
	int error = -ENOENT;

	guid_print(data_id, id);
	sqlite3_bind_text(statement, 1, id, -1, SQLITE_STATIC);
	while (error && sqlite3_step(statement) == SQLITE_ROW) {
		const char *path = (const char *)sqlite3_column_text(statement, 0);

		if (path && !access(path, R_OK)) {
			*ret = strdup(path);
			error = *ret ? 0 : -ENOMEM;
		}
	}
	sqlite3_reset(statement);
	return error;
}
