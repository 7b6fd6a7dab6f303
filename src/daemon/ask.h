/*
 * One question to a running machine, on a connection of its own to its control socket
 * (control/protocol.h), without waiting for it.
 *
 *  1. `answered` is called once, after which the question is no more: with the answer's object, or
 *     NULL when the machine is gone, says what is none, or nothing until the deadline.
 */
#pragma once

#include <jansson.h>

#include "loop.h"

struct ask {
	struct loop *loop;
	const char *machine;
	const char *line; /* {"id":1,"do":...}, and its end */
	uint64_t deadline_ms;
	void (*answered)(void *context, json_t *answer);
	void *context;
};

/* 0; -ENOENT: no such machine; -errno: answered is not called then. */
int ask_machine(const struct ask *ask);
