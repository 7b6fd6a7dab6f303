/* Wrong: versions that are cut off. */
#include "../bus-wrong.h"

WRONG_ACT("versions that are cut off", QUIET)
{
	const uint16_t versions[8] = { 1, 1, 0, 0, 3, 0, 4, 0 };

	component_open(OFFER_KEYS);
	component_answer(&(struct component_answer){ .type = 0 }, versions, 8);
	return component_outcome();
}
