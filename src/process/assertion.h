/* What becomes of an assertion that fails: a fault of ours, which the user is to report. */
#pragma once

#include <stddef.h>

/*
 * From now on it is described in text, of memory that whoever looks after this process shares, and
 * the process ends with EXIT_FAULT. Where nobody calls this, on standard error, and by SIGABRT.
 */
void assertion_describe_in(char *text, size_t bytes);
