/* Wrong: a buffer to send whose pages were taken back. */
#include "../net-wrong.h"

WRONG_ACT("a buffer to send whose pages were taken back", NVSP_REFUSED)
{
	nvsp_words(NVSP_REVOKE_SEND_BUFFER, 0, 0);
	bus_teardown(SEND_GPADL, net.relid);
	return nvsp_words(NVSP_SEND_BUFFER, SEND_GPADL, 0);
}
