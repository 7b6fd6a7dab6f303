/* Wrong: an answer about a backup that nobody has asked for. */
#include "../bus-wrong.h"

WRONG_ACT("an answer about a backup that nobody has asked for", QUIET)
{
	const uint16_t versions[8] = { 1, 1, 0, 0, 3, 0, 5, 0 };

	component_open(OFFER_BACKUP);
	component_answer(&(struct component_answer){ .type = 0 }, versions, sizeof(versions));
	component_answer(&(struct component_answer){ .type = 5 }, versions, sizeof(versions));
	return component_outcome();
}
