/* Wrong: a message of another type. */
#include "../bus-wrong.h"

WRONG_ACT("a message of another type", 5)
{
	uint32_t *page = (uint32_t *)(void *)input_page();

	page[0] = VMBUS_CONNECTION;
	page[2] = 2;
	page[3] = 8;
	return umbra_call(&hv, 0x5c, gpa(page), 0) & 0xffff;
}
