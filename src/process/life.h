/*
 * The life of a machine as its broker sees it: one state, one deadline, one function that moves it.
 *
 *   starting ── running ──────────────────────────────┐
 *      │           │ asked to power off               │ says its end
 *      └──── asking ── powering off ── stopping ──────┤
 *              0.5 s       30 s          0.5 s        ended ── killed ── gone
 *                                          └──────── 10 s ──────┘
 *
 *  1. A state is left only along the table's edges, and never towards an earlier one.
 *  2. A state with a time has a deadline, and no other has; when it is over, life goes on with the
 *     state that the table says.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum life_state {
	LIFE_STARTING,     /* the machine process is being made */
	LIFE_RUNNING,      /* its guest runs */
	LIFE_ASKING,       /* the machine process was told to have its guest powered off */
	LIFE_POWERING_OFF, /* the guest was asked */
	LIFE_STOPPING,     /* the machine process was told to stop */
	LIFE_ENDED,        /* it has said how it ended */
	LIFE_KILLED,       /* it was killed */
	LIFE_GONE,         /* it is no more */
	LIFE_STATES,
};

struct life { enum life_state state; uint64_t deadline_ms; /* of CLOCK_MONOTONIC; 0: none */ };

/* Whether the state can be reached from here. */
bool life_can_move(const struct life *life, enum life_state to);
/* life_can_move() has to be true. */
void life_move(struct life *life, enum life_state to, uint64_t now_ms);
/* The state that follows, when the deadline is over; else the state itself. */
enum life_state life_due(const struct life *life, uint64_t now_ms);
const char *life_name(enum life_state state);
/* Invariants 1 and 2, for tests and builds that check. */
void check_life(const struct life *life);
