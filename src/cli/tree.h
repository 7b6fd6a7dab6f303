/* umbra ps --tree: who was forked from whom, and what memory each has alone. */
#pragma once

#include <jansson.h>

/*
 * Adds to each of these machines, as umbra info describes them, "unique" and "shared", in bytes:
 * what its machine process and its broker have alone, and what they share with others. Not where
 * the host does not say.
 */
void tree_measure(json_t *machines);
/*
 * Each below whom it was forked from; one whose parent is gone stands by itself. Of one whose
 * memory is still coming also what is not there yet.
 */
void tree_print(const json_t *machines);
