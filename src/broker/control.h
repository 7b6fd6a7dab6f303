/*
 * The control socket of a machine, on the broker's side: one peer at a time, who is the user (the socket's folder is his alone), asks in
 * lines and is answered in lines.
 *
 *   info     ok TEXT            what the machine is, as broker_options.description has it
 *   stop     ok                 as SIGTERM; the connection ends with the machine
 *   kill     ok                 at once
 *   save     data N, N bytes    as often as needed, the machine stands still meanwhile; then
 *            held               everything was said: it stands still until go or stop, or until the peer is gone; or
 *            error N            -errno: it runs
 *   go       ok                 after held
 *   others   error N            EINVAL, or EBUSY for a save in a save
 *
 *  1. Once there is no room for one more record here, what the machine has said goes out before more of it is taken.
 *  2. A peer that goes away lets the machine go on; what it was being told is thrown away.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"

enum { CONTROL_LINE_BYTES = 64, CONTROL_RECORDS = 16, CONTROL_OUT_BYTES = (CONTROL_RECORDS + 1) * (RING_RECORD_MAX_BYTES + CONTROL_LINE_BYTES) + 4096 };
enum control_save { SAVE_NONE, SAVE_RUNS, SAVE_HELD };
/* What the broker has to do about a line. */
enum control_wish { WISH_NOTHING, WISH_STOP, WISH_KILL, WISH_SAVE, WISH_RESUME };

struct control {
	int listener, peer; /* -1: none */
	const char *description;
	enum control_save save;
	bool peer_saves; /* this peer asked for it; else it has gone, and nobody hears of the rest */
	char line[CONTROL_LINE_BYTES];
	size_t line_used;
	uint8_t out[CONTROL_OUT_BYTES];
	size_t out_at, out_used;
};

void control_init(struct control *c, int listener, const char *description);
/* There is no room for another record. */
bool control_is_full(const struct control *c);
/* Something has to go out, and no line is read before it has. */
bool control_has_output(const struct control *c);
/* A line was read that waits for its turn. */
bool control_has_line(const struct control *c);
/* The machine has ended: what can go out at once goes, and the peer is left. */
void control_end(struct control *c);
/* Somebody connects. */
void control_accept(struct control *c);
/* The peer can be read (or is gone), or written. */
enum control_wish control_read(struct control *c);
enum control_wish control_write(struct control *c);
/* What the machine says of a save: bytes, and the end with 0 or -errno. False: nobody has asked for one. */
bool control_saved(struct control *c, const uint8_t *data, uint32_t bytes);
bool control_save_ended(struct control *c, int error, enum control_wish *ret);
