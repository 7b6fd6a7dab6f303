/*
 * What a port consists of (ipc/share_port.h): memory, two events, and the line by which windows
 * come. Made by a machine's broker, or by who forks one.
 */
#pragma once

#include <stdint.h>

struct port_parts { int memory, bell, answer, machine_line, joiner_line; };

/* SHARE_PORT_NONE: nobody is at it. 0 or -errno. */
int port_make(uint8_t kind, struct port_parts *ret);
