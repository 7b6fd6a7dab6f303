/*
 * The history of an image: a JSON array that only grows. Each entry has the digest of itself and of
 * the entry before it, so that none can be changed or taken out without the later ones showing it;
 * the signature covers the last.
 */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/image_internal.h"

void image_now(char text[32])
{
	time_t now = time(NULL);
	struct tm tm;

	text[0] = 0;
	if (gmtime_r(&now, &tm))
		strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

int image_load_history(struct disk *disk, json_t **ret)
{
	int error = image_load_json(disk, ITEM_HISTORY, IMAGE_HISTORY_BYTES, ret);

	if (error == -ENOENT) {
		*ret = json_array();
		return *ret ? 0 : -ENOMEM;
	}
	if (error || json_is_array(*ret))
		return error;
	json_decref(*ret);
	*ret = NULL;
	return -EBADMSG;
}

/* Of everything but the digest itself, keys in order. */
static void digest_entry(const json_t *entry, char text[65])
{
	json_t *copy = json_copy((json_t *)(uintptr_t)entry);
	char *all;
	uint8_t digest[32] = { 0 };

	json_object_del(copy, "digest");
	all = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
	if (all)
		crypto_generichash(digest, sizeof(digest), (const uint8_t *)all, strlen(all), NULL,
				   0);
	sodium_bin2hex(text, 65, digest, sizeof(digest));
	free(all);
	json_decref(copy);
}

int image_add_history(struct disk *disk, const char *by, const char *event, json_t *more)
{
	char now[32];
	char host[256] = "";
	char id[GUID_TEXT_BYTES], digest[65], *text;
	struct disk_info info;
	json_t *history, *entry;
	const char *previous;
	int error = image_load_history(disk, &history);

	assert(by && event);
	if (error) {
		json_decref(more);
		return error;
	}
	disk_info(disk, &info);
	guid_print(info.data_id, id);
	image_now(now);
	gethostname(host, sizeof(host) - 1);
	previous = json_string_value(
		json_object_get(json_array_get(history, json_array_size(history) - 1), "digest"));
	entry = json_pack("{s:s, s:s%, s:s, s:s, s:s, s:s}", "time", now, "host", host,
			  strlen(host), "by", by, "event", event, "data-id", id, "previous",
			  previous ? previous : "");
	json_object_update_missing(entry, more);
	json_decref(more);
	digest_entry(entry, digest);
	json_object_set_new(entry, "digest", json_string(digest));
	json_array_append_new(history, entry);
	text = json_dumps(history, JSON_COMPACT);
	if (!text)
		error = -ENOMEM;
	else if (strlen(text) > IMAGE_HISTORY_BYTES)
		error = -EFBIG;
	else
		error = disk_write_item(disk, ITEM_HISTORY, DISK_ITEM_OF_FILE, text, strlen(text));
	free(text);
	json_decref(history);
	return error;
}

int image_verify_history(const json_t *history, size_t *ret_wrong)
{
	const char *before = "";

	for (size_t n = 0; n < json_array_size(history); n++) {
		const json_t *entry = json_array_get(history, n);
		const char *previous = json_string_value(json_object_get(entry, "previous"));
		const char *has = json_string_value(json_object_get(entry, "digest"));
		char is[65];

		*ret_wrong = n;
		digest_entry(entry, is);
		if (!previous || !has || strcmp(previous, before) || strcmp(has, is))
			return -EBADMSG;
		before = has;
	}
	return 0;
}
