/* What a machine process was given: memory that others have, too, and files to begin with. */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine_process.h"
#include "vm/saved_file.h"

/*
 * What is shared with other processes: place: NULL, or where it was. What is forked does not get it
 * with the memory.
 */
static void *grant_map(enum grant grant, void *place, size_t bytes)
{
	int flags = MAP_SHARED | (place ? MAP_FIXED : 0);
	void *at = mmap(place, bytes, PROT_READ | PROT_WRITE, flags, grant_fd(grant), 0);

	close(grant_fd(grant));
	if (at == MAP_FAILED || madvise(at, bytes, MADV_DONTFORK))
		return NULL;
	return at;
}

bool process_take_rings(struct process *process)
{
	process->rings = grant_map(GRANT_RINGS, process->rings, sizeof(*process->rings));
	if (!process->rings)
		return false;
	process->to_broker = (struct ring_end){ .memory = &process->rings->to_broker,
						.wake_fd = grant_fd(GRANT_TO_BROKER) };
	process->from_broker = (struct ring_end){ .memory = &process->rings->to_machine };
	return true;
}

static bool take_slots(struct process *process)
{
	process->slots = grant_map(GRANT_SLOTS, process->slots, sizeof(*process->slots));
	return process->slots;
}

/*
 * A file that the machine begins with, or what of it is the machine's. The user's own: one that is
 * made shorter meanwhile ends the process.
 */
static bool grant_map_file(grant_set here, enum grant grant, struct boot_file *ret)
{
	struct saved_file file = { .machine_bytes = 0 };
	struct stat st;

	if (!(here & GRANT(grant)))
		return true;
	if (fstat(grant_fd(grant), &st))
		return false;
	file.machine_bytes = (uint64_t)st.st_size;
	if (grant == GRANT_SAVED && saved_file_look(grant_fd(grant), &file))
		return false;
	ret->bytes = file.machine_bytes;
	ret->data = mmap(NULL, ret->bytes, PROT_READ, MAP_PRIVATE, grant_fd(grant), 0);
	close(grant_fd(grant));
	return ret->data != MAP_FAILED;
}

static bool take_card(struct process *process, unsigned n)
{
	struct machine_card *card = &process->card[n];

	card->memory = grant_map((enum grant)(GRANT_CARDS + n), card->memory,
				 sizeof(*card->memory));
	card->doorbell_fd = grant_fd((enum grant)(GRANT_CARD_BELLS + n));
	card->answer_fd = grant_fd((enum grant)(GRANT_CARD_ANSWERS + n));
	return card->memory;
}

static bool take_connections(struct process *process)
{
	struct machine_connections *connections = &process->connections;

	connections->memory =
		grant_map(GRANT_CONNECTIONS, connections->memory, sizeof(*connections->memory));
	connections->doorbell_fd = grant_fd(GRANT_CONNECTION_BELL);
	return connections->memory;
}

bool process_take_devices(struct process *process, grant_set here)
{
	if (here & GRANT(GRANT_SLOTS) && !take_slots(process))
		return false;
	if (here & GRANT(GRANT_CONNECTIONS) && !take_connections(process))
		return false;
	for (process->cards = 0;
	     process->cards < NET_CARDS && here & GRANT(GRANT_CARDS + process->cards);
	     process->cards++)
		if (!take_card(process, process->cards))
			return false;
	return true;
}

/* The ports that there are, from the first on. */
static bool take_ports(struct process *process, grant_set here, struct machine_options *options)
{
	for (unsigned n = 0; n < plan_ports(process->plan) && here & GRANT(GRANT_PORTS + n); n++) {
		struct machine_port *port = &options->port[options->ports++];

		port->memory = grant_map((enum grant)(GRANT_PORTS + n), NULL,
					 sizeof(*port->memory));
		process->port[n] = port->memory;
		port->window = &process->window[process->ports++];
		port->doorbell_fd = grant_fd((enum grant)(GRANT_PORT_BELLS + n));
		port->answer_fd = grant_fd((enum grant)(GRANT_PORT_ANSWERS + n));
		port->kind = process->plan->machine.port[n];
		if (!port->memory ||
		    !port_window_make(port->window,
				      grant_fd((enum grant)(GRANT_WINDOW_LINES + n))))
			return false;
	}
	return true;
}

bool process_take_other_ports(const struct process *process)
{
	for (unsigned n = 0; n < process->ports; n++)
		if (!grant_map((enum grant)(GRANT_PORTS + n), process->port[n],
			       sizeof(*process->port[n])))
			return false;
	return true;
}

bool process_take_grants(struct process *process, grant_set here, struct machine_options *options)
{
	if (!process_take_rings(process) || !process_take_devices(process, here))
		return false;
	if (process->slots)
		options->disks = (struct machine_disks){ .memory = process->slots,
							 .doorbell_fd = grant_fd(GRANT_DOORBELL),
							 .answer_fd = grant_fd(GRANT_ANSWER) };
	options->connections = process->connections;
	options->has_pager = here & GRANT(GRANT_PAGER);
	options->pager_fd = grant_fd(GRANT_PAGER);
	options->cards = process->cards;
	memcpy(options->card, process->card, sizeof(options->card));
	return take_ports(process, here, options) &&
	       grant_map_file(here, GRANT_KERNEL, &options->kernel) &&
	       grant_map_file(here, GRANT_INITRD, &options->initrd) &&
	       grant_map_file(here, GRANT_SAVED, &options->saved);
}
