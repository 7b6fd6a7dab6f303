/*
 * A card in a machine that was forked or restored: its server is another one, and where the memory
 * says another address it is another card, which the guest has to hear of. Its link is down; it is
 * taken away when nothing is under way, and offered anew.
 *
 * Nothing may be under way because a driver waits for it: Linux (hv_netvsc) hears nothing of a
 * channel any more from the moment that it is told that it is taken away, and then waits, with the
 * lock of all its networks, for the completions of all that it has sent. So
 *
 *  1. both sides have taken all there is in all rings of the card, and the guest has no section of
 *     the receive buffer;
 *  2. so that it sends nothing between that look and the message, it has had the time to act upon
 *     the link's being down, and has sent nothing for a while. A guest that sends frames into a
 *     link that is down, for ever, loses its card all the same.
 *  3. its driver is not in the middle of its begin, where it sends one message after the other and
 *     waits for each, or about to: a card that has no filter yet, and one that was offered and is
 *     not open, stays until nothing has come for longer than a busy guest takes between two.
 */
#include <time.h>

#include "ipc/slot_queue.h"
#include "lib/archive.h"
#include "lib/check.h"
#include "network_internal.h"

enum {
	/* Linux acts upon a change of the link no sooner than so long after the one before. */
	LINK_PAUSE_MS = 2000,
	/* for what a guest does at once */
	SETTLE_MS = 200,
	/* of a guest that goes on sending */
	PATIENCE_MS = 10000,
	/* between two messages of a driver's begin */
	BEGIN_MS = 5000,
	NS_PER_MS = 1000000,
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- when ---- */

void renewal_link_told(struct network_renewal *renewal)
{
	const uint64_t now = now_ms();
	const uint64_t acts = renewal->told_ms ? renewal->told_ms + LINK_PAUSE_MS : 0;

	renewal->told_ms = now;
	renewal->settled_ms = (now > acts ? now : acts) + SETTLE_MS;
	renewal->patience_ms = renewal->settled_ms + PATIENCE_MS;
}

void renewal_heard(struct network_renewal *renewal)
{
	if (renewal->due)
		renewal->heard_ms = now_ms();
}

void renewal_sent(struct network_renewal *renewal)
{
	uint64_t settled;

	if (!renewal->due)
		return;
	settled = now_ms() + SETTLE_MS;
	if (renewal->settled_ms < settled && settled < renewal->patience_ms)
		renewal->settled_ms = settled;
}

void renewal_stood(struct network_renewal *renewal, uint64_t ns)
{
	const uint64_t stood_ms = ns / NS_PER_MS;
	const uint64_t now = now_ms();

	if (now - renewal->heard_ms >= stood_ms)
		renewal->heard_ms += stood_ms;
	if (!renewal->told_ms || now - renewal->told_ms < stood_ms)
		return;
	renewal->told_ms += stood_ms;
	renewal->settled_ms += stood_ms;
	renewal->patience_ms += stood_ms;
}

static bool is_settled(const struct network *network)
{
	const struct network_renewal *renewal = &network->renewal;

	if (renewal->is_made || network->filter)
		return now_ms() >= renewal->settled_ms;
	return now_ms() >= renewal->heard_ms + BEGIN_MS;
}

static bool is_given_back(const struct network *network)
{
	bool owed = false;

	for (unsigned n = 0; n < network->queues; n++)
		owed |= network->queue[n].owed;
	return network->sections_free == network->sections && !network->answers && !owed &&
	       bus_channel_is_drained(network->channel);
}

/* ---- what ---- */

/* So that who renews it learns of what the guest gives back. */
static void serve_elsewhere(struct network *network, bool elsewhere)
{
	for (unsigned n = 0; n < NETWORK_QUEUES; n++)
		__atomic_store_n(&network->service[n].elsewhere, elsewhere, __ATOMIC_RELAXED);
}

/* The address is the one that it has been given now: where that is another, so is the card. */
static void take_address(struct network *network)
{
	if (memcmp(network->mac, network->memory->mac, sizeof(network->mac)) != 0) {
		memcpy(network->mac, network->memory->mac, sizeof(network->mac));
		network->renewal.due = true;
		renewal_heard(&network->renewal);
		network->held = network->version;
		serve_elsewhere(network, true);
	}
	network_tell_link(network);
}

void network_forked(struct network *network)
{
	network_without_server(network);
	slot_restart(network->client);
	take_address(network);
}

void network_go_on(struct network *network)
{
	bus_channel_lock(network->channel);
	guest_memory_begin();
	take_address(network);
	CHECK(check_network(network));
	bus_channel_unlock(network->channel);
}

bool network_renew(struct network *network)
{
	bool is_due;

	if (!network->renewal.due)
		return true;
	bus_channel_lock(network->channel);
	is_due = !network->paused && is_settled(network) && is_given_back(network);
	if (is_due) {
		network->renewal.due = false;
		network->taken = network->held;
		serve_elsewhere(network, false);
	}
	bus_channel_unlock(network->channel);
	if (is_due)
		bus_renew(network->channel);
	return is_due;
}

/* How long ago a saved machine's guest heard of its link is not saved: it may be a moment. */
void renewal_archive(struct archive *archive, struct network *network)
{
	archive_bool(archive, &network->renewal.due);
	archive_bool(archive, &network->held);
	archive_bool(archive, &network->taken);
	if (!archive->loading || archive->error)
		return;
	network->renewal.told_ms = network->renewal.heard_ms = now_ms();
	serve_elsewhere(network, network->renewal.due);
}
