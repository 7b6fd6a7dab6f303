/* Wrong: a version of keys and values that was not offered. */
#include "../bus-wrong.h"

WRONG_ACT("a version of keys and values that was not offered", QUIET)
{
	const uint16_t versions[8] = { 1, 1, 0, 0, 3, 0, 9, 9 };

	component_open(OFFER_KEYS);
	component_answer(&(struct component_answer){ .type = 0 }, versions, sizeof(versions));
	return component_outcome();
}
