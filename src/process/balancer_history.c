/* See balancer_internal.h: the last moves, and a sample of everything each second. */
#include <stdlib.h>
#include <string.h>

#include "balancer.h"
#include "balancer_internal.h"

enum { MIB_SHIFT = 20 };

static uint32_t mebibytes(uint64_t bytes)
{
	const uint64_t count = bytes >> MIB_SHIFT;

	return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

void history_move(struct history *history, const struct link *link,
		  const struct balance_verdict *verdict, int64_t now_ms)
{
	struct history_move *move = &history->move[history->moves++ % HISTORY_MOVES];

	memcpy(move->name, link->name, sizeof(move->name));
	move->at_ms = now_ms;
	move->from = link->advised_bytes ? link->advised_bytes : link->said.assigned;
	move->to = verdict->target;
	move->reason = verdict->reason;
}

void history_sample(struct history *history, const struct balance_host *host,
		    const struct link *link, const struct balance_guest *guest,
		    const struct balance_verdict *verdict)
{
	struct history_sample *sample;

	if (!history->sample)
		history->sample = calloc(BALANCER_SAMPLES, sizeof(*history->sample));
	if (!history->sample)
		return;
	sample = &history->sample[history->samples++ % BALANCER_SAMPLES];
	*sample = (struct history_sample){ .available = mebibytes(host->available_bytes),
					   .reserve = mebibytes(host->reserve_bytes) };
	for (unsigned n = 0; n < BALANCE_GUESTS && sample->machines < HISTORY_MACHINES; n++) {
		struct history_machine *machine = &sample->machine[sample->machines];

		if (!guest[n].is_there)
			continue;
		sample->machines++;
		memcpy(machine->name, link[n].name, sizeof(machine->name));
		machine->assigned = mebibytes(guest[n].assigned);
		machine->demand = mebibytes(verdict[n].demand);
		machine->target = mebibytes(verdict[n].target);
		machine->occupied = mebibytes(guest[n].resident);
	}
}

json_t *history_moves_json(const struct history *history, int64_t now_ms)
{
	json_t *moves = json_array();
	uint64_t n = history->moves > HISTORY_MOVES ? history->moves - HISTORY_MOVES : 0;

	for (; n < history->moves; n++) {
		const struct history_move *move = &history->move[n % HISTORY_MOVES];

		json_array_append_new(
			moves, json_pack("{s:s, s:I, s:I, s:I, s:s}", "name", move->name, "ago-ms",
					 (json_int_t)(now_ms - move->at_ms), "from",
					 (json_int_t)move->from, "to", (json_int_t)move->to,
					 "reason", balance_reason_text(move->reason)));
	}
	return moves;
}

static json_t *sample_json(const struct history_sample *sample)
{
	json_t *machines = json_object();

	for (unsigned n = 0; n < sample->machines; n++) {
		const struct history_machine *machine = &sample->machine[n];

		json_object_set_new(machines, machine->name,
				    json_pack("[i, i, i, i]", (int)machine->assigned,
					      (int)machine->demand, (int)machine->target,
					      (int)machine->occupied));
	}
	return json_pack("{s:i, s:i, s:o}", "available", (int)sample->available, "reserve",
			 (int)sample->reserve, "machines", machines);
}

json_t *history_json(const struct history *history)
{
	json_t *samples = json_array();
	uint64_t n = history->samples > BALANCER_SAMPLES ? history->samples - BALANCER_SAMPLES : 0;

	for (; n < history->samples; n++)
		json_array_append_new(samples, sample_json(&history->sample[n % BALANCER_SAMPLES]));
	return json_pack("{s:o}", "samples", samples);
}
