/* What umbra save and umbra fork --to have in common (save_verb.c). */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/*
 * More than this no machine that says this of itself has to say when it is saved. 0: it does not
 * say what it has.
 */
uint64_t save_most_bytes(const json_t *machine);
/*
 * Of a machine that stands still, and is safe: it ends, and does not wait for its guest. peer: of
 * talk_to(). 0 or the exit code.
 */
int save_stop_machine(const char *name, FILE *peer);
