/* Inside the machine process: what its main and what it was given have in common. */
#pragma once

#include <pthread.h>

#include "ipc/code_listing.h"
#include "ipc/forker.h"
#include "ipc/port_window.h"
#include "ipc/record_ring.h"
#include "plan.h"
#include "vm/machine.h"

struct process {
	const struct plan *plan;
	struct broker_memory *rings;
	struct block_memory *slots; /* NULL: the machine has no bus */
	struct machine_connections connections;
	struct machine_card card[NET_CARDS];
	struct port_window window[SHARE_PORTS];
	struct share_memory *port[SHARE_PORTS];
	unsigned ports;
	unsigned cards;
	struct ring_end to_broker, from_broker;
	int rights_error; /* of giving them up */
	struct machine *machine;
	pthread_t listener, saver;
	/* where threads go on in what is forked */
	struct fork_place main_place, listener_place, saver_place;
	struct sock_fprog calls; /* with its forker's the list of a machine process */
	struct sock_fprog forkers_calls;
	/* A thread's first system calls are not in the list: it must be through them before
	 * lock-down. */
	pthread_barrier_t listening;
	pthread_mutex_t saving; /* of the next four lines */
	pthread_cond_t save_ready;
	bool save_wanted, fork_wanted, units_wanted, show_wanted, list_wanted;
	bool saver_rests; /* it does nothing, and holds nothing */
	struct listing_wanted listing;
	uint64_t told_keys; /* machine_state.key_changes of what the broker knows */
	pthread_mutex_t ring; /* the ring to the broker: processors and listener */
};

/* machine_grants.c; false: it was not given what it needs */
bool process_take_rings(struct process *process);
/* What its devices share with those who serve them: the network cards from the first on. */
bool process_take_devices(struct process *process, grant_set here);
/* What was forked has others, of the same kinds: who is at them is not who was. */
bool process_take_other_ports(const struct process *process);
/* All of it, in a process that was begun, with the files that the machine begins with. */
bool process_take_grants(struct process *process, grant_set here, struct machine_options *options);
