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
 * What was forked has no tables: who copied them would copy a mapping for each chunk, and the
 * host's page tables of all the chunks. Their places are taken again, empty (table_map_again()),
 * and each pair gets its poison before it is used (table_pair_mark()).
 *
 *   1. No more chunks are open, and no more places were looked up in vain, than the store's part of
 *      the budget (budget.h), which all pairs of a processor share: the host's page tables grow
 *      with them. Each chunk that is open is found.
 *   2. In front of a read table's entries is the poison, unless the pair is bare.
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
enum { TABLE_PLACE_WORDS = TABLE_PLACES / 64, TABLE_PAIRS_MOST = 64 };

struct table_pair {
	uint64_t read, write; /* bases, TABLE_BIAS included */
	uint8_t *memory; /* of both */
	uint8_t number;  /* in its store */
	bool is_bare;    /* it has no poison yet: it is not used */
	uint32_t chunks, places;
	uint64_t *looked_up; /* in vain: a bit for each place; in the store */
};

struct table_store {
	/* chunks that are open, (pair, chunk) + 1: to be found, and in a row */
	uint32_t *hash, *opened;
	uint64_t *looked_up; /* of all pairs */
	uint32_t slots, used, most, places, places_most;
};

/* Of both tables of a pair. */
#define TABLE_PAIR_BYTES (2 * TABLE_RESERVED_BYTES)

bool table_store_create(struct table_store *store, uint32_t chunks, uint32_t places);
void table_store_destroy(struct table_store *store);

/* number: below TABLE_PAIRS_MOST, and no other's. False: no memory. */
bool table_pair_create(const struct table_store *store, struct table_pair *pair, uint8_t number,
		       uint64_t poison);
void table_pair_destroy(struct table_pair *pair);

/* ---- in what was forked, before anything else is mapped there ---- */

/* Of a store all of whose pairs are forgotten; what it consists of was not inherited. */
void table_store_forget(struct table_store *store);
/* It has nothing, and is bare. */
void table_pair_forget(struct table_pair *pair);
/* The memory of pairs that lie side by side. False: there is something else, or no memory. */
bool table_map_again(uint8_t *at, unsigned pairs);
/* Before it is used, on one thread. False: no memory. */
bool table_pair_mark(struct table_pair *pair, uint64_t poison);

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
