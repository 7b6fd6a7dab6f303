/*
 * The invariants of small things that a machine consists of, each broken: check_*() sees it. Guest
 * memory, interrupt controllers, the list of units, the life as its broker sees it, the console and
 * its filter, who stands by, disks that come and go, a fork, a trace, who is waited for.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/caught.h"
#include "chipset/ioapic.h"
#include "chipset/pic.h"
#include "ipc/trace_ring.h"
#include "memory/memory.h"
#include "process/broker_fork.h"
#include "process/broker_disks.h"
#include "process/console.h"
#include "process/disk_change_internal.h"
#include "process/life.h"
#include "process/rejoin.h"
#include "process/standby.h"
#include "process/terminal_filter.h"
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
static void window_that_is_only_read(void *memory)
{
	memory_in(memory)->window_read_only = memory_in(memory)->window_bytes + 1;
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
	{ "what is only read beside the windows", window_that_is_only_read },
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
static const struct unit_ops third_ops = { .name = "third" };
static const struct unit_ops never_saved = { .name = "fourth", .section = 4 };

static void unit_twice(void *list) { list_in(list)->unit[1] = list_in(list)->unit[0]; }
static void two_of_one_section(void *list) { list_in(list)->unit[1].ops = &same_section; }
static void section_that_is_not_saved(void *list) { list_in(list)->unit[1].ops = &never_saved; }
static void unit_of_another_list(void *list) { list_in(list)->unit[0].list = NULL; }
static void unit_of_nothing(void *list) { list_in(list)->unit[0].self = NULL; }
static void no_such_stage(void *list) { list_in(list)->stage = UNIT_STAGES; }
static void paused_before_it_runs(void *list) { units_pause(list); }
static void paused_twice(void *list)
{
	list_in(list)->stage = UNITS_RUN;
	units_pause(list);
	units_pause(list);
}
static void goes_on_while_it_runs(void *list)
{
	list_in(list)->stage = UNITS_RUN;
	units_resume(list);
}
static void forked_while_it_runs(void *list)
{
	list_in(list)->stage = UNITS_RUN;
	units_forked(list);
}
static void unit_that_comes_late(void *list)
{
	static int late;

	list_in(list)->stage = UNITS_RUN;
	unit_add(list, &third_ops, &late, 0);
}
static void ends_before_its_threads(void *list)
{
	list_in(list)->stage = UNITS_RUN;
	units_destroy(list);
}

static const struct spoiling of_units[] = {
	{ "a unit twice", unit_twice },
	{ "two units of one section", two_of_one_section },
	{ "a section that nobody saves", section_that_is_not_saved },
	{ "a unit of another list", unit_of_another_list },
	{ "a unit of nothing", unit_of_nothing },
	{ "no stage", no_such_stage },
	{ "a pause before they run", paused_before_it_runs },
	{ "a pause in a pause", paused_twice },
	{ "what goes on without a pause", goes_on_while_it_runs },
	{ "a fork without a pause", forked_while_it_runs },
	{ "a unit that comes while others run", unit_that_comes_late },
	{ "an end while others run", ends_before_its_threads },
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

/* ---- who stands by ---- */

static struct standby *standby_in(void *standby) { return standby; }
static void check_standby_of(void *standby) { check_standby(standby); }
static void of_no_role(void *standby) { standby_in(standby)->role = ROLES; }
static void given_nothing(void *standby) { standby_in(standby)->grants = NULL; }
static void nobody_who_ends(void *standby) { standby_in(standby)->pid = 0; }
static void end_that_nobody_hears(void *standby) { standby_in(standby)->pidfd = -1; }
static void not_even_one(void *standby) { standby_in(standby)->pid = -1; }
static void hears_no_end(void *standby) { standby_in(standby)->has_pipe = false; }

static const struct spoiling of_standby[] = {
	{ "one that stands by for no role", of_no_role },
	{ "one that was given nothing", given_nothing },
	{ "the end of nobody", nobody_who_ends },
	{ "an end that nobody hears", end_that_nobody_hears },
	{ "one that could not be made", not_even_one },
	{ "one that does not hear the first one's end", hears_no_end },
};

static unsigned of_who_stands_by(void)
{
	static const struct grants grants;
	struct standby standby = { .role = ROLE_HUB, .grants = &grants, .pid = 7, .pidfd = 7,
				   .has_pipe = true };

	return CAUGHT_MISSED("standby", check_standby_of, &standby, of_standby);
}

/* ---- disks that come and go: in the broker, and in the disk process ---- */

static struct disk_work *work_in(void *work) { return work; }
static void check_work_of(void *work) { check_disk_work(work); }
static void work_without_an_answer_to_come(void *work) { work_in(work)->asked = 0; }
static void idle_with_an_answer_to_come(void *work) { work_in(work)->state = DISK_WORK_IDLE; }
static void told_before_it_is_answered(void *work) { work_in(work)->state = DISK_WORK_TELL; }
static void error_that_is_none(void *work) { work_in(work)->error = 5; }
static void nobody_has_asked(void *work) { work_in(work)->control->ask.runs = false; }
static void asked_for_something_else(void *work)
{
	work_in(work)->control->ask.kind = RECORD_SHOW;
}

static const struct spoiling of_work[] = {
	{ "work with disks that nobody answers", work_without_an_answer_to_come },
	{ "an answer to come, and no work", idle_with_an_answer_to_come },
	{ "a machine that is told too early", told_before_it_is_answered },
	{ "an error that is none", error_that_is_none },
	{ "work that nobody has asked for", nobody_has_asked },
	{ "work while something else is asked for", asked_for_something_else },
};

static struct disk_changes *changes_in(void *changes) { return changes; }
static void check_changes_of(void *changes) { check_disk_changes(changes); }
static void side_of_no_disk(void *changes)
{
	changes_in(changes)->sides[1] = changes_in(changes)->sides_below;
}
static void side_twice(void *changes)
{
	static struct given_side more;

	more.keeper.context = &more;
	more.next = changes_in(changes)->sides_below;
	changes_in(changes)->sides_below = &more;
}
static void side_of_another(void *changes)
{
	changes_in(changes)->sides_below->keeper.context = NULL;
}
static void chain_without_its_sides(void *changes) { changes_in(changes)->sides_below = NULL; }
static void sides_without_a_chain(void *changes) { changes_in(changes)->below = NULL; }
static void written_and_not_there(void *changes) { changes_in(changes)->writes[0] = true; }

static const struct spoiling of_changes[] = {
	{ "what lies beside no disk", side_of_no_disk },
	{ "what came along twice", side_twice },
	{ "what came along with another", side_of_another },
	{ "a chain without what came along", chain_without_its_sides },
	{ "what came along without a chain", sides_without_a_chain },
	{ "a place that is written and empty", written_and_not_there },
};

/* A file of a chain, as a broker would pass it on. */
static int give_file(struct disk_changes *changes, uint32_t flags)
{
	const struct layer_ask ask = { .kind = LAYER_FILE, .format = DISK_RAW, .flags = flags,
				       .path = "given" };
	struct block_disk unused;
	const int file = memfd_create("given", MFD_CLOEXEC);

	if (file < 0 || ftruncate(file, 1 << 20))
		return -EIO;
	return disk_changes_file(changes, &ask, file, -1, &unused);
}

static unsigned of_disks_that_come(void)
{
	struct control *control = calloc(1, sizeof(*control));
	struct disk_work work = { .state = DISK_WORK_FILES, .control = control, .asked = 2 };
	struct disk *disks[2] = { NULL, NULL };
	struct disk_queue *queues[2] = { NULL, NULL };
	bool writes[2] = { false, false };
	struct disk_changes *changes = disk_changes_begin(disks, queues, writes, 2);
	unsigned missed;

	control->ask.runs = true;
	control->ask.kind = RECORD_DISK;
	missed = CAUGHT_MISSED("disk work", check_work_of, &work, of_work);
	missed += give_file(changes, LAYER_FILE_FIRST) != 0;
	missed += CAUGHT_MISSED("disk changes", check_changes_of, changes, of_changes);
	/* one that is no child of what came before it; then another chain may begin */
	missed += give_file(changes, LAYER_FILE_LAST) != -EINVAL || changes->below;
	missed += give_file(changes, LAYER_FILE_FIRST) != 0;
	disk_changes_end(changes);
	check_disk_changes(changes);
	free(changes);
	free(control);
	return missed;
}

/* ---- the console's filter ---- */

static struct terminal_filter *filter_in(void *filter) { return filter; }
static void check_filter_of(void *filter) { check_terminal_filter(filter); }

static void state_that_is_none(void *filter) { filter_in(filter)->state = 99; }
static void token_too_long(void *filter) { filter_in(filter)->used = FILTER_TOKEN_BYTES + 1; }
static void token_too_short(void *filter) { filter_in(filter)->used = 1; }
static void string_without_end(void *filter) { filter_in(filter)->string_bytes = 1 << 20; }
static void control_of_nothing(void *filter) { filter_in(filter)->token[1] = '8'; }
static void more_to_come_than_there_is(void *filter)
{
	uint8_t out[4 + FILTER_TOKEN_BYTES];

	*filter_in(filter) = (struct terminal_filter){ 0 };
	terminal_filter(filter, (const uint8_t *)"\xe2\x82", 2, out);
	filter_in(filter)->left = 2;
}

static const struct spoiling of_filter[] = {
	{ "a state that there is not", state_that_is_none },
	{ "more than a token", token_too_long },
	{ "a control sequence that has not begun", token_too_short },
	{ "a string that does not end", string_without_end },
	{ "a control sequence without its bracket", control_of_nothing },
	{ "a character with more bytes than it has", more_to_come_than_there_is },
};

static unsigned of_the_filter(void)
{
	struct terminal_filter filter = { 0 };
	uint8_t out[4 + FILTER_TOKEN_BYTES];

	terminal_filter(&filter, (const uint8_t *)"\033[1;", 4, out);
	return CAUGHT_MISSED("filter", check_filter_of, &filter, of_filter);
}

/* ---- a fork ---- */

static struct fork *fork_in(void *forking) { return forking; }
static void check_fork_of(void *forking) { check_fork(forking); }

static void fork_of_no_state(void *forking) { fork_in(forking)->state = FORK_HELD + 1; }
static void more_than_were_wanted(void *forking) { fork_in(forking)->made = 3; }
static void more_than_a_fork_makes(void *forking) { fork_in(forking)->wanted = FORK_CHILDREN + 1; }
static void one_too_many(void *forking) { fork_in(forking)->made = 2; }
static void child_that_nobody_named(void *forking) { fork_in(forking)->child = 0; }
static void pipe_that_is_held_here(void *forking) { fork_in(forking)->kit[1][KIT_READY] = 5; }
static void answers_without_questions(void *forking) { fork_in(forking)->answered = 2; }
static void settles_what_is_not_on(void *forking) { fork_in(forking)->unsettled = 2; }

static const struct spoiling of_fork[] = {
	{ "a state that there is not", fork_of_no_state },
	{ "more children than were wanted", more_than_were_wanted },
	{ "more children than a fork makes", more_than_a_fork_makes },
	{ "one that is made when all are", one_too_many },
	{ "a child that nobody has named", child_that_nobody_named },
	{ "a pipe whose other end is held here", pipe_that_is_held_here },
	{ "answers to what was not asked", answers_without_questions },
	{ "a layer that settles and is not on", settles_what_is_not_on },
};

static unsigned of_a_fork(void)
{
	struct fork forking = { .state = FORK_COPYING, .wanted = 2, .made = 1, .child = 7,
				.asked = 1, .answered = 1, .unsettled = 1 };

	forking.kit[1][KIT_READY] = -1;
	return CAUGHT_MISSED("fork", check_fork_of, &forking, of_fork);
}

/* ---- large pages again ---- */

static struct rejoin *rejoin_in(void *rejoin) { return rejoin; }
static void check_rejoin_of(void *rejoin) { check_rejoin(rejoin); }

static void span_behind_ram(void *rejoin) { rejoin_in(rejoin)->span.at = 8 << 20; }
static void span_beyond_ram(void *rejoin) { rejoin_in(rejoin)->span.bytes = 8 << 20; }
static void part_of_a_large_page(void *rejoin) { rejoin_in(rejoin)->span.bytes = 1 << 20; }
static void span_too_long(void *rejoin)
{
	rejoin_in(rejoin)->ram.bytes = 1 << 30;
	rejoin_in(rejoin)->span.bytes = 1 << 29;
}

static const struct spoiling of_rejoin[] = {
	{ "a span behind RAM", span_behind_ram },
	{ "a span that ends beyond it", span_beyond_ram },
	{ "a part of a large page", part_of_a_large_page },
	{ "a span that is too long", span_too_long },
};

static unsigned of_large_pages(void)
{
	struct rejoin rejoin = { .pagemap = -1, .ram = { .bytes = 8 << 20 },
				 .span = { .at = 2 << 20, .bytes = 4 << 20 } };

	return CAUGHT_MISSED("rejoin", check_rejoin_of, &rejoin, of_rejoin);
}

/* ---- a trace ---- */

static struct trace *trace_in(void *trace) { return trace; }
static void check_trace_of(void *trace) { check_trace(trace); }

static void wanted_by_nobody(void *trace)
{
	trace_in(trace)->memory = NULL;
	trace_in(trace)->wanted = TRACE_BIT(TRACE_HALT);
}
static void consumer_ahead(void *trace) { trace_in(trace)->memory->tail = 2; }
static void another_head(void *trace) { trace_in(trace)->memory->head = 0; }
static void another_count(void *trace) { trace_in(trace)->memory->dropped = 1; }

static const struct spoiling of_trace[] = {
	{ "a trace that nobody can be told", wanted_by_nobody },
	{ "a consumer that is before the producers", consumer_ahead },
	{ "a head that is not the producers'", another_head },
	{ "a count that is not the producers'", another_count },
};

static unsigned of_a_trace(void)
{
	struct trace_memory *memory = calloc(1, sizeof(*memory));
	const struct trace_record record = { .kind = TRACE_HALT };
	struct trace trace;
	unsigned missed;

	trace_init(&trace, memory);
	trace_put(&trace, &record);
	missed = CAUGHT_MISSED("trace", check_trace_of, &trace, of_trace);
	free(memory);
	return missed;
}

/* ---- who is waited for ---- */

static struct control *control_in(void *control) { return control; }
static void check_control_of(void *control) { check_control(control); }

static void saver_that_is_gone(void *control)
{
	control_in(control)->saver = &control_in(control)->peer[1];
}
static void asker_that_is_none(void *control)
{
	control_in(control)->ask.peer = control_in(control)->peer + CONTROL_PEERS;
}
static void holder_that_hung_up(void *control) { control_in(control)->peer[0].fd = -1; }
static void more_layers_than_there_are(void *control)
{
	control_in(control)->layers = CONTROL_LAYERS + 1;
}

static const struct spoiling of_peers[] = {
	{ "a save for one who is gone", saver_that_is_gone },
	{ "a question of nobody's", asker_that_is_none },
	{ "a machine held for one who hung up", holder_that_hung_up },
	{ "more layers than disks", more_layers_than_there_are },
};

static unsigned of_control(void)
{
	struct control *control = calloc(1, sizeof(*control));
	unsigned missed;

	control_init(control, -1, "{}");
	control->peer[0].fd = 1;
	control->holder = &control->peer[0];
	missed = CAUGHT_MISSED("control", check_control_of, control, of_peers);
	json_decref(control->description);
	free(control);
	return missed;
}

int main(void)
{
	unsigned missed = of_guest_memory();

	missed += of_controllers();
	missed += of_units_and_life();
	missed += of_the_console();
	missed += of_who_stands_by();
	missed += of_disks_that_come();
	missed += of_the_filter();
	missed += of_a_fork();
	missed += of_large_pages();
	missed += of_a_trace();
	missed += of_control();
	return missed != 0;
}
