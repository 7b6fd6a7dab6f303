/*
 * Connections over the bus (hv_sock): a channel for each, named by GUIDs whose first field is a
 * port of the guest's AF_VSOCK; its packets are pipe packets.
 */
#pragma once

#include <stdint.h>

#include "guid_layout.h"

#define HVSOCK_SERVICE(port) \
	GUID(port, 0xfacb, 0x11e6, 0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3)

/* In the payload of an in-band packet; without data: nothing more comes from this side. */
struct hvsock_pipe { uint32_t kind, bytes; };
enum { HVSOCK_PIPE_DATA = 1, HVSOCK_MOST_BYTES = 16 << 10 };
