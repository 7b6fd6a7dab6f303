/* Wrong: a version before the first. */
#include "../net-wrong.h"

WRONG_ACT("a version before the first", NVSP_REFUSED)
{
	net_reopen();
	return net_init(1, 1);
}
