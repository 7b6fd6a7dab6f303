/* What umbra info says of the processors of a machine that runs. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct symbols;

/*
 * processors: an array as the control protocol has it. path: a System.map or kallsyms of the
 * guest's kernel, or NULL. The exit code.
 */
int registers_print(const json_t *processors, const char *path);
/* The function of the guest's kernel that it is in; symbols: NULL: as the machine has it. */
bool registers_function(const json_t *processor, const struct symbols *symbols, char *name,
			size_t bytes);
