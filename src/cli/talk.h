/* Talking to a machine on its control socket: one question, one answer (src/control/protocol.h). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* A connection to the machine of this name; NULL with -errno. */
FILE *talk_to(const char *name, int *ret_error);
/* One request at a time on a connection: they need no other id. False: nobody is there. */
bool talk_ask(FILE *peer, const char *verb);
/* A line that was answered, to be released; NULL: the machine is gone, or said what is none. */
json_t *talk_hear(FILE *peer);
/* 0, or the error that was answered; -ECONNRESET: none was. */
int talk_hear_end(FILE *peer);
/* Until nothing more comes. */
void talk_hear_out(FILE *peer);
/* What the machine says of itself, to be released; NULL: it is gone. */
json_t *talk_describe(FILE *peer);
/* The line for a machine that does not answer; the exit code. */
int talk_failed(const char *name, int error);
/* The same of one that was asked where its processors are, or what they count, and has not said. */
int talk_refused(const char *name);
