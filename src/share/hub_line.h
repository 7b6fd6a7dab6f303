/* A line to the hub: messages of wire.h with descriptors. */
#pragma once

#include <stdbool.h>

#include "wire.h"

/* -errno */
int line_connect(const char *path);
/* 0 or -errno; -EAGAIN: who reads there does not. */
int line_send(int line, const struct wire_message *message, const int *fds, unsigned count);
/*
 * 1: a message, in fds[] its descriptors, -1 where there are fewer; 0: none now; -EPIPE: the other
 * end is gone; -EBADMSG, -errno.
 */
int line_receive(int line, struct wire_message *ret, int fds[WIRE_FDS], bool waits);
