/*
 * The invariants of small things that a machine consists of, each broken: check_*() sees it. Guest
 * memory, interrupt controllers, the list of units, the life as its broker sees it, the console.
 */
#include <stdlib.h>

#include "../lib/caught.h"
#include "chipset/ioapic.h"
#include "chipset/pic.h"
#include "memory/memory.h"
#include "process/console.h"
#include "process/life.h"
#include "vm/unit_list.h"
#include "x86/apic.h"

/* ---- guest memory ---- */

enum { RAM_BYTES = 1 << 20, LOW_BYTES = 1 << 19, OVERLAY_GPA = 0x3000 };

static struct guest_memory *memory_in(void *memory) { return memory; }
static void check_memory_of(void *memory) { check_guest_memory(memory); }

static void memory_nowhere(void *memory) { memory_in(memory)->ram = NULL; }
static void more_low_than_all(void *memory) { memory_in(memory)->low_bytes = 2 * RAM_BYTES; }
static void low_between_pages(void *memory) { memory_in(memory)->low_bytes--; }
static void populated_below_low(void *memory)
{
	memory_in(memory)->populated_bytes = LOW_BYTES - GUEST_PAGE_BYTES;
}
static void populated_between_pages(void *memory) { memory_in(memory)->populated_bytes--; }
static void window_too_large(void *memory)
{
	memory_in(memory)->window_bytes = (GUEST_WINDOW_PAGES + 1ull) * GUEST_PAGE_BYTES;
}
static void overlay_between_pages(void *memory) { memory_in(memory)->overlay[3].gpa++; }
static void overlay_that_is_not_looked_for(void *memory)
{
	memory_in(memory)->shown[guest_shown_word(OVERLAY_GPA)] = 0;
}

static const struct spoiling of_memory[] = {
	{ "memory that is nowhere", memory_nowhere },
	{ "more low memory than there is", more_low_than_all },
	{ "low memory that ends within a page", low_between_pages },
	{ "less populated than is low", populated_below_low },
	{ "populated memory that ends within a page", populated_between_pages },
	{ "a window that has no pages", window_too_large },
	{ "an overlay between two pages", overlay_between_pages },
	{ "an overlay that nobody looks for", overlay_that_is_not_looked_for },
};

static unsigned of_guest_memory(void)
{
	void *ram = calloc(1, guest_memory_footprint_bytes(RAM_BYTES));
	struct guest_memory memory;
	unsigned missed;

	guest_memory_init(&memory, ram, RAM_BYTES, LOW_BYTES);
	guest_overlay_place(&memory, 3, OVERLAY_GPA, false);
	missed = CAUGHT_MISSED("guest memory", check_memory_of, &memory, of_memory);
	free(ram);
	return missed;
}

/* ---- interrupt controllers ---- */

static void raise_nothing(void *context, uint32_t low, uint32_t destination)
{
	(void)context;
	(void)low;
	(void)destination;
}
static void send_nothing(void *context, void *owner, uint32_t low, uint32_t destination)
{
	(void)owner;
	raise_nothing(context, low, destination);
}
static void end_no_level(void *context, uint8_t vector)
{
	(void)context;
	(void)vector;
}

static struct ioapic *ioapic_in(void *ioapic) { return ioapic; }
static void check_ioapic_of(void *ioapic) { check_ioapic(ioapic); }

static void leads_nowhere(void *ioapic) { ioapic_in(ioapic)->raise = NULL; }
static void line_too_many(void *ioapic) { ioapic_in(ioapic)->lines = 1u << IOAPIC_LINES; }
static void id_too_wide(void *ioapic) { ioapic_in(ioapic)->id = 1; }
static void edge_under_way(void *ioapic) { ioapic_in(ioapic)->entry[0] = 1ull << 14; }

static const struct spoiling of_ioapic[] = {
	{ "an IOAPIC that leads nowhere", leads_nowhere },
	{ "a line that is none", line_too_many },
	{ "an identifier that no write leaves", id_too_wide },
	{ "remote IRR of an edge", edge_under_way },
};

static struct apic *apic_in(void *apic) { return apic; }
static void check_apic_of(void *apic) { check_apic(apic); }

static void x2_and_off(void *apic) { apic_in(apic)->base = 1 << 10; }
static void priority_too_wide(void *apic) { apic_in(apic)->tpr = 0x100; }
static void divide_too_wide(void *apic) { apic_in(apic)->divide = 4; }

static const struct spoiling of_apic[] = {
	{ "x2APIC mode of one that is off", x2_and_off },
	{ "a task priority that no write leaves", priority_too_wide },
	{ "a divider that no write leaves", divide_too_wide },
};

static struct pic *pic_in(void *pic) { return pic; }
static void check_pic_of(void *pic) { check_pic(pic); }

static void slave_not_heard(void *pic) { pic_in(pic)->chip[0].request = 0; }
static void fifth_word(void *pic) { pic_in(pic)->chip[1].init_step = 5; }
static void vectors_between(void *pic) { pic_in(pic)->chip[0].vector_base = 1; }

static const struct spoiling of_pic[] = {
	{ "a request of the slave's that the master has not", slave_not_heard },
	{ "a fifth word of initialisation", fifth_word },
	{ "vectors that begin anywhere", vectors_between },
};

static unsigned of_controllers(void)
{
	const struct apic_host host = { .send = send_nothing, .end_of_level = end_no_level };
	struct ioapic ioapic;
	struct apic apic;
	struct pic pic;
	unsigned missed;

	ioapic_init(&ioapic, raise_nothing, NULL);
	missed = CAUGHT_MISSED("IOAPIC", check_ioapic_of, &ioapic, of_ioapic);
	apic_reset(&apic, &host, NULL, 0, true);
	missed += CAUGHT_MISSED("APIC", check_apic_of, &apic, of_apic);
	pic_reset(&pic);
	pic_set_line(&pic, PIC_LINES - 1, true);
	return missed + CAUGHT_MISSED("8259", check_pic_of, &pic, of_pic);
}

/* ---- units and life ---- */

static struct unit_list *list_in(void *list) { return list; }
static void check_units_of(void *list) { check_units(list); }
static void archive_nothing(struct archive *archive, void *self)
{
	(void)archive;
	(void)self;
}

static const struct unit_ops first_ops = { .name = "first",
					   .section = 1,
					   .archive = archive_nothing };
static const struct unit_ops second_ops = { .name = "second",
					    .section = 2,
					    .archive = archive_nothing };
static const struct unit_ops same_section = { .name = "third",
					      .section = 1,
					      .archive = archive_nothing };
static const struct unit_ops never_saved = { .name = "fourth", .section = 4 };

static void unit_twice(void *list) { list_in(list)->unit[1] = list_in(list)->unit[0]; }
static void two_of_one_section(void *list) { list_in(list)->unit[1].ops = &same_section; }
static void section_that_is_not_saved(void *list) { list_in(list)->unit[1].ops = &never_saved; }
static void unit_of_another_list(void *list) { list_in(list)->unit[0].list = NULL; }
static void unit_of_nothing(void *list) { list_in(list)->unit[0].self = NULL; }

static const struct spoiling of_units[] = {
	{ "a unit twice", unit_twice },
	{ "two units of one section", two_of_one_section },
	{ "a section that nobody saves", section_that_is_not_saved },
	{ "a unit of another list", unit_of_another_list },
	{ "a unit of nothing", unit_of_nothing },
};

static struct life *life_in(void *life) { return life; }
static void check_life_of(void *life) { check_life(life); }
static void no_such_state(void *life) { life_in(life)->state = LIFE_STATES; }
static void asks_for_ever(void *life) { life_in(life)->state = LIFE_ASKING; }
static void runs_until(void *life) { life_in(life)->deadline_ms = 1; }

static const struct spoiling of_life[] = {
	{ "no state", no_such_state },
	{ "a state with a time and without a deadline", asks_for_ever },
	{ "a deadline where there is none", runs_until },
};

static unsigned of_units_and_life(void)
{
	static struct unit_list list;
	static int self[2];
	struct life life = { .state = LIFE_STARTING };
	unsigned missed;

	unit_add(&list, &first_ops, &self[0], 0);
	unit_add(&list, &second_ops, &self[1], 0);
	missed = CAUGHT_MISSED("units", check_units_of, &list, of_units);
	life_move(&life, LIFE_RUNNING, 1);
	return missed + CAUGHT_MISSED("life", check_life_of, &life, of_life);
}

/* ---- a console whose reader has not taken all ---- */

static struct console *console_in(void *console) { return console; }
static void check_console_of(void *console) { check_console(console); }
static void held_from_nowhere(void *console)
{
	console_in(console)->held_first = CONSOLE_HELD_BYTES;
}
static void more_held_than_may_be(void *console)
{
	console_in(console)->held_bytes = CONSOLE_HELD_BYTES + 1;
}
static void held_for_nobody(void *console) { console_in(console)->fd = -1; }
static void held_for_a_file(void *console) { console_in(console)->is_file = true; }
static void more_than_a_token(void *console)
{
	console_in(console)->filter.used = FILTER_TOKEN_BYTES + 1;
}

static const struct spoiling of_console[] = {
	{ "what is held from beyond its end", held_from_nowhere },
	{ "more held than may be", more_held_than_may_be },
	{ "what is held for nobody", held_for_nobody },
	{ "what is held for a file", held_for_a_file },
	{ "more than a token", more_than_a_token },
};

static unsigned of_the_console(void)
{
	struct console *console = calloc(1, sizeof(*console));
	unsigned missed;

	console->held_bytes = 9;
	missed = CAUGHT_MISSED("console", check_console_of, console, of_console);
	free(console);
	return missed;
}

int main(void)
{
	unsigned missed = of_guest_memory();

	missed += of_controllers();
	missed += of_units_and_life();
	missed += of_the_console();
	return missed != 0;
}
