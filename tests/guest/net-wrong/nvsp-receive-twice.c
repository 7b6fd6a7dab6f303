/* Wrong: a second buffer to receive. */
#include "../net-wrong.h"

WRONG_ACT("a second buffer to receive", NVSP_REFUSED)
{
	return nvsp_words(NVSP_RECEIVE_BUFFER, RECEIVE_GPADL, NVSP_RECEIVE_BUFFER_ID);
}
