/*
 * A process of the command behind a WebSocket: the console of a machine, or a program in it.
 *
 * Each message is binary, and its first byte says what it is:
 *
 *   from the client  0  input; without more, the end of the input
 *                    4  the terminal's size: {"rows":24,"columns":80}
 *   to the client    1  output        2  errors (without a terminal)
 *                    3  the end, and the last message: {"code":0}
 *
 *  1. A client that goes away ends the process (SIGHUP).
 *  2. A client that does not read has the process wait, and a process that does not read has the
 *     client wait: of neither more than STREAM_BYTES are held.
 */
#pragma once

#include "loop.h"

enum { STREAM_BYTES = 1 << 18 };

struct process_stream_plan {
	struct loop *loop;
	int socket; /* not blocking */
	const void *begin; /* what the client has sent already */
	size_t begin_bytes;
	const char *program;
	char *const *arguments;
	bool has_terminal;
	unsigned rows, columns; /* 0: not said */
	void (*ended)(void *context); /* after it the stream is no more */
	void *context;
};

/*
 * 0: `ended` is called once, at once if the first frames end it. -errno: it is not called, and the
 * socket is the caller's.
 */
int process_stream_start(const struct process_stream_plan *plan);
