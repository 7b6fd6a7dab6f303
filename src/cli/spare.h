/*
 * The processes of a machine that arrives, begun before it does (ipc/early.h): a broker with a
 * machine process and a pager, each loaded, and without an idea of what for.
 */
#pragma once

#include "ipc/early.h"
#include "process/plan.h"

struct saved_arrival;

/*
 * broker.line: -1: it has not begun, or is given away. begun: a moment before a machine comes, from
 * which its clock is measured; zeros: none.
 */
struct spare { struct early broker; struct cpu_host host; struct machine_moment begun; };

/* A session of its own, as of umbra run --detach. 0 or -errno. */
int spare_begin(struct spare *ret);
/*
 * In a process of its own, as umbra run --restore FILE --name NAME --detach, with the line by which
 * is said what there is of the file: the machine goes on in them. ports: what it has if it has
 * such. Once it runs, or has said on standard error why not: 0 or the exit code.
 */
int spare_restore(struct spare *spare, const char *file, const char *name, int pages,
		  const struct saved_arrival *arrival, const struct share_plan *ports);
