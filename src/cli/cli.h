/* What the verbs share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "process/report.h"

/* Before each look of a view that is live. */
#define TERMINAL_HOME_AND_CLEAR "\033[H\033[J"

/* size.c: a number of bytes: digits, then nothing, K, M, G or T. */
bool parse_size(const char *text, uint64_t *ret);
int verb_run(int argc, char **argv);
int verb_disk(int argc, char **argv);
int verb_image(int argc, char **argv);
int verb_doctor(int argc, char **argv);
/* bus_verb.c */
int verb_bus(int argc, char **argv);
int verb_fork(int argc, char **argv);
int verb_exec(int argc, char **argv);
int verb_copy(int argc, char **argv);
int verb_console(int argc, char **argv);
int verb_share(int argc, char **argv);
int verb_screenshot(int argc, char **argv);
int verb_trace(int argc, char **argv);
int verb_debug(int argc, char **argv);
/* far_verb.c */
int verb_far(int argc, char **argv);
/* listen_verb.c */
int verb_listen(int argc, char **argv);
int verb_save(int argc, char **argv);
/* running.c: ps, info, stop, kill, pause, resume, memory. */
int verb_running(int argc, char **argv);
int verb_top(int argc, char **argv);
int verb_demo(int argc, char **argv);
int verb_mcp(int argc, char **argv);
/* page_verb.c */
int verb_page(int argc, char **argv);
