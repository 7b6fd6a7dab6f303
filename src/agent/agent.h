/* What the agent does for one connection, whose first frame was read. */
#pragma once

#include "line.h"

/* A program, until it has ended (exec.c). True: the connection may be used again. */
bool agent_exec(int fd, const struct line_frame *frame);
/* What a machine that was forked has anew (twin.c). */
void agent_share(int fd, const struct line_frame *frame);
void agent_twin(int fd, const struct line_frame *frame);
/* Files (copy.c). */
void agent_put(int fd, const struct line_frame *frame);
void agent_get(int fd, const struct line_frame *frame);
