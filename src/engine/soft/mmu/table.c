/* Lookup tables and what they may cost: see table.h. */
#include "table.h"

#include <assert.h>
#include <sys/mman.h>

enum { CHUNK_BITS = 23, PAIR_TABLES = 2 };

static uint32_t power_of_two_above(uint32_t least)
{
	uint32_t n = 1;

	while (n < least)
		n *= 2;
	return n;
}

bool table_store_create(struct table_store *store, uint32_t chunks, uint32_t places)
{
	store->most = chunks / PAIR_TABLES;
	store->places_most = places;
	store->slots = power_of_two_above(2 * store->most);
	store->hash = soft_reserve(store->slots * sizeof(*store->hash));
	store->opened = soft_reserve(store->most * sizeof(*store->opened));
	return store->hash && store->opened;
}

void table_store_destroy(struct table_store *store)
{
	if (store->hash)
		munmap(store->hash, store->slots * sizeof(*store->hash));
	if (store->opened)
		munmap(store->opened, store->most * sizeof(*store->opened));
	store->hash = store->opened = NULL;
}

/*
 * A table as it begins: zeros that can be read and not written, so that looking up costs no memory
 * of this process. What the host's own page tables had of it goes with the old mapping.
 */
static bool map_table(void **memory)
{
	int fixed = *memory ? MAP_FIXED : 0;
	void *at = mmap(*memory, TABLE_RESERVED_BYTES, PROT_READ,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);

	if (at == MAP_FAILED)
		return false;
	*memory = at;
	madvise(at, TABLE_RESERVED_BYTES, MADV_NOHUGEPAGE);
	return true;
}

/*
 * The bases of all tables end with TABLE_BIAS: one register is table base and BEXTR control at
 * once.
 */
static uint64_t table_base(const void *memory)
{
	return (((uint64_t)memory + 0xffff) & ~0xffffull) + TABLE_BIAS;
}

bool table_pair_create(struct table_pair *pair, uint8_t number)
{
	pair->number = number;
	if (!map_table(&pair->memory[0]) || !map_table(&pair->memory[1])) {
		table_pair_destroy(pair);
		return false;
	}
	pair->read = table_base(pair->memory[0]);
	pair->write = table_base(pair->memory[1]);
	return true;
}

void table_pair_destroy(struct table_pair *pair)
{
	for (unsigned n = 0; n < PAIR_TABLES; n++)
		if (pair->memory[n]) {
			munmap(pair->memory[n], TABLE_RESERVED_BYTES);
			pair->memory[n] = NULL;
		}
}

static uint32_t chunk_of(uint64_t gva)
{
	return (uint32_t)(table_index(gva) * sizeof(uint64_t) / TABLE_CHUNK_BYTES);
}

static uint32_t *find_chunk(const struct table_store *store, uint32_t key)
{
	uint32_t slot = key * 0x9e3779b1u;

	for (;; slot++) {
		uint32_t *at = &store->hash[slot & (store->slots - 1)];

		if (!*at || *at == key)
			return at;
	}
}

static bool make_writable(uint64_t base, uint32_t chunk)
{
	uint8_t *at = (uint8_t *)(base - TABLE_BIAS) + (uint64_t)chunk * TABLE_CHUNK_BYTES;

	if (mmap(at, TABLE_CHUNK_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != at)
		return false;
	madvise(at, TABLE_CHUNK_BYTES, MADV_NOHUGEPAGE);
	return true;
}

bool table_open(struct table_store *store, struct table_pair *pair, uint64_t gva)
{
	uint32_t chunk = chunk_of(gva);
	uint32_t key = ((uint32_t)pair->number << CHUNK_BITS | chunk) + 1;
	uint32_t *slot = find_chunk(store, key);

	if (*slot)
		return true;
	if (store->used == store->most)
		return false;
	if (!make_writable(pair->write, chunk) || !make_writable(pair->read, chunk))
		return false;
	*slot = key;
	store->opened[store->used++] = key;
	pair->chunks++;
	return true;
}

void check_table_store(const struct table_store *store)
{
	assert(store->used <= store->most && store->places <= store->places_most);
	for (uint32_t n = 0; n < store->used; n++)
		assert(store->opened[n] &&
		       *find_chunk(store, store->opened[n]) == store->opened[n]);
}

bool table_note_miss(struct table_store *store, struct table_pair *pair, uint64_t gva)
{
	uint64_t place = gva >> TABLE_PLACE_SHIFT & (TABLE_PLACES - 1);
	uint64_t *word = &pair->looked_up[place / 64];
	uint64_t bit = 1ull << place % 64;

	if (*word & bit)
		return true;
	if (store->places == store->places_most)
		return false;
	__atomic_store_n(word, *word | bit, __ATOMIC_RELAXED); /* table_knows_miss() */
	store->places++;
	pair->places++;
	return true;
}

static void remove_chunks(struct table_store *store, const struct table_pair *pair)
{
	uint32_t before = store->used;

	memset(store->hash, 0, store->slots * sizeof(*store->hash));
	store->used = 0;
	for (uint32_t n = 0; n < before; n++) {
		uint32_t key = store->opened[n];

		if ((key - 1) >> CHUNK_BITS == pair->number)
			continue;
		*find_chunk(store, key) = key;
		assert(store->used < store->most);
		store->opened[store->used++] = key;
	}
}

void table_give_back(struct table_store *store, struct table_pair *pair)
{
	if (!pair->chunks && !pair->places)
		return;
	for (unsigned n = 0; n < PAIR_TABLES; n++) {
		bool mapped = map_table(&pair->memory[n]);

		assert(mapped); /* in place of itself */
	}
	remove_chunks(store, pair);
	memset(pair->looked_up, 0, sizeof(pair->looked_up));
	store->places -= pair->places;
	pair->chunks = pair->places = 0;
}
