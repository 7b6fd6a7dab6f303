/*
 * What a machine process has of a port, for targets that are its other side: memory, and the client
 * of the queue there. The channel's device is the target's.
 */
#pragma once

#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "ipc/share_port.h"
#include "ipc/slot_queue.h"

static inline struct share_memory *port_memory(struct slot_client *ret)
{
	struct share_memory *memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		abort();
	*ret = (struct slot_client){ .queue = &memory->queue,
				     .slots = SHARE_SLOTS,
				     .doorbell_fd = eventfd(0, EFD_NONBLOCK),
				     .answer_fd = eventfd(0, EFD_NONBLOCK) };
	return memory;
}
