/*
 * The hub: a process of the user's that joins his machines' ports (ipc/share_port.h) in pairs, as
 * his rules permit (rules.h), and carries packets from one port's slots to the other's.
 *
 *   machine == slots == hub == slots == machine        joiner -- line -- hub -- line -- joiner
 *
 * A port is joined by its joiner (process/joiner_main.c), which brings the port's memory and
 * events, and is gone when its line is. A port that serves is MACHINE/NAME; who binds says the
 * same. Two of them, of the same class, are a joint.
 *
 *  1. Nothing that a port's memory says is believed: heads are copied and checked, slots are the
 *     port's own (slot_queue.h). A port that breaks the protocol is left by itself: its line is
 *     closed, its peer sees nobody there, nobody else notices.
 *  2. What may be, the rules say, each time anew when they change: ports that may not be joined any
 *     more are parted at once. No packet passes that no rule lets pass.
 *  3. A packet is in the receiver's slot before its sender is answered.
 *  4. A packet waits for its receiver's room, and for its turn where a rule says how many there may
 *     be, and nothing else waits for it. Where nobody is there it waits PATIENCE_MS from when the
 *     port joined, for a peer that joins this hub, too, and is then answered with -ENOTCONN.
 *  5. The hub opens nothing. It ends when there has been no port for LONELY_MS.
 */
#pragma once

/*
 * Lines come by listen_fd; pid: this process's own, which it may not ask for any more. 0, or -errno
 * of the socket's.
 */
int hub_serve(int listen_fd, int pid);
