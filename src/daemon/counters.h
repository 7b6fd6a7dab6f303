/*
 * The counters of a machine, from its text: lines "what: name count, name count", of which a group
 * has one for each processor, or one for all.
 */
#pragma once

#include <jansson.h>

/* {"mmu":[{"hits":5},...],...}: numbers and names alone; a new reference. */
json_t *counters_json(const char *text);
