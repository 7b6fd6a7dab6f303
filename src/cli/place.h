/* ADDRESS:PORT, as verbs that reach other hosts have it. */
#pragma once

enum { PLACE_HOST_BYTES = 256, PLACE_PORT_BYTES = 32 };
struct place { char host[PLACE_HOST_BYTES], port[PLACE_PORT_BYTES]; };

/* ADDRESS:PORT, or PORT (of 127.0.0.1), or NULL (default_port). 0 or -EINVAL. */
int place_parse(const char *text, const char *default_port, struct place *ret);
/* A socket that listens there, or -errno. */
int place_listen(const struct place *place);
/* Prints where it does. */
void place_say(int fd);
/* A connection to it; -errno, -EHOSTUNREACH: nobody of that name. */
int place_connect(const char *host, const char *port);
