/* Wrong: no version of keys and values is taken. */
#include "../bus-wrong.h"

WRONG_ACT("no version of keys and values is taken", QUIET)
{
	const uint16_t versions[8] = { 0, 0, 0, 0, 3, 0, 4, 0 };

	component_open(OFFER_KEYS);
	component_answer(&(struct component_answer){ .type = 0 }, versions, sizeof(versions));
	return component_outcome();
}
