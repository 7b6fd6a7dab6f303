/* Wrong: a buffer to receive that has no room for a frame. */
#include "../net-wrong.h"

WRONG_ACT("a buffer to receive that has no room for a frame", NVSP_REFUSED)
{
	net_reopen();
	net_init(NVSP_6_1, NVSP_6_1);
	return nvsp_words(NVSP_RECEIVE_BUFFER, net.gpadl, NVSP_RECEIVE_BUFFER_ID);
}
