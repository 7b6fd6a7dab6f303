/*
 * The store, whatever is behind it: documents, what is trimmed of them, events and their numbers;
 * all of it after it was closed and opened. usage: store_test WHERE, which is empty
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

static int failed;

static void check(const char *what, long got, long wanted)
{
	if (got == wanted)
		return;
	printf("store_test: %s: %ld, not %ld\n", what, got, wanted);
	failed = 1;
}

enum { TEXT_BYTES = 2000 };

struct list { char text[TEXT_BYTES]; unsigned count, most; };

static bool note(void *context, const char *key, const char *text)
{
	struct list *list = context;
	size_t used = strlen(list->text);

	snprintf(list->text + used, sizeof(list->text) - used, "%s=%s;", key, text);
	return ++list->count != list->most;
}

static bool note_event(void *context, uint64_t sequence, const char *text)
{
	char key[24];

	snprintf(key, sizeof(key), "%lu", sequence);
	return note(context, key, text);
}

static void check_each(struct store *store, const char *kind, const char *wanted)
{
	struct list list = { .count = 0 };

	check("each", store_each(store, kind, note, &list), 0);
	if (strcmp(list.text, wanted))
		printf("store_test: %s: %s\n", kind, list.text);
	check(kind, strcmp(list.text, wanted), 0);
}

static void check_events(struct store *store, uint64_t after, unsigned most, const char *wanted)
{
	struct list list = { .count = 0 };

	check("since", store_since(store, after, most, note_event, &list), 0);
	if (strcmp(list.text, wanted))
		printf("store_test: events after %lu: %s\n", after, list.text);
	check("events", strcmp(list.text, wanted), 0);
}

static void check_last(struct store *store, long wanted)
{
	uint64_t last = UINT64_MAX;

	check("last", store_last(store, &last), 0);
	check("the last one's number", (long)last, wanted);
}

static void check_documents(struct store *store)
{
	struct list first = { .most = 1 };
	char *text = NULL;

	check("put", store_put(store, "a", "two", "2"), 0);
	check("put", store_put(store, "a", "one", "'; DROP TABLE x; -- \\ \"é"), 0);
	check("put", store_put(store, "a", "Three", "3"), 0);
	check("put", store_put(store, "b", "one", "other"), 0);
	check_each(store, "a", "Three=3;one='; DROP TABLE x; -- \\ \"é;two=2;");
	check("replace", store_put(store, "a", "two", "II"), 0);
	check("get", store_get(store, "a", "two", &text), 0);
	check("what was got", text ? strcmp(text, "II") : -1, 0);
	free(text);
	check("none", store_get(store, "a", "nothing", &text), -ENOENT);
	check("of another kind", store_get(store, "c", "one", &text), -ENOENT);
	check("drop", store_drop(store, "a", "one"), 0);
	check("drop nothing", store_drop(store, "a", "one"), 0);
	check_each(store, "a", "Three=3;two=II;");
	check("until enough", store_each(store, "a", note, &first), 0);
	check("one of them", first.count, 1);
}

static void check_trim(struct store *store)
{
	store_put(store, "t", "k1", "{\"at\":10,\"more\":{\"at\":99}}");
	store_put(store, "t", "k2", "{\"more\":{\"at\":99},\"at\":20}");
	store_put(store, "t", "k3", "{\"at\":30}");
	store_put(store, "t", "k4", "no JSON");
	store_put(store, "other", "k5", "{\"at\":1}");
	check("trim by time", store_trim(store, "t", 15, 100, 10000), 0);
	check_each(store, "t", "k2={\"more\":{\"at\":99},\"at\":20};k3={\"at\":30};");
	check("trim by number", store_trim(store, "t", 0, 1, 10000), 0);
	check_each(store, "t", "k3={\"at\":30};");
	store_put(store, "t", "k6", "{\"at\":40}");
	check("trim by bytes", store_trim(store, "t", 0, 100, 10), 0);
	check_each(store, "t", "k6={\"at\":40};");
	check_each(store, "other", "k5={\"at\":1};");
}

static void check_numbers(struct store *store, const char *where)
{
	static const char *const ids[] = { "", "one", "two", "three", "four", "five" };
	uint64_t sequence = 0;

	for (uint64_t n = 1; n <= 5; n++) {
		check("append", store_append(store, ids[n], "e", &sequence), 0);
		check("its number", (long)sequence, (long)n);
	}
	check_events(store, 2, 2, "3=e;4=e;");
	check("forget", store_forget(store, 2), 0);
	check_events(store, 0, 100, "4=e;5=e;");
	check_last(store, 5);
	check("forget all", store_forget(store, 0), 0);
	check_events(store, 0, 100, "");
	check_last(store, 5);
	check("append", store_append(store, "six", "f", &sequence), 0);
	check("no number twice", (long)sequence, 6);
	if (!strncmp(where, "postgres", strlen("postgres"))) {
		check("again", store_append(store, "six", "f", &sequence), 0);
		check("the number that it has", (long)sequence, 6);
	}
}

int main(int argc, char **argv)
{
	struct store *store;

	check("arguments", argc, 2);
	check("open", store_open(argv[1], "host", &store), 0);
	if (failed)
		return failed;
	check_last(store, 0);
	check_documents(store);
	check_trim(store);
	check_numbers(store, argv[1]);
	store_close(store);
	check("open again", store_open(argv[1], "host", &store), 0);
	check_each(store, "a", "Three=3;two=II;");
	check_events(store, 0, 100, "6=f;");
	check_last(store, 6);
	store_close(store);
	return failed;
}
