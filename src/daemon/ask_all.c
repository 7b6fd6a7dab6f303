/* See ask_all.h. */
#include "ask_all.h"

#include <stdio.h>
#include <stdlib.h>

#include "ask.h"
#include "control/names.h"
#include "daemon.h"

struct round { struct ask_all ask; unsigned asked; bool is_asking; };

struct asked_machine { struct round *round; char name[NAME_MAX_BYTES + 1]; };

static void end_when_all(struct round *round)
{
	if (round->asked || round->is_asking)
		return;
	round->ask.done(round->ask.context);
	free(round);
}

static void heard(void *context, json_t *answer)
{
	struct asked_machine *asked = context;
	struct round *round = asked->round;

	round->ask.heard(round->ask.context, asked->name, answer);
	free(asked);
	round->asked--;
	end_when_all(round);
}

static void ask_one(struct round *round, const struct known_machine *machine)
{
	struct asked_machine *asked = calloc(1, sizeof(*asked));
	const struct ask ask = { .loop = &round->ask.daemon->loop,
				 .machine = machine->name,
				 .line = round->ask.line,
				 .deadline_ms = round->ask.deadline_ms,
				 .answered = heard,
				 .context = asked };

	if (!asked)
		return;
	asked->round = round;
	snprintf(asked->name, sizeof(asked->name), "%s", machine->name);
	if (ask_machine(&ask))
		free(asked);
	else
		round->asked++;
}

void ask_all(const struct ask_all *ask)
{
	struct round *round = calloc(1, sizeof(*round));

	if (!round) {
		ask->done(ask->context);
		return;
	}
	round->ask = *ask;
	round->is_asking = true;
	for (struct known_machine *machine = ask->daemon->machines.first, *next; machine;
	     machine = next) {
		next = machine->next;
		if (machine->description && !json_object_get(machine->description, "suspended"))
			ask_one(round, machine);
	}
	round->is_asking = false;
	end_when_all(round);
}
