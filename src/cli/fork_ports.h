/*
 * The ports of a machine that is forked (ipc/share_port.h), on the user's side: memory and events
 * of a child's, and whether they have a place at the hub.
 *
 * A child has ports of its parent's kinds. Without --serve and --bind nobody is at them: their
 * memory says no side, and nobody has the other end of the lines by which windows come. With
 * these, as many and of the same kinds, each is joined by the child's name: a joiner of its
 * broker's has the other end.
 */
#pragma once

#include <jansson.h>

#include "ipc/forker.h"
#include "ipc/spawn.h"
#include "process/plan.h"

/* kind: of the parent's; `given`: of --serve and --bind. */
struct fork_ports { unsigned count; uint8_t kind[SHARE_PORTS]; struct share_plan given; };

/* One child's: what its broker is given for who joins them; -1. */
struct child_ports {
	unsigned count;
	struct share_plan plan; /* of those that are joined */
	int memory[SHARE_PORTS], bell[SHARE_PORTS], answer[SHARE_PORTS], line[SHARE_PORTS];
};

/* What umbra info says of a machine's ports. 0 or -errno. */
int fork_ports_describe(const uint8_t kind[SHARE_PORTS], json_t *machine);
/* From what info has said. 0 or the exit code. */
int fork_ports_learn(struct fork_ports *ports, const char *machine, const json_t *info);
/* A child's, and their part of the kit; name: NULL: of one that never runs. 0 or the exit code. */
int fork_ports_of_child(const struct fork_ports *ports, const char *name, struct child_ports *ret,
			int kit[KIT_PORT_FDS * SHARE_PORTS]);
/* Before they are made. */
void child_ports_begin(struct child_ports *ports);
/* What its broker is given. */
void child_ports_give(const struct child_ports *ports, struct grants *ret);
void child_ports_close(struct child_ports *ports);
