/*
 * Every wrong act of tests/guest/wrong, each in a file of its own: its exact answer, and that the
 * machine is as before afterwards.
 */
#include "hv.h"

extern const struct wrong_act *const __start_acts[], *const __stop_acts[];

static bool still_well(void)
{
	struct umbra umbra;

	if (!hv_is_umbra())
		return true;
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_NULL), 0, 0) == 0 &&
	       umbra_find_by_page(&umbra, (void *)UMBRA_INFO_GPA);
}

void test_main(void)
{
	hv_open();
	for (const struct wrong_act *const *at = __start_acts; at < __stop_acts; at++) {
		const struct wrong_act *a = *at;
		/* a refused rep call may say how far it came */
		uint64_t got = a->run() & ~((uint64_t)REP_MASK << 32 & (a->want >> 32 ? 0 : ~0ull));

		check_act(a->name, got, a->want);
		if (!still_well())
			check("the machine is well", false);
	}
}
