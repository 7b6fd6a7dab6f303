/* What the files of machine_control.h have in common. */
#pragma once

#include "machine_control.h"

/* A line for a peer, which is released; one that finds no room is not said. */
void control_say(struct control_peer *peer, char *line);
/* Who waits for registers goes without them: the machine does not answer now. */
void control_refuse_lookers(struct control *control, int error, const char *reason);
/* This peer has the guest frozen no longer. */
void control_drop_freeze(struct control *control, const struct control_peer *peer);
/* Those who watch hear what the machine is now. */
void control_tell_watchers(struct control *control);

/* It has not taken all that it was said. */
static inline bool control_has_output(const struct control_peer *peer)
{
	return peer->out_at < peer->out_used;
}

/* A line with descriptors. False: it cannot be sent now, or the peer is gone. */
bool control_send_with(const struct control_peer *peer, const char *line, size_t bytes,
		       const int *fds, unsigned count);

/* ---- machine_forks.c: a machine that is forked, or stands still ---- */

/* What the connection has brought for children: kits; layers, which the disk process may have. */
void control_drop_kits(struct control_peer *peer);
/* What is left would be taken for what was lost: none of it is used. */
bool control_has_lost(struct control_peer *peer);
void control_drop_layers(struct control *control, const struct control_peer *peer);
void control_close_layers(struct control *control);
/* Its fork, if the machine was not told of it yet. */
void control_drop_fork(struct control *control, const struct control_peer *peer);
/* The machine goes on. */
void control_end_suspension(struct control *control);
/* It is gone: true when the machine stood for it, and is to be told to go on. */
bool control_drop_holder(struct control *control, const struct control_peer *peer);
/* The file has come last. 0 or -errno. */
int control_take_layer(struct control *control, struct control_peer *peer,
		       const struct control_request *request);
/* An answer is said, unless WISH_FORK is what the broker has to do. */
enum control_wish control_begin_fork(struct control *control, struct control_peer *peer,
				     const struct control_request *request);
/* A fork without children that leaves the machine standing. */
enum control_wish control_begin_pause(struct control *control, struct control_peer *peer,
				      const struct control_request *request);

/* ---- machine_wishes.c: forks that the guest asks for ---- */

/* This peer may have it forked. 0 or -EBUSY. */
int control_take_door(struct control *control, struct control_peer *peer,
		      const struct control_request *request);
/* It is gone: true when the machine is to be told that nothing comes of its wish. */
bool control_drop_door(struct control *control, const struct control_peer *peer);
/* A fork begins that the guest has asked for by this number. 0, -ECANCELED or -EINVAL. */
int control_begin_wish(struct control *control, uint64_t number, uint64_t child);
/* It is over: where nobody else will say what came of it, the machine is to be told. */
void control_wish_is_over(struct control *control, bool is_made);
enum control_wish control_end_wish(struct control *control, struct control_peer *peer,
				   const struct control_request *request);

/* ---- machine_disks.c ---- */

/* The file, and what lies beside it, have come last. 0 or -errno. */
int control_take_chain(struct control *control, struct control_peer *peer,
		       const struct control_request *request);
/* An answer is said, unless WISH_DISK is what the broker has to do. */
enum control_wish control_begin_change(struct control *control, struct control_peer *peer,
				       const struct control_request *request,
				       enum control_wish wish);
