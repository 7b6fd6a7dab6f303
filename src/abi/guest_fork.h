/*
 * What `umbra-guest fork` says to the host (CID 2) at its port of AF_VSOCK, and hears from whoever
 * may fork its machine there (cli/fork_door.h): a line each way, then the connection ends.
 *
 *   guest  "fork TOKEN"       host  "parent CHILD"   it was forked; in the child the connection
 *                                                    ends without a word, as connections do there
 *                                   "refused ERRNO"
 *          "outcome TOKEN"          "parent CHILD", "child CHILD" in that machine, "wait": it is
 *                                   still under way, "unknown"
 *
 * TOKEN is GUEST_FORK_TOKEN_BYTES lower hexadecimal digits that the guest has drawn for this fork.
 */
#pragma once

enum { GUEST_FORK_PORT = 50112, GUEST_FORK_TOKEN_BYTES = 32, GUEST_FORK_LINE_BYTES = 128 };
