/*
 * The parts of a machine with a bus as bytes and back (bus, storage, dynamic memory, integration
 * components): what is loaded into a new one is saved as the same bytes and goes on where it was, a
 * part that is damaged or of another machine is refused, and a pause waits for what the disks have.
 * Prints TAP.
 */
#include <stdio.h>

#include "live_guest.h"

enum { LIVES = 12, PART_MAX_BYTES = 1 << 16 };

static unsigned checks, bad;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

/* ---- the same again ---- */

static void copy_memory(struct live *to, const struct live *from)
{
	memcpy(to->fake.memory.ram, from->fake.memory.ram, FAKE_RAM_BYTES);
	memcpy(to->written, from->written, sizeof(to->written));
}

static bool is_same_again(struct live *parent, struct live *child)
{
	static uint8_t first[PART_MAX_BYTES], second[PART_MAX_BYTES];

	for (unsigned part = 0; part < LIVE_PARTS; part++) {
		size_t bytes = live_save(parent, part, first, sizeof(first));

		if (live_load(child, part, first, bytes))
			return false;
		if (live_save(child, part, second, sizeof(second)) != bytes ||
		    memcmp(first, second, bytes))
			return false;
	}
	return true;
}

/* Answers in the guest's ring of the storage channel; they are read. */
static unsigned read_answers(struct live *live)
{
	uint32_t bytes = *live_word(live, LIVE_STORAGE, true, RING_WRITE_INDEX) + LIVE_RING_BYTES;

	bytes = (bytes - *live_word(live, LIVE_STORAGE, true, RING_READ_INDEX)) % LIVE_RING_BYTES;
	*live_word(live, LIVE_STORAGE, true, RING_READ_INDEX) =
		*live_word(live, LIVE_STORAGE, true, RING_WRITE_INDEX);
	return bytes /
	       (sizeof(struct vmbus_packet) + sizeof(struct vstor_packet) + PACKET_FOOTER_BYTES);
}

/* All that the guest hears until nothing comes any more. */
static unsigned hear_all(struct live *live)
{
	unsigned heard = 0;
	unsigned more;

	do {
		more = read_answers(live);
		heard += more;
		bus_event(live->fake.bus, VMBUS_CONNECTION_CHANNEL + LIVE_STORAGE, 0);
		bus_run(live->fake.bus);
	} while (more);
	return heard;
}

static void round_trips(void)
{
	for (unsigned n = 0; n < LIVES; n++) {
		static struct live parent, child;
		char name[64];

		live_create(&parent, n);
		live_create(&child, 0);
		copy_memory(&child, &parent);
		snprintf(name, sizeof(name), "life %u is the same again", n);
		check(name, is_same_again(&parent, &child));
		bus_restored(child.fake.bus);
		parent.fake.full = child.fake.full = false;
		snprintf(name, sizeof(name), "life %u goes on as its parent", n);
		check(name, hear_all(&parent) == hear_all(&child));
		live_use(&child);
		live_destroy(&parent);
		live_destroy(&child);
	}
}

/* What was asked before the save is answered after it, once. */
static void answers_survive(void)
{
	static struct live parent, child;

	live_create(&parent, 1);
	live_create(&child, 0);
	copy_memory(&child, &parent);
	check("a guest with answers that wait is saved", is_same_again(&parent, &child));
	bus_restored(child.fake.bus);
	check("each request has one answer", hear_all(&child) == LIVE_COMPLETIONS + 3);
	live_destroy(&parent);
	live_destroy(&child);
}

/* ---- the first version ---- */

/* As it was before there were sub-channels: without their number, and how many a device wants. */
static size_t as_first_version(uint8_t *part, size_t bytes)
{
	enum { COUNT_AT = 4 + 1 + 4 + 4 + 4, COUNT_BYTES = 4, WANTED_BYTES = 4 };

	memmove(part + COUNT_AT, part + COUNT_AT + COUNT_BYTES, bytes - COUNT_AT - COUNT_BYTES);
	return bytes - COUNT_BYTES - WANTED_BYTES;
}

static void first_version(void)
{
	static uint8_t part[PART_MAX_BYTES], again[PART_MAX_BYTES];
	static struct live parent, child;
	struct archive archive;
	size_t bytes;

	live_create(&parent, 8);
	live_create(&child, 0);
	bytes = live_save(&parent, PART_BUS, part, sizeof(part));
	memcpy(again, part, bytes);
	archive = archive_load_from(again, as_first_version(again, bytes));
	archive.version = 1;
	bus_archive(&archive, child.fake.bus);
	check("a bus of the first version is loaded", archive_check_end(&archive));
	check("and is the same again", live_save(&child, PART_BUS, again, sizeof(again)) == bytes &&
					       !memcmp(part, again, bytes));
	live_use(&child);
	live_destroy(&parent);
	live_destroy(&child);
}

/* ---- refusals ---- */

/* Every truncation is refused; what one changed byte makes is refused, or is a part that holds. */
static bool is_refused_damaged(unsigned n, enum live_part part)
{
	static uint8_t whole[PART_MAX_BYTES], damaged[PART_MAX_BYTES];
	static struct live live;
	size_t bytes;

	live_create(&live, n);
	bytes = live_save(&live, part, whole, sizeof(whole));
	live_destroy(&live);
	for (size_t length = 0; length < bytes; length += 1 + length / 64) {
		int error;

		live_create(&live, 0);
		error = live_load(&live, part, whole, length);
		live_destroy(&live);
		if (!error)
			return false;
	}
	for (size_t at = 0; at < bytes; at += 1 + at / 64) {
		memcpy(damaged, whole, bytes);
		damaged[at] ^= (uint8_t)(1 << at % 8);
		live_create(&live, 0);
		if (!live_load(&live, part, damaged, bytes))
			live_use(&live);
		live_destroy(&live);
	}
	return true;
}

static void refusals(void)
{
	static const char *const names[LIVE_PARTS] = { "bus",      "storage",   "dynamic memory",
						       "shutdown", "heartbeat", "time" };
	static uint8_t part[PART_MAX_BYTES];
	static struct live live;
	size_t bytes;

	for (unsigned n = 0; n < LIVE_PARTS; n++) {
		char name[64];

		snprintf(name, sizeof(name), "%s: what is damaged is refused, or holds", names[n]);
		check(name, is_refused_damaged(4, n) && is_refused_damaged(3, n));
	}
	live_create(&live, 4);
	bytes = live_save(&live, PART_STORAGE, part, sizeof(part));
	live_destroy(&live);
	part[4]++; /* the size of the first disk */
	live_create(&live, 0);
	check("other disks are refused by name",
	      live_load(&live, PART_STORAGE, part, bytes) == -ENOTSUP);
	live_destroy(&live);
	live_create(&live, 4);
	bytes = live_save(&live, PART_BALLOON, part, sizeof(part));
	live_destroy(&live);
	part[0]++;
	live_create(&live, 0);
	check("another amount of memory is refused by name",
	      live_load(&live, PART_BALLOON, part, bytes) == -ENOTSUP);
	live_destroy(&live);
}

/* ---- pauses ---- */

static void *pause_storage(void *context)
{
	struct live *live = context;

	storage_pause(live->fake.storage);
	return NULL;
}

static void reply(struct live *live, uint32_t slot)
{
	struct slot_replies *replies = &live->fake.disks->queue.replies;

	replies->entry[replies->written % SLOTS_MAX] = (struct slot_reply){ .slot = slot };
	replies->written++;
	storage_collect(live->fake.storage);
}

static void pauses(void)
{
	const struct vstor_packet flush = {
		.operation = VSTOR_EXECUTE,
		.body.srb = { .bytes = 0x34, .cdb_bytes = 10, .cdb_or_sense = { 0x35 } }
	};
	static struct live live;
	static uint8_t part[PART_MAX_BYTES];
	struct slot_requests *requests;
	uint32_t submitted;
	pthread_t thread;

	live_create(&live, 4);
	requests = &live.fake.disks->queue.requests;
	live_storage(&live, &flush);
	submitted = requests->written;
	check("a flush is under way", submitted == 1);
	pthread_create(&thread, NULL, pause_storage, &live);
	usleep(20000);
	check("a pause waits for the disk", pthread_tryjoin_np(thread, NULL) == EBUSY);
	reply(&live, requests->entry[0].slot);
	check("and ends with its reply", !pthread_join(thread, NULL));
	live_storage(&live, &flush);
	check("nothing is taken meanwhile", requests->written == submitted);
	check("it can be saved", live_save(&live, PART_STORAGE, part, sizeof(part)) > 0);
	storage_resume(live.fake.storage);
	check("what was asked meanwhile is taken afterwards", requests->written == submitted + 1);
	reply(&live, requests->entry[1].slot);
	live_destroy(&live);
}

int main(void)
{
	round_trips();
	answers_survive();
	first_version();
	refusals();
	pauses();
	printf("1..%u\n", checks);
	return bad != 0;
}
