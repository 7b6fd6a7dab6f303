/*
 * Lookup tables: what translated code reads for every access. A pair (read, write) has 2^36 entries
 * of 8 bytes each, for bits 47:12 of an address, reserved and mostly empty.
 *
 *   entry   0: not cached; else (host address - guest address) ^ poison; the poison's low 12 bits
 *           are ones, and so are the entry's
 *   base    ends with TABLE_BIAS; entries begin TABLE_FIRST behind it. The page of a read table's
 *           base has the poison as well, before its entries: it can always be written, and keeps
 *           that also when the table is given back, which may be in use
 *
 *   1. No more chunks are open, and no more places were looked up in vain, than the store's part of
 *      the budget (budget.h), which all pairs of a processor share: the host's page tables grow
 *      with them. Each chunk that is open is found.
 *   2. In front of a read table's entries is the poison.
 *
 * A chunk is the entries of 32 MiB of addresses, in 17 pages, of which the first and the last are
 * those of the chunks beside it as well. Only chunks that were opened can be written; the others
 * are zeros that can be read and cost nothing but the host's page tables. Who is told that the
 * budget is used up gives a pair back and tries again.
 *
 * Nobody but its processor uses a store.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { TABLE_PLACES = 1 << 18, TABLE_PLACE_SHIFT = 30 }; /* of 1 GiB of addresses each */

struct table_pair {
	uint64_t read, write; /* bases, TABLE_BIAS included */
	void *memory[2];
	uint8_t number; /* in its store */
	uint32_t chunks, places;
	uint64_t looked_up[TABLE_PLACES / 64]; /* in vain */
};

struct table_store {
	/* chunks that are open, (pair, chunk) + 1: to be found, and in a row */
	uint32_t *hash, *opened;
	uint32_t slots, used, most, places, places_most;
};

bool table_store_create(struct table_store *store, uint32_t chunks, uint32_t places);
void table_store_destroy(struct table_store *store);

/* False: no memory. */
bool table_pair_create(struct table_pair *pair, uint8_t number, uint64_t poison);
void table_pair_destroy(struct table_pair *pair);

static inline uint64_t table_index(uint64_t gva) { return gva << 16 >> 28; }

static inline uint64_t *table_entry(uint64_t base, uint64_t gva)
{
	return (uint64_t *)(base + TABLE_FIRST + table_index(gva) * sizeof(uint64_t));
}

/* The entries of gva can be written from now on. False: the budget is used up, or the host's. */
bool table_open(struct table_store *store, struct table_pair *pair, uint64_t gva);
/* Whether something there was looked up in vain before. */
static inline bool table_knows_miss(const struct table_pair *pair, uint64_t gva)
{
	uint64_t place = gva >> TABLE_PLACE_SHIFT & (TABLE_PLACES - 1);

	return __atomic_load_n(&pair->looked_up[place / 64], __ATOMIC_RELAXED) >> place % 64 & 1;
}
/* Before a walk for what was looked up in vain. False: the budget is used up. */
bool table_note_miss(struct table_store *store, struct table_pair *pair, uint64_t gva);
/* Zeros again, which cost nothing. */
void table_give_back(struct table_store *store, struct table_pair *pair);
/* Invariant 1. */
void check_table_store(const struct table_store *store);
/* Invariant 2. */
void check_table_pair(const struct table_pair *pair, uint64_t poison);
