/* See replay.h. */
#include "replay.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "failure.h"
#include "lib/check.h"

enum { HOUR_MS = 3600 * 1000, TIDY_AFTER = 500 };

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

void check_replay(const struct replay *replay)
{
	const char *key;
	json_t *request;

	assert(replay->store && json_is_object(replay->under_way));
	json_object_foreach(replay->under_way, key, request) {
		assert(is_key(key));
		assert(json_string_length(request) == (size_t)2 * crypto_generichash_BYTES);
	}
}

/* What the key stands for: a digest, which has one size whatever is asked. NULL: no memory. */
static json_t *request_of(const struct api_call *call)
{
	unsigned char digest[crypto_generichash_BYTES];
	char hex[2 * sizeof(digest) + 1];
	json_t *request = json_pack("{s:s, s:O}", "operation", call->operation->id, "arguments",
				    call->arguments);
	char *text = request ? json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	json_decref(request);
	if (!text)
		return NULL;
	crypto_generichash(digest, sizeof(digest), (const unsigned char *)text, strlen(text), NULL,
			   0);
	free(text);
	return json_string(sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest)));
}

static void answer_again(struct api_call *call, const json_t *request, const json_t *kept)
{
	unsigned status = (unsigned)json_integer_value(json_object_get(kept, "status"));
	json_t *answer = json_object_get(kept, "answer");

	if (!json_equal(request, json_object_get(kept, "request")))
		call_fail(call, 422, FAILURE_USAGE, "the key stands for another request",
			  "take a new key for a new request");
	else if (answer)
		call_answer(call, status ?: 500, json_deep_copy(answer));
	else
		call_fail(call, 409, FAILURE_UNUSABLE,
			  "it was done, and its answer was too long to be kept",
			  "take a new key to do it again");
}

static enum replay_news refuse(struct api_call *call, unsigned status, int code,
			       const char *reason, const char *remedy)
{
	call_fail(call, status, code, reason, remedy);
	return REPLAY_REFUSED;
}

/* The key is looked for in what was kept. */
static enum replay_news look_up(struct replay *replay, const char *key, struct api_call *call)
{
	char *text = NULL;
	json_t *request = request_of(call);
	int error = request ? store_get(replay->store, "key", key, &text) : -ENOMEM;
	json_t *kept = text ? json_loads(text, 0, NULL) : NULL;
	enum replay_news news = REPLAY_NEW;

	free(text);
	if (error && error != -ENOENT) {
		call_fail_errno(call, error, "the store could not be asked for the key");
		news = REPLAY_REFUSED;
	} else if (kept) {
		answer_again(call, request, kept);
		news = REPLAY_ANSWERED;
	} else {
		/* from before it is run: what runs it may add to its arguments */
		json_object_set(replay->under_way, key, request);
	}
	json_decref(kept);
	json_decref(request);
	return news;
}

enum replay_news replay_begin(struct replay *replay, struct api_call *call)
{
	char *key = call->key;
	enum replay_news news;

	call->key = NULL; /* it is not this call's answer that is kept, unless it is new */
	if (!is_key(key))
		news = refuse(call, 0, FAILURE_USAGE, "not an idempotency key",
			      "it has 1 to 128 visible ASCII characters");
	else if (json_object_get(replay->under_way, key))
		news = refuse(call, 409, FAILURE_UNUSABLE,
			      "a request with this key is under way",
			      "ask again when it is answered");
	else
		news = look_up(replay, key, call);
	if (news == REPLAY_NEW)
		call->key = key;
	else
		free(key);
	CHECK(check_replay(replay));
	return news;
}

static json_t *kept_of(const struct api_call *call, const json_t *request)
{
	json_t *kept = json_pack("{s:O, s:I, s:i}", "request", request, "at",
				 (json_int_t)events_wall_ms(), "status", (int)call->status);

	/* the size alone: what is too long for it is not written */
	if (kept && json_dumpb(call->answer, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) <=
			    REPLAY_ANSWER_BYTES)
		json_object_set(kept, "answer", call->answer);
	return kept;
}

void replay_keep(struct replay *replay, const struct api_call *call)
{
	json_t *kept = kept_of(call, json_object_get(replay->under_way, call->key));
	char *text = kept ? json_dumps(kept, JSON_COMPACT) : NULL;

	json_object_del(replay->under_way, call->key);
	/* what did not happen for want of something may be tried again */
	if (text && call->status < 500 && call->status != 429)
		store_put(replay->store, "key", call->key, text);
	free(text);
	json_decref(kept);
	if (++replay->puts % TIDY_AFTER == 0)
		store_trim(replay->store, "key",
			   events_wall_ms() - (int64_t)REPLAY_HOURS * HOUR_MS, REPLAY_KEPT,
			   REPLAY_BYTES);
	CHECK(check_replay(replay));
}
