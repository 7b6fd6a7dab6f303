/*
 * Monitor pages: a guest's program that may make no hypercall (a driver in Linux's user space,
 * uio_hv_generic) says that there is something in a channel's ring by a bit in a page of its
 * memory, which the host looks at now and then.
 *
 *   page: u32 state, u32, 4 groups of { u32 pending, u32 armed }, ...    a channel's bit: relid - 1
 *
 *  1. Only channels whose service is_monitored have a bit: it is one of those of the page's groups.
 *  2. The page is one page of the guest's, or none.
 *
 * Only while one of these channels is open is the page looked at: bus_monitor() says so. A bit is
 * taken before its ring is looked at: what is said meanwhile is found the next time.
 *
 * Left out: the page by which the host would tell the guest (it sends interrupts); the latency that
 * a guest may read there; machines with such a channel are not saved, so the page's place is not.
 */
#include "vmbus_internal.h"

#include <assert.h>

#include "lib/check.h"

enum {
	TRIGGERS_AT = 8,
	GROUP_BYTES = 8,
	GROUP_BITS = 32,
	/* of channels that are there from the beginning */
	GROUPS = (FIRST_LATE + GROUP_BITS - 1) / GROUP_BITS
};
_Static_assert(GROUPS <= 4, "a monitor page has four groups");

void check_monitor(const struct bus *bus)
{
	assert(!(bus->monitor_gpa % PAGE_BYTES));
	for (unsigned n = 0; n < bus->channels; n++)
		assert(!bus->channel[n].service || !bus->channel[n].service->is_monitored ||
		       bus->channel[n].relid - 1 < GROUPS * GROUP_BITS);
}

void bus_set_monitor(struct bus *bus, uint64_t gpa)
{
	const bool is_page = gpa && gpa % PAGE_BYTES == 0;

	__atomic_store_n(&bus->monitor_gpa, is_page ? gpa : 0, __ATOMIC_RELEASE);
	CHECK(check_monitor(bus));
}

/* It is called without the bus's lock: a channel that is closed meanwhile runs in vain. */
static bool is_watched(const struct bus_channel *channel)
{
	return channel->service->is_monitored &&
	       __atomic_load_n(&channel->is_open, __ATOMIC_ACQUIRE);
}

/* The bits of a group, which are clear then. */
static uint32_t take_group(const struct bus *bus, uint64_t page_gpa, unsigned group)
{
	const uint64_t gpa = page_gpa + TRIGGERS_AT + (uint64_t)group * GROUP_BYTES;
	uint32_t bits = 0;

	guest_memory_begin();
	if (guest_memory_load(bus->host->memory, gpa, &bits) || !bits)
		return 0;
	if (guest_memory_take(bus->host->memory, gpa, &bits))
		return 0;
	bus->host->memory_written(bus->host->context, gpa, sizeof(bits));
	return bits;
}

enum bus_monitor bus_monitor(struct bus *bus)
{
	const uint64_t page_gpa = __atomic_load_n(&bus->monitor_gpa, __ATOMIC_ACQUIRE);
	enum bus_monitor found = BUS_MONITOR_NONE;
	uint32_t bits[GROUPS];
	bool is_taken = false;

	for (unsigned n = 0; page_gpa && n < bus->channels; n++) {
		struct bus_channel *channel = &bus->channel[n];
		const unsigned id = channel->relid - 1;

		if (!is_watched(channel))
			continue;
		for (unsigned group = 0; !is_taken && group < GROUPS; group++)
			bits[group] = take_group(bus, page_gpa, group);
		is_taken = true;
		if (__atomic_exchange_n(&channel->told, false, __ATOMIC_ACQ_REL) &&
		    found != BUS_MONITOR_BUSY)
			found = BUS_MONITOR_ASKED;
		if (found == BUS_MONITOR_NONE)
			found = BUS_MONITOR_QUIET;
		if (!(bits[id / GROUP_BITS] >> id % GROUP_BITS & 1))
			continue;
		found = BUS_MONITOR_BUSY;
		channel_serve(channel);
	}
	return found;
}
