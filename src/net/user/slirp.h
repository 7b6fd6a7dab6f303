/* libslirp, which a net process in user mode loads, and nobody else (lib/late.h). */
#pragma once

#include <stdbool.h>

/* Before any of its functions is called. False: it is not there. */
bool slirp_load(void);
