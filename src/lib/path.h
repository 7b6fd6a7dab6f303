/* What follows from names of files alone, where both are resolved (realpath()). */
#pragma once

#include <stdbool.h>
#include <string.h>

/* Whether the path lies in the folder, or in one of that's. */
static inline bool path_is_below(const char *path, const char *folder)
{
	const size_t bytes = strlen(folder);

	return !strncmp(path, folder, bytes) && path[bytes] &&
	       (path[bytes] == '/' || (bytes && folder[bytes - 1] == '/'));
}
