/*
 * The partition bus and a storage channel as a careful client uses them. Disk 0: 64 MiB, zero; disk
 * 1: read only, sector n begins with n. What drivers of Linux do not do is here: every version,
 * packets that wait for each other, rings that fill up.
 */
#include "vmbus.h"

enum { LONGEST_BYTES = 1 << 20 };

static struct channel ch;
static uint8_t *data;

static void versions(void)
{
	static const uint32_t known[] = { VMBUS_2_4, VMBUS_3_0, VMBUS_4_0, VMBUS_4_1,
					  VMBUS_5_0, VMBUS_5_1, VMBUS_5_2, VMBUS_5_3 };
	static const uint32_t unknown[] = {
		0, 0xd, 0x10001, 0x20005, 0x50004, 0x60000, 0xffffffff
	};

	for (unsigned n = 0; n < sizeof(known) / sizeof(known[0]); n++)
		check("a version that both know", bus_contact(known[n]));
	for (unsigned n = 0; n < sizeof(unknown) / sizeof(unknown[0]); n++)
		check("a version that the host does not know", !bus_contact(unknown[n]));
}

static void offers(void)
{
	const struct vmbus_head ask = { .kind = VMBUS_REQUEST_OFFERS },
				bye = { .kind = VMBUS_UNLOAD };
	struct vmbus_offer offer, again;

	check("contact", bus_contact(VMBUS_5_3));
	check_equal("offers", bus_offers(OFFER_STORAGE, &offer), BUS_OFFERS);
	check_equal("its interface", *(const uint64_t *)(const void *)offer.type.byte,
		    0x4d2904a1ba6163d9);
	check_equal("its interrupt is its own", offer.dedicated_interrupt, 1);
	check_equal("no monitor", offer.has_monitor, 0);
	bus_post_on(VMBUS_CONNECTION, &ask, sizeof(ask));
	check("offers come once", bus_is_quiet());
	check("contact again", bus_contact(VMBUS_4_0));
	check_equal("and offers again", bus_offers(OFFER_STORAGE, &again), BUS_OFFERS);
	check_equal("of the same relative id", again.relid, offer.relid);
	check_equal("a GPADL of one message", bus_gpadl(1, offer.relid, new_pages(3), 3), 0);
	check_equal("a GPADL of many", bus_gpadl(2, offer.relid, new_pages(300), 300), 0);
	bus_teardown(2, offer.relid);
	bus_teardown(1, offer.relid);
	check_equal("a number used once more", bus_gpadl(1, offer.relid, new_pages(1), 1), 0);
	bus_post_on(VMBUS_CONNECTION, &bye, sizeof(bye));
	check("unload", bus_expect(VMBUS_UNLOAD_RESPONSE) != NULL);
	bus_post_on(VMBUS_CONNECTION, &ask, sizeof(ask));
	check("then nobody answers", bus_is_quiet());
}

static uint64_t command(uint8_t lun, const uint8_t *cdb, uint8_t direction, void *at,
			uint32_t bytes)
{
	struct vstor_srb srb;

	if (!storage_command(&ch, lun, cdb, 16, direction, at, bytes, &srb))
		return ~0ull;
	return (uint64_t)srb.data_bytes << 32 |
	       (srb.scsi_status ? (uint64_t)srb.cdb_or_sense[2] << 16 : 0) |
	       (uint64_t)srb.scsi_status << 8 | srb.srb_status;
}

#define GOOD(bytes) ((uint64_t)(bytes) << 32 | SRB_SUCCESS)
/* Without the bytes that came: check condition with this key. */
#define SENSE(key) ((uint64_t)(key) << 16 | 2 << 8 | SRB_SENSE_VALID | SRB_ERROR)

static void cdb_16(uint8_t cdb[16], uint8_t code, uint64_t sector, uint32_t count)
{
	for (unsigned n = 0; n < 16; n++)
		cdb[n] = 0;
	cdb[0] = code;
	for (unsigned n = 0; n < 8; n++)
		cdb[2 + n] = (uint8_t)(sector >> (56 - 8 * n));
	for (unsigned n = 0; n < 4; n++)
		cdb[10 + n] = (uint8_t)(count >> (24 - 8 * n));
}

static uint64_t transfer(uint8_t lun, bool write, uint64_t sector, uint32_t count, void *at)
{
	uint8_t cdb[16];

	cdb_16(cdb, write ? 0x8a : 0x88, sector, count);
	return command(lun, cdb, write ? SRB_DIRECTION_WRITE : SRB_DIRECTION_READ, at, count * 512);
}

static void fill(uint8_t *at, uint32_t bytes, uint32_t seed)
{
	for (uint32_t n = 0; n < bytes; n++)
		at[n] = (uint8_t)((n ^ n >> 8 ^ seed) * 2654435761u >> 24);
}

static bool is_filled(const uint8_t *at, uint32_t bytes, uint32_t seed)
{
	for (uint32_t n = 0; n < bytes; n++)
		if (at[n] != (uint8_t)((n ^ n >> 8 ^ seed) * 2654435761u >> 24))
			return false;
	return true;
}

static bool is_zero(const uint8_t *at, uint32_t bytes)
{
	for (uint32_t n = 0; n < bytes; n++)
		if (at[n])
			return false;
	return true;
}

static uint64_t big_endian(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *at++;
	return value;
}

static void what_it_is(void)
{
	static const uint8_t ready[16],
		inquiry[16] = { 0x12, 0, 0, 0, 255 }, capacity_10[16] = { 0x25 },
		capacity_16[16] = { 0x9e, 0x10, [13] = 32 }, luns[16] = { 0xa0, [9] = 64 },
		mode[16] = { 0x1a, 0, 0x3f, 0, 64 }, mode_10[16] = { 0x5a, 0, 8, [8] = 64 },
		pages[16] = { 0x12, 1, 0, 0, 255 }, serial[16] = { 0x12, 1, 0x80, 0, 255 },
		id[16] = { 0x12, 1, 0x83, 0, 255 }, limits[16] = { 0x12, 1, 0xb0, 0, 255 },
		thin[16] = { 0x12, 1, 0xb2, 0, 255 }, subpage[16] = { 0x5a, 0, 8, 5, [8] = 64 },
		every_subpage[16] = { 0x5a, 0, 0x3f, 0xff, [8] = 64 },
		streams[16] = { 0x5a, 8, 0x0a, 5, [7] = 2 }, none[16] = { 0x12, 1, 0x42, 0, 255 },
		unknown[16] = { 0xff };

	check_equal("TEST UNIT READY", command(0, ready, SRB_DIRECTION_NONE, NULL, 0), GOOD(0));
	check_equal("INQUIRY", command(0, inquiry, SRB_DIRECTION_READ, data, 255), GOOD(36));
	check_equal("its type and version", big_endian(data, 4), 0x00000602);
	check_equal("its vendor", big_endian(data + 8, 4), 0x4d736674);
	check_equal("READ CAPACITY (10)", command(0, capacity_10, SRB_DIRECTION_READ, data, 8),
		    GOOD(8));
	check_equal("last sector, sector bytes", big_endian(data, 8), 131071ull << 32 | 512);
	check_equal("READ CAPACITY (16)", command(0, capacity_16, SRB_DIRECTION_READ, data, 32),
		    GOOD(32));
	check_equal("last sector", big_endian(data, 8), 131071);
	check_equal("REPORT LUNS", command(0, luns, SRB_DIRECTION_READ, data, 64), GOOD(24));
	check_equal("two of them", big_endian(data, 4), 16);
	check_equal("MODE SENSE (6)", command(0, mode, SRB_DIRECTION_READ, data, 64), GOOD(24));
	check_equal("can be written", data[2] & 0x80, 0);
	check_equal("and has a cache", data[6] & 4, 4);
	check_equal("MODE SENSE (10)", command(1, mode_10, SRB_DIRECTION_READ, data, 64), GOOD(28));
	check_equal("cannot be written", data[3] & 0x80, 0x80);
	check_equal("all subpages", command(1, every_subpage, SRB_DIRECTION_READ, data, 64),
		    GOOD(28));
	check_equal("a subpage of caching", command(0, subpage, SRB_DIRECTION_READ, data, 64),
		    SENSE(5));
	check_equal("what Linux asks of streams",
		    command(0, streams, SRB_DIRECTION_READ, data, 512), SENSE(5));
	check_equal("its vital pages", command(0, pages, SRB_DIRECTION_READ, data, 255), GOOD(10));
	check_equal("serial number", command(0, serial, SRB_DIRECTION_READ, data, 255), GOOD(36));
	check_equal("identification", command(0, id, SRB_DIRECTION_READ, data, 255), GOOD(16));
	check_equal("limits", command(0, limits, SRB_DIRECTION_READ, data, 255), GOOD(64));
	check_equal("of transfers", big_endian(data + 8, 4), 2048);
	check_equal("thin", command(0, thin, SRB_DIRECTION_READ, data, 255), GOOD(8));
	check_equal("a vital page that is not there",
		    command(0, none, SRB_DIRECTION_READ, data, 255), SENSE(5));
	check_equal("a command that is not there", command(0, unknown, SRB_DIRECTION_NONE, NULL, 0),
		    SENSE(5));
	check_equal("a shorter reply where there is less room",
		    command(0, inquiry, SRB_DIRECTION_READ, data, 5), GOOD(5));
	check_equal("INQUIRY of a unit that is not there",
		    command(9, inquiry, SRB_DIRECTION_READ, data, 36), GOOD(36));
	check_equal("says that it is not", data[0], 0x7f);
	check_equal("another command for it", command(9, ready, SRB_DIRECTION_NONE, NULL, 0),
		    SRB_INVALID_LUN);
}

static void reads_and_writes(void)
{
	uint8_t *other = new_pages(257);
	static const uint8_t flush[16] = { 0x35 };

	fill(data, LONGEST_BYTES, 1);
	check_equal("a write of 1 MiB", transfer(0, true, 1000, LONGEST_BYTES / 512, data),
		    GOOD(LONGEST_BYTES));
	check_equal("a flush", command(0, flush, SRB_DIRECTION_NONE, NULL, 0), GOOD(0));
	check_equal("a read of it, across pages",
		    transfer(0, false, 1000, LONGEST_BYTES / 512, other + 24), GOOD(LONGEST_BYTES));
	check("has what was written", is_filled(other + 24, LONGEST_BYTES, 1));
	fill(data + 100, 1024, 2);
	check_equal("a write from within a page", transfer(0, true, 1001, 2, data + 100),
		    GOOD(1024));
	check_equal("is read", transfer(0, false, 1001, 2, other), GOOD(1024));
	check("as it was", is_filled(other, 1024, 2));
	check_equal("a sector of the other disk", transfer(1, false, 77, 1, other), GOOD(512));
	check_equal("is its own", *(uint32_t *)(void *)other, 77);
	check_equal("which is write protected", transfer(1, true, 77, 1, other), SENSE(7));
	check_equal("beyond the end", transfer(0, false, 131072, 1, other), SENSE(5));
	check_equal("across the end", transfer(0, true, 131071, 2, other), SENSE(5));
	check_equal("the last sector", transfer(0, true, 131071, 1, other), GOOD(512));
	check_equal("more than fits", transfer(0, false, 0, LONGEST_BYTES / 512 + 1, data),
		    SENSE(5));
}

static void clearing(void)
{
	uint8_t cdb[16] = { 0x42, [8] = 40 }, list[40] = {
		0, 38, 0, 32, [14] = 0x08, [15] = 0, [19] = 8, [30] = 0x10, [31] = 0, [35] = 16
	};
	uint8_t *at = data + PAGE_BYTES;

	fill(data, 65536, 3);
	check_equal("before", transfer(0, true, 2048, 16, data), GOOD(8192));
	check_equal("before, elsewhere", transfer(0, true, PAGE_BYTES, 32, data), GOOD(16384));
	for (unsigned n = 0; n < sizeof(list); n++)
		at[n] = list[n];
	check_equal("UNMAP of two ranges", command(0, cdb, SRB_DIRECTION_WRITE, at, 40), GOOD(40));
	check_equal("is read", transfer(0, false, 2048, 16, data), GOOD(8192));
	check("as zeros", is_zero(data, PAGE_BYTES));
	check("up to its end", !is_zero(data + PAGE_BYTES, 512));
	check_equal("and the other", transfer(0, false, PAGE_BYTES, 32, data), GOOD(16384));
	check("too", is_zero(data, 8192) && !is_zero(data + 8192, 512));
	fill(data, 8192, 4);
	check_equal("before WRITE SAME", transfer(0, true, 5000, 16, data), GOOD(8192));
	for (unsigned n = 0; n < 512; n++)
		data[n] = 0;
	cdb_16(cdb, 0x93, 5000, 8);
	check_equal("WRITE SAME of zeros", command(0, cdb, SRB_DIRECTION_WRITE, data, 512),
		    GOOD(0));
	check_equal("is read", transfer(0, false, 5000, 16, data), GOOD(8192));
	check("as zeros", is_zero(data, PAGE_BYTES) && !is_zero(data + PAGE_BYTES, 512));
	data[511] = 1;
	check_equal("WRITE SAME of anything else",
		    command(0, cdb, SRB_DIRECTION_WRITE, data + 512, 512), GOOD(0));
	fill(data, 512, 9);
	check_equal("is refused", command(0, cdb, SRB_DIRECTION_WRITE, data, 512), SENSE(5));
	fill(data, 512, 5);
	cdb_16(cdb, 0x8a, 6000, 1);
	cdb[1] = 8;
	check_equal("force unit access", command(0, cdb, SRB_DIRECTION_WRITE, data, 512),
		    GOOD(512));
	cdb[1] = 0x20;
	check_equal("protection information", command(0, cdb, SRB_DIRECTION_WRITE, data, 512),
		    SENSE(5));
}

static void put_read(uint32_t sector, void *to)
{
	struct vstor_packet packet = { .operation = VSTOR_EXECUTE,
				       .flags = 1,
				       .body.srb = { .bytes = 0x34,
						     .lun = 1,
						     .cdb_bytes = 16,
						     .direction = SRB_DIRECTION_READ,
						     .data_bytes = 512 } };

	cdb_16(packet.body.srb.cdb_or_sense, 0x88, sector, 1);
	channel_put(&ch, PACKET_GPA_DIRECT, &packet, sizeof(packet), to, 512);
}

/* Many at once, in whatever order they end; each once, with its own data. */
static void many(unsigned count, const char *what)
{
	static bool seen[256];
	uint64_t first = ch.transaction + 1;
	unsigned good = 0;
	struct vmbus_packet head;
	struct vstor_packet packet;

	for (unsigned n = 0; n < count; n++)
		seen[n] = false;
	for (unsigned n = 0; n < count; n++)
		put_read(3 * n, data + 512 * n);
	for (unsigned n = 0; n < count && channel_get(&ch, &head, &packet, sizeof(packet)); n++) {
		uint64_t k = head.transaction - first;

		good += k < count && !seen[k] && packet.body.srb.srb_status == SRB_SUCCESS &&
			*(uint32_t *)(void *)(data + 512 * k) == 3 * k;
		if (k < count)
			seen[k] = true;
	}
	check_equal(what, good, count);
}

static void interrupts(void)
{
	uint32_t before;
	struct vstor_srb srb;
	static const uint8_t ready[16];

	count_interrupts();
	sti();
	bus_take_event(ch.relid);
	before = taken[BUS_VECTOR];
	storage_command(&ch, 0, ready, 16, SRB_DIRECTION_NONE, NULL, 0, &srb);
	for (uint64_t until = rdtsc() + 1000000000; taken[BUS_VECTOR] == before && rdtsc() < until;)
		cpu_relax(); /* where another thread of the host's has answered */
	check_equal("an interrupt says that an answer is there", taken[BUS_VECTOR] - before, 1);
	check("of this channel", bus_take_event(ch.relid));
	*ring_word(ch.receive, RING_INTERRUPT_MASK) = 1;
	before = taken[BUS_VECTOR];
	storage_command(&ch, 0, ready, 16, SRB_DIRECTION_NONE, NULL, 0, &srb);
	for (uint64_t until = rdtsc() + 10000000; rdtsc() < until;)
		cpu_relax();
	check("none does while they are masked",
	      taken[BUS_VECTOR] == before && !bus_take_event(ch.relid));
	*ring_word(ch.receive, RING_INTERRUPT_MASK) = 0;
	cli();
}

static void modify(void)
{
	const struct vmbus_modify request = { { VMBUS_MODIFY_CHANNEL, 0 }, ch.relid, 0 },
				  nobody = { { VMBUS_MODIFY_CHANNEL, 0 }, ch.relid, 5 };
	const struct vmbus_modify_response *response;

	bus_post_on(VMBUS_CONNECTION, &request, sizeof(request));
	response = bus_expect(VMBUS_MODIFY_CHANNEL_RESPONSE);
	check_equal("another processor for its interrupts", response ? response->status : ~0u, 0);
	bus_post_on(VMBUS_CONNECTION, &nobody, sizeof(nobody));
	response = bus_expect(VMBUS_MODIFY_CHANNEL_RESPONSE);
	check("one that is not there", response && response->status);
}

static bool report_cold(const void *first, unsigned pages)
{
	static _Alignas(16) uint64_t input[2];

	input[0] = 2; /* cold, to be discarded */
	input[1] = gpa(first) | (pages - 1);
	return umbra_call(&hv, umbra_rep(0x8003, 1), gpa(input), 0) == 1ull << 32;
}

/* A page that a list names is not given back, whoever says that it may be. */
static void held_pages(void)
{
	uint8_t *pages = new_pages(3);

	for (unsigned n = 0; n < 3; n++)
		pages[n * PAGE_BYTES] = 0x5a;
	check_equal("a list of the second of three pages",
		    bus_gpadl(0xe1e20, ch.relid, pages + PAGE_BYTES, 1), 0);
	check("all three are reported", report_cold(pages, 3));
	check("two are given back", !pages[0] && !pages[2 * PAGE_BYTES]);
	check_equal("not the one in between", pages[PAGE_BYTES], 0x5a);
	bus_teardown(0xe1e20, ch.relid);
	check("reported once more", report_cold(pages, 3));
	check_equal("without its list it is", pages[PAGE_BYTES], 0);
}

/* Closed while requests are under way: the memory that they were for is left alone. */
static void closed(void)
{
	static const uint8_t ready[16];
	struct vstor_srb srb;
	bool untouched = true;

	fill(data, 32 * 512, 6);
	for (unsigned n = 0; n < 32; n++)
		put_read(n, data + 512 * n);
	channel_close(&ch);
	fill(data, 32 * 512, 6);
	for (uint64_t until = rdtsc() + 300000000; rdtsc() < until && untouched;)
		untouched = is_filled(data, 32 * 512, 6);
	check("a closed channel touches nothing", untouched);
	storage_open(&ch);
	check("and can be opened again",
	      storage_command(&ch, 0, ready, 16, SRB_DIRECTION_NONE, NULL, 0, &srb) &&
		      srb.srb_status == SRB_SUCCESS);
}

void test_main(void)
{
	hv_open();
	bus_prepare();
	data = new_pages(256);
	versions();
	offers();
	storage_open(&ch);
	what_it_is();
	reads_and_writes();
	clearing();
	held_pages();
	many(16, "sixteen at once");
	many(60, "sixty");
	many(190,
	     "more than there are slots for, than the requests' ring holds at once, and than the "
	     "answers' does");
	interrupts();
	modify();
	closed();
	many(60, "sixty again");
}
