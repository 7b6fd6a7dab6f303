/*
 * When a guest hears that there are packets for it: at once; or, where that is held, once for all
 * of them, by who has no lock any more. Prints TAP.
 */
#include <stdio.h>

#include "fake_guest.h"
#include "vmbus/vmbus_internal.h"

enum { RELID = FAKE_CHANNELS + 1, PACKETS = 3 };

static unsigned checks, bad, signals, with_lock;
static struct fake fake;
static struct bus_channel *channel;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

static bool is_free(pthread_mutex_t *lock)
{
	return !pthread_mutex_trylock(lock) && !pthread_mutex_unlock(lock);
}

static void on_signal(void *context, uint32_t vp, unsigned flag)
{
	(void)context;
	(void)vp;
	signals += flag == RELID;
	with_lock += !is_free(&channel->lock) || !is_free(&fake.lock);
}

static void nothing(void *context) { (void)context; }
static int take(void *context, const struct bus_packet *packet)
{
	(void)context;
	(void)packet;
	return 0;
}

static struct bus_service service = {
	.type = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), .opened = nothing, .closed = nothing,
	.packet = take,
};

/* A guest that takes each as soon as it is there, and waits for the next. */
static void send_all(void)
{
	const uint64_t ring = FAKE_RINGS_GPA + (RELID - 1) * (uint64_t)FAKE_STRIDE +
			      FAKE_RING_PAGES * GUEST_PAGE_BYTES;
	uint32_t *words = (uint32_t *)(void *)(fake.memory.ram + ring);

	signals = with_lock = 0;
	for (unsigned n = 0; n < PACKETS; n++) {
		bus_channel_send(channel, PACKET_INBAND, 0, &(uint64_t){ n }, 8);
		words[RING_READ_INDEX / 4] = words[RING_WRITE_INDEX / 4];
	}
}

int main(void)
{
	fake_create(&fake, 1ull << 40);
	fake.host.signal = on_signal;
	channel = bus_offer(fake.bus, &service);
	if (!channel)
		return 1;
	fake_contact(&fake);
	fake_open(&fake, RELID);
	bus_channel_lock(channel);
	send_all();
	check("it hears of each packet", signals == PACKETS);
	bus_channel_unlock(channel);
	bus_channel_lock(channel);
	bus_channel_hold_signals(channel);
	send_all();
	check("of none while that is held", !signals);
	bus_channel_unlock(channel);
	check("then once, of all of them", signals == 1);
	check("when nobody has a lock that it would wait for", !with_lock);
	bus_channel_lock(channel);
	bus_channel_hold_signals(channel);
	bus_channel_unlock(channel);
	check("and not again", signals == 1);
	bus_channel_lock(channel);
	bus_channel_hold_signals(channel);
	send_all();
	bus_channel_tell(channel);
	check("or earlier, when it shall", signals == 1);
	send_all();
	check("the rest is held", !signals);
	bus_channel_unlock(channel);
	check("until then", signals == 1);
	bus_channel_lock(channel);
	send_all();
	bus_channel_unlock(channel);
	check("who has the lock next holds nothing", signals == PACKETS);
	fake_destroy(&fake);
	printf("1..%u\n", checks);
	return bad != 0;
}
