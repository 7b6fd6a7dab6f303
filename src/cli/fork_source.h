/*
 * What a machine is restored from, read from a process that was forked from it and never runs
 * (vm/machine.h, machine_serve()), and what this side knows of the host behind it
 * (vm/saved_file.h). Nothing of it lies in a file.
 *
 *  1. That process is taken for lost: what it says is checked as a peer's, and who waits for it
 *     does so for SILENCE_MS and no longer.
 *  2. It ends with its forker, and that with the sockets of its kit: with this process at the
 *     latest.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/record_ring.h"
#include "lib/brief_wait.h"

struct fork_source {
	struct broker_memory *memory;
	struct ring_end from_machine, to_machine;
	int event, pidfd; /* the event from it; the process */
	struct brief_wait wait; /* for what it says: it answers at once */
	uint64_t machine_bytes, parts_at, bytes; /* bytes: with the host part */
	uint8_t *host; /* what lies behind the machine */
};

/*
 * Once it is forked, to serve. rings: as broker_make_rings() has made them. most_bytes: more is a
 * lie. host_text: NULL: none. has_bus: as its broker says, or it is a lie. All descriptors stay the
 * caller's. 0; -EBADMSG: it lies; -EIO: it is gone, or silent; -errno, as it was said.
 */
int fork_source_open(struct fork_source *source, const int rings[3], int pidfd, uint64_t most_bytes,
		     bool has_bus);
/* What comes behind the machine: a host part, or nothing. 0 or -ENOMEM. */
int fork_source_add_host(struct fork_source *source, const char *host_text);
/* All of these bytes, of `bytes`. 0, or as above. */
int fork_source_read(struct fork_source *source, uint64_t at, uint8_t *to, size_t bytes);
void fork_source_close(struct fork_source *source);
