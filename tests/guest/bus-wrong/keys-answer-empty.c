/* Wrong: values without a byte, which end both lists. */
#include "../bus-wrong.h"

WRONG_ACT("values without a byte, which end both lists", 2)
{
	component_open(OFFER_KEYS);
	return component_questions(NULL, 0);
}
