/* Work on a hostile disk in a process of its own. */
#pragma once

#include <jansson.h>

/*
 * Runs work(context, pipe) in a process that has the caller's open descriptors and may do nothing
 * but read them, allocate memory, and write into the pipe, with limits on memory and time; it ends
 * with what work() returns (0: good). Meanwhile take(context, pipe) reads at the pipe's other end:
 * what comes is hostile. What take() returns, -EBADMSG where the work came to nothing, or -errno.
 * prepare() is called in the process before it is locked down; NULL: nothing to do.
 */
struct sandbox {
	void (*prepare)(void);
	int (*work)(void *context, int pipe);
	int (*take)(void *context, int pipe);
	void *context;
};
int sandbox_run(const struct sandbox *sandbox);
/* For take(): what comes, at most `most` bytes, is one JSON object. Or -EBADMSG. */
int sandbox_take_json(int pipe, unsigned long most, json_t **ret);
/* All of it. 0, or -EIO. */
int sandbox_write(int pipe, const void *data, unsigned long bytes);
