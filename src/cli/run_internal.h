/* What a user says to umbra run, and what is made of it. */
#pragma once

#include "cli.h"
#include "detach.h"
#include "ipc/spawn.h"
#include "net_option.h"
#include "process/plan.h"
#include "seed_option.h"
#include "share_option.h"

struct run_options {
	const char *kernel, *initrd, *append, *memory, *cpus, *console, *debug_exit, *hv, *name,
		*restore, *pages_from, *memory_min, *image, *socket;
	const char *cpu_model, *mitigations, *host_mask, *overhead, *time_limit;
	const char *debug_mmu, *debug_code;
	const char *guest_forks; /* NULL: its guest has it not forked */
	bool statistics, test_device, display, no_bus, detach, secrets, debug_copies, perf_map;
};

struct saved_arrival;

struct run {
	struct run_options options;
	struct plan *plan;
	struct grants grants;
	struct net_options nets;
	struct seed_options seed;
	const char *console_path; /* NULL: no file */
	char own_console[PLAN_SOCKET_BYTES];
	struct detach detach;
	const struct cpu_host *host; /* NULL: it is still to be found */
	const struct saved_arrival *arrival; /* NULL: it does not arrive (saved_host.h) */
	bool has_layers; /* that were made for it alone */
	bool ports_are_offered; /* they are for one that has such, and for no other */
	pid_t broker; /* this process, or one that was begun before (spare.h) */
};

/*
 * Fills run->options, and of the plan, the networks and the seed what needs no look at any file.
 * --help ends the process. 0 or an exit code.
 */
int run_parse(struct run *run, int argc, char **argv);
/* What its broker is given. 0 or an exit code. */
int run_prepare(struct run *run);
/* Of one that does not run: the files that its disks were to go on in. */
void run_remove_layers(const struct run *run);
