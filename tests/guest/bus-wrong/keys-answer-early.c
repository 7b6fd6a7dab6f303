/* Wrong: an answer before versions were agreed upon. */
#include "../bus-wrong.h"

WRONG_ACT("an answer before versions were agreed upon", QUIET)
{
	component_open(OFFER_KEYS);
	component_answer(&(struct component_answer){ .type = 2 }, NULL, 0);
	return component_outcome();
}
