/*
 * A trace of the machine, on its way from the memory that its process writes (ipc/trace_ring.h) to
 * who has asked for it (control/machine_control.h). While one runs the broker looks there every
 * TRACER_TURN_MS, and otherwise never.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/machine_control.h"
#include "ipc/trace_ring.h"

enum { TRACER_TURN_MS = 5 };

/* end_ms: 0: nothing is traced. wanted: what it was begun with. */
struct tracer { struct trace_reader reader; uint32_t wanted; uint64_t end_ms, next_ms; };

/* After WISH_TRACE. */
void tracer_changed(struct tracer *tracer, const struct control *control,
		    struct trace_memory *memory, uint64_t now_ms);
/* After control_turn(). False: the machine says rubbish. */
bool tracer_turn(struct tracer *tracer, struct control *control, uint64_t now_ms);
/* When tracer_turn() is to be called; 0: when it likes. */
uint64_t tracer_due_ms(const struct tracer *tracer);
