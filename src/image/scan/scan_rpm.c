/*
 * The package list of rpm: a SQLite data base of one row for each package, a header as rpm has it:
 *
 *   number of entries, bytes of data (big-endian)   entries { tag, type, offset, count }   data
 *
 * The file is hostile, like everything on a disk: it is opened in memory, read only, with what it
 * may cost limited; headers are checked before anything of them is used. Left out: the older
 * Berkeley data base, and ndb.
 */
#include <endian.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan_internal.h"

enum {
	TAG_NAME = 1000,
	TAG_VERSION,
	TAG_RELEASE,
	TAG_EPOCH,
	TAG_ARCH = 1022,
	TYPE_INT32 = 4,
	TYPE_STRING = 6
};
enum { ENTRIES_MAX = 4096, PACKAGES_MAX = 200000, STEPS = 20000, STEPS_MAX = 20000 };

struct header { const uint8_t *entries, *data; uint32_t count, bytes; };
struct entry { uint32_t tag, type, offset, count; };

static uint32_t load32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, 4);
	return be32toh(value);
}

static bool open_header(const uint8_t *at, size_t bytes, struct header *ret)
{
	if (bytes < 8)
		return false;
	*ret = (struct header){ .entries = at + 8, .count = load32(at), .bytes = load32(at + 4) };
	if (ret->count > ENTRIES_MAX || 8 + 16 * (size_t)ret->count > bytes ||
	    ret->bytes > bytes - 8 - 16 * (size_t)ret->count)
		return false;
	ret->data = ret->entries + 16 * (size_t)ret->count;
	return true;
}

static bool find(const struct header *header, uint32_t tag, uint32_t type, struct entry *ret)
{
	for (uint32_t n = 0; n < header->count; n++) {
		const uint8_t *at = header->entries + 16 * (size_t)n;

		*ret = (struct entry){ load32(at), load32(at + 4), load32(at + 8),
				       load32(at + 12) };
		if (ret->tag == tag)
			return ret->type == type && ret->count && ret->offset < header->bytes;
	}
	return false;
}

/* NULL: it has none that ends within the data. */
static const char *text_of(const struct header *header, uint32_t tag)
{
	struct entry entry;

	if (!find(header, tag, TYPE_STRING, &entry) ||
	    !memchr(header->data + entry.offset, 0, header->bytes - entry.offset))
		return NULL;
	return (const char *)header->data + entry.offset;
}

/* [EPOCH:]VERSION-RELEASE, as rpm says it. */
static void add_package(json_t *all, const uint8_t *at, size_t bytes)
{
	const char *name, *version, *release, *arch;
	struct header header;
	struct entry entry;
	char epoch[16] = "";
	char *whole;

	if (!open_header(at, bytes, &header))
		return;
	name = text_of(&header, TAG_NAME);
	version = text_of(&header, TAG_VERSION);
	release = text_of(&header, TAG_RELEASE);
	arch = text_of(&header, TAG_ARCH);
	if (find(&header, TAG_EPOCH, TYPE_INT32, &entry) && header.bytes - entry.offset >= 4)
		snprintf(epoch, sizeof(epoch), "%u:", load32(header.data + entry.offset));
	if (!name || !version || !release || !strcmp(name, "gpg-pubkey") ||
	    asprintf(&whole, "%s%s-%s", epoch, version, release) < 0)
		return;
	scan_add_package(all, "rpm", name, whole, arch ? arch : "");
	free(whole);
}

static int count_steps(void *context) { return ++*(unsigned *)context > STEPS_MAX; }

static void read_packages(sqlite3 *db, json_t *all)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(db, "SELECT blob FROM Packages", -1, &statement, NULL) != SQLITE_OK)
		return;
	for (unsigned n = 0; n < PACKAGES_MAX && sqlite3_step(statement) == SQLITE_ROW; n++)
		if (sqlite3_column_type(statement, 0) == SQLITE_BLOB)
			add_package(all, sqlite3_column_blob(statement, 0),
				    (size_t)sqlite3_column_bytes(statement, 0));
	sqlite3_finalize(statement);
}

bool scan_rpm(json_t *all, uint8_t *file, size_t bytes)
{
	enum { HEADER = 100, WRITE_VERSION = 18, READ_VERSION = 19 };
	unsigned steps = 0;
	sqlite3 *db = NULL;
	bool good = bytes >= HEADER && !memcmp(file, "SQLite format 3", 16) &&
		    sqlite3_open(":memory:", &db) == SQLITE_OK;

	/* a journal that others wrote ahead lies in another file: what the data base itself has is
	 * what was there before */
	if (good) {
		file[WRITE_VERSION] = file[READ_VERSION] = 1;
		sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 16 << 20);
		sqlite3_progress_handler(db, STEPS, count_steps, &steps);
		good = sqlite3_deserialize(db, "main", file, (sqlite3_int64)bytes,
					   (sqlite3_int64)bytes,
					   SQLITE_DESERIALIZE_READONLY) == SQLITE_OK;
	}
	if (good)
		read_packages(db, all);
	sqlite3_close(db);
	return good;
}

void scan_rpm_begin(void)
{
	char random[8];

	sqlite3_initialize();
	sqlite3_randomness(sizeof(random), random);
}
