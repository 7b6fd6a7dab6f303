/* Wrong: a question instead of an answer. */
#include "../bus-wrong.h"

WRONG_ACT("a question instead of an answer", QUIET)
{
	component_open(OFFER_KEYS);
	component_agree();
	component_answer(&(struct component_answer){ .type = 2, .is_question = true }, NULL, 0);
	return component_outcome();
}
