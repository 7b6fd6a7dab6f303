/* Wrong: a version that is not there yet. */
#include "../net-wrong.h"

WRONG_ACT("a version that is not there yet", NVSP_REFUSED)
{
	net_reopen();
	return net_init(0x70000, 0x70000);
}
