/* What the verbs share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { EXIT_USAGE = 64, EXIT_UNUSABLE = 65, EXIT_NO_ENGINE = 69, EXIT_FAULT = 70, EXIT_GUEST_CRASHED = 75, EXIT_POLICY = 78 };

/* One line on stderr; returns code. */
int complain(int code, const char *what, const char *where, const char *remedy);
/* A number of bytes: digits, then nothing, K, M, G or T. */
bool parse_size(const char *text, uint64_t *ret);
int verb_run(int argc, char **argv);
int verb_disk(int argc, char **argv);
int verb_image(int argc, char **argv);
int verb_doctor(void);
/* running.c: ps, info, stop, kill, save. */
bool is_running_verb(const char *name);
int verb_running(int argc, char **argv);
