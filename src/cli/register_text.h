/* What umbra info says of the processors of a machine that runs. */
#pragma once

#include <jansson.h>

/*
 * processors: an array as the control protocol has it. path: a System.map or kallsyms of the
 * guest's kernel, or NULL. The exit code.
 */
int registers_print(const json_t *processors, const char *path);
