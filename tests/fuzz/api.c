/*
 * What comes to the daemon: a path, a body of any of its operations, and frames of WebSockets. The
 * first byte says which. What is taken for sound has to be what the table says, and makes words for
 * the command of which each is one that was given, or one of the table's.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/counters.h"
#include "daemon/websocket.h"
#include "fuzz.h"

enum { PATH_BYTES = 512, REASON_BYTES = 256 };

static void check_words(const struct api_operation *operation, const json_t *arguments)
{
	char **words = api_words("umbra", operation, arguments);
	unsigned count = 0;

	for (char **word = words; word && *word; word++)
		count++;
	if (words && !count)
		abort();
	api_free_words(words);
}

static void check_body(const uint8_t *data, size_t bytes)
{
	char reason[REASON_BYTES];
	json_t *body = json_loadb((const char *)data + 1, bytes - 1, JSON_REJECT_DUPLICATES, NULL);
	unsigned count = 0;
	const struct api_operation *operation;

	while (api_operations[count].method)
		count++;
	operation = &api_operations[data[0] % count];
	if (json_is_object(body) && !api_check(operation, body, reason, sizeof(reason)))
		check_words(operation, body);
	json_decref(body);
}

static void check_path(const uint8_t *data, size_t bytes)
{
	char path[PATH_BYTES];
	const char *allowed;
	json_t *arguments;

	bytes = bytes < sizeof(path) - 1 ? bytes : sizeof(path) - 1;
	memcpy(path, data, bytes);
	path[bytes] = 0;
	if (!api_find("GET", path, &arguments, &allowed))
		return;
	if (!allowed || !json_is_object(arguments))
		abort();
	json_decref(arguments);
}

static void check_frames(const uint8_t *data, size_t bytes)
{
	struct websocket_head head;
	size_t at = 0;

	for (;;) {
		int got = websocket_parse(data + at, bytes - at, &head);

		if (got <= 0)
			return;
		if ((size_t)got > bytes - at || head.bytes > WEBSOCKET_FRAME_BYTES)
			abort();
		at += (size_t)got;
		if (head.bytes > bytes - at)
			return;
		at += head.bytes;
	}
}

static void check_counters(const uint8_t *data, size_t bytes)
{
	char *text = malloc(bytes + 1);
	json_t *groups;

	if (!text)
		return;
	memcpy(text, data, bytes);
	text[bytes] = 0;
	groups = counters_json(text);
	if (!json_is_object(groups))
		abort();
	json_decref(groups);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 2)
		return 0;
	switch (data[0] % 4) {
	case 0: check_path(data + 1, bytes - 1); break;
	case 1: check_frames(data + 1, bytes - 1); break;
	case 2: check_counters(data + 1, bytes - 1); break;
	default: check_body(data + 1, bytes - 1);
	}
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const char *const seeds[] = {
		"\4/v1/machines/one/registers",
		"\5\x82\x85\1\2\3\4hello\x89\x80\1\2\3\4",
		"\6mmu: hits 5, misses 7\ncode: KiB 11\n",
		"\7\1{\"name\":\"one\",\"kernel\":\"/k\",\"cpus\":4,\"disks\":[\"a\",\"--b\"]}",
		"\7\12{\"machine\":\"one\",\"name\":\"x\",\"count\":3,\"end-parent\":true}",
		"\7\27{\"file\":\"/x\",\"size\":\"4G\",\"fixed\":false}",
	};
	const char *seed = seeds[n % (sizeof(seeds) / sizeof(seeds[0]))];

	memcpy(data, seed, strlen(seed));
	return strlen(seed);
}
