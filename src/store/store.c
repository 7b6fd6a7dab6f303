/* See store.h. */
#include "store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct store { const struct store_driver *driver; void *self; };

static const struct store_driver *driver_of(const char *where)
{
	static const char *const begins[] = { "postgresql:", "postgres:" };

	for (unsigned n = 0; n < 2; n++)
		if (!strncmp(where, begins[n], strlen(begins[n])))
			return &store_postgres;
	return &store_sqlite;
}

int store_open(const char *where, const char *host, struct store **ret)
{
	struct store *store = calloc(1, sizeof(*store));
	int error;

	if (!store)
		return -ENOMEM;
	store->driver = driver_of(where);
	error = store->driver->open(where, host, &store->self);
	if (error) {
		free(store);
		return error;
	}
	*ret = store;
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	store->driver->close(store->self);
	free(store);
}

int store_put(struct store *store, const char *kind, const char *key, const char *text)
{
	assert(kind && key && text);
	return store->driver->put(store->self, kind, key, text);
}

int store_get(struct store *store, const char *kind, const char *key, char **ret_text)
{
	return store->driver->get(store->self, kind, key, ret_text);
}

int store_drop(struct store *store, const char *kind, const char *key)
{
	return store->driver->drop(store->self, kind, key);
}

int store_each(struct store *store, const char *kind, store_taker *take, void *context)
{
	return store->driver->each(store->self, kind, take, context);
}

int store_trim(struct store *store, const char *kind, int64_t before, uint64_t keep,
	       uint64_t keep_bytes)
{
	return store->driver->trim(store->self, kind, before, keep, keep_bytes);
}

int store_append(struct store *store, const char *id, const char *text, uint64_t *ret_sequence)
{
	assert(id && *id && text);
	return store->driver->append(store->self, id, text, ret_sequence);
}

int store_since(struct store *store, uint64_t sequence, unsigned most, store_event_taker *take,
		void *context)
{
	return store->driver->since(store->self, sequence, most, take, context);
}

int store_last(struct store *store, uint64_t *ret_sequence)
{
	return store->driver->last(store->self, ret_sequence);
}

int store_forget(struct store *store, uint64_t keep)
{
	return store->driver->forget(store->self, keep);
}
