/* The partition bus of a machine, the services on it, and the thread that takes the disks' replies. */
#include "machine_internal.h"

#include <errno.h>

enum { SLICES_PER_SECOND = 20000 }; /* a processor serves a channel for 50 us, then leaves the rest to the devices' thread */

/* ---- what the bus asks of the machine ---- */

static bool post(void *context, uint32_t vp_index, const void *payload, size_t bytes)
{
	return hv_post(hv_partition_cpu(((struct machine *)context)->hv, vp_index), 2, 1, 0, payload, bytes);
}

static void signal_guest(void *context, uint32_t vp_index, unsigned flag) { hv_signal(hv_partition_cpu(((struct machine *)context)->hv, vp_index), 2, flag); }

static void memory_written(void *context, uint64_t gpa, size_t bytes) { engine_memory_written(((struct machine *)context)->engine, gpa, bytes); }

static void defer(void *context) { block_wake(&((struct machine *)context)->block); }

/* ---- what the partition brings to the bus ---- */

static int message(void *context, uint32_t connection, uint32_t type, const uint8_t *payload, size_t bytes)
{
	return bus_message(((struct machine *)context)->bus, connection, type, payload, bytes);
}

static int event(void *context, uint32_t connection, uint16_t flag) { return bus_event(((struct machine *)context)->bus, connection, flag); }
static void messages_taken(void *context) { bus_messages_taken(((struct machine *)context)->bus); }

/* ---- life ---- */

int machine_make_devices(struct machine *m)
{
	const struct machine_disks *d = &m->options.disks;

	if (!d->memory)
		return 0;
	m->bus_host = (struct bus_host){ .post = post, .signal = signal_guest, .memory_written = memory_written, .defer = defer, .context = m, .lock = &m->lock,
					 .memory = &m->memory, .cpus = m->options.cpus, .slice_tsc = m->hv_host.tsc_hz / SLICES_PER_SECOND };
	m->bus = bus_create(&m->bus_host);
	m->block = (struct block_client){ .memory = d->memory, .doorbell_fd = d->doorbell_fd, .answer_fd = d->answer_fd };
	m->storage = m->bus ? storage_create(m->bus, &m->block) : NULL;
	if (!m->storage)
		return -ENOMEM;
	m->hv_host.message = message;
	m->hv_host.event = event;
	m->hv_host.messages_taken = messages_taken;
	return 0;
}

void machine_destroy_devices(struct machine *m)
{
	bus_destroy(m->bus);
	storage_destroy(m->storage);
}

static void *serve_devices(void *context)
{
	struct machine *m = context;
	bool failed = false;

	pthread_barrier_wait(&m->prepared);
	while (!failed && !__atomic_load_n(&m->devices_stop, __ATOMIC_ACQUIRE)) {
		failed = storage_collect(m->storage) < 0;
		bus_run(m->bus);
		if (!failed)
			failed = !block_sleep(&m->block);
	}
	if (failed) {
		pthread_mutex_lock(&m->lock);
		machine_finish(m, MACHINE_FAILED);
		pthread_mutex_unlock(&m->lock);
	}
	return NULL;
}

int machine_start_devices(struct machine *m) { return m->bus ? -pthread_create(&m->devices, NULL, serve_devices, m) : 0; }

void machine_stop_devices(struct machine *m)
{
	if (!m->bus)
		return;
	__atomic_store_n(&m->devices_stop, true, __ATOMIC_RELEASE);
	block_wake(&m->block);
	pthread_join(m->devices, NULL);
}

void machine_device_statistics(const struct machine *m, char *text, size_t bytes)
{
	size_t used = bus_statistics(m->bus, text, bytes);

	if (used < bytes)
		storage_statistics(m->storage, text + used, bytes - used);
}
