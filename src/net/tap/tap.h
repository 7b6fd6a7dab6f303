/*
 * A card that is connected to a tap of the host's: an interface by whose other side the host, a
 * bridge of its or a program sees the frames. The tap knows missing checksums and large segments
 * (IFF_VNET_HDR), where the kernel offers that.
 */
#pragma once

#include <stdbool.h>

struct net_port;

/* Opens /dev/net/tun and takes the tap of this name; a descriptor or -errno. */
int tap_open(const char *name);
/* Whether a descriptor is a tap that can be used here. */
bool tap_is_one(int fd);
/* Until end_fd is readable, or closed at its other end: 0; or -EBADMSG, or -errno. */
int tap_serve(struct net_port *port, int tap_fd, int end_fd);
/*
 * Before tap_serve(), while it may ask for it: segments and sums as guests have them. 0 or -errno.
 */
int tap_begin(int tap_fd);
