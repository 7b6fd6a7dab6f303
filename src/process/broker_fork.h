/*
 * The broker's part of forks: its machine stands still, and is forked once for each kit.
 *
 *   idle -> standing ---> asked ----> copying ---> ready ---> (next kit) asked ... -> held -> idle
 *           the machine   the forker  the child    disks get    layering: the same,   the machine
 *           was told to   was asked   looks at     layers,      and there is no       may go on
 *           |                         the parent   yet          child
 *           +-> left: nobody waits for it any more; once it stands it may go on
 *
 *  1. Who is being made is one of those that were wanted, and what only he holds (his end of the
 *     pipe) is not held here once he is known.
 *  2. Of layers no more have answered than were asked, and no more settle than are on.
 *
 *   - While it is not idle the machine is told nothing but to go on: what it holds is copied.
 *     Once the last child is there, and disks have their layers, only translated code is: the
 *     machine goes on, but for that. It hears of nothing else yet, so that who listens there does
 *     not wait for code, which he is told is free.
 *   - Who was forked is known by the kernel's word (forker_hear()), and is not waited for
 *     meanwhile, so that its number is its own: it may have ended before this process hears of it.
 *   - The first who speaks is the forker.
 *   - Nobody is waited for without end, since all of them may be lost. A child that does not say
 *     within step_ms that it needs its parent no more is none. A forker that does not say within
 *     that whom it has made is never asked again: what it makes later has nobody, and ends. Of a
 *     machine that does not stand by then, and of disks that have no layers after
 *     FORK_LAYERS_STEPS as long, whoever asked hears so; the broker goes on to wait for these,
 *     since they do it yet, and can be told to stop meanwhile as always.
 *   - Memory of a machine that is still to come has its own limits (cli/arrival.h): while it comes
 *     the machine may take its time to stand.
 *   - Disks get their layers (layer.h) while the first child is made: the machine stands, so that
 *     all that it is forked with is beneath them. Nobody hears of the child, and the machine does
 *     not go on, before all have. They are settled while the machine goes on; after
 *     FORK_SETTLE_STEPS as long whoever asked hears that they are not, and they settle yet.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/machine_control.h"
#include "ipc/forker.h"
#include "layer.h"

enum fork_state {
	FORK_IDLE,
	FORK_STANDING,
	FORK_LEFT,
	FORK_LAYERING,
	FORK_ASKED,
	FORK_COPYING,
	FORK_READY,
	FORK_HELD
};

enum { FORK_STEP_MS = 30000, FORK_LAYERS_STEPS = 2, FORK_SETTLE_STEPS = 20 };

struct fork {
	enum fork_state state;
	unsigned step_ms;
	uint64_t until_ms; /* this state may last for so long; 0: without end, or not begun */
	bool has_forker, has_disks;
	bool forker_is_silent; /* it was asked, and has not answered in time */
	bool is_told; /* whoever asked knows already that nothing comes of it */
	unsigned cards, ports; /* of the machine */
	struct control *control; /* which has the layers, and is told what became of them */
	unsigned asked, answered, unsettled; /* of the layers */
	int layer_error, settle_error;
	uint64_t settle_until_ms; /* as until_ms, of layers that settle, in whatever state */
	bool settling_is_left; /* nobody waits for that any more */
	int failed; /* there is no child, and layers are still to come */
	pid_t forker, child;
	unsigned wanted, made;
	int error; /* of FORK_DONE */
	int kit[FORK_CHILDREN][KIT_MOST_FDS];
};

/* What a turn has come to. */
enum fork_news {
	FORK_NOTHING_NEW,
	FORK_CHILD, /* one more is there: fork->child */
	FORK_COPIES, /* the last one copies code, and needs nothing else of the machine */
	FORK_DONE,  /* all are, or it went wrong: fork->error */
};

/* The control says how many descriptors a kit has. */
void fork_init(struct fork *fork, struct control *control, bool has_forker, bool has_disks);
/* kits: of `count` forks; they are the fork's from now on. The machine is told to stand still. */
void fork_begin(struct fork *fork, const int *kits, unsigned count);
/* It stands still, or cannot: error. */
enum fork_news fork_stands(struct fork *fork, int error);
/* Somebody is being forked, perhaps already there. */
bool fork_is_making(const struct fork *fork);
/* What to poll for; -1: nothing. */
int fork_socket(const struct fork *fork);
int fork_pipe(const struct fork *fork);
int fork_layers_socket(const struct fork *fork);
/* The socket, or the pipe, has something. After FORK_CHILD: fork_next(). */
enum fork_news fork_hear(struct fork *fork);
enum fork_news fork_ready(struct fork *fork);
/* At this time: whoever is waited for may have had enough of it. After each turn. */
enum fork_news fork_look_at_time(struct fork *fork, uint64_t now_ms);
/* The disk process has said something: *ret, which may be about something else. */
enum fork_news fork_hear_layers(struct fork *fork, struct layer_answer *ret);
/* The machine is gone, and so is the disk process: what that has said of settled layers. */
void fork_hear_settled(struct fork *fork);
enum fork_news fork_next(struct fork *fork);
/* Instead of fork_next(): nobody has taken the child, and so no other is made. FORK_DONE. */
enum fork_news fork_not_taken(struct fork *fork);
/* The machine goes on, or is gone. */
void fork_end(struct fork *fork);
/* Invariants 1 and 2. */
void check_fork(const struct fork *fork);
