/* See symbols.h. */
#include "symbols.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 512, NAME_BYTES = 256, FIRST_ROOM = 1 << 16, MOST = 1 << 22 };
#define NEAR_BYTES (1ull << 20)

struct symbol { uint64_t address; char *name; };

struct symbols {
	size_t count, room;
	struct symbol *symbol; /* by address, once all are read */
};

void symbols_free(struct symbols *symbols)
{
	for (size_t n = 0; symbols && n < symbols->count; n++)
		free(symbols->symbol[n].name);
	if (symbols)
		free(symbols->symbol);
	free(symbols);
}

static int add(struct symbols *symbols, uint64_t address, const char *name)
{
	size_t room = symbols->room ? 2 * symbols->room : FIRST_ROOM;
	struct symbol *more;

	if (symbols->count == MOST)
		return -E2BIG;
	if (symbols->count == symbols->room) {
		more = reallocarray(symbols->symbol, room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		symbols->symbol = more;
		symbols->room = room;
	}
	assert(symbols->count < symbols->room);
	symbols->symbol[symbols->count] =
		(struct symbol){ .address = address, .name = strdup(name) };
	return symbols->symbol[symbols->count++].name ? 0 : -ENOMEM;
}

static int by_address(const void *one, const void *other)
{
	const struct symbol *a = one;
	const struct symbol *b = other;

	return (a->address > b->address) - (a->address < b->address);
}

/* Code only. What is no such line is passed over. */
static int read_lines(struct symbols *symbols, FILE *file)
{
	char line[LINE_BYTES], name[NAME_BYTES], type;
	uint64_t address;
	int error = 0;

	while (!error && fgets(line, sizeof(line), file))
		if (sscanf(line, "%" SCNx64 " %c %255s", &address, &type, name) == 3 && address &&
		    strchr("tTwW", type))
			error = add(symbols, address, name);
	return error;
}

int symbols_read(const char *path, struct symbols **ret)
{
	struct symbols *symbols = calloc(1, sizeof(*symbols));
	FILE *file = fopen(path, "re");
	int error = file ? 0 : -errno;

	if (!symbols)
		error = -ENOMEM;
	if (!error)
		error = read_lines(symbols, file);
	if (file)
		fclose(file);
	if (!error && !symbols->count)
		error = -EBADMSG;
	if (error) {
		symbols_free(symbols);
		return error;
	}
	qsort(symbols->symbol, symbols->count, sizeof(symbols->symbol[0]), by_address);
	*ret = symbols;
	return 0;
}

uint64_t symbols_find(const struct symbols *symbols, const char *name)
{
	for (size_t n = 0; n < symbols->count; n++)
		if (!strcmp(symbols->symbol[n].name, name))
			return symbols->symbol[n].address;
	return 0;
}

const char *symbols_name(const struct symbols *symbols, uint64_t address, uint64_t *ret_offset)
{
	size_t low = 0;
	size_t high = symbols->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (symbols->symbol[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address - symbols->symbol[low - 1].address >= NEAR_BYTES)
		return NULL;
	assert(low <= symbols->count && symbols->symbol[low - 1].address <= address);
	*ret_offset = address - symbols->symbol[low - 1].address;
	return symbols->symbol[low - 1].name;
}
