/*
 * The balancer: one process for all machines of a user's whose memory is adjusted. It tells the
 * controller (balance/balance.h) what it hears and sees, and the machines what comes of it.
 *
 *   umbra run -- "join", a connection to its machine --> balancer -- "watch", "advise" --> broker
 *   umbra memory -- "info", "history", "reserve" ------> balancer
 *
 * Who runs the first machine starts it, as a switch is started; it ends when there has been no
 * machine for some seconds. It opens nothing once it serves: machines come as connected sockets,
 * and with each the descriptors of what its process occupies. It is asked by the control protocol
 * (control/protocol.h), and speaks it to brokers (control/machine_control.h):
 *
 *   join     brings a connection to one more machine
 *   info     "host", "machines" with what each has, needs, gets and why, and the last "moves"
 *   history  "samples", one a second, the last BALANCER_SAMPLES
 *   reserve  how much of the host's memory is never given to guests
 *
 * Who has joined stays connected, and joins again when that ends (cli/balance_join.h): so it is
 * started again at once.
 *
 *   - A machine without a balancer follows its own guest (device/dynamic_memory): what the balancer
 *     has advised goes with its connection.
 *   - It looks every BALANCE_BUSY_MS while something moves, else every BALANCE_IDLE_MS, and when
 *     the host stalls.
 *   - What a machine says of itself decides about itself, and about others by what it is given:
 *     between its least and its most, which it was started with.
 */
#pragma once

#include <stdbool.h>

enum { BALANCER_SAMPLES = 300 };

/*
 * host_fds: /proc/meminfo and /proc/pressure/memory, the latter perhaps -1; wakes: it becomes ready
 * when the host stalls, and not at all times. 0 or -errno.
 */
int balancer_serve(int listen_fd, const int host_fds[2], bool wakes);
