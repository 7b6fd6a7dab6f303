/* What the files of umbra image share. */
#pragma once

#include <stdbool.h>

/* Text that a file told us: control characters as ?. */
void print_safely(const char *text);
/* Each returns the exit code; catalog NULL: the user's. */
int image_index(const char *catalog, const char *const *directories, unsigned count);
int image_search(const char *catalog, const char *query, const char *limit, bool json, bool explain);
