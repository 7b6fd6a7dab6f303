/* Wrong: a call from user mode. */
#include "../hv.h"

WRONG_ACT("a call from user mode", TRAP(6))
{
	uint64_t *code = input_page();
	uint8_t *stack = (uint8_t *)output_page();

	((uint8_t *)code)[0] = 0x0f;
	((uint8_t *)code)[1] = 0x01;
	((uint8_t *)code)[2] = 0xc1;
	map_page(0x6000000000, gpa(code), PAGE_P | PAGE_W | PAGE_U);
	map_page(0x6000001000, gpa(stack), PAGE_P | PAGE_W | PAGE_U);
	return TRAP((uint64_t)try_user((void (*)(void))0x6000000000, 0x6000002000, 0x33));
}
