/*
 * What is said on a connection, sealed and opened here (record.h), once umbra-wire has said
 * with which keys.
 *
 *  1. Of what has come: the data of one record that were not taken yet, then what was read of the
 *     records behind it, sealed.
 *   - What comes is of somebody who has the key, and hostile all the same: who sends a record of
 *     nothing, or of another kind than data or the end, is left.
 *   - An end that was not said is no end, but a loss: of both nothing more is received.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "secret.h"

enum { SEALED_RECORDS = 5 }; /* at once: a block, with its head, and what follows it */

struct wire_sealed {
	struct record_way from, to;
	bool was_refused; /* this side, by the other: it has not believed its certificate */
	size_t data, data_bytes; /* opened, of what was read */
	size_t next, end;        /* of what was read: sealed */
	uint8_t in[SEALED_RECORDS * RECORD_MOST_BYTES];
	uint8_t out[SEALED_RECORDS * (RECORD_DATA_BYTES + RECORD_MORE_BYTES)];
};

/* To be freed; NULL: no memory. */
struct wire_sealed *wire_sealed_make(const struct wire_keys *keys);
/* As they are now, for who goes on. */
struct wire_keys wire_sealed_keys(const struct wire_sealed *sealed);
/* All of it, or false: the connection is lost. */
bool wire_sealed_send(struct wire_sealed *sealed, int socket, const void *from, size_t bytes);
bool wire_sealed_receive(struct wire_sealed *sealed, int socket, void *to, size_t bytes);
/* One record, of no more than RECORD_DATA_BYTES, to sealed->out: how long it is; 0: none more may
 * be. */
size_t wire_sealed_seal(struct wire_sealed *sealed, const void *from, size_t bytes);
/* What a poll has seen, in one read. False: the connection is lost. */
bool wire_sealed_read(struct wire_sealed *sealed, int socket);
/* Of what is here, without waiting: how much; 0: nothing; -EBADMSG: there will be no more. */
ssize_t wire_sealed_take(struct wire_sealed *sealed, void *to, size_t most);
/* Whether something is here that can be received, or says why nothing can. */
bool wire_sealed_holds(const struct wire_sealed *sealed);
/* Nothing has come that was not received. */
bool wire_sealed_is_empty(const struct wire_sealed *sealed);
/* The end is said; then the other side's is waited for, so long. */
void wire_sealed_end(struct wire_sealed *sealed, int socket, unsigned ms);
/* Invariant 1. */
void check_wire_sealed(const struct wire_sealed *sealed);

/* The same as it is, of any socket. */
bool wire_send(int socket, const void *from, size_t bytes);
bool wire_receive(int socket, void *to, size_t bytes);
