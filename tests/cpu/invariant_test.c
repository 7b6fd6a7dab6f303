/*
 * The invariants of the engine's smaller parts, each broken: check_*() sees it. Notes of code, what
 * the lookup tables cost, and the mailbox of a processor. (Blocks, spaces and jumps are looked at
 * while guests run.)
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "../lib/caught.h"
#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/table.h"

enum { CHUNKS = 64, PLACES = 4 };

static void check_notes_of(void *notes) { check_code_notes(notes); }
static void too_many_notes(void *notes)
{
	((struct code_notes *)notes)->head += CODE_NOTES + 1;
}
static void taken_before_they_were_made(void *notes) { ((struct code_notes *)notes)->tail++; }

static const struct spoiling of_notes[] = {
	{ "more notes than there is room", too_many_notes },
	{ "notes that were taken before they were made", taken_before_they_were_made },
};

static struct table_store *store_in(void *store) { return store; }
static void check_store_of(void *store) { check_table_store(store); }
static void more_chunks_than_allowed(void *store) { store_in(store)->most = 0; }
static void more_misses_than_allowed(void *store) { store_in(store)->places = PLACES + 1; }
static void chunk_that_is_none(void *store) { store_in(store)->opened[0] = 0; }
static void chunk_that_is_not_found(void *store) { store_in(store)->opened[0]++; }

static const struct spoiling of_store[] = {
	{ "more chunks than the budget has", more_chunks_than_allowed },
	{ "more places than the budget has", more_misses_than_allowed },
	{ "a chunk that is none", chunk_that_is_none },
	{ "a chunk that is not found", chunk_that_is_not_found },
};

enum { POISON = 0x12345fff };
static struct table_pair *pair_in(void *pair) { return pair; }
static void check_pair_of(void *pair) { check_table_pair(pair, POISON); }
static void no_poison(void *pair) { *(uint64_t *)(pair_in(pair)->read + TABLE_POISON) = 0; }

static const struct spoiling of_pair[] = {
	{ "a read table without the poison", no_poison },
};

/* They are spoiled in processes that are forked, which have none of them unless told so. */
static bool let_inherit(const struct table_store *store, const struct table_pair *pair)
{
	return !madvise(pair->memory, TABLE_PAIR_BYTES, MADV_DOFORK) &&
	       !madvise(store->hash, store->slots * sizeof(*store->hash), MADV_KEEPONFORK) &&
	       !madvise(store->opened, store->most * sizeof(*store->opened), MADV_KEEPONFORK);
}

static unsigned of_a_store(void)
{
	struct table_store store = { 0 };
	struct table_pair *pair = calloc(1, sizeof(*pair));
	unsigned missed = 1;

	if (pair && table_store_create(&store, CHUNKS, PLACES) &&
	    table_pair_create(&store, pair, 1, POISON) &&
	    table_open(&store, pair, GUEST_PAGE_BYTES) &&
	    table_note_miss(&store, pair, 0) && let_inherit(&store, pair))
		missed = CAUGHT_MISSED("tables", check_store_of, &store, of_store) +
			 CAUGHT_MISSED("table", check_pair_of, pair, of_pair);
	else
		puts("tables: none were made");
	if (pair)
		table_pair_destroy(pair);
	table_store_destroy(&store);
	free(pair);
	return missed;
}

static struct soft_cpu *cpu_in(void *cpu) { return cpu; }
static void check_mailbox_of(void *cpu) { check_mailbox(cpu); }
static void too_many_ranges(void *cpu) { cpu_in(cpu)->flush_count = FLUSH_RANGES + 1; }
static void executes_twice(void *cpu) { cpu_in(cpu)->executing = 2; }
static void global_pages_of_nothing(void *cpu) { cpu_in(cpu)->flush_all_global = true; }
static void taken_and_there(void *cpu) { cpu_in(cpu)->flush_done = cpu_in(cpu)->flush_posted; }

static const struct spoiling of_mailbox[] = {
	{ "more ranges than there is room", too_many_ranges },
	{ "a processor that executes twice", executes_twice },
	{ "global pages of a flush that is not of all", global_pages_of_nothing },
	{ "a range that was taken and is there", taken_and_there },
};

static unsigned of_a_mailbox(void)
{
	struct soft_cpu *cpu = calloc(1, sizeof(*cpu));
	unsigned missed;

	cpu->executing = cpu->flush_posted = cpu->flush_count = 1;
	missed = CAUGHT_MISSED("mailbox", check_mailbox_of, cpu, of_mailbox);
	free(cpu);
	return missed;
}

int main(void)
{
	struct code_notes *notes = calloc(1, sizeof(*notes));
	unsigned missed = CAUGHT_MISSED("notes", check_notes_of, notes, of_notes);

	free(notes);
	missed += of_a_store();
	missed += of_a_mailbox();
	return missed != 0;
}
