/*
 * Questions to the catalog.
 *
 *   query = all { "or" all }
 *   all   = { ["not:" | "-"] one }
 *   one   = "(" query ")" | KEY ":" VALUE | "expired" | WORD
 *
 * VALUE and WORD may stand in quotes. os, version, tag, kernel, fs, arch and label are short names;
 * any other KEY is a dotted name of what images say. Values may have * and ?. pkg takes NAME or
 * NAME<VERSION (also <= = != >= >), file a path. A WORD is looked for in titles, tags, names and
 * paths.
 *
 * Each part is a set of images, a bit for each; and, or, not are done on the sets. So the time is
 * bounded by the number of parts, the number of terms that a * may stand for, and the number of
 * images, however the sets lie to each other.
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalog_internal.h"

enum {
	QUERY_BYTES = 4096,
	PARTS_MAX = 64,
	DEPTH_MAX = 16,
	STANDS_FOR_MAX = 100000,
	WORD_BYTES = 1024
};

struct parser {
	struct catalog *catalog;
	const char *at, *text;
	uint64_t images, contents; /* largest numbers */
	unsigned parts, depth;
	char *error;
	FILE *explain;
};

static int wrong(struct parser *parser, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int wrong(struct parser *parser, const char *format, ...)
{
	va_list list;
	int used = snprintf(parser->error, 256, "at %zu: ", (size_t)(parser->at - parser->text));

	va_start(list, format);
	vsnprintf(parser->error + used, 256 - (size_t)used, format, list);
	va_end(list);
	return -EINVAL;
}

/* ---- sets of one part ---- */

static bool has_pattern(const char *text) { return strpbrk(text, "*?["); }

/* The first text that is behind all that begin with `prefix`. */
static bool text_after(const char *prefix, char *to)
{
	size_t n = strlen(prefix);

	memcpy(to, prefix, n + 1);
	while (n && (unsigned char)to[n - 1] == 0xff)
		to[--n] = 0;
	if (n)
		to[n - 1]++;
	return n;
}

typedef bool keep_term(void *context, const char *text);

/* All terms that begin with `prefix`, match `pattern` (NULL: any), and are kept. */
static int load_range(struct parser *parser, const char *prefix, const char *pattern,
		      keep_term *keep, void *context, struct set *to)
{
	char after[WORD_BYTES + 64];
	sqlite3_stmt *statement = catalog_statement(parser->catalog, S_TERM_RANGE);
	int error = text_after(prefix, after) ? 0 : -EINVAL;
	int result = SQLITE_DONE;

	sqlite3_bind_text(statement, 1, prefix, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, after, -1, SQLITE_STATIC);
	for (size_t seen = 0; !error && (result = sqlite3_step(statement)) == SQLITE_ROW; seen++) {
		const char *text = (const char *)sqlite3_column_text(statement, 0);

		if (seen == STANDS_FOR_MAX)
			error = wrong(parser, "too much begins with %s", prefix);
		else if (text && (!pattern || !fnmatch(pattern, text, 0)) &&
			 (!keep || keep(context, text)))
			error = posting_row(statement, 1, to);
	}
	if (!error && result != SQLITE_DONE)
		error = catalog_error(parser->catalog);
	sqlite3_reset(statement);
	return error;
}

static int load_term(struct parser *parser, const char *text, struct set *to)
{
	sqlite3_stmt *statement = catalog_statement(parser->catalog, S_TERM_FIND);
	int64_t id;

	sqlite3_bind_text(statement, 1, text, -1, SQLITE_STATIC);
	id = catalog_number(parser->catalog, statement);
	return id <= 0 ? (int)id : posting_load(parser->catalog, id, to);
}

static int load_all(struct parser *parser, struct set *to)
{
	return load_term(parser, "image:all", to);
}

/* Images that have one of these contents. */
static int through_contents(struct parser *parser,
			    int (*load)(struct parser *parser, const char *value, struct set *to),
			    const char *value, struct set *to)
{
	struct set contents;
	int error = set_make(&contents, parser->contents + 1);

	if (!error)
		error = load(parser, value, &contents);
	if (!error)
		error = content_of_load(parser->catalog, &contents, to);
	set_free(&contents);
	return error;
}

/* ---- packages, files ---- */

static bool keep_version(void *context, const char *text)
{
	const struct version_term *term = context;
	const char *version = strchr(text, 0x1f);
	char name[sizeof(term->name)];

	if (!version || (size_t)(version - text - 4) >= sizeof(name))
		return false;
	memcpy(name, text + 4, (size_t)(version - text - 4));
	name[version - text - 4] = 0;
	return !fnmatch(term->name, name, 0) && version_matches(term, version + 1);
}

/* pkg:NAME<separator>VERSION: with a * only what is before it is a prefix. */
static int load_package(struct parser *parser, const char *value, struct set *to)
{
	struct version_term term;
	char prefix[256];

	if (!version_parse(value, &term))
		return wrong(parser, "not a package: %s", value);
	snprintf(prefix, sizeof(prefix), "pkg:%s\x1f", term.name);
	if (has_pattern(term.name))
		prefix[4 + strcspn(term.name, "*?[")] = 0;
	return load_range(parser, prefix, NULL, keep_version, &term, to);
}

/* A pattern that begins with a * is looked for by its trigrams. */
static int load_file_anywhere(struct parser *parser, const char *pattern, struct set *to)
{
	int64_t *ids = malloc(STANDS_FOR_MAX * sizeof(*ids));
	sqlite3_stmt *statement = catalog_statement(parser->catalog, S_PATH_GLOB);
	int count = 0;
	int error = ids ? 0 : -ENOMEM;

	sqlite3_bind_text(statement, 1, pattern, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, STANDS_FOR_MAX);
	while (!error && sqlite3_step(statement) == SQLITE_ROW && count < STANDS_FOR_MAX)
		ids[count++] = sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	if (count == STANDS_FOR_MAX)
		error = wrong(parser, "too many files match");
	for (int n = 0; n < count && !error; n++)
		error = posting_load(parser->catalog, ids[n], to);
	free(ids);
	return error;
}

static int load_file(struct parser *parser, const char *value, struct set *to)
{
	char text[WORD_BYTES + 8], prefix[WORD_BYTES + 8];

	snprintf(text, sizeof(text), "file:%s", value);
	if (!has_pattern(value))
		return load_term(parser, text, to);
	if (strcspn(value, "*?[") < 3)
		return load_file_anywhere(parser, text, to);
	snprintf(prefix, sizeof(prefix), "%.*s", (int)(5 + strcspn(value, "*?[")), text);
	return load_range(parser, prefix, text, NULL, NULL, to);
}

/* ---- what images say ---- */

static const char *whole_name(const char *key)
{
	static const char *const names[][2] = { { "os", "os.id" },
						{ "version", "os.version" },
						{ "tag", "tags" },
						{ "kernel", "kernels" },
						{ "fs", "partitions.file-system" },
						{ "label", "partitions.label" },
						{ "host", "os.hostname" },
						{ "patch", "patches.level" } };

	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		if (!strcmp(names[n][0], key))
			return names[n][1];
	return key;
}

static int load_said(struct parser *parser, const char *key, const char *value, struct set *to)
{
	char text[WORD_BYTES + 128], prefix[WORD_BYTES + 128];
	int before =
		snprintf(text, sizeof(text), "%s:%s", whole_name(key), value) - (int)strlen(value);

	if (!has_pattern(value))
		return load_term(parser, text, to);
	snprintf(prefix, sizeof(prefix), "%.*s", before + (int)strcspn(value, "*?["), text);
	return load_range(parser, prefix, text, NULL, NULL, to);
}

/* A day counts to its end, as for policies. */
static bool is_over(void *context, const char *text)
{
	const char *now = context;
	const char *when = text + strlen("expires:");

	return strlen(when) == 10 ? strncmp(when, now, 10) < 0 : strcmp(when, now) <= 0;
}

static int load_expired(struct parser *parser, struct set *to)
{
	char now[32];

	image_now(now);
	return load_range(parser, "expires:", NULL, is_over, now, to);
}

/* As one phrase, so that nothing in it is FTS5's syntax; a * at its end is any rest. */
static int load_word(struct parser *parser, const char *word, struct set *to)
{
	sqlite3_stmt *statement = catalog_statement(parser->catalog, S_TEXT_MATCH);
	char phrase[2 * WORD_BYTES + 8];
	char *out = phrase;
	size_t n = strlen(word);
	bool any = n > 1 && word[n - 1] == '*';
	int result;
	int error = 0;

	*out++ = '"';
	for (size_t k = 0; k < n - any; k++) {
		if (word[k] == '"')
			*out++ = '"';
		*out++ = word[k];
	}
	strcpy(out, any ? "\"*" : "\"");
	sqlite3_bind_text(statement, 1, phrase, -1, SQLITE_STATIC);
	while ((result = sqlite3_step(statement)) == SQLITE_ROW)
		set_add(to, (uint64_t)sqlite3_column_int64(statement, 0));
	if (result != SQLITE_DONE)
		error = catalog_error(parser->catalog);
	sqlite3_reset(statement);
	return error == -EIO ? wrong(parser, "not a word: %s", word) : error;
}

static double microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int load_part(struct parser *parser, const char *key, const char *value, struct set *to)
{
	double begin = microseconds();
	const char *how;
	int error;

	if (!*key) {
		how = !strcmp(value, "expired") ? "terms that are times" : "words";
		error = *how == 't' ? load_expired(parser, to) : load_word(parser, value, to);
	} else if (!strcmp(key, "pkg") || !strcmp(key, "file")) {
		how = *key == 'p' ? "contents by package" : "contents by file";
		error = through_contents(parser, *key == 'p' ? load_package : load_file, value, to);
	} else {
		how = has_pattern(value) ? "terms that match" : "one term";
		error = load_said(parser, key, value, to);
	}
	if (parser->explain && !error)
		fprintf(parser->explain, "%*s%s%s%s: %lu images, by %s, %.0f us\n",
			(int)parser->depth * 2, "", key, *key ? ":" : "", value, set_count(to), how,
			microseconds() - begin);
	return error;
}

/* ---- the language ---- */

static void skip_blanks(struct parser *parser)
{
	while (*parser->at == ' ' || *parser->at == '\t' || *parser->at == '\n')
		parser->at++;
}

/* Up to a blank, a bracket or one of `stops`; in quotes up to their end. */
static int read_word(struct parser *parser, const char *stops, char word[WORD_BYTES])
{
	size_t n = 0;

	if (*parser->at == '"') {
		for (parser->at++; *parser->at && *parser->at != '"' && n < WORD_BYTES - 1;
		     parser->at++)
			word[n++] = *parser->at;
		if (*parser->at != '"')
			return wrong(parser, *parser->at ? "too long" : "a quote is not closed");
		parser->at++;
	} else {
		while (*parser->at && !strchr(" \t\n()", *parser->at) &&
		       !strchr(stops, *parser->at) && n < WORD_BYTES - 1)
			word[n++] = *parser->at++;
		if (n == WORD_BYTES - 1)
			return wrong(parser, "too long");
	}
	word[n] = 0;
	return n ? 0 : wrong(parser, "something is missing");
}

static int parse_query(struct parser *parser, struct set *to);

static int parse_one(struct parser *parser, struct set *to)
{
	char key[WORD_BYTES] = "";
	char value[WORD_BYTES];
	bool quoted = *parser->at == '"';
	int error;

	if (++parser->parts > PARTS_MAX)
		return wrong(parser, "more than %d parts", PARTS_MAX);
	if (*parser->at == '(') {
		if (++parser->depth > DEPTH_MAX)
			return wrong(parser, "too many brackets");
		parser->at++;
		error = parse_query(parser, to);
		parser->depth--;
		if (!error && *parser->at != ')')
			error = wrong(parser, "a bracket is not closed");
		parser->at += !error;
		return error;
	}
	error = read_word(parser, quoted ? "" : ":", value);
	if (!error && !quoted && *parser->at == ':') {
		if (strlen(value) > 100)
			return wrong(parser, "too long a key");
		strcpy(key, value);
		parser->at++;
		error = read_word(parser, "", value);
	}
	return error ? error : load_part(parser, key, value, to);
}

static int parse_signed(struct parser *parser, struct set *to)
{
	bool no = *parser->at == '-' || !strncmp(parser->at, "not:", 4);
	struct set all = { 0 };
	int error;

	if (!no)
		return parse_one(parser, to);
	parser->at += *parser->at == '-' ? 1 : 4;
	error = set_make(&all, to->limit);
	if (!error)
		error = load_all(parser, &all);
	if (!error)
		error = parse_one(parser, to);
	for (uint64_t n = 0; !error && n < to->limit / 64 + 1; n++)
		to->words[n] = all.words[n] & ~to->words[n];
	set_free(&all);
	return error;
}

static bool is_or(const struct parser *parser)
{
	return !strncmp(parser->at, "or", 2) && strchr(" ()", parser->at[2]);
}

static int parse_all(struct parser *parser, struct set *to)
{
	bool first = true;
	int error = 0;

	for (skip_blanks(parser); !error && *parser->at && *parser->at != ')' && !is_or(parser);
	     skip_blanks(parser)) {
		struct set part;

		error = set_make(&part, to->limit);
		if (!error)
			error = parse_signed(parser, &part);
		for (uint64_t n = 0; !error && n < to->limit / 64 + 1; n++)
			to->words[n] = first ? part.words[n] : to->words[n] & part.words[n];
		set_free(&part);
		first = false;
	}
	if (error)
		return error;
	return first ? wrong(parser, "something is missing") : 0;
}

static int parse_query(struct parser *parser, struct set *to)
{
	int error = parse_all(parser, to);

	while (!error && is_or(parser)) {
		struct set other;

		parser->at += 2;
		error = set_make(&other, to->limit);
		if (!error)
			error = parse_all(parser, &other);
		for (uint64_t n = 0; !error && n < to->limit / 64 + 1; n++)
			to->words[n] |= other.words[n];
		set_free(&other);
	}
	return error;
}

/* ---- rows ---- */

static int add_row(struct parser *parser, uint64_t image, json_t *rows)
{
	sqlite3_stmt *statement = catalog_statement(parser->catalog, S_IMAGE_ROW);
	json_t *row = NULL;

	sqlite3_bind_int64(statement, 1, (int64_t)image);
	if (sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_text(statement, 1)) {
		row = json_loads((const char *)sqlite3_column_text(statement, 1), 0, NULL);
		json_object_del(row, "text");
		if (row)
			json_object_set_new(
				row, "path",
				json_string((const char *)sqlite3_column_text(statement, 0)));
	}
	sqlite3_reset(statement);
	return row && !json_array_append_new(rows, row) ? 0 : -EBADMSG;
}

int catalog_search(struct catalog *catalog, const char *query, unsigned limit,
		   struct catalog_found *ret, char error_text[256])
{
	struct parser parser = {
		.catalog = catalog, .at = query, .text = query, .error = error_text
	};
	int64_t images, contents;
	struct set found = { 0 };
	size_t bytes;
	int error = 0;

	*ret = (struct catalog_found){ .rows = json_array() };
	error_text[0] = 0;
	if (strlen(query) > QUERY_BYTES)
		return wrong(&parser, "longer than %d bytes", QUERY_BYTES);
	images = catalog_number(catalog, catalog_statement(catalog, S_IMAGES_MAX));
	contents = catalog_number(catalog, catalog_statement(catalog, S_CONTENTS_MAX));
	if (images < 0 || contents < 0 || images > UINT32_MAX || contents > UINT32_MAX)
		return -EBADMSG;
	parser.images = (uint64_t)images;
	parser.contents = (uint64_t)contents;
	parser.explain = open_memstream(&ret->explain, &bytes);
	error = set_make(&found, parser.images + 1);
	if (!error)
		error = parse_query(&parser, &found);
	if (!error && *parser.at)
		error = wrong(&parser, "a bracket that was not opened");
	if (!error)
		ret->count = set_count(&found);
	for (uint64_t n = 0; n <= parser.images && !error && json_array_size(ret->rows) < limit;
	     n++)
		if (set_has(&found, n))
			error = add_row(&parser, n, ret->rows);
	if (parser.explain)
		fclose(parser.explain);
	set_free(&found);
	return error;
}
