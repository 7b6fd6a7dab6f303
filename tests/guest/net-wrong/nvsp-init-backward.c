/* Wrong: a range of versions that ends before it begins. */
#include "../net-wrong.h"

WRONG_ACT("a range of versions that ends before it begins", NVSP_REFUSED)
{
	net_reopen();
	return net_init(NVSP_6_1, NVSP_1);
}
