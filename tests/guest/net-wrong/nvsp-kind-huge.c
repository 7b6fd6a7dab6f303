/* Wrong: a message of the last kind. */
#include "../net-wrong.h"

WRONG_ACT("a message of the last kind", CHANNEL_BROKEN)
{
	return nvsp_words(0xffffffff, 0, 0);
}
