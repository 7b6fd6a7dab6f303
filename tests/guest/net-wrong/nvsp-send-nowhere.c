/* Wrong: a buffer to send that nobody has named. */
#include "../net-wrong.h"

WRONG_ACT("a buffer to send that nobody has named", NVSP_REFUSED)
{
	nvsp_words(NVSP_REVOKE_SEND_BUFFER, 0, 0);
	return nvsp_words(NVSP_SEND_BUFFER, 999, 0);
}
