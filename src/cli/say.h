/* A line to a machine's control socket, and descriptors along with it. */
#pragma once

#include <stddef.h>

enum { SAY_MOST_FILES = 64 };

/* 0 or -ECONNRESET. */
int say_line(int peer, const char *line, const int *files, size_t count);
