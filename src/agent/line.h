/*
 * The agent's end of one connection: frames (abi/agent_layout.h), each read and written whole.
 * Whoever is at the other end is the host, which may do with its guest what it wants: what it says
 * is checked so that a mistake ends a connection, and not the agent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/agent_layout.h"

struct line_frame { struct agent_frame head; uint8_t data[AGENT_FRAME_BYTES]; };

/* False: the connection has ended, or said what cannot be. */
bool line_read(int fd, struct line_frame *ret);
bool line_write(int fd, uint32_t kind, const void *data, size_t bytes);
/* A number; an error is one, too. */
bool line_write_number(int fd, uint32_t kind, uint32_t number);
/*
 * The text at *at of a frame, which ends within it; *at: behind it. NULL: there is none.
 */
const char *line_text(const struct line_frame *frame, size_t *at);
bool write_whole(int fd, const void *data, size_t bytes);
