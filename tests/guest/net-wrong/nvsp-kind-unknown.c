/* Wrong: a message of a kind that is not there. */
#include "../net-wrong.h"

WRONG_ACT("a message of a kind that is not there", CHANNEL_BROKEN)
{
	return nvsp_words(200, 0, 0);
}
