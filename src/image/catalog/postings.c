/*
 * Which images, or contents, have a term. Members are numbers; CHUNK of them make a row of the data
 * base, so that a change writes little and a question reads little: up to LIST of them as 16-bit
 * numbers in order, more as a bit for each.
 *
 * The data base is not trusted more than any other file: a row that is not sound is -EBADMSG.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_internal.h"

enum { CHUNK = 4096, BITS_BYTES = CHUNK / 8, LIST = 255, OF_BYTES = CHUNK * 4 };

int set_make(struct set *set, uint64_t limit)
{
	*set = (struct set){ .words = calloc(limit / 64 + 1, 8), .limit = limit };
	return set->words ? 0 : -ENOMEM;
}

void set_free(struct set *set)
{
	free(set->words);
	*set = (struct set){ 0 };
}

uint64_t set_count(const struct set *set)
{
	uint64_t count = 0;

	assert(set->words);
	for (uint64_t n = 0; n < set->limit / 64 + 1; n++)
		count += (uint64_t)__builtin_popcountll(set->words[n]);
	return count;
}

static bool is_sound(const void *blob, int bytes)
{
	return !bytes || (blob && (bytes == BITS_BYTES || (bytes <= LIST * 2 && bytes % 2 == 0)));
}

/* A row as bits. */
static void unpack(const uint8_t *blob, int bytes, uint8_t bits[BITS_BYTES])
{
	if (bytes == BITS_BYTES) {
		memcpy(bits, blob, BITS_BYTES);
		return;
	}
	memset(bits, 0, BITS_BYTES);
	for (int n = 0; n < bytes; n += 2) {
		unsigned member = (unsigned)(blob[n] | blob[n + 1] << 8) % CHUNK;

		bits[member / 8] |= (uint8_t)(1u << member % 8);
	}
}

/* As a row: its length; 0 for none. */
static int pack(const uint8_t bits[BITS_BYTES], uint8_t row[BITS_BYTES])
{
	int used = 0;

	for (unsigned n = 0; n < CHUNK; n++) {
		if (!(bits[n / 8] >> n % 8 & 1))
			continue;
		if (used == LIST * 2) {
			memcpy(row, bits, BITS_BYTES);
			return BITS_BYTES;
		}
		row[used++] = (uint8_t)n;
		row[used++] = (uint8_t)(n >> 8);
	}
	return used;
}

int posting_change(struct catalog *catalog, int64_t term, uint64_t member, bool has)
{
	uint8_t bits[BITS_BYTES] = { 0 };
	uint8_t row[BITS_BYTES];
	sqlite3_stmt *statement = catalog_statement(catalog, S_POSTING_READ);
	unsigned at = member % CHUNK;
	int result, bytes;

	sqlite3_bind_int64(statement, 1, term);
	sqlite3_bind_int64(statement, 2, (int64_t)(member / CHUNK));
	result = sqlite3_step(statement);
	if (result == SQLITE_ROW) {
		if (!is_sound(sqlite3_column_blob(statement, 0),
			      sqlite3_column_bytes(statement, 0)))
			return -EBADMSG;
		unpack(sqlite3_column_blob(statement, 0), sqlite3_column_bytes(statement, 0), bits);
	} else if (result != SQLITE_DONE) {
		return catalog_error(catalog);
	}
	sqlite3_reset(statement);
	if ((bits[at / 8] >> at % 8 & 1) == has)
		return 0;
	bits[at / 8] ^= (uint8_t)(1u << at % 8);
	bytes = pack(bits, row);
	statement = catalog_statement(catalog, S_POSTING_WRITE);
	sqlite3_bind_int64(statement, 1, term);
	sqlite3_bind_int64(statement, 2, (int64_t)(member / CHUNK));
	sqlite3_bind_blob(statement, 3, row, bytes, SQLITE_STATIC);
	result = sqlite3_step(statement);
	sqlite3_reset(statement);
	return result == SQLITE_DONE ? 0 : catalog_error(catalog);
}

int posting_row(sqlite3_stmt *statement, int column, struct set *to)
{
	uint64_t base = (uint64_t)sqlite3_column_int64(statement, column) * CHUNK;
	uint64_t words[BITS_BYTES / 8];
	const uint8_t *blob = sqlite3_column_blob(statement, column + 1);
	int bytes = sqlite3_column_bytes(statement, column + 1);

	if (!is_sound(blob, bytes))
		return -EBADMSG;
	if (base > to->limit) /* those that were there are gone */
		return 0;
	if (bytes < BITS_BYTES) {
		for (int n = 0; n < bytes; n += 2)
			set_add(to, base + (unsigned)(blob[n] | blob[n + 1] << 8) % CHUNK);
		return 0;
	}
	memcpy(words, blob, BITS_BYTES);
	for (uint64_t n = 0; n < BITS_BYTES / 8 && base / 64 + n < to->limit / 64 + 1; n++)
		to->words[base / 64 + n] |= le64toh(words[n]);
	return 0;
}

int posting_load(struct catalog *catalog, int64_t term, struct set *to)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_POSTING_ALL);
	int result = SQLITE_DONE;
	int error = 0;

	sqlite3_bind_int64(statement, 1, term);
	while (!error && (result = sqlite3_step(statement)) == SQLITE_ROW)
		error = posting_row(statement, 0, to);
	if (!error && result != SQLITE_DONE)
		error = catalog_error(catalog);
	sqlite3_reset(statement);
	return error;
}

int content_of_change(struct catalog *catalog, uint64_t image, uint32_t content)
{
	uint32_t ids[CHUNK] = { 0 };
	sqlite3_stmt *statement = catalog_statement(catalog, S_OF_READ);
	int result;

	sqlite3_bind_int64(statement, 1, (int64_t)(image / CHUNK));
	result = sqlite3_step(statement);
	if (result == SQLITE_ROW) {
		if (sqlite3_column_bytes(statement, 0) != OF_BYTES)
			return -EBADMSG;
		memcpy(ids, sqlite3_column_blob(statement, 0), OF_BYTES);
	} else if (result != SQLITE_DONE) {
		return catalog_error(catalog);
	}
	sqlite3_reset(statement);
	if (ids[image % CHUNK] == content)
		return 0;
	ids[image % CHUNK] = content;
	statement = catalog_statement(catalog, S_OF_WRITE);
	sqlite3_bind_int64(statement, 1, (int64_t)(image / CHUNK));
	sqlite3_bind_blob(statement, 2, ids, OF_BYTES, SQLITE_STATIC);
	result = sqlite3_step(statement);
	sqlite3_reset(statement);
	return result == SQLITE_DONE ? 0 : catalog_error(catalog);
}

int content_of_load(struct catalog *catalog, const struct set *contents, struct set *to)
{
	sqlite3_stmt *statement = catalog_statement(catalog, S_OF_ALL);
	int result;
	int error = 0;

	while (!error && (result = sqlite3_step(statement)) == SQLITE_ROW) {
		uint64_t base = (uint64_t)sqlite3_column_int64(statement, 0) * CHUNK;
		uint32_t ids[CHUNK];

		if (sqlite3_column_bytes(statement, 1) != OF_BYTES) {
			error = -EBADMSG;
			break;
		}
		memcpy(ids, sqlite3_column_blob(statement, 1), OF_BYTES);
		for (unsigned n = 0; n < CHUNK; n++)
			if (ids[n] && set_has(contents, ids[n]))
				set_add(to, base + n);
	}
	if (!error && result != SQLITE_DONE)
		error = catalog_error(catalog);
	sqlite3_reset(statement);
	return error;
}
