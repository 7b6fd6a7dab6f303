/* SQLite, which is loaded by whoever opens a catalog or looks into an image (lib/late.h). */
#pragma once

#include <stdbool.h>

/* Before any of its functions is called. False: it is not there. */
bool sqlite_load(void);
