/* The pool of shadow pages and how one is found: see shadow.h. */
#include "shadow.h"

#include <sys/mman.h>

bool shadow_pool_create(struct shadow_pool *pool)
{
	pool->shadows = soft_reserve_own(SHADOWS_MOST * sizeof(*pool->shadows));
	pool->hash = soft_reserve_own(SHADOW_BUCKETS * sizeof(*pool->hash));
	return pool->shadows && pool->hash;
}

void shadow_pool_destroy(struct shadow_pool *pool)
{
	if (pool->shadows)
		munmap(pool->shadows, SHADOWS_MOST * sizeof(*pool->shadows));
	if (pool->hash)
		munmap(pool->hash, SHADOW_BUCKETS * sizeof(*pool->hash));
	pool->shadows = NULL;
	pool->hash = NULL;
}

void shadow_pool_forget(struct shadow_pool *pool) { pool->free = pool->used = pool->ever = 0; }

static uint32_t *bucket(const struct shadow_pool *pool, struct shadow_key key)
{
	uint64_t number = ((key.number * 32 + key.space) * 4 + key.view) * 2 + key.global;

	return &pool->hash[number * 0x9e3779b97f4a7c15ull >> 50 & (SHADOW_BUCKETS - 1)];
}

struct shadow *shadow_find(const struct shadow_pool *pool, struct shadow_key key)
{
	for (uint32_t n = *bucket(pool, key); n;) {
		struct shadow *shadow = &pool->shadows[n - 1];

		if (shadow->number == key.number && shadow->space == key.space &&
		    shadow->view == key.view && shadow->global == key.global)
			return shadow;
		n = shadow->next_in_hash;
	}
	return NULL;
}

struct shadow *shadow_take(struct shadow_pool *pool, struct shadow_key key)
{
	uint32_t *head = bucket(pool, key);
	uint32_t n = pool->free;
	struct shadow *shadow;

	if (!n && pool->ever == SHADOWS_MOST)
		return NULL;
	if (n)
		pool->free = pool->shadows[n - 1].next_in_space;
	else
		n = ++pool->ever;
	shadow = &pool->shadows[n - 1];
	*shadow = (struct shadow){
		.number = key.number,
		.space = key.space,
		.view = key.view,
		.global = key.global,
		.next_in_hash = *head,
	};
	*head = n;
	pool->used++;
	return shadow;
}

void shadow_release(struct shadow_pool *pool, struct shadow *shadow)
{
	uint32_t n = (uint32_t)(shadow - pool->shadows) + 1;
	const struct shadow_key key = { .number = shadow->number,
					.space = shadow->space,
					.view = shadow->view,
					.global = shadow->global };
	uint32_t *link = bucket(pool, key);

	while (*link != n)
		link = &pool->shadows[*link - 1].next_in_hash;
	*link = shadow->next_in_hash;
	shadow->next_in_space = pool->free;
	pool->free = n;
	pool->used--;
}
