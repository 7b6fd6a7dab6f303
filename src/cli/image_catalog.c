/* umbra image index and search. The catalog is $XDG_DATA_HOME/umbra/catalog.db (~/.local/share when
 * that is not set), or --catalog. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "disk_cli.h"
#include "image_cli.h"

enum { LIMIT = 50, LIMIT_MAX = 1000000, PATH_BYTES = 4096 };

static void make_directories(char *path)
{
	for (char *character = path + 1; *character; character++)
		if (*character == '/') {
			*character = 0;
			mkdir(path, 0700);
			*character = '/';
		}
}

static int open_catalog(const char *path, struct catalog **ret)
{
	char own[PATH_BYTES];
	int error = path ? 0
			 : cli_user_file("XDG_DATA_HOME", ".local/share", "catalog.db", own,
					 sizeof(own));

	if (!path && !error)
		make_directories(own);
	path = path ? path : own;
	if (!error)
		error = catalog_open(path, ret);
	if (error == -EBADMSG || error == -ENOTSUP)
		return complain(EXIT_UNUSABLE, "not a catalog of this version", path,
				"name another one, or make it anew with umbra image index");
	return error ? complain(EXIT_UNUSABLE, strerror(-error), path,
				"name a catalog that can be written")
		     : 0;
}

static void say_indexed(const char *directory, const struct catalog_result *result, json_t *all)
{
	if (all)
		json_array_append_new(
			all, json_pack("{s:s%, s:i, s:i, s:i, s:i, s:i, s:i}", "directory",
				       directory, strlen(directory), "images", (int)result->seen,
				       "new", (int)result->added, "changed", (int)result->changed,
				       "moved", (int)result->moved, "gone", (int)result->gone,
				       "unreadable", (int)result->unreadable));
	else
		printf("%s: %u images: %u new, %u changed, %u moved, %u gone, %u unreadable\n",
		       directory, result->seen, result->added, result->changed, result->moved,
		       result->gone, result->unreadable);
}

int image_index(const char *path, const char *const *directories, unsigned count, bool json)
{
	json_t *all = json ? json_array() : NULL;
	struct catalog *catalog;
	int code = open_catalog(path, &catalog);

	if (code) {
		json_decref(all);
		return code;
	}
	for (unsigned n = 0; n < count && !code; n++) {
		struct catalog_result result;
		int error = catalog_index(catalog, directories[n], &result);

		if (error)
			code = complain(EXIT_UNUSABLE, strerror(-error), directories[n],
					"name a directory of images");
		else
			say_indexed(directories[n], &result, all);
	}
	if (all)
		print_json(all);
	catalog_close(catalog);
	return code;
}

/* ---- a table ---- */

enum { COLUMNS = 4, CELL_BYTES = 256 };

/* What a row shows in a column; of a long list of tags its beginning. */
static const char *cell(const json_t *row, unsigned column, char text[CELL_BYTES])
{
	static const char *const keys[COLUMNS] = { "path", "os", "tags", "expires" };
	const json_t *value = json_object_get(row, keys[column]);
	size_t used = 0;

	if (!json_is_array(value))
		return json_string_value(value) ? json_string_value(value) : "-";
	snprintf(text, CELL_BYTES, "-");
	for (size_t n = 0; n < json_array_size(value) && used < CELL_BYTES; n++)
		used += (size_t)snprintf(text + used, CELL_BYTES - used, "%s%s", n ? "," : "",
					 json_string_value(json_array_get(value, n)) ?: "?");
	return text;
}

/* As many columns as a terminal takes for it: bytes that go on with a character take none. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static void print_line(const char *const cells[COLUMNS], const size_t widths[COLUMNS])
{
	for (unsigned column = 0; column < COLUMNS; column++) {
		print_safely(cells[column]);
		if (column + 1 < COLUMNS)
			printf("%*s", (int)(widths[column] - width_of(cells[column])) + 2, "");
	}
	puts("");
}

static void print_table(const json_t *rows)
{
	static const char *const heads[COLUMNS] = { "IMAGE", "SYSTEM", "TAGS", "UNTIL" };
	size_t widths[COLUMNS], n;
	char text[COLUMNS][CELL_BYTES];
	const char *cells[COLUMNS];
	json_t *row;

	for (unsigned column = 0; column < COLUMNS; column++) {
		widths[column] = width_of(heads[column]);
		json_array_foreach(rows, n, row)
		{
			size_t width = width_of(cell(row, column, text[0]));

			widths[column] = width > widths[column] ? width : widths[column];
		}
	}
	if (json_array_size(rows))
		print_line(heads, widths);
	json_array_foreach(rows, n, row)
	{
		for (unsigned column = 0; column < COLUMNS; column++)
			cells[column] = cell(row, column, text[column]);
		print_line(cells, widths);
	}
}

static void print_found(const struct catalog_found *found, bool json)
{
	if (json) {
		print_json(json_pack("{s:I, s:O}", "count", (json_int_t)found->count, "images",
				     found->rows));
		return;
	}
	print_table(found->rows);
	if (json_array_size(found->rows) < found->count)
		fprintf(stderr, "%zu of %lu images; more with --limit\n",
			json_array_size(found->rows), found->count);
}

int image_search(const char *path, const char *query, const char *limit, bool json, bool explain)
{
	unsigned long rows = limit ? strtoul(limit, NULL, 10) : LIMIT;
	struct catalog_found found;
	struct catalog *catalog;
	char why[256];
	int code, error;

	if (!rows || rows > LIMIT_MAX)
		return complain(EXIT_USAGE, "not a number of rows", limit, "say --limit N");
	code = open_catalog(path, &catalog);
	if (code)
		return code;
	error = catalog_search(catalog, query, (unsigned)rows, &found, why);
	if (error)
		code = complain(error == -EINVAL ? EXIT_USAGE : EXIT_UNUSABLE,
				why[0] ? why : strerror(-error), query,
				"see the query language in docs/image.md");
	else {
		if (explain)
			fprintf(stderr, "%s%lu images in all\n", found.explain ? found.explain : "",
				found.count);
		print_found(&found, json);
		code = found.count ? 0 : 1;
	}
	json_decref(found.rows);
	free(found.explain);
	catalog_close(catalog);
	return code;
}
