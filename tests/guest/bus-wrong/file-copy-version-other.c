/* Wrong: a version of the file copy that was not offered. */
#include "../bus-wrong.h"

WRONG_ACT("a version of the file copy that was not offered", QUIET)
{
	static const uint16_t versions[8] = { 1, 1, 0, 0, 3, 0, 9, 9 };
	const struct component_answer answer = { .type = 0 };

	component_open(OFFER_FILE_COPY);
	component_answer(&answer, versions, sizeof(versions));
	return component_outcome();
}
