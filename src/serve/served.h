/*
 * A disk that several connections use at once, and whose chain may change meanwhile: a snapshot
 * puts a child on top, a commit empties it. Requests share a lock; the moment of a change has it
 * alone. One long operation at a time.
 */
#pragma once

#include <pthread.h>

#include "disk/disk.h"

struct served {
	pthread_rwlock_t lock;
	struct disk *top; /* under lock */
	pthread_mutex_t job; /* who changes the chain */
	/* stop: set by a signal or by a client of the control socket; atomic */
	bool read_only, stop;
	/*
	 * NULL, or asked before a change of the chain: 0, or -EPERM with *error; and told of it
	 * afterwards
	 */
	int (*admit)(struct disk *disk, const char *what, struct disk_error *error);
	void (*note)(struct disk *disk, const char *what);
	uint64_t longest_alone_ns; /* how long requests waited at most for a change */
};

int served_init(struct served *served, struct disk *top, bool read_only);
/* Closes the disk. */
int served_end(struct served *served);

/* nbd.c: one connection until it ends. The peer is hostile. */
void nbd_serve(struct served *served, int fd);
/*
 * control.c: one connection of `umbra disk ... --socket`: a JSON object a line, answered by lines
 * (docs/disk.md).
 */
void control_serve(struct served *served, int fd);
/* server.c: listens on both sockets until told to stop. 0 or -errno. */
int serve(struct served *served, const char *nbd_path, const char *control_path);
