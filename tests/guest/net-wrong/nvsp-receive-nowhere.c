/* Wrong: a buffer to receive that nobody has named. */
#include "../net-wrong.h"

WRONG_ACT("a buffer to receive that nobody has named", NVSP_REFUSED)
{
	net_reopen();
	net_init(NVSP_6_1, NVSP_6_1);
	return nvsp_words(NVSP_RECEIVE_BUFFER, 999, NVSP_RECEIVE_BUFFER_ID);
}
