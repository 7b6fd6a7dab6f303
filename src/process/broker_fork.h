/*
 * The broker's part of forks: its machine stands still, and is forked once for each kit.
 *
 *   idle -> standing ------> asked ------> copying ------> (next kit) asked ... -> held -> idle
 *           the machine      the forker    the child still       the machine may go on
 *           was told to      was           looks at the parent
 *
 *  1. While it is not idle the machine is told nothing but to go on: what it holds is copied.
 *  2. Who was forked is known by the kernel's word (forker_hear()), and is not waited for
 *     meanwhile, so that its number is its own.
 *  3. The first who speaks is the forker.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "ipc/forker.h"

enum fork_state { FORK_IDLE, FORK_STANDING, FORK_ASKED, FORK_COPYING, FORK_HELD };

struct fork {
	enum fork_state state;
	bool has_forker;
	pid_t forker, child;
	unsigned wanted, made;
	int error; /* of FORK_DONE */
	int kit[FORK_CHILDREN][KIT_FDS];
};

/* What a turn has come to. */
enum fork_news {
	FORK_NOTHING_NEW,
	FORK_CHILD, /* one more is there: fork->child */
	FORK_DONE,  /* all are, or it went wrong: fork->error */
};

void fork_init(struct fork *fork, bool has_forker);
/* kits: of `count` forks; they are the fork's from now on. The machine is told to stand still. */
void fork_begin(struct fork *fork, const int *kits, unsigned count);
/* It stands still, or cannot: error. */
enum fork_news fork_stands(struct fork *fork, int error);
/* What to poll for; -1: nothing. */
int fork_socket(const struct fork *fork);
int fork_pipe(const struct fork *fork);
/* The socket, or the pipe, has something. After FORK_CHILD: fork_next(). */
enum fork_news fork_hear(struct fork *fork);
enum fork_news fork_ready(struct fork *fork);
enum fork_news fork_next(struct fork *fork);
/* The machine goes on, or is gone. */
void fork_end(struct fork *fork);
