/*
 * A folder that is served to a guest: what its kernel asks of it (FUSE 7.31 and later) comes in
 * frames of the agent's line (abi/agent_layout.h), one message in as many as it needs, and is
 * answered the same way.
 *
 *   request  { u32 bytes, u32 operation, ... } body      the tree (tree.h)      answer
 *
 *   - Who asks is the guest, or whoever has taken over its agent: lengths are checked against what
 *     came, names and numbers in the tree. What is no request ends the service.
 *   - One request at a time, in their order: nothing else has to be kept.
 *
 *   - What the guest may believe without asking, and how long, is said with each answer: names,
 *     that there is none, attributes for a second, bytes as long as time and size are the same.
 *
 * Left out: locks, extended attributes, special files, notifications of what changes on the host
 * (the guest looks again after a second).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FOLDER_DATA_BYTES = 128 << 10, /* of one read or write */
	FOLDER_MESSAGE_BYTES = FOLDER_DATA_BYTES + (4 << 10)
};

struct folder_server;

/* alone: nobody else changes the folder, so that what is said of it holds long. NULL: no memory. */
struct folder_server *folder_server_create(int folder, bool read_only, bool alone);
void folder_server_destroy(struct folder_server *server);
/*
 * One request of so many bytes: how many the answer has, in *ret; 0: there is none; -EBADMSG: it is
 * no request.
 */
int folder_server_answer(struct folder_server *server, const void *request, size_t bytes,
			 const uint8_t **ret);
/* Until the line ends: 0; -EBADMSG; -errno. */
int folder_server_run(struct folder_server *server, int line);
