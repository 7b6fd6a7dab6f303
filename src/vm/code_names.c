/*
 * What translated code there is, by the names that the guest's kernel has for it, told as it is
 * made (machine_options.code) to who profiles the machine process from outside.
 *
 *   engine's notes --> told at once, or, of a kernel whose symbols are not found yet, --> waiting
 *                                         found, or it took too long, or too many --> told, all
 *
 * What a kernel translates in its first second is what it goes on executing, and its symbols are
 * found only once a processor has said where its page tables are; it is asked for each search. A
 * kernel without symbols, and programs, have "guest_0x" and the address.
 *
 *   - What is told of is in the notes' order, but for what waits.
 *   - While the machine stands still nobody is told anything.
 *
 * Left out: symbols of a second kernel in the same machine (kexec), and of modules and programs.
 */
#include "kallsyms.h"
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURN_NS = 50 * 1000000, NS_PER_S = 1000000000, WAITING_MOST = 1 << 17 };
enum { TURNS_A_LOOK = 10, TURNS_OF_PATIENCE = 400 }; /* between two searches; without success */

struct code_names {
	struct machine *machine;
	pthread_mutex_t lock; /* of `paused`; held while somebody is told */
	bool paused;
	pthread_mutex_t wake; /* of `stopped` */
	bool stopped;
	pthread_cond_t changed;
	/* its own thread's */
	struct kallsyms symbols;
	bool found, impatient;
	unsigned turns; /* with something that waits */
	uint64_t lost;
	struct machine_code told[MACHINE_CODES];
	unsigned told_count;
	struct engine_code waiting[WAITING_MOST];
	unsigned waiting_count;
};

/* ---- names ---- */

/* As it is told, '$' and what is behind the name excepted. */
static void take_symbol(struct code_names *names, uint64_t gva, char ret[MACHINE_SYMBOL_BYTES])
{
	char symbol[KALLSYMS_NAME_BYTES];

	_Static_assert((int)MACHINE_SYMBOL_BYTES >= (int)KALLSYMS_NAME_BYTES, "it has room");
	kallsyms_name(&names->symbols, gva, symbol);
	symbol[strcspn(symbol, "+")] = 0;
	for (char *at = symbol; *at; at++)
		*at = (char)(*at == '$' ? '_' : *at);
	memcpy(ret, symbol, sizeof(symbol));
}

static void name_code(struct code_names *names, const struct engine_code *code,
		      char ret[MACHINE_SYMBOL_BYTES])
{
	ret[0] = 0;
	if (code->gva == ENGINE_CODE_OWN)
		snprintf(ret, MACHINE_SYMBOL_BYTES, "umbra_thunks");
	else if (names->found && kallsyms_may_name(code->gva))
		take_symbol(names, code->gva, ret);
	if (!ret[0])
		snprintf(ret, MACHINE_SYMBOL_BYTES, "guest_0x%lx", code->gva);
}

/* ---- telling ---- */

static void tell(struct code_names *names)
{
	const struct machine_options *options = &names->machine->options;

	if (names->told_count)
		options->code(options->context, names->lost, names->told, names->told_count);
	names->told_count = 0;
	if (names->found)
		kallsyms_go_on(&names->symbols);
}

static void add(struct code_names *names, const struct engine_code *code)
{
	struct machine_code *told = &names->told[names->told_count++];

	assert(names->told_count <= MACHINE_CODES);
	memset(told, 0, sizeof(*told));
	told->hva = code->hva;
	told->bytes = code->bytes;
	name_code(names, code, told->name);
	if (names->told_count == MACHINE_CODES)
		tell(names);
}

static bool may_wait(const struct code_names *names, const struct engine_code *code)
{
	return !names->found && !names->impatient && kallsyms_may_name(code->gva) &&
	       names->waiting_count < WAITING_MOST;
}

static void take_all(struct code_names *names)
{
	struct engine_code codes[MACHINE_CODES];
	unsigned count = MACHINE_CODES;

	while (count == MACHINE_CODES) {
		count = engine_take_code(names->machine->engine, codes, MACHINE_CODES,
					 &names->lost);
		for (unsigned n = 0; n < count; n++)
			if (may_wait(names, &codes[n]))
				names->waiting[names->waiting_count++] = codes[n];
			else
				add(names, &codes[n]);
	}
}

/* ---- the symbols ---- */

/* Where the page tables of each processor are, as it said last; it is asked for the next time. */
static void copy_roots(struct machine *machine, uint64_t ret[MACHINE_MAX_CPUS])
{
	pthread_mutex_lock(&machine->lock);
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		ret[n] = machine->vcpus[n].registers.cr3;
		look_ask(&machine->vcpus[n]);
	}
	pthread_mutex_unlock(&machine->lock);
}

static void look_for_symbols(struct code_names *names)
{
	struct machine *machine = names->machine;
	uint64_t roots[MACHINE_MAX_CPUS] = { 0 };

	if (!demand_seems_whole(machine)) /* it would wait for much of it */
		return;
	copy_roots(machine, roots);
	for (unsigned n = 0; n < machine->options.cpus && !names->found; n++)
		names->found = roots[n] &&
			       kallsyms_find(&names->symbols, &machine->memory, roots[n]);
}

static void wait_no_longer(struct code_names *names)
{
	for (unsigned n = 0; n < names->waiting_count; n++)
		add(names, &names->waiting[n]);
	names->waiting_count = 0;
}

static void turn(struct code_names *names)
{
	take_all(names);
	if (names->waiting_count && !(names->turns++ % TURNS_A_LOOK))
		look_for_symbols(names);
	names->impatient |= names->turns > TURNS_OF_PATIENCE ||
			    names->waiting_count == WAITING_MOST;
	if (names->found || names->impatient)
		wait_no_longer(names);
	tell(names);
}

/* ---- its life ---- */

static void set_paused(struct code_names *names, bool paused)
{
	pthread_mutex_lock(&names->lock);
	names->paused = paused;
	pthread_mutex_unlock(&names->lock);
}

static void code_names_pause(void *self) { set_paused(self, true); }
static void code_names_resume(void *self) { set_paused(self, false); }

static void code_names_stop(void *self)
{
	struct code_names *names = self;

	pthread_mutex_lock(&names->wake);
	names->stopped = true;
	pthread_cond_signal(&names->changed);
	pthread_mutex_unlock(&names->wake);
}

/* False: it is to end. */
static bool wait_for_turn(struct code_names *names)
{
	struct timespec until;
	bool goes_on;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TURN_NS;
	until.tv_sec += until.tv_nsec / NS_PER_S;
	until.tv_nsec %= NS_PER_S;
	pthread_mutex_lock(&names->wake);
	if (!names->stopped)
		pthread_cond_timedwait(&names->changed, &names->wake, &until);
	goes_on = !names->stopped;
	pthread_mutex_unlock(&names->wake);
	return goes_on;
}

static void code_names_run(void *self)
{
	struct code_names *names = self;
	bool goes_on = true;

	if (names->machine->is_forked)
		return;
	while (goes_on) {
		goes_on = wait_for_turn(names);
		pthread_mutex_lock(&names->lock);
		names->impatient |= !goes_on;
		if (!names->paused)
			turn(names);
		pthread_mutex_unlock(&names->lock);
	}
}

static void locks_make(struct code_names *names)
{
	pthread_condattr_t attributes;

	pthread_mutex_init(&names->lock, NULL);
	pthread_mutex_init(&names->wake, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&names->changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

static void code_names_forked(void *self) { locks_make(self); }
static void code_names_destroy(void *self) { free(self); }

static const struct unit_ops code_names_unit = {
	.name = "code names", .run = code_names_run, .pause = code_names_pause,
	.resume = code_names_resume, .forked = code_names_forked, .stop = code_names_stop,
	.destroy = code_names_destroy,
};

int machine_make_code_names(struct machine *machine)
{
	struct code_names *names = calloc(1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	names->machine = machine;
	locks_make(names);
	unit_add(&machine->units, &code_names_unit, names, 0);
	return 0;
}
