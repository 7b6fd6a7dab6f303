/*
 * A connection to another host's Umbra, which is kept secret and whole (src/wire): with a key that
 * both sides have, or with certificates of an authority that both believe. umbra-wire shakes hands;
 * then what is said goes through it, or, of a line that was begun in steps (below), is sealed and
 * opened here, where that can be.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire/sealed.h"

enum { WIRE_KEY_BYTES = 32, WIRE_PATIENCE_S = 20 };

/* What umbra-wire is given by a pipe (wire/secret.h). */
struct wire_secret { size_t bytes; uint8_t data[WIRE_SECRET_BYTES]; };

/* Files, in PEM; NULL: not given. key: nobody else's to read. */
struct wire_certificates { const char *certificate, *key, *authority; };

/*
 * socket: what is said comes and goes by it, but not as it is: see wire_line_holds(). process:
 * umbra-wire; 0: it is somebody else's. sealed: what seals here; NULL: umbra-wire does.
 * connection: -1, or its own until hands are shaken, and while the pager has it. plain: -1, or what
 * umbra-wire ends with once it has nothing left to do.
 */
struct wire_line { int socket, connection, plain; pid_t process; struct wire_sealed *sealed; };

/* A key that both sides have: a file of 64 hexadecimal digits, nobody else's to read. */
int wire_key_read(const char *path, struct wire_secret *ret);
/*
 * Of a key's file (NULL: none), or of certificates, all three; both or neither is refused. host:
 * what the other side's certificate has to be of; "": it is a client's.
 */
int wire_secret_read(const char *key, const struct wire_certificates *certificates,
		     const char *host, struct wire_secret *ret);
/* Makes a key, where there is no file yet. All: 0 or the exit code. */
int wire_key_make(const char *path);
/* Of a connection, before it is opened: what is sent does not wait in long queues, and one whose
 * other side is gone ends. */
void wire_line_tune(int connection);
/*
 * On a connection, which is closed here in any case. 0; -EACCES: the other side has another key, or
 * is not believed; -ECONNRESET: it is gone; -ENOENT: umbra-wire is not there; -errno.
 */
int wire_line_open(int connection, bool accepts, const struct wire_secret *secret,
		   struct wire_line *ret);
/*
 * The same in two steps, between which something else can be done: -ENOENT, -errno; then, of one
 * that was begun: 0, -EACCES, -ECONNRESET, and with an error it is closed.
 */
int wire_line_begin(int connection, bool accepts, const struct wire_secret *secret,
		    struct wire_line *ret);
int wire_line_finish(struct wire_line *line);
/*
 * umbra-wire for a connection that this side opens, before there is one and the secret is known: it
 * loads meanwhile. Then it is given both, and goes on as one that was begun; the connection is
 * closed here in any case. 0 or -errno; -ECONNRESET: it has ended. One that is not needed is ended
 * by wire_line_close().
 */
int wire_line_begin_early(struct wire_line *ret);
int wire_line_give(struct wire_line *line, int connection, const struct wire_secret *secret);
/*
 * Of a socket that listens, and does not block; it stays open here. Ready but for a connection:
 * wire_line_finish() returns when there is one (-ECONNRESET: umbra-wire has ended), and the next
 * time as above. 0 or -errno.
 */
int wire_line_listen(int listener, const struct wire_secret *secret, struct wire_line *ret);
/* From now on one whose other side takes or says nothing for WIRE_PATIENCE_S is lost. */
void wire_line_be_patient(const struct wire_line *line);
/* Whether something has come that a poll of the socket does not say. */
bool wire_line_holds(const struct wire_line *line);
/*
 * To another process, by a socket between them, of which nothing that has come may be left unread;
 * who takes it closes it, and who has passed it forgets it. False: it did not come there.
 */
bool wire_line_pass(const struct wire_line *line, int socket);
bool wire_line_take(int socket, struct wire_line *ret);
/*
 * To the pager (process/pager_connection.h): what is said goes by `socket` from now on, as it is,
 * and what comes, too. Where that can be: it is sealed here, and nothing that has come is unread.
 */
bool wire_line_can_be_handed(const struct wire_line *line);
struct wire_keys wire_line_hand(struct wire_line *line, int socket);
/*
 * It is back, with these keys: the socket, of which all that has come is to be received first; or
 * -1: no memory.
 */
int wire_line_hand_back(struct wire_line *line, const struct wire_keys *keys);
/* All of it, or false: the connection is lost. */
bool wire_line_send(const struct wire_line *line, const void *from, size_t bytes);
bool wire_line_receive(const struct wire_line *line, void *to, size_t bytes);
/*
 * Once the other side has ended it, too, or has not for some seconds. -EACCES: this side was not
 * believed there; else -ECONNRESET.
 */
int wire_line_close(struct wire_line *line);
