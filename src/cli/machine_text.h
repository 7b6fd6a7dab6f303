/* What umbra info prints of a machine, as text: a line for each word that it says of itself. */
#pragma once

#include <jansson.h>

/* A key, in a column of this width, and what others have written. */
void machine_text_word(int width, const char *key, const char *word);
/* machine: as umbra info --json has it; its processors are not printed. */
void machine_text_print(const json_t *machine);
