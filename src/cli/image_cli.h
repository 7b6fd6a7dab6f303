/* What the files of umbra image share. */
#pragma once

#include <stdbool.h>

/* Each returns the exit code; catalog NULL: the user's. */
int image_index(const char *catalog, const char *const *directories, unsigned count, bool json);
int image_search(const char *catalog, const char *query, const char *limit, bool json, bool explain);
