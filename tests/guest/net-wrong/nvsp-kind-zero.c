/* Wrong: a message of kind 0. */
#include "../net-wrong.h"

WRONG_ACT("a message of kind 0", CHANNEL_BROKEN)
{
	return nvsp_words(0, 0, 0);
}
