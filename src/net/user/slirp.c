/* See slirp.h. */
#include "slirp.h"

#include "lib/late.h"

#define CALLS(X)										\
	X(slirp_new)										\
	X(slirp_input)										\
	X(slirp_handle_timer)									\
	X(slirp_add_hostfwd)									\
	X(slirp_pollfds_fill)									\
	X(slirp_pollfds_poll)

CALLS(LATE_CALL)

bool slirp_load(void)
{
	static const struct late_call calls[] = { CALLS(LATE_ROW) };
	static const struct late_library library = {
		.file = "libslirp.so.0",
		.call = calls,
		.calls = sizeof(calls) / sizeof(calls[0]),
	};

	return late_load(&library);
}
