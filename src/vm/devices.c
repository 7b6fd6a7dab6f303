/*
 * The partition bus of a machine and the devices on it: one row of `rows` makes one of them a unit.
 * What they ask of the machine is here, too.
 *
 * One thread, a unit of its own, takes the replies of every process that serves a device (`queue`)
 * and serves the channels that were left to it. Until the processors stand still they leave it
 * channels, and the disks' last replies are waited for: so it stands still after them, where the
 * machine says so, and not when units are paused.
 *
 * A processor that has just halted looks for replies of disks, cards and ports itself for a moment
 * (halt.c, devices_watch()), and collects them: what it waits for wakes nobody. One does so at a
 * time, and `collecting` is held by who collects. Of ports it takes packets and their answers;
 * what exchanges memory, or begins anew, is the thread's.
 *
 * A guest that says when it has changed its monitor page (devices_look()) has its ports looked at
 * then, too. What comes next wakes nobody until it halts, or the thread looks at that page again,
 * as it does every now and then while there is one.
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "abi/vmbus_layout.h"
#include "device/display/keyboard.h"
#include "device/display/video.h"
#include "device/dynamic_memory/balloon.h"
#include "device/hvsock/hvsock.h"
#include "device/ic/backup.h"
#include "device/ic/file_copy.h"
#include "device/ic/keys.h"
#include "device/ic/utility.h"
#include "device/netvsp/network.h"
#include "device/share/disk_proxy.h"
#include "device/share/lender.h"
#include "device/share/share_device.h"
#include "device/storvsp/storage.h"
#include "ipc/block.h"
#include "vmbus/vmbus.h"

enum { QUEUES = 2 + NET_CARDS + SHARE_PORTS };
/* a processor serves a channel for 50 us, then leaves the rest to the devices' thread */
enum { SLICES_PER_SECOND = 20000 };
/* of a look at the monitor page to the next */
enum { MONITOR_LEAST_US = 50, MONITOR_MOST_US = 1600 };
/* of a look whether a card can be renewed */
enum { RENEWAL_US = 2000 };
#define SECONDS_FROM_1601_TO_1970 11644473600ull
#define UNITS_100NS_PER_S 10000000ull

/* Of the devices' thread: whether it looks at what was left to it without being woken. */
enum turn { TURN_IS_ON, TURN_FOLLOWS, TURN_ENDED };

struct devices {
	struct machine *machine;
	struct bus_host bus_host;
	struct bus *bus;
	/* of the processes that serve devices; the first is the disks' */
	struct slot_client *queue[QUEUES];
	unsigned queues;
	struct slot_client *watched[1 + NET_CARDS + SHARE_PORTS];
	unsigned watchable;
	bool is_watched; /* atomic: by a processor */
	bool failed;     /* atomic: the disk process breaks the protocol */
	pthread_mutex_t collecting; /* before the bus's locks */
	struct slot_client block;
	struct storage *storage;
	struct slot_client card[NET_CARDS];
	struct network *network[NET_CARDS];
	struct slot_client connections;
	struct hvsock *hvsock; /* NULL: there is none */
	struct slot_client port[SHARE_PORTS];
	struct share *share[SHARE_PORTS];
	struct disk_proxy *proxy[SHARE_PORTS]; /* NULL: that port has a struct share */
	struct lender *lender; /* of a machine with ports */
	struct balloon_host balloon_host;
	struct balloon *balloon;
	struct utility_clock clock;
	struct utility *utility[UTILITY_KINDS];
	struct keys_host keys_host;
	struct keys *keys;
	struct backup_host backup_host;
	struct backup *backup;
	struct keyboard *keyboard;
	struct file_copy_host file_copy_host;
	struct file_copy *file_copy;
	struct video *video; /* NULL: there is none */
	uint32_t monitor_us; /* how long the thread sleeps at most; 0: until it is woken; atomic */
	bool is_looked_at;   /* atomic: ports, by a processor that has not left them */
	bool is_told; /* atomic: the guest says when it has changed its monitor page */
	enum turn turn; /* atomic */
	bool stopped, held; /* atomic, changed under the lock; held: its thread is to stand still */
	bool stands, sleeps; /* it does; it would before anything else: with the lock */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* of the three */
};

/* ---- what the bus asks of the machine ---- */

static bool host_post(void *context, uint32_t vp_index, const void *payload, size_t bytes)
{
	struct machine *machine = context;
	const bool is_posted = hv_post(hv_partition_cpu(machine->hv, vp_index), VMBUS_SINT,
				       VMBUS_MESSAGE_TYPE, 0, payload, bytes);

	if (is_posted)
		exit_bus_message(machine, TRACE_BUS_OUT, payload, bytes);
	return is_posted;
}

static void host_signal(void *context, uint32_t vp_index, unsigned flag)
{
	struct machine *machine = context;
	struct vcpu *vcpu = &machine->vcpus[vp_index];
	bool is_woken;

	assert(vp_index < machine->options.cpus);
	pthread_mutex_lock(&machine->lock);
	vcpu_hold_wake(vcpu);
	hv_signal(vcpu->hv, VMBUS_SINT, flag);
	is_woken = vcpu_let_wake(vcpu);
	pthread_mutex_unlock(&machine->lock);
	if (is_woken)
		vcpu_rouse(vcpu);
}

static void host_memory_written(void *context, uint64_t gpa, size_t bytes)
{
	engine_memory_written(((struct machine *)context)->engine, gpa, bytes);
}

/* Only who sleeps is woken: during a turn it is enough to say that another one follows. */
static void host_defer(void *context)
{
	struct devices *devices = ((struct machine *)context)->devices;

	if (__atomic_exchange_n(&devices->turn, TURN_FOLLOWS, __ATOMIC_SEQ_CST) == TURN_ENDED)
		slot_wake(&devices->block);
}

/* ---- what the partition brings to the bus ---- */

int devices_message(void *context, uint32_t connection, uint32_t type, const uint8_t *payload,
		    size_t bytes)
{
	exit_bus_message(context, TRACE_BUS_IN, payload, bytes);
	return bus_message(((struct machine *)context)->devices->bus, connection, type, payload,
			   bytes);
}

int devices_event(void *context, uint32_t connection, uint16_t flag)
{
	return bus_event(((struct machine *)context)->devices->bus, connection, flag);
}

void devices_look(struct devices *devices)
{
	if (!devices)
		return;
	__atomic_store_n(&devices->is_told, true, __ATOMIC_RELAXED);
	bus_monitor(devices->bus);
	devices_look_at_ports(devices);
}

static void partition_messages_taken(void *context)
{
	bus_messages_taken(((struct machine *)context)->devices->bus);
}

/* ---- what the devices ask of the machine ---- */

static uint64_t utc_100ns(void *context)
{
	struct timespec now;

	(void)context;
	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec + SECONDS_FROM_1601_TO_1970) * UNITS_100NS_PER_S +
	       (uint64_t)now.tv_nsec / 100;
}

bool devices_hold_pages(const struct devices *devices, uint64_t gpa, uint64_t bytes)
{
	const uint64_t gfn = gpa / GUEST_PAGE_BYTES;
	const uint64_t pages = bytes / GUEST_PAGE_BYTES;

	return bus_holds_pages(devices->bus, gfn, pages) ||
	       (devices->lender && lender_holds_pages(devices->lender, gfn, pages));
}

/*
 * All of them, or (where a device has some) one by one all others. What was translated from these
 * pages goes, too.
 */
static void discard_pages(void *context, uint64_t gpa, uint64_t bytes)
{
	struct machine *machine = context;
	const bool some_are_held = devices_hold_pages(machine->devices, gpa, bytes);
	const uint64_t step = some_are_held ? GUEST_PAGE_BYTES : bytes;

	for (uint64_t done = 0; done < bytes; done += step)
		if (!some_are_held || !devices_hold_pages(machine->devices, gpa + done, step))
			madvise(guest_ram_hva(&machine->memory, gpa + done), step, MADV_DONTNEED);
	engine_memory_written(machine->engine, gpa, bytes);
}

/* Nobody has noted that nothing was there: what is not RAM is looked up at each access. */
static void populate(void *context, uint64_t bytes)
{
	struct machine *machine = context;

	guest_memory_populate(&machine->memory, bytes);
}

static void device_changed(void *context) { ticker_look(context); }

static void backup_answered(void *context, int error)
{
	struct machine *machine = context;

	if (machine->options.frozen)
		machine->options.frozen(machine->options.context, error);
}

static void file_answered(void *context, int error)
{
	struct machine *machine = context;

	if (machine->options.copied)
		machine->options.copied(machine->options.context, error);
}

/* ---- the devices ---- */

static void disk_released(void *context)
{
	const struct machine *machine = context;

	if (machine->options.copied)
		machine->options.copied(machine->options.context, 0);
}

static void *make_storage(struct devices *devices, unsigned number)
{
	(void)number;
	devices->storage = storage_create(
		devices->bus, devices->machine->options.disks.memory, &devices->block);
	if (devices->storage)
		storage_on_release(devices->storage, disk_released, devices->machine);
	return devices->storage;
}

static void *make_balloon(struct devices *devices, unsigned number)
{
	(void)number;
	return devices->balloon = balloon_create(devices->bus, &devices->balloon_host);
}

static void *make_utility(struct devices *devices, unsigned number)
{
	return devices->utility[number] =
		       utility_create(devices->bus, (enum utility_kind)number, &devices->clock);
}

static void *make_keys(struct devices *devices, unsigned number)
{
	(void)number;
	return devices->keys = keys_create(devices->bus, &devices->keys_host);
}

static void *make_backup(struct devices *devices, unsigned number)
{
	(void)number;
	return devices->backup = backup_create(devices->bus, &devices->backup_host);
}

static void *make_keyboard(struct devices *devices, unsigned number)
{
	(void)number;
	return devices->keyboard = keyboard_create(devices->bus);
}

static void *make_file_copy(struct devices *devices, unsigned number)
{
	(void)number;
	return devices->file_copy = file_copy_create(devices->bus, &devices->file_copy_host);
}

static int make_video(struct devices *devices)
{
	if (!devices->machine->options.display)
		return 0;
	devices->video = video_create(devices->bus, &devices->machine->memory);
	if (!devices->video)
		return -ENOMEM;
	unit_add(&devices->machine->units, &video_unit, devices->video, 0);
	return 0;
}

static int make_cards(struct devices *devices)
{
	const struct machine_options *options = &devices->machine->options;

	for (unsigned n = 0; n < options->cards; n++) {
		struct slot_client *client = &devices->card[n];

		*client = (struct slot_client){ .queue = &options->card[n].memory->queue,
						.slots = NET_SLOTS,
						.doorbell_fd = options->card[n].doorbell_fd,
						.answer_fd = options->card[n].answer_fd };
		devices->network[n] = network_create(devices->bus, n, options->card[n].memory,
						     client);
		if (!devices->network[n])
			return -ENOMEM;
		devices->queue[devices->queues++] = client;
		devices->watched[devices->watchable++] = client;
		unit_add(&devices->machine->units, &network_unit, devices->network[n], n);
	}
	return 0;
}

static int make_hvsock(struct devices *devices)
{
	const struct machine_options *options = &devices->machine->options;
	struct slot_client *client = &devices->connections;

	if (!options->connections.memory)
		return 0;
	*client = (struct slot_client){ .queue = &options->connections.memory->queue,
					.slots = CONNECTION_SLOTS,
					.doorbell_fd = options->connections.doorbell_fd,
					.answer_fd = options->disks.answer_fd };
	devices->hvsock = hvsock_create(devices->bus, options->connections.memory, client);
	if (!devices->hvsock)
		return -ENOMEM;
	devices->queue[devices->queues++] = client;
	unit_add(&devices->machine->units, &hvsock_unit, devices->hvsock, 0);
	return 0;
}

/* What the port is to this machine's guest; false: no memory. */
static bool make_port(struct devices *devices, unsigned n, struct share_memory *memory,
		      struct slot_client *client)
{
	const struct machine_port *port = &devices->machine->options.port[n];
	struct port_window *window = port->window;
	struct unit_list *units = &devices->machine->units;

	if (share_port_class(port->kind) == SHARE_CLASS_DISK &&
	    share_port_side(port->kind) == SHARE_SIDE_BINDS) {
		devices->proxy[n] = disk_proxy_create(devices->bus, n, memory, window, client,
						       &devices->block, devices->lender);
		if (devices->proxy[n])
			unit_add(units, &disk_proxy_unit, devices->proxy[n], n);
		return devices->proxy[n];
	}
	devices->share[n] =
		share_create(devices->bus, n, port->kind, memory, window, client, devices->lender);
	if (devices->share[n])
		unit_add(units, &share_unit, devices->share[n], n);
	return devices->share[n];
}

static int make_ports(struct devices *devices)
{
	const struct machine_options *options = &devices->machine->options;

	if (!options->ports)
		return 0;
	devices->lender = lender_create(&devices->machine->memory, host_memory_written,
					devices->machine);
	if (!devices->lender)
		return -ENOMEM;
	for (unsigned n = 0; n < options->ports; n++) {
		struct share_memory *memory = options->port[n].memory;
		struct slot_client *client = &devices->port[n];

		*client = (struct slot_client){ .queue = &memory->queue,
						.slots = SHARE_SLOTS,
						.doorbell_fd = options->port[n].doorbell_fd,
						.answer_fd = options->port[n].answer_fd };
		devices->queue[devices->queues++] = client;
		devices->watched[devices->watchable++] = client;
		if (!make_port(devices, n, memory, client))
			return -ENOMEM;
	}
	return 0;
}

static const struct row {
	const struct unit_ops *unit;
	void *(*make)(struct devices *devices, unsigned number); /* NULL: no memory */
	unsigned number;
} rows[] = {
	{ .unit = &storage_unit, .make = make_storage },
	{ .unit = &balloon_unit, .make = make_balloon },
	{ .unit = &utility_unit, .make = make_utility, .number = UTILITY_SHUTDOWN },
	{ .unit = &utility_unit, .make = make_utility, .number = UTILITY_HEARTBEAT },
	{ .unit = &utility_unit, .make = make_utility, .number = UTILITY_TIME },
	{ .unit = &keys_unit, .make = make_keys },
	{ .unit = &backup_unit, .make = make_backup },
};

/*
 * Behind cards and ports: a machine that was saved before there were these knows the others by
 * their places. So both tables are whole, and what is new is made last in make_later().
 */
static const struct row later_rows[] = {
	{ .unit = &keyboard_unit, .make = make_keyboard },
	{ .unit = &file_copy_unit, .make = make_file_copy },
};

static int make_rows(struct devices *devices, const struct row *from, size_t count)
{
	for (size_t n = 0; n < count; n++) {
		void *self = from[n].make(devices, from[n].number);

		if (!self)
			return -ENOMEM;
		unit_add(&devices->machine->units, from[n].unit, self, from[n].number);
	}
	return 0;
}

static int make_later(struct devices *devices)
{
	int error = make_rows(devices, later_rows, sizeof(later_rows) / sizeof(later_rows[0]));

	return error ? error : make_video(devices);
}

/* ---- their thread ---- */

static void locks_make(struct devices *devices)
{
	pthread_mutex_init(&devices->lock, NULL);
	pthread_cond_init(&devices->changed, NULL);
	pthread_mutex_init(&devices->collecting, NULL);
}

static void stand_while_held(struct devices *devices)
{
	pthread_mutex_lock(&devices->lock);
	devices->stands = true;
	pthread_cond_broadcast(&devices->changed);
	while (devices->held && !devices->stopped)
		pthread_cond_wait(&devices->changed, &devices->lock);
	devices->stands = false;
	pthread_mutex_unlock(&devices->lock);
}

void devices_hold(struct devices *devices)
{
	pthread_mutex_lock(&devices->lock);
	__atomic_store_n(&devices->held, true, __ATOMIC_RELEASE);
	if (!devices->sleeps)
		slot_wake(&devices->block);
	while (!devices->stands && !devices->sleeps && !devices->stopped)
		pthread_cond_wait(&devices->changed, &devices->lock);
	pthread_mutex_unlock(&devices->lock);
}

void devices_let_go(struct devices *devices)
{
	pthread_mutex_lock(&devices->lock);
	__atomic_store_n(&devices->held, false, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&devices->changed);
	pthread_mutex_unlock(&devices->lock);
}

/* With `collecting`. */
static void collect_ports(struct devices *devices)
{
	for (unsigned n = 0; n < devices->machine->options.ports; n++)
		if (devices->proxy[n])
			disk_proxy_collect(devices->proxy[n]);
		else
			share_collect(devices->share[n]);
}

/* Of that what a processor may do; with `collecting`. */
static void take_from_ports(struct devices *devices)
{
	for (unsigned n = 0; n < devices->machine->options.ports; n++)
		if (!slot_has_reply(&devices->port[n]))
			continue;
		else if (devices->proxy[n])
			disk_proxy_take(devices->proxy[n]);
		else
			share_take(devices->share[n]);
}

/*
 * How long to sleep now: of a monitor page nobody hears that it has changed, but from a guest that
 * tells (devices_look()), until something is found here of which it has not told. Where nothing
 * comes it is looked at less and less often.
 */
static uint32_t look_at_monitor(struct devices *devices)
{
	const enum bus_monitor found = bus_monitor(devices->bus);
	const bool is_told = __atomic_load_n(&devices->is_told, __ATOMIC_RELAXED);

	if (found == BUS_MONITOR_NONE)
		return 0;
	if (found == BUS_MONITOR_BUSY && is_told)
		__atomic_store_n(&devices->is_told, false, __ATOMIC_RELAXED);
	if (found == BUS_MONITOR_BUSY || (found == BUS_MONITOR_ASKED && !is_told) ||
	    !devices->monitor_us)
		return MONITOR_LEAST_US;
	return devices->monitor_us < MONITOR_MOST_US ? 2 * devices->monitor_us
						     : devices->monitor_us;
}

/* One after the other: a guest calls them eth0, eth1 as they come. */
static bool renew_cards(struct devices *devices)
{
	for (unsigned n = 0; n < devices->machine->options.cards; n++)
		if (!network_renew(devices->network[n]))
			return false;
	return true;
}

static uint32_t look_again(struct devices *devices)
{
	const uint32_t monitor_us = look_at_monitor(devices);

	/* with devices_look_at_ports(): before the thread says that it sleeps */
	__atomic_store_n(&devices->monitor_us, monitor_us, __ATOMIC_SEQ_CST);
	if (renew_cards(devices) || (monitor_us && monitor_us < RENEWAL_US))
		return monitor_us;
	return RENEWAL_US;
}

/* What a machine that was restored finds: other networks, and nobody whom sockets lead to. */
static void go_on_restored(struct devices *devices)
{
	bus_go_on(devices->bus);
	for (unsigned n = 0; n < devices->machine->options.ports; n++)
		if (devices->share[n])
			share_go_on(devices->share[n]);
	for (unsigned n = 0; n < devices->machine->options.cards; n++)
		network_go_on(devices->network[n]);
}

/* With `collecting`. */
static void collect_disks_and_cards(struct devices *devices)
{
	if (storage_collect(devices->storage) < 0)
		__atomic_store_n(&devices->failed, true, __ATOMIC_RELEASE);
	for (unsigned n = 0; n < devices->machine->options.cards; n++)
		network_collect(devices->network[n]);
}

static bool have_failed(const struct devices *devices)
{
	return __atomic_load_n(&devices->failed, __ATOMIC_ACQUIRE);
}

static void devices_turn(struct devices *devices)
{
	if (__atomic_load_n(&devices->held, __ATOMIC_ACQUIRE))
		stand_while_held(devices);
	pthread_mutex_lock(&devices->collecting);
	collect_disks_and_cards(devices);
	collect_ports(devices);
	pthread_mutex_unlock(&devices->collecting);
	if (devices->hvsock)
		hvsock_collect(devices->hvsock);
	bus_run(devices->bus);
}

/* False: somebody wants another one. */
static bool turn_ends(struct devices *devices)
{
	enum turn expected = TURN_IS_ON;

	return __atomic_compare_exchange_n(&devices->turn, &expected, TURN_ENDED, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* False: it is to stand still, which it does in its next turn. */
static bool falls_asleep(struct devices *devices)
{
	pthread_mutex_lock(&devices->lock);
	devices->sleeps = !devices->held;
	pthread_mutex_unlock(&devices->lock);
	return devices->sleeps;
}

/* Nothing is done before the next turn but to look at the bells. False: it cannot go on. */
static bool devices_sleep(struct devices *devices, uint32_t rest_us)
{
	bool is_well = true;

	if (!falls_asleep(devices))
		return true;
	is_well = slot_clients_sleep(devices->queue, devices->queues, rest_us);
	pthread_mutex_lock(&devices->lock);
	devices->sleeps = false;
	pthread_mutex_unlock(&devices->lock);
	return is_well;
}

static void devices_run(void *self)
{
	struct devices *devices = self;
	struct machine *machine = devices->machine;
	uint32_t rest_us;
	bool failed = false;

	if (machine->options.saved.bytes && !machine->is_forked)
		go_on_restored(devices);
	while (!failed && !__atomic_load_n(&devices->stopped, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&devices->turn, TURN_IS_ON, __ATOMIC_SEQ_CST);
		devices_turn(devices);
		rest_us = look_again(devices);
		failed = have_failed(devices);
		if (!failed && turn_ends(devices))
			failed = !devices_sleep(devices, rest_us);
	}
	if (!failed)
		return;
	pthread_mutex_lock(&machine->lock);
	machine_finish(machine, MACHINE_FAILED);
	pthread_mutex_unlock(&machine->lock);
}

static struct slot_client *const *ports_of(const struct devices *devices)
{
	return devices->watched + devices->watchable - devices->machine->options.ports;
}

static bool has_reply(struct slot_client *const *clients, unsigned count)
{
	bool some = false;

	for (unsigned n = 0; n < count; n++)
		some |= slot_has_reply(clients[n]);
	return some;
}

/* Unless somebody collects already, or the thread is to stand still. */
static bool begins_to_collect(struct devices *devices)
{
	return !__atomic_load_n(&devices->held, __ATOMIC_ACQUIRE) &&
	       !pthread_mutex_trylock(&devices->collecting);
}

/* Until the thread looks at the monitor page again: of a guest without one it may never. */
static bool is_looking(const struct devices *devices)
{
	return __atomic_load_n(&devices->monitor_us, __ATOMIC_SEQ_CST);
}

bool devices_look_at_ports(struct devices *devices)
{
	const unsigned ports = devices->machine->options.ports;

	if (!ports || !is_looking(devices))
		return false;
	__atomic_store_n(&devices->is_looked_at, true, __ATOMIC_RELAXED);
	slot_clients_watch(ports_of(devices), ports);
	if (!is_looking(devices))
		devices_leave(devices);
	if (!has_reply(ports_of(devices), ports) || !begins_to_collect(devices))
		return false;
	take_from_ports(devices);
	pthread_mutex_unlock(&devices->collecting);
	return true;
}

void devices_leave(struct devices *devices)
{
	if (!__atomic_exchange_n(&devices->is_looked_at, false, __ATOMIC_RELAXED))
		return;
	if (slot_clients_unwatch(ports_of(devices), devices->machine->options.ports))
		slot_wake(&devices->block);
}

bool devices_watch(struct devices *devices)
{
	return !have_failed(devices) && !storage_has_bulk(devices->storage) &&
	       !__atomic_exchange_n(&devices->is_watched, true, __ATOMIC_ACQUIRE);
}

void devices_collect(struct devices *devices)
{
	slot_clients_watch(devices->watched, devices->watchable);
	if (!has_reply(devices->watched, devices->watchable) || !begins_to_collect(devices))
		return;
	collect_disks_and_cards(devices);
	take_from_ports(devices);
	pthread_mutex_unlock(&devices->collecting);
}

void devices_unwatch(struct devices *devices)
{
	if (slot_clients_unwatch(devices->watched, devices->watchable) || have_failed(devices))
		slot_wake(&devices->block);
	__atomic_store_n(&devices->is_watched, false, __ATOMIC_RELEASE);
}

static void devices_stop(void *self)
{
	struct devices *devices = self;

	pthread_mutex_lock(&devices->lock);
	__atomic_store_n(&devices->stopped, true, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&devices->changed);
	pthread_mutex_unlock(&devices->lock);
	slot_wake(&devices->block);
}

/* Once nothing of the guest's runs: what is lent, and will be written, is a fork's, too. */
void devices_stand(struct devices *devices)
{
	if (devices->lender)
		lender_stand(devices->lender);
	for (unsigned n = 0; n < devices->machine->options.ports; n++)
		if (devices->proxy[n])
			disk_proxy_stand(devices->proxy[n]);
}

void devices_mark_lent(struct devices *devices, uint64_t *frames)
{
	if (devices->lender)
		lender_mark(devices->lender, frames);
}

void devices_leave_lent(struct devices *devices)
{
	if (devices->lender)
		lender_forked(devices->lender);
}

/* Its slots are others now, and empty, as the parent's were. */
static void devices_forked(void *self)
{
	struct devices *devices = self;

	locks_make(devices);
	devices->held = devices->stands = devices->sleeps = false;
	devices->is_watched = devices->is_looked_at = false;
	slot_restart(&devices->block);
	if (devices->lender)
		lender_forked(devices->lender);
}

static const struct unit_ops devices_unit = { .name = "devices",
					      .run = devices_run,
					      .forked = devices_forked,
					      .stop = devices_stop };

/* ---- all of it ---- */

static void connect_hosts(struct devices *devices)
{
	struct machine *machine = devices->machine;
	const struct machine_options *options = &machine->options;

	devices->bus_host = (struct bus_host){
		.post = host_post, .signal = host_signal, .memory_written = host_memory_written,
		.defer = host_defer, .now_100ns = machine_now_100ns, .context = machine,
		.lock = &machine->lock, .memory = &machine->memory, .cpus = options->cpus,
		.slice_tsc = machine->clock.tsc_hz / SLICES_PER_SECOND,
	};
	devices->block = (struct slot_client){
		.queue = &options->disks.memory->queue, .slots = BLOCK_SLOTS,
		.doorbell_fd = options->disks.doorbell_fd, .answer_fd = options->disks.answer_fd,
	};
	devices->queue[devices->queues++] = &devices->block;
	devices->watched[devices->watchable++] = &devices->block;
	devices->balloon_host = (struct balloon_host){
		.discard = discard_pages,
		.populate = populate,
		.changed = device_changed,
		.context = machine,
		.memory = &machine->memory,
		.region_bytes = MACHINE_REGION_BYTES,
		.buffer_percent = options->memory_buffer_percent,
		.least_bytes = options->least_memory_bytes ? options->least_memory_bytes
							   : options->memory_bytes,
	};
	devices->clock = (struct utility_clock){ .reference_100ns = machine_now_100ns,
						 .utc_100ns = utc_100ns,
						 .context = machine };
	devices->keys_host = (struct keys_host){ .changed = device_changed,
						 .context = machine,
						 .given = options->given_keys ? options->given_keys
									      : "" };
	devices->backup_host = (struct backup_host){ .answered = backup_answered,
						     .context = machine };
	devices->file_copy_host = (struct file_copy_host){ .answered = file_answered,
							   .context = machine };
	machine->hv_host.message = devices_message;
	machine->hv_host.event = devices_event;
	machine->hv_host.messages_taken = partition_messages_taken;
}

int machine_make_devices(struct machine *machine)
{
	struct devices *devices;
	int error;

	assert(!machine->hv);
	if (!machine->options.disks.memory)
		return 0;
	devices = calloc(1, sizeof(*devices));
	if (!devices)
		return -ENOMEM;
	machine->devices = devices;
	devices->machine = machine;
	locks_make(devices);
	connect_hosts(devices);
	devices->bus = bus_create(&devices->bus_host);
	if (!devices->bus)
		return -ENOMEM;
	unit_add(&machine->units, &bus_unit, devices->bus, 0);
	error = make_rows(devices, rows, sizeof(rows) / sizeof(rows[0]));
	if (!error)
		error = make_cards(devices);
	if (!error)
		error = make_hvsock(devices);
	if (!error)
		error = make_ports(devices);
	if (!error)
		error = make_later(devices);
	unit_add(&machine->units, &devices_unit, devices, 0);
	return error;
}

void machine_destroy_devices(struct machine *machine)
{
	if (machine->devices)
		lender_destroy(machine->devices->lender);
	free(machine->devices);
}

/* ---- what users ask of the devices ---- */

void devices_state(const struct devices *devices, struct machine_state *ret)
{
	struct balloon_status memory;

	balloon_status(devices->balloon, &memory);
	ret->health = (enum machine_health)utility_health(devices->utility[UTILITY_HEARTBEAT]);
	ret->has_memory_driver = memory.is_there;
	ret->has_memory_status = memory.is_known;
	ret->automatic = memory.automatic;
	ret->is_advised = memory.is_advised;
	ret->can_grow = memory.can_grow;
	ret->is_silent = memory.is_silent;
	ret->held_bytes = memory.held_bytes;
	ret->assigned_bytes = memory.assigned_bytes;
	ret->target_bytes = memory.target_bytes;
	ret->available_bytes = memory.available_bytes;
	ret->committed_bytes = memory.committed_bytes;
	ret->reports = memory.counters.reports;
	ret->given_back_bytes = memory.counters.inflated * GUEST_PAGE_BYTES;
	ret->refused_regions = memory.counters.refused;
	ret->unused_regions = memory.counters.unused;
	ret->key_changes = keys_changes(devices->keys);
}

_Static_assert((int)MACHINE_KEYS_BYTES == KEYS_TEXT_BYTES, "as it is told");

void machine_read_keys(struct machine *machine, char ret[MACHINE_KEYS_BYTES])
{
	keys_read(machine->devices->keys, ret);
}

int machine_freeze(struct machine *machine, bool freeze)
{
	return machine->devices ? backup_ask(machine->devices->backup, freeze) : -ENOTCONN;
}

/* What is loaded before the guest begins is the whole of its devices. */
static bool is_there(struct machine *machine)
{
	return machine->devices && !machine_wait_for_begin(machine);
}

int machine_type(struct machine *machine, const uint8_t *codes, size_t bytes)
{
	return is_there(machine) ? keyboard_type(machine->devices->keyboard, codes, bytes)
				 : -ENOTCONN;
}

int machine_copy_begin(struct machine *machine, const char *folder, const char *name,
		       uint64_t bytes, bool replaces)
{
	return is_there(machine) ? file_copy_begin(machine->devices->file_copy, folder, name,
						   bytes, replaces)
				 : -ENOTCONN;
}

int machine_copy_piece(struct machine *machine, const uint8_t *data, size_t bytes)
{
	return is_there(machine) ? file_copy_piece(machine->devices->file_copy, data, bytes)
				 : -ENOTCONN;
}

int machine_copy_end(struct machine *machine, bool is_complete)
{
	return is_there(machine) ? file_copy_end(machine->devices->file_copy, is_complete)
				 : -ENOTCONN;
}

int machine_disk_comes(struct machine *machine, unsigned number, const struct block_disk *disk)
{
	return is_there(machine) ? storage_attach(machine->devices->storage, number, disk)
				 : -ENOTCONN;
}

int machine_disk_goes(struct machine *machine, unsigned number)
{
	return is_there(machine) ? storage_detach(machine->devices->storage, number) : -ENOTCONN;
}

int machine_disk_grows(struct machine *machine, unsigned number, uint64_t size_bytes)
{
	return is_there(machine) ? storage_resize(machine->devices->storage, number, size_bytes)
				 : -ENOTCONN;
}

_Static_assert((int)MACHINE_ROW_BYTES == (int)VIDEO_ROW_BYTES, "as it is told");

int machine_show(struct machine *machine,
		 void (*row)(void *context, const uint8_t *pixels, size_t bytes), void *context,
		 uint32_t *ret_width, uint32_t *ret_height)
{
	struct video *video = is_there(machine) ? machine->devices->video : NULL;
	struct video_picture picture;
	uint8_t pixels[VIDEO_ROW_BYTES];
	int error = video ? video_look(video, &picture) : -ENODEV;

	if (error)
		return error;
	for (uint32_t y = 0; y < picture.height && !error; y++) {
		error = video_row(video, &picture, y, pixels);
		if (!error)
			row(context, pixels, 3 * (size_t)picture.width);
	}
	*ret_width = picture.width;
	*ret_height = picture.height;
	return error;
}

bool machine_shut_down(struct machine *machine)
{
	return machine->devices && utility_shut_down(machine->devices->utility[UTILITY_SHUTDOWN]);
}

void machine_advise_memory(struct machine *machine, uint64_t bytes)
{
	if (machine->devices)
		balloon_advise(machine->devices->balloon, bytes);
}

void machine_set_memory(struct machine *machine, uint64_t bytes)
{
	if (machine->devices)
		balloon_set_target(machine->devices->balloon, bytes);
}
