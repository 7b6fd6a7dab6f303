/*
 * Idempotency keys: a request that changes something and brings a key is done once, and its answer
 * is given again to whoever brings the same key with the same request.
 *
 *  1. A key stands for an operation and its arguments as they came: with others it is refused.
 *  2. A key is kept for REPLAY_HOURS, at most REPLAY_KEPT of them, in REPLAY_BYTES: then the oldest
 *     go. (Until the next TIDY_AFTER have come there may be more.)
 *  3. Of an answer of more than REPLAY_ANSWER_BYTES only that it was given is kept.
 *  4. What is under way are keys that are ones, and the digest of what each stands for.
 *  5. The answer is kept when it is there, also if who asked has gone meanwhile.
 */
#pragma once

#include "api.h"
#include "store/store.h"

enum { REPLAY_HOURS = 24, REPLAY_KEPT = 10000, REPLAY_KEY_BYTES = 128 };
enum { REPLAY_ANSWER_BYTES = 16 << 10, REPLAY_BYTES = 8 << 20 };

struct replay {
	struct store *store;
	json_t *under_way; /* by the keys of calls that are not answered: what they stand for */
	unsigned puts;
};

enum replay_news { REPLAY_NEW, REPLAY_ANSWERED, REPLAY_REFUSED };

void replay_open(struct replay *replay, struct store *store);
void replay_close(struct replay *replay);
/*
 * Of the call's key. NEW: the call is to be run, and replay_keep() told of its answer. ANSWERED,
 * REFUSED: it has been answered, and has no key any more.
 */
enum replay_news replay_begin(struct replay *replay, struct api_call *call);
void replay_keep(struct replay *replay, const struct api_call *call);
void check_replay(const struct replay *replay);
