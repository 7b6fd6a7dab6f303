/* umbra fork --to: a machine goes on at another place, where umbra listen waits for it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct fork_away {
	const char *to;    /* HOST:PORT; NULL: it stays here */
	const char *key;   /* the file with the key of both sides */
	uint64_t bytes_per_s; /* at most; 0: as fast as it goes */
	unsigned wait_s;   /* how long a connection that was lost may stay so */
};

enum { FORK_AWAY_WAIT_S = 60 };

/*
 * `name` becomes `child` there; its disks go on here in `folder` (NULL: beside them), and it ends
 * here when that is wished and done. Returns the exit code.
 */
int fork_away(const struct fork_away *away, const char *name, const char *child,
	      const char *folder, bool end);
