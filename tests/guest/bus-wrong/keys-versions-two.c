/* Wrong: two versions of keys and values are taken. */
#include "../bus-wrong.h"

WRONG_ACT("two versions of keys and values are taken", QUIET)
{
	const uint16_t versions[8] = { 2, 2, 0, 0, 3, 0, 4, 0 };

	component_open(OFFER_KEYS);
	component_answer(&(struct component_answer){ .type = 0 }, versions, sizeof(versions));
	return component_outcome();
}
