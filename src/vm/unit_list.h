/*
 * The units of one machine (lib/unit.h), in one list. This is the only place that says in which
 * order things happen to them:
 *
 *   forwards, as they were added     reset, run, archive, restored, stood, tick, resume
 *   backwards                        pause, stop, destroy
 *
 *  1. A unit is added after those that it uses. So the chipset comes first, then the bus, its
 *     devices, the Hyper-V partition, the processors; and what stops or pauses first is what makes
 *     others work.
 *  2. Every thread of a unit exists before one of them is in run().
 *  3. All units are in one stage, and each call is right in some of them only, which it asserts:
 *
 *       made --start--> started --release--> run <--pause, resume--> paused
 *                                                    paused --forked--> forked --release--> paused
 *
 *     and from each of them stopped, for good: who ends the machine waits for nobody, so what comes
 *     on another thread at that moment finds it so, and changes nothing of the stage.
 */
#pragma once

#include <pthread.h>

#include "lib/unit.h"
#include "thread.h"

enum { UNITS_MAX = 128 };

struct unit {
	const struct unit_ops *ops;
	void *self;
	uint32_t number; /* among those of its kind */
	struct unit_list *list;
	struct thread thread;
	bool loaded;
};

enum unit_stage {
	UNITS_MADE, UNITS_STARTED, UNITS_RUN, UNITS_PAUSED, UNITS_FORKED, UNITS_STOPPED,
	UNIT_STAGES
};

struct unit_list {
	struct unit unit[UNITS_MAX];
	unsigned count;
	enum unit_stage stage; /* atomic */
	pthread_barrier_t started, released;
};

void unit_add(struct unit_list *list, const struct unit_ops *ops, void *self, uint32_t number);
/* The one of a section in a saved machine; NULL. */
struct unit *unit_find(struct unit_list *list, uint32_t section, uint32_t number);
/* Whether units of this section are numbered; also false where there is none. */
bool unit_is_numbered(const struct unit_list *list, uint32_t section);
void units_reset(struct unit_list *list);
/* Makes their threads, which wait. 0, or -errno: then the process is to end. */
int units_start(struct unit_list *list);
/*
 * They run from now on; of a forked machine once they are resumed. Waits for nothing that has the
 * machine's lock.
 */
void units_release(struct unit_list *list);
/*
 * In a machine that was forked while all were paused: nobody holds a lock any more. Their threads
 * are there again with units_release().
 */
void units_forked(struct unit_list *list);
void units_pause(struct unit_list *list);
void units_resume(struct unit_list *list);
/* Returns when no thread of theirs is left. */
void units_stop(struct unit_list *list);
void units_destroy(struct unit_list *list);
void units_restored(struct unit_list *list);
void units_stood(struct unit_list *list, uint64_t ns);
void units_tick(struct unit_list *list, unsigned seconds);
size_t units_statistics(const struct unit_list *list, char *text, size_t bytes);
/* Invariants 1 and 3 as far as they can be seen, and what a list has to be. */
void check_units(const struct unit_list *list);
