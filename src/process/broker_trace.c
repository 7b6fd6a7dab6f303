/* See broker_trace.h. */
#include "broker_trace.h"

#include <assert.h>

enum { PIECE_RECORDS = 8192 / sizeof(struct trace_record) };

void tracer_changed(struct tracer *tracer, const struct control *control,
		    struct trace_memory *memory, uint64_t now_ms)
{
	*tracer = (struct tracer){ .wanted = control->trace.wanted };
	if (!tracer->wanted)
		return;
	trace_begin(&tracer->reader, memory);
	tracer->end_ms = now_ms + control->trace.milliseconds;
	tracer->next_ms = now_ms + TRACER_TURN_MS;
}

uint64_t tracer_due_ms(const struct tracer *tracer) { return tracer->next_ms; }

/* As many pieces as there is room for, or records. */
static bool take_pieces(struct tracer *tracer, struct control *control)
{
	struct trace_record piece[PIECE_RECORDS];
	size_t pieces = control_trace_room(control) / (sizeof(piece) + CONTROL_HEAD_BYTES);
	int got = PIECE_RECORDS;

	for (; pieces && got == PIECE_RECORDS; pieces--) {
		unsigned count;

		got = trace_get(&tracer->reader, tracer->wanted, piece, PIECE_RECORDS, &count);
		if (got < 0)
			return false;
		if (count)
			control_traced(control, piece, count * (uint32_t)sizeof(piece[0]));
	}
	return true;
}

bool tracer_turn(struct tracer *tracer, struct control *control, uint64_t now_ms)
{
	if (!tracer->end_ms || now_ms < tracer->next_ms || !control->trace.peer)
		return true;
	tracer->next_ms = now_ms + TRACER_TURN_MS;
	if (!take_pieces(tracer, control))
		return false;
	if (now_ms >= tracer->end_ms)
		control_trace_end(control, trace_dropped(&tracer->reader));
	return true;
}
