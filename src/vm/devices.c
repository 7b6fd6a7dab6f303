/* The partition bus of a machine, the services on it, and their threads: one takes the disks' replies, one ticks. */
#include "machine_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "abi/vmbus.h"

enum { SLICES_PER_SECOND = 20000 }; /* a processor serves a channel for 50 us, then leaves the rest to the devices' thread */
enum { TICK_S = 1, BEAT_TICKS = 2 };
#define SECONDS_FROM_1601_TO_1970 11644473600ull

/* ---- what the bus asks of the machine ---- */

static bool post(void *context, uint32_t vp_index, const void *payload, size_t bytes)
{
	return hv_post(hv_partition_cpu(((struct machine *)context)->hv, vp_index), VMBUS_SINT, VMBUS_MESSAGE_TYPE, 0, payload, bytes);
}

static void signal_guest(void *context, uint32_t vp_index, unsigned flag)
{
	hv_signal(hv_partition_cpu(((struct machine *)context)->hv, vp_index), VMBUS_SINT, flag);
}

static void memory_written(void *context, uint64_t gpa, size_t bytes) { engine_memory_written(((struct machine *)context)->engine, gpa, bytes); }

static void defer(void *context) { block_wake(&((struct machine *)context)->block); }

/* ---- what the partition brings to the bus ---- */

static int message(void *context, uint32_t connection, uint32_t type, const uint8_t *payload, size_t bytes)
{
	return bus_message(((struct machine *)context)->bus, connection, type, payload, bytes);
}

static int event(void *context, uint32_t connection, uint16_t flag) { return bus_event(((struct machine *)context)->bus, connection, flag); }
static void messages_taken(void *context) { bus_messages_taken(((struct machine *)context)->bus); }

/* ---- clocks ---- */

static uint64_t reference_100ns(void *context)
{
	struct machine *m = context;

	return m->hv_host.now_100ns(m);
}

static uint64_t utc_100ns(void *context)
{
	struct timespec t;

	(void)context;
	clock_gettime(CLOCK_REALTIME, &t);
	return ((uint64_t)t.tv_sec + SECONDS_FROM_1601_TO_1970) * 10000000 + (uint64_t)t.tv_nsec / 100;
}

/* ---- memory ---- */

/* What was translated from these pages goes, too. */
static void discard(void *context, uint64_t gpa, uint64_t bytes)
{
	struct machine *m = context;

	madvise(guest_ram_hva(&m->memory, gpa), bytes, MADV_DONTNEED);
	for (uint64_t at = 0; at < bytes; at += GUEST_PAGE_BYTES)
		engine_memory_written(m->engine, gpa + at, GUEST_PAGE_BYTES);
}

/* ---- life ---- */

static int make_utilities(struct machine *m)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&m->tick, &attributes);
	pthread_condattr_destroy(&attributes);
	m->utility_clock = (struct utility_clock){ reference_100ns, utc_100ns, m };
	for (unsigned n = 0; n < UTILITY_KINDS; n++) {
		m->utility[n] = utility_create(m->bus, (enum utility_kind)n, &m->utility_clock);
		if (!m->utility[n])
			return -ENOMEM;
	}
	return 0;
}

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
	m->balloon_host = (struct balloon_host){ discard, m, &m->memory, m->options.least_memory_bytes ? m->options.least_memory_bytes : m->options.memory_bytes };
	m->balloon = balloon_create(m->bus, &m->balloon_host);
	return m->balloon ? make_utilities(m) : -ENOMEM;
}

void machine_destroy_devices(struct machine *m)
{
	bus_destroy(m->bus);
	storage_destroy(m->storage);
	balloon_destroy(m->balloon);
	for (unsigned n = 0; n < UTILITY_KINDS; n++)
		utility_destroy(m->utility[n]);
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

/* Under the lock. False: the machine ends. */
static bool wait_for_tick(struct machine *m)
{
	struct timespec until;
	int error = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TICK_S;
	while (!error && !__atomic_load_n(&m->devices_stop, __ATOMIC_ACQUIRE))
		error = pthread_cond_timedwait(&m->tick, &m->lock, &until);
	return !__atomic_load_n(&m->devices_stop, __ATOMIC_ACQUIRE);
}

static void tell_state(struct machine *m, struct machine_state *said)
{
	struct machine_state now;
	struct balloon_status memory;

	memset(&now, 0, sizeof(now)); /* to be compared, padding and all */
	balloon_status(m->balloon, &memory);
	now.health = (enum machine_health)utility_health(m->utility[UTILITY_HEARTBEAT]);
	now.has_memory_driver = memory.is_there;
	now.has_memory_status = memory.is_known;
	now.automatic = memory.automatic;
	now.assigned_bytes = memory.assigned_bytes;
	now.target_bytes = memory.target_bytes;
	now.available_bytes = memory.available_bytes;
	now.committed_bytes = memory.committed_bytes;
	if (!memcmp(&now, said, sizeof(now)))
		return;
	memcpy(said, &now, sizeof(now));
	if (m->options.state)
		m->options.state(m->options.context, &now);
}

static void *tick(void *context)
{
	struct machine *m = context;
	struct machine_state said = { 0 };
	bool goes_on = true;

	pthread_barrier_wait(&m->prepared);
	for (unsigned ticks = 1; goes_on; ticks++) {
		pthread_mutex_lock(&m->lock);
		goes_on = wait_for_tick(m);
		pthread_mutex_unlock(&m->lock);
		if (!goes_on)
			break;
		balloon_tick(m->balloon);
		for (unsigned n = 0; n < UTILITY_KINDS && ticks % BEAT_TICKS == 0; n++)
			utility_tick(m->utility[n]);
		tell_state(m, &said);
	}
	return NULL;
}

int machine_start_devices(struct machine *m)
{
	int error = m->bus ? pthread_create(&m->devices, NULL, serve_devices, m) : 0;

	if (m->bus && !error)
		error = pthread_create(&m->ticker, NULL, tick, m);
	return -error;
}

void machine_stop_devices(struct machine *m)
{
	if (!m->bus)
		return;
	pthread_mutex_lock(&m->lock);
	__atomic_store_n(&m->devices_stop, true, __ATOMIC_RELEASE);
	pthread_cond_signal(&m->tick);
	pthread_mutex_unlock(&m->lock);
	block_wake(&m->block);
	pthread_join(m->devices, NULL);
	pthread_join(m->ticker, NULL);
}

bool machine_shut_down(struct machine *m) { return m->bus && utility_shut_down(m->utility[UTILITY_SHUTDOWN]); }

void machine_set_memory(struct machine *m, uint64_t bytes)
{
	if (m->bus)
		balloon_set_target(m->balloon, bytes);
}

void machine_device_statistics(const struct machine *m, char *text, size_t bytes)
{
	size_t used = bus_statistics(m->bus, text, bytes);

	if (used < bytes)
		storage_statistics(m->storage, text + used, bytes - used);
}
