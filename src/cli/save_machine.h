/* umbra save, and what umbra fork --to does first (save_verb.c). */
#pragma once

#include <stdbool.h>

struct save_request {
	const char *name, *file;
	const char *folder; /* where its disks go on; NULL: beside them */
	bool stop, replace;
	/*
	 * NULL, or called once the file is there for good: its exit code. With stop the machine
	 * stands still until then, and goes on when that is not 0.
	 */
	int (*deliver)(void *context);
	void *context;
};

/* 0 or the exit code. */
int save_machine(const struct save_request *request);
