/*
 * What every refusal has to be, whatever the input was: complete, in one line, and about a place
 * within the file, or deliberately about none.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "disk/refusal.h"

/* `bytes`: how long the file is that it may name (UINT64_MAX: another one). */
static inline void check_refusal(const struct disk_error *error, uint64_t bytes)
{
	struct disk_refusal_parts parts;
		disk_error_parts(error, &parts);
	if (!*parts.kind || !*parts.path || !*parts.structure || !*parts.found ||
	    !*parts.expected || !*parts.remedy)
		abort();
	if (parts.offset != DISK_NOWHERE && parts.offset > bytes)
		abort();
	if (error->code >= 0 || !strstr(error->text, parts.remedy))
		abort();
	for (const char *character = error->text; *character; character++)
		if ((unsigned char)*character < 0x20 || *character == 0x7f)
			abort();
}
