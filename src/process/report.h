/*
 * What a process says when it cannot do what it was asked to: one line on standard error, and how
 * it ends.
 */
#pragma once

enum {
	EXIT_USAGE = 64,
	EXIT_UNUSABLE = 65,
	EXIT_NO_ENGINE = 69,
	EXIT_FAULT = 70,
	EXIT_GUEST_CRASHED = 75,
	EXIT_POLICY = 78,
	EXIT_OUT_OF_TIME = 124 /* as timeout(1) has it */
};

/* umbra: WHERE: WHAT; REMEDY, as plain text. Returns code. */
int complain(int code, const char *what, const char *where, const char *remedy);
