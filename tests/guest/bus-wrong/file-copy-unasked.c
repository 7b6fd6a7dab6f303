/* Wrong: an answer about a file that nobody copies. */
#include "../bus-wrong.h"

WRONG_ACT("an answer about a file that nobody copies", QUIET)
{
	const struct component_answer answer = { .type = 7 };

	component_open(OFFER_FILE_COPY);
	component_answer(&answer, NULL, 0);
	return component_outcome();
}
