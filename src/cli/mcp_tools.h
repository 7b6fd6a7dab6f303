/* The tools of umbra mcp: what each is called, takes and does. */
#pragma once

#include <jansson.h>

/* What tools/list answers of them: an array, a new reference. */
json_t *mcp_tools_list(void);
/*
 * Does it: what tools/call answers, a new reference. NULL: there is no such tool, or these are not
 * its arguments: *ret_wrong says what is wrong. A tool that fails has answered.
 */
json_t *mcp_tools_call(const char *name, const json_t *arguments, const char **ret_wrong);
