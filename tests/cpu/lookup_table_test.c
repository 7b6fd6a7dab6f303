/*
 * Lookup tables whose chunks share pages with those beside them, and have the poison in front.
 *
 *   what a chunk's first and last entries hold stays when the chunks beside it are opened, in
 *   either order
 *   what is forked has none of them, and can have them all
 *   given back, all entries are none, those of the poison's page, too, and the poison stays
 *   entries of one group lie in one cache line
 */
#include "engine/soft/mmu/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNKS = 64, PLACES = 64, BESIDE = 3, GROUP_PAGES = 8 };
#define POISON 0x4123456789abcfffull
#define CHUNK_GUEST_BYTES ((uint64_t)TABLE_CHUNK_BYTES / sizeof(uint64_t) * PAGE_BYTES)

static int failures;

static void expect(bool holds, const char *what)
{
	printf("%s: %s\n", holds ? "ok" : "FAIL", what);
	failures += !holds;
}

static uint64_t *first(uint64_t base, unsigned chunk)
{
	return table_entry(base, chunk * CHUNK_GUEST_BYTES);
}

static uint64_t *last(uint64_t base, unsigned chunk)
{
	return table_entry(base, (chunk + 1) * CHUNK_GUEST_BYTES - 1);
}

/* Every entry at an end is its chunk's number and one. */
static void set_ends(const struct table_pair *pair, unsigned chunk)
{
	*first(pair->read, chunk) = *last(pair->read, chunk) = chunk + 1;
	*first(pair->write, chunk) = *last(pair->write, chunk) = chunk + 1;
}

static bool has_ends(const struct table_pair *pair, unsigned chunk, uint64_t value)
{
	return *first(pair->read, chunk) == value && *last(pair->read, chunk) == value &&
	       *first(pair->write, chunk) == value && *last(pair->write, chunk) == value;
}

static bool has_poison(const struct table_pair *pair)
{
	return *(const uint64_t *)(pair->read + TABLE_POISON) == POISON;
}

static void open_in_order(struct table_store *store, struct table_pair *pair, const unsigned *order)
{
	bool opened = true;
	bool kept = true;

	for (unsigned n = 0; n < BESIDE; n++) {
		opened &= table_open(store, pair, order[n] * CHUNK_GUEST_BYTES);
		set_ends(pair, order[n]);
	}
	for (unsigned n = 0; n < BESIDE; n++)
		kept &= has_ends(pair, n, n + 1);
	expect(opened && kept, "chunks beside each other keep what they hold");
	expect(has_poison(pair), "the poison is in front of them");
	table_give_back(store, pair);
	for (unsigned n = 0; n < BESIDE; n++)
		kept &= has_ends(pair, n, 0);
	expect(kept, "given back they hold nothing");
	expect(has_poison(pair), "and the poison stays");
}

/* What is forked has nothing of it, and can have all. */
static bool forked_is_empty(struct table_store *store, struct table_pair *pair)
{
	table_store_forget(store);
	table_pair_forget(pair);
	return table_map_again(pair->memory, 1) &&
	       table_pair_mark(pair, POISON) && has_poison(pair) && has_ends(pair, 0, 0) &&
	       table_open(store, pair, 0) && !*table_entry(pair->read, 0) &&
	       !table_knows_miss(pair, 0);
}

static void fork_it(struct table_store *store, struct table_pair *pair)
{
	int status = 0;
	bool opened = table_open(store, pair, 0) && table_note_miss(store, pair, 0);
	pid_t pid;

	set_ends(pair, 0);
	*table_entry(pair->read, 0) = 1;
	pid = fork();
	if (!pid)
		_exit(!forked_is_empty(store, pair));
	waitpid(pid, &status, 0);
	expect(opened && pid > 0 && WIFEXITED(status) && !WEXITSTATUS(status),
	       "what is forked begins without");
	expect(*table_entry(pair->read, 0) == 1 && has_ends(pair, 0, 1) &&
		       table_knows_miss(pair, 0) && has_poison(pair),
	       "and nothing changes in the other");
	table_give_back(store, pair);
}

int main(void)
{
	static const unsigned orders[][BESIDE] = { { 0, 1, 2 }, { 2, 1, 0 }, { 0, 2, 1 } };
	struct table_store store = { 0 };
	struct table_pair *pair = calloc(1, sizeof(*pair));

	if (!pair || !table_store_create(&store, CHUNKS, PLACES) ||
	    !table_pair_create(&store, pair, 1, POISON))
		return 70;
	for (unsigned n = 0; n < sizeof(orders) / sizeof(*orders); n++)
		open_in_order(&store, pair, orders[n]);
	fork_it(&store, pair);
	expect((uintptr_t)table_entry(pair->read, 0) % CACHE_LINE_BYTES == 0 &&
		       GROUP_PAGES * sizeof(uint64_t) == CACHE_LINE_BYTES,
	       "a group's entries lie in one line");
	table_pair_destroy(pair);
	table_store_destroy(&store);
	free(pair);
	return failures != 0;
}
