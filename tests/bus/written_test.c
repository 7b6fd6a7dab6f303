/*
 * What the machine is told of that a read has written into the guest's pages: all of it, once, in
 * as few pieces as follow each other, and only when all of it is there, since each time it waits
 * until that can be seen. Where a page is nowhere, it is told of what lies before. Prints TAP.
 */
#include <stdio.h>

#include "live_guest.h"

enum { PAGE = GUEST_PAGE_BYTES, PAGES_MOST = 8, SECTOR = 512, NOWHERE_GFN = 0x5000 };
enum { FIRST_GFN = 0x80, HIGH_GFN = 0x100000 };

struct read {
	const char *name;
	unsigned pages, offset, bytes, pieces;
	uint64_t gfn[PAGES_MOST];
	unsigned told_bytes;
	uint8_t srb_status;
};

static const struct read reads[] = {
	{ .name = "pages that follow each other", .pages = 8, .bytes = 8 * PAGE, .pieces = 1,
	  .gfn = { 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87 }, .told_bytes = 8 * PAGE,
	  .srb_status = SRB_SUCCESS },
	{ .name = "some that do not", .pages = 5, .bytes = 5 * PAGE, .pieces = 4,
	  .gfn = { 0x90, 0x8e, 0x92, 0x93, 0x91 }, .told_bytes = 5 * PAGE,
	  .srb_status = SRB_SUCCESS },
	{ .name = "below and above 4 GiB", .pages = 4, .bytes = 4 * PAGE, .pieces = 2,
	  .gfn = { 0xbe, 0xbf, HIGH_GFN, HIGH_GFN + 1 }, .told_bytes = 4 * PAGE,
	  .srb_status = SRB_SUCCESS },
	{ .name = "parts of pages", .pages = 3, .offset = SECTOR, .bytes = 2 * PAGE, .pieces = 1,
	  .gfn = { 0x98, 0x99, 0x9a }, .told_bytes = 2 * PAGE, .srb_status = SRB_SUCCESS },
	{ .name = "one that is nowhere", .pages = 4, .bytes = 4 * PAGE, .pieces = 2,
	  .gfn = { 0xa0, 0xa2, NOWHERE_GFN, 0xa4 }, .told_bytes = 2 * PAGE,
	  .srb_status = SRB_INVALID_REQUEST },
	{ .name = "one that is nowhere, behind its neighbour", .pages = 4, .bytes = 4 * PAGE,
	  .pieces = 1, .gfn = { 0xbe, 0xbf, 0xc0, 0xc1 }, .told_bytes = 2 * PAGE,
	  .srb_status = SRB_INVALID_REQUEST },
};

static struct live guest;
static struct slot_server server;
static const struct read *now; /* what is told is counted for it; NULL: nothing is */
static unsigned pieces, told_bytes;
static bool was_early;

/* The byte of the disk that belongs there. */
static uint8_t byte_at(unsigned at) { return (uint8_t)(at / SECTOR + at + 1); }

/* Whether the read's first `bytes` are in the guest's pages. */
static bool is_there(const struct read *read, unsigned bytes)
{
	for (unsigned n = 0; n < bytes; n++) {
		const unsigned at = read->offset + n;
		const uint64_t gpa = read->gfn[at / PAGE] * PAGE + at % PAGE;

		if (*guest_hva(&guest.fake.memory, gpa) != byte_at(n))
			return false;
	}
	return true;
}

static void written(void *context, uint64_t gpa, size_t bytes)
{
	fake_written(context, gpa, bytes);
	if (!now || gpa < FIRST_GFN * PAGE)
		return;
	pieces++;
	told_bytes += (unsigned)bytes;
	was_early |= !is_there(now, now->told_bytes);
}

static void ask(const struct read *read)
{
	struct vstor_packet packet = { .operation = VSTOR_EXECUTE };
	uint8_t whole[512];
	uint32_t bytes;

	packet.body.srb = (struct vstor_srb){ .bytes = sizeof(struct vstor_srb),
					      .cdb_bytes = 10,
					      .direction = SRB_DIRECTION_READ,
					      .data_bytes = read->bytes };
	packet.body.srb.cdb_or_sense[0] = 0x28;
	packet.body.srb.cdb_or_sense[8] = (uint8_t)(read->bytes / SECTOR);
	bytes = fake_packet(whole, ++guest.fake.now, &packet, 0, read->offset, read->bytes);
	for (unsigned n = 0; n < read->pages; n++)
		memcpy(whole + 32 + 8 * (size_t)n, &read->gfn[n], 8);
	live_put(&guest, LIVE_STORAGE, whole, bytes);
}

/* As the disk process. */
static void serve(const struct read *read)
{
	struct slot_request request;

	if (slot_take(&server, &request) != 1 || request.bytes != read->bytes)
		abort();
	for (unsigned n = 0; n < read->bytes; n++)
		guest.fake.disks->data[request.slot][n] = byte_at(n);
	slot_answer(&server, request.slot, 0);
	now = read;
	storage_collect(guest.fake.storage);
	now = NULL;
}

/* Of the completion that came last. */
static uint8_t last_srb_status(void)
{
	const uint8_t *data =
		(uint8_t *)live_word(&guest, LIVE_STORAGE, true, 0) + GUEST_PAGE_BYTES;
	const uint32_t end = *live_word(&guest, LIVE_STORAGE, true, RING_WRITE_INDEX);
	const uint32_t at = end - PACKET_FOOTER_BYTES - (uint32_t)sizeof(struct vstor_packet) +
			    (uint32_t)offsetof(struct vstor_packet, body.srb.srb_status);

	return data[at % LIVE_RING_BYTES];
}

static bool holds(const struct read *read)
{
	pieces = told_bytes = 0;
	was_early = false;
	ask(read);
	serve(read);
	printf("# %s: %u bytes told in %u pieces%s\n", read->name, told_bytes, pieces,
	       was_early ? ", before they were there" : "");
	return pieces == read->pieces && told_bytes == read->told_bytes && !was_early &&
	       is_there(read, read->told_bytes) && last_srb_status() == read->srb_status;
}

int main(void)
{
	enum { READS = sizeof(reads) / sizeof(reads[0]) };
	unsigned bad = 0;

	fake_create(&guest.fake, 1000000000);
	guest.fake.host.memory_written = written;
	server = (struct slot_server){ .queue = &guest.fake.disks->queue,
				       .slots = BLOCK_SLOTS,
				       .doorbell_fd = guest.fake.client.doorbell_fd,
				       .answer_fd = guest.fake.client.answer_fd };
	fake_contact(&guest.fake);
	fake_open(&guest.fake, LIVE_STORAGE);
	live_agree_on_storage(&guest);
	for (unsigned n = 0; n < READS; n++) {
		const bool good = holds(&reads[n]);

		bad += !good;
		printf("%s %u - %s\n", good ? "ok" : "not ok", n + 1, reads[n].name);
	}
	fake_destroy(&guest.fake);
	printf("1..%u\n", (unsigned)READS);
	return bad != 0;
}
