/* Wrong: an answer to another question. */
#include "../bus-wrong.h"

WRONG_ACT("an answer to another question", QUIET)
{
	component_open(OFFER_KEYS);
	component_agree();
	component_answer(&(struct component_answer){ .type = 2, .other_number = 1 }, NULL, 0);
	return component_outcome();
}
