/* umbra-guest fork: the machine in which it is called is forked (abi/guest_fork.h). */
#pragma once

/*
 * Prints "parent CHILD" or "child CHILD", in both 0; or says on standard error why there is no
 * child, or that nobody knows: an exit code.
 */
int guest_fork(void);
