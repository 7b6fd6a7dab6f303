/*
 * A disk that one machine serves to another (abi/share_disk.h). Who is offered the channel serves
 * 4 MiB of its memory, writes down what it has done, and now and then closes its channel with a
 * request done and not answered; the other uses the disk as any controller's. Nothing is lost, and
 * nothing is done twice, also when the window is taken away meanwhile: but that a read is done
 * again whose bytes went with it. sharing-disk.sh runs the two.
 */
#include "abi/share.h"
#include "abi/share_disk.h"
#include "vmbus.h"

enum {
	DISK_BYTES = 4 << 20,
	SECTOR = 512,
	ROUNDS = 90,
	AT_ONCE = 6,
	NUMBERS = 16384,
	LOSES_EVERY = 37,
	NEW_FROM = 300, /* of what it has done: it is another version's server */
	OFFER_DISK = 0x2c6f3f53,
	READ_16 = 0x88,
	WRITE_16 = 0x8a,
	LAST_SECTOR = DISK_BYTES / SECTOR - 1,
	/* of several at once: so many of them do not overlap in the disk */
	LONG_BYTES = SHARE_DISK_1_2_MAX_BYTES * 3 / 2,
	LONGEST_BYTES = SHARE_DISK_MAX_BYTES,
	WINDOW_PAGES = 256,
};
#define WINDOW_GVA 0x1000000000ull
#define READ_ONLY_GVA 0x1100000000ull
#define PATIENCE_TSC 300000000000ull
#define GOOD_END 0x646f6f67u

static struct channel ch;

/* ---- who serves ---- */

struct message_out { struct share_data head; uint8_t bytes[128]; };

static struct vmbus_offer offer;
static uint8_t *disk;
static uint8_t *copy; /* of what a request has in the window */
static uint32_t round;
static uint64_t most_bytes; /* of a request in it */
static uint64_t window_number; /* of the round */
static unsigned lost, welcomes, again, left;
static uint8_t times[NUMBERS], statuses[NUMBERS];
static uint64_t windows[NUMBERS];
static uint64_t most_number, executed;
static bool ends;

static void put(const void *bytes, uint32_t count)
{
	static struct message_out out;

	out.head = (struct share_data){ .head.kind = SHARE_DATA, .bytes = count };
	for (uint32_t n = 0; n < count; n++)
		out.bytes[n] = ((const uint8_t *)bytes)[n];
	channel_put(&ch, PACKET_INBAND, &out, (uint32_t)sizeof(out.head) + count, NULL, 0);
}

static void open_channel(void)
{
	const struct share_version ask = { .head.kind = SHARE_VERSION, .least = SHARE_1_1,
					   .most = SHARE_1_2 };
	static bool is_mapped;
	struct share_version_answer answer;
	struct vmbus_packet head;

	if (channel_open(&ch, &offer, 0xe1e10)) {
		check("the channel opens", false);
		finish();
	}
	channel_put(&ch, PACKET_INBAND, &ask, sizeof(ask), NULL, 0);
	while (!channel_get(&ch, &head, &answer, sizeof(answer)))
		;
	for (uint32_t n = 0; n <= answer.window_pages && !is_mapped; n++)
		map_page(WINDOW_GVA + PAGE_BYTES * n, answer.window_gpa + PAGE_BYTES * n,
			 PAGE_P | PAGE_W);
	for (uint32_t n = 0; n < answer.window_pages && !is_mapped; n++)
		map_page(READ_ONLY_GVA + PAGE_BYTES * n, answer.read_only_gpa + PAGE_BYTES * n,
			 PAGE_P);
	is_mapped = true;
	round = 0;
}

static uint64_t word(void)
{
	const uintptr_t at = WINDOW_GVA + PAGE_BYTES * (uint64_t)WINDOW_PAGES;

	return ((const volatile struct share_window_word *)at)->number;
}

/* What is in the window now is this round's. */
static bool is_rounds(void) { return window_number && word() == window_number; }

/* First the earlier one, which is asked for what is long by pieces. */
static uint32_t version_for(const struct share_disk_hello *hello)
{
	const bool is_new = executed >= NEW_FROM && hello->most >= SHARE_DISK_1_3;

	most_bytes = is_new ? SHARE_DISK_MAX_BYTES : SHARE_DISK_1_2_MAX_BYTES;
	return is_new ? SHARE_DISK_1_3 : SHARE_DISK_1_2;
}

static void welcome(const struct share_disk_hello *hello)
{
	const struct share_disk_welcome said = { .kind = SHARE_DISK_WELCOME,
						 .version = version_for(hello),
						 .round = hello->round,
						 .size_bytes = DISK_BYTES,
						 .sector_bytes = SECTOR,
						 .physical_bytes = SECTOR,
						 .id = "a served disk" };

	round = hello->round;
	window_number = word();
	welcomes++;
	put(&said, sizeof(said));
}

static void move(void *to, const void *from, uint64_t bytes)
{
	for (uint64_t n = 0; n < bytes / sizeof(uint64_t); n++)
		((uint64_t *)to)[n] = ((const uint64_t *)from)[n];
}

/* False: its bytes are not there, or went nowhere: it is not done. */
static bool execute(const struct share_disk_request *asked)
{
	static const uint8_t zeros[LONGEST_BYTES];
	uint8_t *window = (uint8_t *)(uintptr_t)(WINDOW_GVA + PAGE_BYTES * (uint64_t)asked->first);
	uint8_t *at = disk + asked->offset;

	statuses[asked->number] = SHARE_DISK_FAILED;
	if (asked->offset > DISK_BYTES || asked->bytes > DISK_BYTES - asked->offset ||
	    asked->bytes > (asked->act == SHARE_DISK_ZERO ? LONGEST_BYTES : most_bytes))
		return true;
	if (asked->act == SHARE_DISK_READ)
		move(window, at, asked->bytes);
	else if (asked->act == SHARE_DISK_WRITE)
		move(copy, (void *)(uintptr_t)(READ_ONLY_GVA + PAGE_BYTES * (uint64_t)asked->first),
		     asked->bytes);
	if (asked->act <= SHARE_DISK_WRITE && !is_rounds())
		return false;
	if (asked->act == SHARE_DISK_WRITE)
		move(at, copy, asked->bytes);
	else if (asked->act == SHARE_DISK_ZERO)
		move(at, zeros, asked->bytes);
	ends |= asked->act == SHARE_DISK_WRITE && asked->offset == (uint64_t)LAST_SECTOR * SECTOR &&
		*(uint32_t *)(void *)at == GOOD_END;
	statuses[asked->number] = SHARE_DISK_GOOD;
	windows[asked->number] = window_number;
	return true;
}

static bool is_there_still(const struct share_disk_request *asked)
{
	return asked->act != SHARE_DISK_READ || windows[asked->number] == window_number;
}

/* False: it was done, and the answer is lost with the channel. */
static bool take_request(const struct share_disk_request *asked)
{
	struct share_disk_done done = { .kind = SHARE_DISK_DONE, .number = asked->number };
	const bool is_known = asked->number < NUMBERS && times[asked->number];

	if (asked->round != round || asked->number >= NUMBERS)
		return true;
	again += is_known;
	if (!(is_known && is_there_still(asked)) && !execute(asked)) {
		left++;
		return true;
	}
	if (!is_known) {
		times[asked->number]++;
		executed++;
		if (asked->number > most_number)
			most_number = asked->number;
		if (executed % LOSES_EVERY == 0 && !ends) {
			lost++;
			return false;
		}
	}
	done.status = statuses[asked->number];
	put(&done, sizeof(done));
	return true;
}

static bool take_message(const struct share_data *data)
{
	const void *bytes = data + 1;

	if (*(const uint32_t *)bytes == SHARE_DISK_HELLO)
		welcome(bytes);
	else if (*(const uint32_t *)bytes == SHARE_DISK_REQUEST)
		return take_request(bytes);
	return true;
}

static void serve(void)
{
	static _Alignas(8) uint8_t got[SHARE_MESSAGE_BYTES];
	uint64_t until = rdtsc() + PATIENCE_TSC;
	bool peer_has_gone = false;
	unsigned once = 0;

	disk = new_pages(DISK_BYTES / PAGE_BYTES);
	copy = new_pages(LONGEST_BYTES / PAGE_BYTES);
	open_channel();
	while (rdtsc() < until && !(ends && peer_has_gone)) {
		const struct share_head *head = (const struct share_head *)(const void *)got;
		struct vmbus_packet packet;

		if (!channel_get(&ch, &packet, got, sizeof(got)))
			continue;
		until = rdtsc() + PATIENCE_TSC;
		if (head->kind == SHARE_PEER)
			peer_has_gone = !((const struct share_peer *)(const void *)got)->is_there;
		if (head->kind != SHARE_DATA || packet.type == PACKET_COMPLETION ||
		    take_message((const struct share_data *)(const void *)got))
			continue;
		channel_close(&ch);
		open_channel();
	}
	for (uint64_t n = 1; n <= most_number; n++)
		once += times[n] == 1;
	check("the last has come", ends);
	check_equal("each request was done once", once, executed);
	check("some answers were lost", lost > 2);
	/* the one between two versions may be asked for otherwise */
	check("and asked for again", again + 1 >= lost);
	check_equal("with a hello for each", welcomes >= lost + 1, 1);
}

/* ---- who uses it ---- */

static uint8_t *data;
static uint8_t *back;
static unsigned unanswered;
static uint64_t born[2];

static void be_born(void)
{
	const volatile uint64_t *generation = (const volatile uint64_t *)0xf0000;

	born[0] = generation[0];
	born[1] = generation[1];
}

/* It was forked of the one that uses the disk, or restored. */
static bool is_another(void)
{
	const volatile uint64_t *generation = (const volatile uint64_t *)0xf0000;

	return generation[0] != born[0] || generation[1] != born[1];
}

static void cdb_16(uint8_t *cdb, uint8_t operation, uint64_t sector, uint32_t sectors)
{
	for (unsigned n = 0; n < 16; n++)
		cdb[n] = 0;
	cdb[0] = operation;
	for (unsigned n = 0; n < 8; n++)
		cdb[9 - n] = (uint8_t)(sector >> 8 * n);
	for (unsigned n = 0; n < 4; n++)
		cdb[13 - n] = (uint8_t)(sectors >> 8 * n);
}

static void put_cdb(const uint8_t cdb[16], uint8_t direction, void *at, uint32_t bytes)
{
	struct vstor_packet packet = { .operation = VSTOR_EXECUTE,
				  .flags = 1,
				  .body.srb = { .bytes = 0x34,
						.cdb_bytes = 16,
						.direction = direction,
						.data_bytes = bytes } };

	for (unsigned n = 0; n < 16; n++)
		packet.body.srb.cdb_or_sense[n] = cdb[n];
	channel_put(&ch, bytes ? PACKET_GPA_DIRECT : PACKET_INBAND, &packet, sizeof(packet), at,
		    bytes);
}

static void put_command(uint8_t operation, uint64_t sector, void *at, uint32_t bytes)
{
	uint8_t cdb[16];

	cdb_16(cdb, operation, sector, bytes / SECTOR);
	put_cdb(cdb, operation == READ_16 ? SRB_DIRECTION_READ : SRB_DIRECTION_WRITE, at, bytes);
}

/* How many of so many commands were good. */
static unsigned take_good(unsigned count)
{
	const uint64_t until = rdtsc() + PATIENCE_TSC;
	unsigned good = 0;

	while (count && rdtsc() < until) {
		struct vmbus_packet head;
		struct vstor_packet packet;

		/* what else comes is that disks are to be looked for */
		if (!channel_get(&ch, &head, &packet, sizeof(packet)) ||
		    head.type != PACKET_COMPLETION)
			continue;
		good += packet.body.srb.srb_status == SRB_SUCCESS;
		count--;
	}
	unanswered += count;
	return good;
}

static uint32_t length_of(unsigned n)
{
	return SECTOR * (1 + n * 7919u % (LONG_BYTES / SECTOR));
}

/* Places that do not overlap within one time of AT_ONCE. */
static uint64_t place_of(unsigned time, unsigned n)
{
	return (uint64_t)(n * (DISK_BYTES / AT_ONCE) / SECTOR + time * 131u % 512);
}

static void fill(unsigned time)
{
	for (uint64_t n = 0; n < AT_ONCE * LONG_BYTES / sizeof(uint64_t); n++)
		((uint64_t *)(void *)data)[n] = n * 2654435761u + time;
}

static bool is_same(const void *one, const void *other, uint32_t bytes)
{
	const uint64_t *a = one;
	const uint64_t *b = other;

	for (uint32_t n = 0; n < bytes / sizeof(uint64_t); n++)
		if (a[n] != b[n])
			return false;
	return true;
}

static unsigned write_and_read(unsigned time)
{
	unsigned good = 0;

	fill(time);
	for (unsigned n = 0; n < AT_ONCE; n++)
		put_command(WRITE_16, place_of(time, n), data + n * LONG_BYTES,
			    length_of(time + n));
	good += take_good(AT_ONCE);
	for (unsigned n = 0; n < AT_ONCE; n++)
		put_command(READ_16, place_of(time, n), back + n * LONG_BYTES,
			    length_of(time + n));
	good += take_good(AT_ONCE);
	for (unsigned n = 0; n < AT_ONCE; n++)
		good += is_same(data + n * LONG_BYTES, back + n * LONG_BYTES,
				length_of(time + n));
	return good;
}

/* One that needs all slots, behind and before others. */
static unsigned write_and_read_longest(void)
{
	const uint64_t behind = LONGEST_BYTES / SECTOR;
	unsigned good;

	fill(ROUNDS);
	put_command(WRITE_16, behind, data + LONGEST_BYTES, SECTOR);
	put_command(WRITE_16, 0, data, LONGEST_BYTES);
	put_command(WRITE_16, behind + 1, data + LONGEST_BYTES + SECTOR, SECTOR);
	good = take_good(3);
	put_command(READ_16, behind, back + LONGEST_BYTES, SECTOR);
	put_command(READ_16, 0, back, LONGEST_BYTES);
	put_command(READ_16, behind + 1, back + LONGEST_BYTES + SECTOR, SECTOR);
	good += take_good(3);
	return good + is_same(data, back, LONGEST_BYTES + 2 * SECTOR);
}

static void use_another(void)
{
	const uint64_t until = rdtsc() + PATIENCE_TSC;
	bool is_there = false;

	while (!is_there && rdtsc() < until) {
		put_command(READ_16, 1, back, SECTOR);
		is_there = take_good(1);
	}
	check("another disk has come", is_there);
	fill(3);
	put_command(WRITE_16, 1, data, SECTOR);
	check_equal("which is written", take_good(1), 1);
	put_command(READ_16, 1, back, SECTOR);
	check_equal("and read", take_good(1), 1);
	check("as it was written", is_same(data, back, SECTOR));
}

/*
 * One whose port is nobody's: what was under way is answered, as what comes, and the disk is gone;
 * where it was told so (has_input()) another one comes in its place. One that was restored at its
 * port goes on.
 */
static void look_around(void)
{
	if (!is_another())
		return;
	be_born();
	put_command(READ_16, 1, back, SECTOR);
	check_equal("each command was answered", unanswered, 0);
	if (take_good(1))
		return;
	check_equal("also this one, and nothing is read", unanswered, 0);
	if (has_input())
		use_another();
	finish();
}

static void use(void)
{
	static const uint8_t is_ready[16] = { 0 };
	static const uint8_t capacity[16] = { 0x9e, 0x10, [13] = 32 };
	static const uint8_t flush[16] = { 0x91 };
	unsigned good = 0;

	data = new_pages(AT_ONCE * LONG_BYTES / PAGE_BYTES);
	back = new_pages(AT_ONCE * LONG_BYTES / PAGE_BYTES);
	put_cdb(is_ready, SRB_DIRECTION_NONE, data, 0);
	check_equal("it waits for who serves, and is there", take_good(1), 1);
	put_cdb(capacity, SRB_DIRECTION_READ, back, 32);
	check_equal("its size", take_good(1), 1);
	check_equal("is the server's", (uint64_t)back[5] << 16 | back[6] << 8 | back[7],
		    LAST_SECTOR);
	for (unsigned time = 0; time < ROUNDS; time++) {
		good += write_and_read(time);
		look_around();
	}
	check_equal("what was written is read", good, ROUNDS * AT_ONCE * 3);
	for (unsigned time = good = 0; time < 4; time++)
		good += write_and_read_longest();
	check_equal("also the longest", good, 4 * 7);
	put_cdb(flush, SRB_DIRECTION_NONE, data, 0);
	check_equal("a flush", take_good(1), 1);
	*(uint32_t *)(void *)data = GOOD_END;
	put_command(WRITE_16, LAST_SECTOR, data, SECTOR);
	check_equal("the last", take_good(1), 1);
}

void test_main(void)
{
	static const struct vmbus_head bye = { .kind = VMBUS_UNLOAD };

	hv_open();
	be_born();
	bus_prepare();
	check("contact", bus_contact(VMBUS_5_3));
	check_equal("offers", bus_offers(OFFER_DISK, &offer), BUS_OFFERS + 1);
	if (*(const uint32_t *)(const void *)offer.type.byte == OFFER_DISK) {
		serve();
	} else {
		bus_post_on(VMBUS_CONNECTION, &bye, sizeof(bye));
		check("unload", bus_expect(VMBUS_UNLOAD_RESPONSE) != NULL);
		storage_open_last(&ch, BUS_OFFERS + 1);
		use();
	}
	finish();
}
