/* umbra debug block: what a machine says of translated code (ipc/code_listing.h), as text. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "ipc/code_listing.h"

/* has_words: instruction_text_load() was true. */
void listing_print(const struct listing *listing, bool has_words);
/* To be released. */
json_t *listing_describe(const struct listing *listing);
