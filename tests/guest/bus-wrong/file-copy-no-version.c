/* Wrong: no version of the file copy is taken. */
#include "../bus-wrong.h"

WRONG_ACT("no version of the file copy is taken", QUIET)
{
	static const uint16_t versions[8];
	const struct component_answer answer = { .type = 0 };

	component_open(OFFER_FILE_COPY);
	component_answer(&answer, versions, sizeof(versions));
	return component_outcome();
}
