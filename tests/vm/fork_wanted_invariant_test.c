/* The invariant of what is wanted of a machine that is sent, broken: check_*() sees it. */
#include <errno.h>
#include <stdio.h>

#include "../lib/caught.h"
#include "cli/fork_source.h"
#include "cli/fork_wanted.h"

enum { ENTRIES = 3, FIRST_AT = 4096, ROOM_BYTES = 1 << 21 };

/* No machine is read here. */
int fork_source_read(struct fork_source *source, uint64_t at, uint8_t *to, size_t bytes)
{
	(void)source;
	(void)at;
	(void)to;
	(void)bytes;
	return -EIO;
}

static struct saved_entry *entry_in(void *wanted)
{
	return ((struct fork_wanted *)wanted)->pages.entry;
}
static void check_of(void *wanted) { check_fork_wanted(wanted); }
static void too_many_runs(void *wanted)
{
	((struct fork_wanted *)wanted)->runs = FORK_WANTED_RUNS + 1;
}
static void index_nowhere(void *wanted) { ((struct fork_wanted *)wanted)->pages.entry = NULL; }
static void empty_section(void *wanted) { entry_in(wanted)[1].pages = 0; }
static void too_large_a_section(void *wanted)
{
	entry_in(wanted)[ENTRIES - 1].pages = SAVED_ENTRY_PAGES + 1;
}
static void sections_the_wrong_way(void *wanted)
{
	entry_in(wanted)[1].at = entry_in(wanted)[2].at + ROOM_BYTES;
}
static void sections_on_each_other(void *wanted) { entry_in(wanted)[1].at = FIRST_AT + 1; }

static const struct spoiling spoilings[] = {
	{ "more runs than there is room for", too_many_runs },
	{ "an index that is nowhere", index_nowhere },
	{ "a section without pages", empty_section },
	{ "a section of too many pages", too_large_a_section },
	{ "sections that are not in the order of the file", sections_the_wrong_way },
	{ "sections that lie on each other", sections_on_each_other },
};

/* A run beyond the last is not kept, and one that is there already neither. */
static unsigned of_joining(struct fork_wanted *wanted)
{
	static struct fork_wanted other;

	other.runs = FORK_WANTED_RUNS;
	for (uint32_t n = 0; n < other.runs; n++)
		other.run[n] = (struct fork_wanted_run){ .first = n, .pages = 1 };
	fork_wanted_join(wanted, &other);
	fork_wanted_join(wanted, &other);
	check_fork_wanted(wanted);
	if (wanted->runs == FORK_WANTED_RUNS && wanted->run[0].pages == 2 &&
	    wanted->run[1].first == 0)
		return 0;
	printf("what is joined is not in its order, or not all that there is room for\n");
	return 1;
}

int main(void)
{
	static struct fork_wanted wanted;
	struct saved_entry entry[ENTRIES];
	unsigned missed;

	for (uint32_t n = 0; n < ENTRIES; n++)
		entry[n] = (struct saved_entry){ .at = FIRST_AT + (uint64_t)n * ROOM_BYTES,
						 .first = n * SAVED_ENTRY_PAGES,
						 .pages = SAVED_ENTRY_PAGES };
	wanted.pages.entry = entry;
	wanted.pages.entries = ENTRIES;
	fork_wanted_add(&wanted, FIRST_AT, 1);
	wanted.run[0].pages = 2;
	missed = CAUGHT_MISSED("wanted", check_of, &wanted, spoilings) + of_joining(&wanted);
	return missed != 0;
}
