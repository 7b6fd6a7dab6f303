/* Inside a question: what has come of its answer, until it is whole. */
#pragma once

#include "ask.h"

enum { ANSWER_BYTES = 1 << 16 };

struct question {
	struct ask ask;
	struct loop_source source;
	struct loop_timer timer;
	size_t used;
	char text[ANSWER_BYTES];
};

/* Invariant 1, between two events: somebody waits, and what would have ended it is not there. */
void check_question(const struct question *question);
