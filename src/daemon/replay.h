/*
 * Idempotency keys: a request that changes something and brings a key is done once, and its answer
 * is given again to whoever brings the same key with the same request.
 *
 *  1. A key stands for a method, a path and arguments: with others it is refused.
 *  2. A key is kept for REPLAY_HOURS, at most REPLAY_KEPT of them: then the oldest go.
 */
#pragma once

#include "api.h"
#include "store/store.h"

enum { REPLAY_HOURS = 24, REPLAY_KEPT = 10000, REPLAY_KEY_BYTES = 128 };

struct replay {
	struct store *store;
	json_t *under_way; /* keys of calls that are not answered */
	unsigned puts;     /* since the old ones went */
};

enum replay_news { REPLAY_NEW, REPLAY_ANSWERED, REPLAY_REFUSED };

void replay_open(struct replay *replay, struct store *store);
void replay_close(struct replay *replay);
/*
 * NEW: the call is to be run, and replay_keep() told of its answer. ANSWERED, REFUSED: it has been
 * answered.
 */
enum replay_news replay_begin(struct replay *replay, const char *key, struct api_call *call);
void replay_keep(struct replay *replay, const char *key, const struct api_call *call);
