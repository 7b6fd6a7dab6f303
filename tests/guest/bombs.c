/*
 * What a guest can make its monitor spend, from its kernel and from an unprivileged program (user-
 * tables, user-code): tables, code, descriptions of it, timers, lists of pages, channels, requests
 * and messages of the partition bus. The command line names the bomb, which goes off again
 * and again until the machine is ended from outside. tests/guest/bombs.py looks at the machine
 * process meanwhile. Every bomb prints READY once it has gone off once.
 */
#include "vmbus.h"

enum { PAGE_PS = 0x80, ENTRIES = 512, USER_CODE = 0x33 };
#define TWO_MIB (1ull << 21)
#define GIB (1ull << 30)
#define SPREAD_FROM (1ull << 39) /* behind what this guest itself uses */
#define SPREAD_TO (1ull << 47)

extern uint64_t page_tables[], boot_information;

/*
 * Every 2 MiB of [SPREAD_FROM, SPREAD_TO) leads to the first 2 MiB of memory: two pages of tables
 * are enough for that.
 */
static void spread(void)
{
	uint64_t *pointers = new_page();
	uint64_t *directory = new_page();

	for (unsigned n = 0; n < ENTRIES; n++) {
		pointers[n] = (uint64_t)directory | PAGE_P | PAGE_W | PAGE_U;
		directory[n] = PAGE_P | PAGE_W | PAGE_U | PAGE_PS;
	}
	for (unsigned n = 1; n < ENTRIES / 2; n++)
		page_tables[n] = (uint64_t)pointers | PAGE_P | PAGE_W | PAGE_U;
	write_cr3(read_cr3());
}

static void ready(void)
{
	static bool said;

	if (!said)
		print("READY\n");
	said = true;
}

static uint8_t target[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));

/* An entry in every table page there can be. */
static void tables(bool write)
{
	spread();
	for (;;) {
		for (uint64_t gva = SPREAD_FROM; gva < SPREAD_TO; gva += TWO_MIB) {
			volatile uint8_t *at = (volatile uint8_t *)(gva + (uint64_t)target);

			if (write)
				*at = 1;
			else
				(void)*at;
			if (gva == SPREAD_FROM + (1ull << 36))
				ready();
		}
		ready();
	}
}

static void bomb_read_tables(void) { tables(false); }
static void bomb_write_tables(void) { tables(true); }

/* The same by an unprivileged program: user code at AT walks and comes back by a fault only. */
__asm__("user_walk: mov $0x8000000000, %rax\n"
	"1: movb $1, (%rax)\n"
	"add $0x200000, %rax\n"
	"bt $47, %rax\n"
	"jnc 1b\n"
	"jmp user_walk\n"
	"user_walk_end:\n");
extern uint8_t user_walk[], user_walk_end[];

static void bomb_user_tables(void)
{
	enum { USER_AT = 0x40000000 };
	uint8_t *code = new_page();

	spread();
	for (unsigned n = 0; n < (unsigned)(user_walk_end - user_walk); n++)
		code[n] = user_walk[n];
	map_page(USER_AT, (uint64_t)code, PAGE_P | PAGE_W | PAGE_U);
	ready();
	try_user((void (*)(void))USER_AT, USER_AT + PAGE_BYTES, USER_CODE);
}

static void touch(void *at) { (void)*(volatile uint8_t *)at; }

/* Nothing is there, but it was looked up. */
static void bomb_misses(void)
{
	for (;;) {
		for (uint64_t gva = SPREAD_FROM; gva < SPREAD_TO; gva += GIB)
			try_code(touch, (void *)gva);
		ready();
	}
}

static void bomb_invlpg(void)
{
	for (;;) {
		for (uint64_t gva = SPREAD_FROM; gva < SPREAD_TO; gva += GIB / 4)
			invlpg(gva);
		ready();
	}
}

static uint8_t *code_area(unsigned bytes)
{
	uint8_t *first = new_page();

	for (unsigned n = PAGE_BYTES; n < bytes; n += PAGE_BYTES)
		new_page();
	return first;
}

enum { CODE_AREA_BYTES = 4 << 20 };

/* The shortest blocks, at every address, again after every change. */
static void bomb_short_code(void)
{
	enum { RET = 0xc3 };
	uint8_t *area = code_area(CODE_AREA_BYTES);

	for (;;) {
		for (unsigned n = 0; n < CODE_AREA_BYTES; n++)
			area[n] = RET;
		for (unsigned n = 0; n < CODE_AREA_BYTES; n++) {
			/* by then the code cache has been full: 75,000 of them fill it */
			if (n == CODE_AREA_BYTES / 32)
				ready();
			((void (*)(void))(area + n))();
		}
	}
}

/*
 * Blocks with the longest translations: locked accesses with displaced registers, each entered at
 * every instruction.
 */
static void bomb_long_code(void)
{
	/* lock add [r15 + r11], r11 */
	static const uint8_t add[] = { 0xf0, 0x4f, 0x01, 0x1c, 0x1f };
	enum { RET = 0xc3, INSNS = 60 };
	uint8_t *area = code_area(CODE_AREA_BYTES);
	static uint64_t sum;
	unsigned block_bytes = INSNS * sizeof(add) + 1;

	for (;;) {
		for (unsigned at = 0; at + block_bytes <= CODE_AREA_BYTES; at += block_bytes) {
			for (unsigned n = 0; n < INSNS; n++)
				for (unsigned k = 0; k < sizeof(add); k++)
					area[at + n * sizeof(add) + k] = add[k];
			area[at + INSNS * sizeof(add)] = RET;
		}
		for (unsigned at = 0; at + block_bytes <= CODE_AREA_BYTES; at += block_bytes) {
			/* by then the code cache has been full: 2,000 entries fill it */
			if (at >= CODE_AREA_BYTES / 256)
				ready();
			for (unsigned n = 0; n < INSNS; n++) {
				register uint64_t index __asm__("r11") = 0;
				register uint64_t *base __asm__("r15") = &sum;

				__asm__ volatile("call *%2"
						 : "+r"(index), "+r"(base)
						 : "r"(area + at + n * sizeof(add))
						 : "memory", "cc");
			}
		}
	}
}

/* Every hypervisor timer, as fast as it goes, and messages that nobody takes. */
static void bomb_timers(void)
{
	enum {
		STIMER0_CONFIG = 0x400000b0,
		TIMERS = 4,
		SCONTROL = 0x40000080,
		SINT0 = 0x40000090,
		SINTS = 16
	};

	wrmsr(SCONTROL, 1);
	for (unsigned n = 0; n < SINTS; n++)
		wrmsr(SINT0 + n, 0x40 + n);
	for (;;) {
		for (unsigned n = 0; n < TIMERS; n++) {
			wrmsr(STIMER0_CONFIG + 2 * n, 0);
			wrmsr(STIMER0_CONFIG + 2 * n + 1, 1);
			/* enabled, periodic, messages to this SINT */
			wrmsr(STIMER0_CONFIG + 2 * n, 1 | 2 | (1 + n) << 16);
		}
		ready();
	}
}

/* The shortest blocks by an unprivileged program, which writes them and never comes back. */
__asm__("user_code: mov $0x40001000, %rdi\n"
	"mov $0x3ff000, %ecx\n"
	"mov $0xc3, %al\n"
	"rep stosb\n"
	"mov $0x40001000, %rdi\n"
	"mov $0x3ff000, %ecx\n"
	"1: call *%rdi\n"
	"inc %rdi\n"
	"loop 1b\n"
	"jmp user_code\n"
	"user_code_end:\n");
extern uint8_t user_code[], user_code_end[];

static void bomb_user_code(void)
{
	enum { USER_AT = 0x40000000 };
	uint8_t *area = code_area(CODE_AREA_BYTES);
	uint8_t *stack = new_page();

	for (unsigned n = 0; n < (unsigned)(user_code_end - user_code); n++)
		area[n] = user_code[n];
	for (unsigned at = 0; at < CODE_AREA_BYTES; at += PAGE_BYTES)
		map_page(USER_AT + at, (uint64_t)area + at, PAGE_P | PAGE_W | PAGE_U);
	map_page(USER_AT - PAGE_BYTES, (uint64_t)stack, PAGE_P | PAGE_W | PAGE_U);
	ready();
	try_user((void (*)(void))USER_AT, USER_AT, USER_CODE);
}

/* ---- the partition bus ---- */

enum { FIRST_GPADL = 0x1000, MOST_GPADLS = 512, GPADL_PAGES = 400, REQUESTS = 100 };

static void need(const char *what, bool is_there)
{
	if (is_there)
		return;
	print(what);
	print(" is missing\n");
	finish();
}

static struct vmbus_offer bus_begin(uint32_t type)
{
	struct vmbus_offer offer = { 0 };

	hv_open();
	bus_prepare();
	need("the bus", bus_contact(VMBUS_5_3));
	bus_offers(type, &offer);
	need("an offer", offer.relid);
	return offer;
}

/* Lists of pages until the host wants no more; and again. */
static void bomb_gpadls(void)
{
	const struct vmbus_offer offer = bus_begin(OFFER_HEARTBEAT);
	const uint8_t *pages = code_area(GPADL_PAGES * PAGE_BYTES);

	for (;;) {
		uint32_t made = 0;

		while (made < MOST_GPADLS &&
		       !bus_gpadl(FIRST_GPADL + made, offer.relid, pages, GPADL_PAGES))
			made++;
		need("a limit", made < MOST_GPADLS);
		ready();
		while (made)
			bus_teardown(FIRST_GPADL + --made, offer.relid);
	}
}

/* A channel that is opened, is left with what it was told, and closed; and again. */
static void bomb_channels(void)
{
	static const uint8_t nothing[64];
	const struct vmbus_offer offer = bus_begin(OFFER_HEARTBEAT);
	struct channel channel;

	for (;;) {
		need("a channel", !channel_open(&channel, &offer, FIRST_GPADL));
		for (unsigned n = 0; n < 32; n++)
			channel_put(&channel, PACKET_INBAND, nothing, sizeof(nothing), NULL, 0);
		channel_close(&channel);
		ready();
	}
}

/* Requests of which no answer is ever taken; on a new channel again. */
static void bomb_requests(void)
{
	const struct vmbus_packet request = { .type = PACKET_INBAND,
					      .data_units = 2,
					      .units = 10,
					      .flags = PACKET_WANTS_COMPLETION,
					      .transaction = 1 };
	const struct vmbus_offer offer = bus_begin(OFFER_STORAGE);
	static _Alignas(8) uint8_t packet[88];
	struct channel channel;

	for (unsigned n = 0; n < sizeof(request); n++)
		packet[n] = ((const uint8_t *)&request)[n];
	packet[16] = VSTOR_BEGIN;
	packet[20] = 1;
	for (;;) {
		need("a channel", !channel_open(&channel, &offer, FIRST_GPADL));
		for (unsigned n = 0; n < REQUESTS; n++) {
			channel_put_raw(&channel, packet, sizeof(packet));
			channel_signal(&channel);
		}
		channel_close(&channel);
		ready();
	}
}

/* Messages each of which has an answer, and none is taken. */
static void bomb_messages(void)
{
	const struct vmbus_head head = { VMBUS_REQUEST_OFFERS, 0 };

	bus_begin(OFFER_HEARTBEAT);
	for (;;) {
		bus_post_on(VMBUS_CONNECTION, &head, sizeof(head));
		ready();
	}
}

static const struct { const char *name; void (*act)(void);
} bombs[] = {
	{ "read-tables", bomb_read_tables }, { "write-tables", bomb_write_tables },
	{ "user-tables", bomb_user_tables }, { "misses", bomb_misses },
	{ "invlpg", bomb_invlpg },           { "short-code", bomb_short_code },
	{ "long-code", bomb_long_code },     { "timers", bomb_timers },
	{ "user-code", bomb_user_code },     { "gpadls", bomb_gpadls },
	{ "channels", bomb_channels },       { "requests", bomb_requests },
	{ "messages", bomb_messages },
};

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* The last word of the command line. */
static const char *argument(void)
{
	const char *text = (const char *)(uint64_t)*(uint32_t *)(boot_information + 16);
	const char *word = text;

	for (; *text; text++)
		if (*text == ' ')
			word = text + 1;
	return word;
}

void test_main(void)
{
	for (unsigned n = 0; n < sizeof(bombs) / sizeof(bombs[0]); n++)
		if (same(argument(), bombs[n].name))
			bombs[n].act();
	print("no such bomb\n");
}
