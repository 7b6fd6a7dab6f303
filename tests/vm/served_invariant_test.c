/* What must hold of a machine that was forked to be read, each broken: check_served() sees it. */
#include "../lib/caught.h"
#include "vm/served_internal.h"

static struct served *served_in(void *served) { return served; }
static struct saved_entry *entry_in(void *served, unsigned n)
{
	return &served_in(served)->saver.index->entry[n];
}
static void check_served_of(void *served) { check_served(served); }
static void front_beyond_its_room(void *served) { served_in(served)->front_room = 1; }
static void front_that_is_not_whole(void *served) { served_in(served)->front_bytes--; }
static void parts_behind_the_end(void *served)
{
	served_in(served)->saver.end.parts_at = served_in(served)->saver.at + 1;
}
static void section_elsewhere(void *served) { entry_in(served, 1)->at++; }
static void section_of_no_pages(void *served) { entry_in(served, 1)->pages = 0; }
static void section_beyond_memory(void *served) { entry_in(served, 1)->first = 15; }
static void sections_the_wrong_way(void *served) { entry_in(served, 1)->first = 1; }
static void section_that_is_missing(void *served) { served_in(served)->saver.index->entries = 1; }

static const struct spoiling of_served[] = {
	{ "more in front than there is room", front_beyond_its_room },
	{ "a front that is not whole", front_that_is_not_whole },
	{ "parts behind the end", parts_behind_the_end },
	{ "a section that lies elsewhere", section_elsewhere },
	{ "a section without pages", section_of_no_pages },
	{ "a section of pages that memory has not", section_beyond_memory },
	{ "sections that are not in order", sections_the_wrong_way },
	{ "a section that is missing", section_that_is_missing },
};

/* Two sections of memory, then the parts. */
int main(void)
{
	enum { PARTS_BYTES = 96 };
	static struct machine machine;
	static struct saver_index index = { .entries = 2 };
	static struct served served;

	machine.memory.ram_bytes = 16 * GUEST_PAGE_BYTES;
	index.entry[0] = (struct saved_entry){ .at = SAVED_HEAD_BYTES, .pages = 2 };
	index.entry[1] = (struct saved_entry){ .first = 5, .pages = 3 };
	index.entry[1].at = SAVED_HEAD_BYTES + saved_entry_bytes(&index.entry[0]);
	served.saver.machine = &machine;
	served.saver.index = &index;
	served.saver.end.parts_at = index.entry[1].at + saved_entry_bytes(&index.entry[1]);
	served.saver.at = served.saver.end.parts_at + PARTS_BYTES;
	served.front_room = served.front_bytes = SAVED_HEAD_BYTES + PARTS_BYTES;
	return CAUGHT_MISSED("served", check_served_of, &served, of_served) != 0;
}
