/*
 * A connection to the agent in a machine (abi/agent_layout.h), by the machine's socket. The agent
 * is the guest's, and may lie: a frame is checked before anything of it is used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/agent_layout.h"

enum { AGENT_HEAR_SECONDS = 60 };

/* What has come and was not looked at yet. */
struct agent_line {
	int fd;
	size_t used;
	uint8_t data[2 * (sizeof(struct agent_frame) + AGENT_FRAME_BYTES)];
};

/* A frame; its data are good until the next call. */
struct agent_said { uint32_t kind, bytes; const uint8_t *data; };

/*
 * 0; -ENOENT: no machine of that name; -ENOTCONN: it has no socket; -ECONNREFUSED: no agent
 * answers, also after asking again for wait_seconds: a guest that boots has none yet, and one that
 * is very busy may not have looked in the five seconds that its driver has; -errno.
 */
int agent_connect(const char *machine, unsigned wait_seconds, struct agent_line *ret);
void agent_close(struct agent_line *line);
/* Waits until it is out. 0 or -errno. */
int agent_say(struct agent_line *line, uint32_t kind, const void *data, size_t bytes);
/* What can be read now, without waiting. 0; -EPIPE: it has ended; -errno. */
int agent_receive(struct agent_line *line);
/* The next frame that is complete: 1; 0: there is none; -EPROTO. */
int agent_next(struct agent_line *line, struct agent_said *ret);
/* Waits for one. 1 or -errno. */
int agent_hear(struct agent_line *line, struct agent_said *ret);
/* As long as AGENT_HEAR_SECONDS, however it comes. 1; -ETIMEDOUT; -errno. */
int agent_hear_soon(struct agent_line *line, struct agent_said *ret);
/* Of FAILED: -errno. */
int agent_failure(const struct agent_said *said);
/* One line about why nothing came of it. Returns the exit code. */
int agent_complain(const char *machine, int error);
