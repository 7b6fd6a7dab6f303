/* Wrong: a second buffer to send. */
#include "../net-wrong.h"

WRONG_ACT("a second buffer to send", NVSP_REFUSED)
{
	return nvsp_words(NVSP_SEND_BUFFER, SEND_GPADL, 0);
}
