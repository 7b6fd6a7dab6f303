/* Lookup tables and what they may cost: see table.h. */
#include "table.h"

#include <assert.h>
#include <sys/mman.h>

enum { CHUNK_BITS = 23, PAIR_TABLES = 2 };
enum { LOOKED_UP_BYTES = TABLE_PAIRS_MOST * TABLE_PLACE_WORDS * sizeof(uint64_t) };

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
	store->hash = soft_reserve_own(store->slots * sizeof(*store->hash));
	store->opened = soft_reserve_own(store->most * sizeof(*store->opened));
	store->looked_up = soft_reserve_own(LOOKED_UP_BYTES);
	return store->hash && store->opened && store->looked_up;
}

void table_store_destroy(struct table_store *store)
{
	if (store->hash)
		munmap(store->hash, store->slots * sizeof(*store->hash));
	if (store->opened)
		munmap(store->opened, store->most * sizeof(*store->opened));
	if (store->looked_up)
		munmap(store->looked_up, LOOKED_UP_BYTES);
	store->hash = store->opened = NULL;
	store->looked_up = NULL;
}

/*
 * A table as it begins: zeros that can be read and not written, so that looking up costs no memory
 * of this process. What the host's own page tables had of it goes with the old mapping.
 */
static void *map_as(void *at, size_t bytes, int rights, int fixed)
{
	void *memory = mmap(at, bytes, rights,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	madvise(memory, bytes, MADV_DONTFORK);
	return memory;
}

static void *map(void *at, size_t bytes, int rights)
{
	return map_as(at, bytes, rights, MAP_FIXED);
}

/*
 * The bases of all tables end with TABLE_BIAS: one register is table base and BEXTR control at
 * once.
 */
static uint64_t table_base(const void *memory)
{
	return (((uint64_t)memory + 0xffff) & ~0xffffull) + TABLE_BIAS;
}

/* The page that has a read table's poison. */
static uint8_t *poison_page(const struct table_pair *pair)
{
	return (uint8_t *)(pair->read & ~(uint64_t)PAGE_OFFSET_MASK);
}

bool table_pair_create(const struct table_store *store, struct table_pair *pair, uint8_t number,
		       uint64_t poison)
{
	assert(number < TABLE_PAIRS_MOST);
	pair->number = number;
	pair->looked_up = store->looked_up + number * TABLE_PLACE_WORDS;
	pair->memory = map_as(NULL, TABLE_PAIR_BYTES, PROT_READ, 0);
	if (!pair->memory)
		return false;
	pair->read = table_base(pair->memory);
	pair->write = table_base(pair->memory + TABLE_RESERVED_BYTES);
	pair->is_bare = true;
	if (table_pair_mark(pair, poison))
		return true;
	table_pair_destroy(pair);
	return false;
}

bool table_pair_mark(struct table_pair *pair, uint64_t poison)
{
	if (!pair->is_bare)
		return true;
	if (!map(poison_page(pair), PAGE_BYTES, PROT_READ | PROT_WRITE))
		return false;
	*(uint64_t *)(pair->read + TABLE_POISON) = poison;
	pair->is_bare = false;
	return true;
}

bool table_map_again(uint8_t *at, unsigned pairs)
{
	return map_as(at, pairs * TABLE_PAIR_BYTES, PROT_READ, MAP_FIXED_NOREPLACE) == at;
}

void table_pair_forget(struct table_pair *pair)
{
	pair->chunks = pair->places = 0;
	pair->is_bare = true;
}

void table_store_forget(struct table_store *store) { store->used = store->places = 0; }

void table_pair_destroy(struct table_pair *pair)
{
	if (pair->memory) /* one by one: no more at once may go (ipc/call_rules.c) */
		for (unsigned n = 0; n < PAIR_TABLES; n++)
			munmap(pair->memory + n * TABLE_RESERVED_BYTES, TABLE_RESERVED_BYTES);
	pair->memory = NULL;
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

static uint32_t key_of(const struct table_pair *pair, uint32_t chunk)
{
	return ((uint32_t)pair->number << CHUNK_BITS | chunk) + 1;
}

static bool is_open(const struct table_store *store, const struct table_pair *pair, uint32_t chunk)
{
	return chunk >> CHUNK_BITS == 0 && *find_chunk(store, key_of(pair, chunk));
}

/* The page in which the chunk begins, and the one before it ends. */
static uint8_t *first_page(uint64_t base, uint32_t chunk)
{
	uint64_t at = base + TABLE_FIRST + (uint64_t)chunk * TABLE_CHUNK_BYTES;

	return (uint8_t *)(at & ~(uint64_t)PAGE_OFFSET_MASK);
}

/* All pages of the chunk but those that a chunk beside it has, or the poison is in. */
static bool make_writable(const struct table_store *store, const struct table_pair *pair,
			  uint64_t base, uint32_t chunk)
{
	uint8_t *begin = first_page(base, chunk);
	uint8_t *end = first_page(base, chunk + 1);

	if (begin == poison_page(pair) || is_open(store, pair, chunk - 1))
		begin += PAGE_BYTES;
	if (!is_open(store, pair, chunk + 1))
		end += PAGE_BYTES;
	return map(begin, (size_t)(end - begin), PROT_READ | PROT_WRITE);
}

bool table_open(struct table_store *store, struct table_pair *pair, uint64_t gva)
{
	uint32_t chunk = chunk_of(gva);
	uint32_t key = key_of(pair, chunk);
	uint32_t *slot = find_chunk(store, key);

	if (*slot)
		return true;
	if (store->used == store->most)
		return false;
	if (!make_writable(store, pair, pair->write, chunk) ||
	    !make_writable(store, pair, pair->read, chunk))
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

void check_table_pair(const struct table_pair *pair, uint64_t poison)
{
	assert(pair->is_bare || *(const uint64_t *)(pair->read + TABLE_POISON) == poison);
}

bool table_note_miss(struct table_store *store, struct table_pair *pair, uint64_t gva)
{
	uint64_t place = gva >> TABLE_PLACE_SHIFT & (TABLE_PLACES - 1);
	uint64_t *word = &pair->looked_up[place / 64];
	uint64_t bit = 1ull << place % 64;

	/* what is written next is not read first: of zeros that are shared a copy would be made */
	if (__atomic_fetch_or(word, 0, __ATOMIC_RELAXED) & bit)
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

/* In place of themselves, but for the page of the poison. */
static void empty_tables(const struct table_pair *pair)
{
	uint8_t *page = poison_page(pair);
	uint8_t *begin = pair->memory;
	bool mapped = map(begin + TABLE_RESERVED_BYTES, TABLE_RESERVED_BYTES, PROT_READ);

	mapped &= page == begin || map(begin, (size_t)(page - begin), PROT_READ);
	mapped &= !!map(page + PAGE_BYTES,
			TABLE_RESERVED_BYTES - PAGE_BYTES - (size_t)(page - begin), PROT_READ);
	assert(mapped);
	for (uint64_t *entry = table_entry(pair->read, 0);
	     entry < (uint64_t *)(void *)(page + PAGE_BYTES); entry++)
		__atomic_store_n(entry, 0, __ATOMIC_RELAXED);
}

void table_give_back(struct table_store *store, struct table_pair *pair)
{
	if (!pair->chunks && !pair->places)
		return;
	empty_tables(pair);
	remove_chunks(store, pair);
	if (pair->places)
		memset(pair->looked_up, 0, TABLE_PLACE_WORDS * sizeof(*pair->looked_up));
	store->places -= pair->places;
	pair->chunks = pair->places = 0;
}
