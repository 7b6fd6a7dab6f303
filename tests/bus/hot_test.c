/*
 * Disks that come and go, against a guest that goes on asking for what is gone: a disk is released
 * only when nothing of it is under way, whatever is asked meanwhile, and once; a disc that the
 * guest keeps stays. Prints TAP.
 */
#include <stdio.h>

#include "live_guest.h"

enum { DATA_GFN = 0x80, READ_BYTES = 4096, NOBODYS = 9 };

static unsigned checks, bad, released;
static struct live guest;
static struct slot_server server;

static void check(const char *name, bool good)
{
	checks++;
	bad += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, name);
}

static void on_release(void *context)
{
	(void)context;
	released++;
}

static uint32_t heard(void) { return *live_word(&guest, LIVE_STORAGE, true, RING_WRITE_INDEX); }

/* The packet that has come since; its operation is 0 when none has. */
static struct vstor_packet heard_since(uint32_t before)
{
	const uint8_t *data =
		(uint8_t *)live_word(&guest, LIVE_STORAGE, true, 0) + GUEST_PAGE_BYTES;
	struct vstor_packet packet = { .operation = 0 };
	uint8_t *to = (uint8_t *)&packet;

	for (uint32_t n = 0; heard() != before && n < sizeof(packet); n++)
		to[n] = data[(before + sizeof(struct vmbus_packet) + n) % LIVE_RING_BYTES];
	return packet;
}

static struct vstor_packet command(uint8_t lun, const uint8_t cdb[10], uint32_t bytes)
{
	struct vstor_packet packet = { .operation = VSTOR_EXECUTE };
	const uint32_t before = heard();
	uint8_t whole[512];

	packet.body.srb = (struct vstor_srb){ .bytes = sizeof(struct vstor_srb),
					      .lun = lun,
					      .cdb_bytes = 10,
					      .direction = SRB_DIRECTION_READ,
					      .data_bytes = bytes };
	memcpy(packet.body.srb.cdb_or_sense, cdb, 10);
	live_put(&guest, LIVE_STORAGE, whole,
		 fake_packet(whole, ++guest.fake.now, &packet, DATA_GFN, 0, bytes));
	return heard_since(before);
}

static struct vstor_packet read_one(uint8_t lun)
{
	return command(lun, (const uint8_t[10]){ 0x28, [8] = READ_BYTES / 512 }, READ_BYTES);
}
static struct vstor_packet is_ready(uint8_t lun)
{
	return command(lun, (const uint8_t[10]){ 0 }, 0);
}
static struct vstor_packet lock(bool locks)
{
	return command(2, (const uint8_t[10]){ 0x1e, [4] = locks }, 0);
}

static bool has_sense(struct vstor_packet packet, uint8_t key, uint8_t code)
{
	return packet.body.srb.srb_status == (SRB_ERROR | SRB_SENSE_VALID) &&
	       packet.body.srb.cdb_or_sense[2] == key && packet.body.srb.cdb_or_sense[12] == code;
}

/* How many requests there were for the disk process. */
static unsigned serve_all(void)
{
	struct slot_request request;
	unsigned count = 0;

	for (; slot_take(&server, &request) > 0; count++)
		slot_answer(&server, request.slot, 0);
	storage_collect(guest.fake.storage);
	return count;
}

static const struct block_disk disk = { .size_bytes = 1 << 20,
					.sector_bytes = 512,
					.physical_bytes = GUEST_PAGE_BYTES };

static void goes_while_busy(void)
{
	uint32_t before;

	read_one(0);
	before = heard();
	check("one that is busy goes", !storage_detach(guest.fake.storage, 0) && !released);
	check("and the guest is told", heard_since(before).operation == VSTOR_ENUMERATE_BUS);
	check("what is asked of it then finds no unit",
	      read_one(0).body.srb.srb_status == SRB_INVALID_LUN);
	check("another one waits", storage_detach(guest.fake.storage, 1) == -EBUSY);
	check("and nothing comes to its number",
	      storage_attach(guest.fake.storage, 0, &disk) == -EBUSY);
	check("it is released with its last request", serve_all() == 1 && released == 1);
	check("and is not there", storage_detach(guest.fake.storage, 0) == -ENODEV);
	check("nor asked for", read_one(0).body.srb.srb_status == SRB_INVALID_LUN && !serve_all());
	check("another one comes", !storage_attach(guest.fake.storage, 0, &disk));
	read_one(0);
	check("and is read", serve_all() == 1);
}

static void floods(void)
{
	unsigned taken = 0;

	for (unsigned n = 0; n < 2 * BLOCK_DISKS; n++)
		taken += !storage_attach(guest.fake.storage, n, &disk);
	check("no number beyond the last is taken", taken == BLOCK_DISKS - 2);
	check("nor one twice", storage_attach(guest.fake.storage, 5, &disk) == -EEXIST);
	for (unsigned n = 2; n < BLOCK_DISKS; n++)
		storage_detach(guest.fake.storage, n);
	check("each is released once", released == 1 + BLOCK_DISKS - 2);
	check("nobody's goes",
	      storage_detach(guest.fake.storage, NOBODYS) == -ENODEV &&
		      storage_detach(guest.fake.storage, BLOCK_DISKS) == -EINVAL);
	check("a guest that reads nothing is still served",
	      !storage_resize(guest.fake.storage, 0, 2 << 20));
}

static void drive(void)
{
	struct block_disk disc = disk;

	disc.is_dvd = true;
	check("a drive comes",
	      !storage_attach(guest.fake.storage, 2, &(struct block_disk){ .sector_bytes = 512,
									    .is_dvd = true }));
	check("without a disc", has_sense(is_ready(2), 2, 0x3a));
	check("a disc", !storage_attach(guest.fake.storage, 2, &disc));
	check("is told once", has_sense(is_ready(2), 6, 0x28) &&
				      is_ready(2).body.srb.srb_status == SRB_SUCCESS);
	check("a second one", storage_attach(guest.fake.storage, 2, &disc) == -EEXIST);
	lock(true);
	check("the guest keeps it", storage_detach(guest.fake.storage, 2) == -EBUSY);
	lock(false);
	check("or lets it go", !storage_detach(guest.fake.storage, 2));
	check("and it is gone", has_sense(is_ready(2), 2, 0x3a));
}

int main(void)
{
	fake_create(&guest.fake, 1000000000);
	storage_on_release(guest.fake.storage, on_release, NULL);
	server = (struct slot_server){ .queue = &guest.fake.disks->queue,
				       .slots = BLOCK_SLOTS,
				       .doorbell_fd = guest.fake.client.doorbell_fd,
				       .answer_fd = guest.fake.client.answer_fd };
	fake_contact(&guest.fake);
	fake_open(&guest.fake, LIVE_STORAGE);
	live_agree_on_storage(&guest);
	goes_while_busy();
	drive();
	storage_detach(guest.fake.storage, 2);
	released = 1;
	floods();
	fake_destroy(&guest.fake);
	printf("1..%u\n", checks);
	return bad != 0;
}
