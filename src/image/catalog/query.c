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

static int wrong(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int wrong(struct parser *p, const char *format, ...)
{
	va_list list;
	int used = snprintf(p->error, 256, "at %zu: ", (size_t)(p->at - p->text));

	va_start(list, format);
	vsnprintf(p->error + used, 256 - (size_t)used, format, list);
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
static int load_range(struct parser *p, const char *prefix, const char *pattern, keep_term *keep,
		      void *context, struct set *to)
{
	char after[WORD_BYTES + 64];
	sqlite3_stmt *s = catalog_statement(p->catalog, S_TERM_RANGE);
	int error = text_after(prefix, after) ? 0 : -EINVAL;
	int result = SQLITE_DONE;

	sqlite3_bind_text(s, 1, prefix, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, after, -1, SQLITE_STATIC);
	for (size_t seen = 0; !error && (result = sqlite3_step(s)) == SQLITE_ROW; seen++) {
		const char *text = (const char *)sqlite3_column_text(s, 0);

		if (seen == STANDS_FOR_MAX)
			error = wrong(p, "too much begins with %s", prefix);
		else if (text && (!pattern || !fnmatch(pattern, text, 0)) &&
			 (!keep || keep(context, text)))
			error = posting_row(s, 1, to);
	}
	if (!error && result != SQLITE_DONE)
		error = catalog_error(p->catalog);
	sqlite3_reset(s);
	return error;
}

static int load_term(struct parser *p, const char *text, struct set *to)
{
	sqlite3_stmt *s = catalog_statement(p->catalog, S_TERM_FIND);
	int64_t id;

	sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
	id = catalog_number(p->catalog, s);
	return id <= 0 ? (int)id : posting_load(p->catalog, id, to);
}

static int load_all(struct parser *p, struct set *to) { return load_term(p, "image:all", to); }

/* Images that have one of these contents. */
static int through_contents(struct parser *p,
			    int (*load)(struct parser *p, const char *value, struct set *to),
			    const char *value, struct set *to)
{
	struct set contents;
	int error = set_make(&contents, p->contents + 1);

	if (!error)
		error = load(p, value, &contents);
	if (!error)
		error = content_of_load(p->catalog, &contents, to);
	set_free(&contents);
	return error;
}

/* ---- packages, files ---- */

static bool keep_version(void *context, const char *text)
{
	const struct version_term *t = context;
	const char *version = strchr(text, 0x1f);
	char name[sizeof(t->name)];

	if (!version || (size_t)(version - text - 4) >= sizeof(name))
		return false;
	memcpy(name, text + 4, (size_t)(version - text - 4));
	name[version - text - 4] = 0;
	return !fnmatch(t->name, name, 0) && version_matches(t, version + 1);
}

/* pkg:NAME<separator>VERSION: with a * only what is before it is a prefix. */
static int load_package(struct parser *p, const char *value, struct set *to)
{
	struct version_term t;
	char prefix[256];

	if (!version_parse(value, &t))
		return wrong(p, "not a package: %s", value);
	snprintf(prefix, sizeof(prefix), "pkg:%s\x1f", t.name);
	if (has_pattern(t.name))
		prefix[4 + strcspn(t.name, "*?[")] = 0;
	return load_range(p, prefix, NULL, keep_version, &t, to);
}

/* A pattern that begins with a * is looked for by its trigrams. */
static int load_file_anywhere(struct parser *p, const char *pattern, struct set *to)
{
	int64_t *ids = malloc(STANDS_FOR_MAX * sizeof(*ids));
	sqlite3_stmt *s = catalog_statement(p->catalog, S_PATH_GLOB);
	int count = 0;
	int error = ids ? 0 : -ENOMEM;

	sqlite3_bind_text(s, 1, pattern, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 2, STANDS_FOR_MAX);
	while (!error && sqlite3_step(s) == SQLITE_ROW && count < STANDS_FOR_MAX)
		ids[count++] = sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	if (count == STANDS_FOR_MAX)
		error = wrong(p, "too many files match");
	for (int n = 0; n < count && !error; n++)
		error = posting_load(p->catalog, ids[n], to);
	free(ids);
	return error;
}

static int load_file(struct parser *p, const char *value, struct set *to)
{
	char text[WORD_BYTES + 8], prefix[WORD_BYTES + 8];

	snprintf(text, sizeof(text), "file:%s", value);
	if (!has_pattern(value))
		return load_term(p, text, to);
	if (strcspn(value, "*?[") < 3)
		return load_file_anywhere(p, text, to);
	snprintf(prefix, sizeof(prefix), "%.*s", (int)(5 + strcspn(value, "*?[")), text);
	return load_range(p, prefix, text, NULL, NULL, to);
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

static int load_said(struct parser *p, const char *key, const char *value, struct set *to)
{
	char text[WORD_BYTES + 128], prefix[WORD_BYTES + 128];
	int before =
		snprintf(text, sizeof(text), "%s:%s", whole_name(key), value) - (int)strlen(value);

	if (!has_pattern(value))
		return load_term(p, text, to);
	snprintf(prefix, sizeof(prefix), "%.*s", before + (int)strcspn(value, "*?["), text);
	return load_range(p, prefix, text, NULL, NULL, to);
}

/* A day counts to its end, as for policies. */
static bool is_over(void *context, const char *text)
{
	const char *now = context;
	const char *when = text + strlen("expires:");

	return strlen(when) == 10 ? strncmp(when, now, 10) < 0 : strcmp(when, now) <= 0;
}

static int load_expired(struct parser *p, struct set *to)
{
	char now[32];

	image_now(now);
	return load_range(p, "expires:", NULL, is_over, now, to);
}

/* As one phrase, so that nothing in it is FTS5's syntax; a * at its end is any rest. */
static int load_word(struct parser *p, const char *word, struct set *to)
{
	sqlite3_stmt *s = catalog_statement(p->catalog, S_TEXT_MATCH);
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
	sqlite3_bind_text(s, 1, phrase, -1, SQLITE_STATIC);
	while ((result = sqlite3_step(s)) == SQLITE_ROW)
		set_add(to, (uint64_t)sqlite3_column_int64(s, 0));
	if (result != SQLITE_DONE)
		error = catalog_error(p->catalog);
	sqlite3_reset(s);
	return error == -EIO ? wrong(p, "not a word: %s", word) : error;
}

static double microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int load_part(struct parser *p, const char *key, const char *value, struct set *to)
{
	double begin = microseconds();
	const char *how;
	int error;

	if (!*key) {
		how = !strcmp(value, "expired") ? "terms that are times" : "words";
		error = *how == 't' ? load_expired(p, to) : load_word(p, value, to);
	} else if (!strcmp(key, "pkg") || !strcmp(key, "file")) {
		how = *key == 'p' ? "contents by package" : "contents by file";
		error = through_contents(p, *key == 'p' ? load_package : load_file, value, to);
	} else {
		how = has_pattern(value) ? "terms that match" : "one term";
		error = load_said(p, key, value, to);
	}
	if (p->explain && !error)
		fprintf(p->explain, "%*s%s%s%s: %lu images, by %s, %.0f us\n", (int)p->depth * 2,
			"", key, *key ? ":" : "", value, set_count(to), how,
			microseconds() - begin);
	return error;
}

/* ---- the language ---- */

static void skip_blanks(struct parser *p)
{
	while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n')
		p->at++;
}

/* Up to a blank, a bracket or one of `stops`; in quotes up to their end. */
static int read_word(struct parser *p, const char *stops, char word[WORD_BYTES])
{
	size_t n = 0;

	if (*p->at == '"') {
		for (p->at++; *p->at && *p->at != '"' && n < WORD_BYTES - 1; p->at++)
			word[n++] = *p->at;
		if (*p->at != '"')
			return wrong(p, *p->at ? "too long" : "a quote is not closed");
		p->at++;
	} else {
		while (*p->at && !strchr(" \t\n()", *p->at) && !strchr(stops, *p->at) &&
		       n < WORD_BYTES - 1)
			word[n++] = *p->at++;
		if (n == WORD_BYTES - 1)
			return wrong(p, "too long");
	}
	word[n] = 0;
	return n ? 0 : wrong(p, "something is missing");
}

static int parse_query(struct parser *p, struct set *to);

static int parse_one(struct parser *p, struct set *to)
{
	char key[WORD_BYTES] = "";
	char value[WORD_BYTES];
	bool quoted = *p->at == '"';
	int error;

	if (++p->parts > PARTS_MAX)
		return wrong(p, "more than %d parts", PARTS_MAX);
	if (*p->at == '(') {
		if (++p->depth > DEPTH_MAX)
			return wrong(p, "too many brackets");
		p->at++;
		error = parse_query(p, to);
		p->depth--;
		if (!error && *p->at != ')')
			error = wrong(p, "a bracket is not closed");
		p->at += !error;
		return error;
	}
	error = read_word(p, quoted ? "" : ":", value);
	if (!error && !quoted && *p->at == ':') {
		if (strlen(value) > 100)
			return wrong(p, "too long a key");
		strcpy(key, value);
		p->at++;
		error = read_word(p, "", value);
	}
	return error ? error : load_part(p, key, value, to);
}

static int parse_signed(struct parser *p, struct set *to)
{
	bool no = *p->at == '-' || !strncmp(p->at, "not:", 4);
	struct set all = { 0 };
	int error;

	if (!no)
		return parse_one(p, to);
	p->at += *p->at == '-' ? 1 : 4;
	error = set_make(&all, to->limit);
	if (!error)
		error = load_all(p, &all);
	if (!error)
		error = parse_one(p, to);
	for (uint64_t n = 0; !error && n < to->limit / 64 + 1; n++)
		to->words[n] = all.words[n] & ~to->words[n];
	set_free(&all);
	return error;
}

static bool is_or(const struct parser *p)
{
	return !strncmp(p->at, "or", 2) && strchr(" ()", p->at[2]);
}

static int parse_all(struct parser *p, struct set *to)
{
	bool first = true;
	int error = 0;

	for (skip_blanks(p); !error && *p->at && *p->at != ')' && !is_or(p); skip_blanks(p)) {
		struct set part;

		error = set_make(&part, to->limit);
		if (!error)
			error = parse_signed(p, &part);
		for (uint64_t n = 0; !error && n < to->limit / 64 + 1; n++)
			to->words[n] = first ? part.words[n] : to->words[n] & part.words[n];
		set_free(&part);
		first = false;
	}
	if (error)
		return error;
	return first ? wrong(p, "something is missing") : 0;
}

static int parse_query(struct parser *p, struct set *to)
{
	int error = parse_all(p, to);

	while (!error && is_or(p)) {
		struct set other;

		p->at += 2;
		error = set_make(&other, to->limit);
		if (!error)
			error = parse_all(p, &other);
		for (uint64_t n = 0; !error && n < to->limit / 64 + 1; n++)
			to->words[n] |= other.words[n];
		set_free(&other);
	}
	return error;
}

/* ---- rows ---- */

static int add_row(struct parser *p, uint64_t image, json_t *rows)
{
	sqlite3_stmt *s = catalog_statement(p->catalog, S_IMAGE_ROW);
	json_t *row = NULL;

	sqlite3_bind_int64(s, 1, (int64_t)image);
	if (sqlite3_step(s) == SQLITE_ROW && sqlite3_column_text(s, 1)) {
		row = json_loads((const char *)sqlite3_column_text(s, 1), 0, NULL);
		json_object_del(row, "text");
		if (row)
			json_object_set_new(row, "path",
					    json_string((const char *)sqlite3_column_text(s, 0)));
	}
	sqlite3_reset(s);
	return row && !json_array_append_new(rows, row) ? 0 : -EBADMSG;
}

int catalog_search(struct catalog *c, const char *query, unsigned limit, struct catalog_found *ret,
		   char error_text[256])
{
	struct parser p = { .catalog = c, .at = query, .text = query, .error = error_text };
	int64_t images, contents;
	struct set found = { 0 };
	size_t bytes;
	int error = 0;

	*ret = (struct catalog_found){ .rows = json_array() };
	error_text[0] = 0;
	if (strlen(query) > QUERY_BYTES)
		return wrong(&p, "longer than %d bytes", QUERY_BYTES);
	images = catalog_number(c, catalog_statement(c, S_IMAGES_MAX));
	contents = catalog_number(c, catalog_statement(c, S_CONTENTS_MAX));
	if (images < 0 || contents < 0 || images > UINT32_MAX || contents > UINT32_MAX)
		return -EBADMSG;
	p.images = (uint64_t)images;
	p.contents = (uint64_t)contents;
	p.explain = open_memstream(&ret->explain, &bytes);
	error = set_make(&found, p.images + 1);
	if (!error)
		error = parse_query(&p, &found);
	if (!error && *p.at)
		error = wrong(&p, "a bracket that was not opened");
	if (!error)
		ret->count = set_count(&found);
	for (uint64_t n = 0; n <= p.images && !error && json_array_size(ret->rows) < limit; n++)
		if (set_has(&found, n))
			error = add_row(&p, n, ret->rows);
	if (p.explain)
		fclose(p.explain);
	set_free(&found);
	return error;
}
