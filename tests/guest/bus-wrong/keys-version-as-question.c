/* Wrong: versions that are taken by a question. */
#include "../bus-wrong.h"

WRONG_ACT("versions that are taken by a question", QUIET)
{
	const uint16_t versions[8] = { 1, 1, 0, 0, 3, 0, 4, 0 };
	const struct component_answer answer = { .type = 0, .is_question = true };

	component_open(OFFER_KEYS);
	component_answer(&answer, versions, sizeof(versions));
	return component_outcome();
}
