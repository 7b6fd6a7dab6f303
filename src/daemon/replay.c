/* See replay.h. */
#include "replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "failure.h"

enum { HOUR_MS = 3600 * 1000, TIDY_AFTER = 500 };

struct tidy { struct replay *replay; int64_t before; json_t *keys; size_t left; };

void replay_open(struct replay *replay, struct store *store)
{
	*replay = (struct replay){ .store = store, .under_way = json_object() };
}

void replay_close(struct replay *replay) { json_decref(replay->under_way); }

static bool is_key(const char *key)
{
	size_t bytes = strlen(key);

	if (!bytes || bytes > REPLAY_KEY_BYTES)
		return false;
	for (; *key; key++)
		if (*key <= ' ' || *key > '~')
			return false;
	return true;
}

/* What the key stands for. */
static json_t *request_of(const struct api_call *call)
{
	return json_pack("{s:s, s:O}", "operation", call->operation->id, "arguments",
			 call->arguments);
}

static void answer_again(struct api_call *call, const json_t *kept)
{
	json_t *request = request_of(call);

	if (json_equal(request, json_object_get(kept, "request")))
		call_answer(call,
			    (unsigned)json_integer_value(json_object_get(kept, "status")) ?: 500,
			    json_deep_copy(json_object_get(kept, "answer")));
	else
		call_fail(call, 422, FAILURE_USAGE, "the key stands for another request",
			  "take a new key for a new request");
	json_decref(request);
}

enum replay_news replay_begin(struct replay *replay, const char *key, struct api_call *call)
{
	char *text = NULL;
	json_t *kept;
	int error;

	if (!is_key(key)) {
		call_fail(call, 0, FAILURE_USAGE, "not an idempotency key",
			  "it has 1 to 128 visible ASCII characters");
		return REPLAY_REFUSED;
	}
	if (json_object_get(replay->under_way, key)) {
		call_fail(call, 409, FAILURE_UNUSABLE, "a request with this key is under way",
			  "ask again when it is answered");
		return REPLAY_REFUSED;
	}
	error = store_get(replay->store, "key", key, &text);
	if (error && error != -ENOENT) {
		call_fail_errno(call, error, "the store could not be asked for the key");
		return REPLAY_REFUSED;
	}
	kept = text ? json_loads(text, 0, NULL) : NULL;
	free(text);
	if (kept) {
		answer_again(call, kept);
		json_decref(kept);
		return REPLAY_ANSWERED;
	}
	json_object_set_new(replay->under_way, key, json_true());
	return REPLAY_NEW;
}

static bool find_old(void *context, const char *key, const char *text)
{
	struct tidy *tidy = context;
	json_t *kept = json_loads(text, 0, NULL);

	if (json_integer_value(json_object_get(kept, "at")) < tidy->before)
		json_array_append_new(tidy->keys, json_string(key));
	else
		tidy->left++;
	json_decref(kept);
	return true;
}

/* Older ones first; when too many are left, younger ones, too. */
static void drop_old(struct replay *replay)
{
	int64_t age_ms = (int64_t)REPLAY_HOURS * HOUR_MS;
	struct tidy tidy = { .replay = replay };
	const json_t *key;
	size_t n;

	do {
		json_decref(tidy.keys);
		tidy.keys = json_array();
		tidy.left = 0;
		tidy.before = events_wall_ms() - age_ms;
		if (store_each(replay->store, "key", find_old, &tidy))
			break;
		age_ms /= 2;
	} while (tidy.left > REPLAY_KEPT && age_ms);
	json_array_foreach(tidy.keys, n, key)
		store_drop(replay->store, "key", json_string_value(key));
	json_decref(tidy.keys);
}

void replay_keep(struct replay *replay, const char *key, const struct api_call *call)
{
	json_t *kept = json_pack("{s:o, s:I, s:i, s:O}", "request", request_of(call), "at",
				 (json_int_t)events_wall_ms(), "status", (int)call->status,
				 "answer", call->answer);
	char *text = kept ? json_dumps(kept, JSON_COMPACT) : NULL;

	json_object_del(replay->under_way, key);
	/* what did not happen for want of something may be tried again */
	if (text && call->status < 500)
		store_put(replay->store, "key", key, text);
	free(text);
	json_decref(kept);
	if (++replay->puts % TIDY_AFTER == 0)
		drop_old(replay);
}
