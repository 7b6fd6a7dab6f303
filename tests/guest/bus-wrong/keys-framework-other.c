/* Wrong: a framework that was not offered. */
#include "../bus-wrong.h"

WRONG_ACT("a framework that was not offered", QUIET)
{
	const uint16_t versions[8] = { 1, 1, 0, 0, 7, 7, 4, 0 };

	component_open(OFFER_KEYS);
	component_answer(&(struct component_answer){ .type = 0 }, versions, sizeof(versions));
	return component_outcome();
}
