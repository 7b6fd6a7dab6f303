/* Wrong: an answer of another component's kind. */
#include "../bus-wrong.h"

WRONG_ACT("an answer of another component's kind", QUIET)
{
	component_open(OFFER_KEYS);
	component_agree();
	component_answer(&(struct component_answer){ .type = 5 }, NULL, 0);
	return component_outcome();
}
