/*
 * Pages that a process misses and another brings (userfaultfd): the end of it. Who misses one waits
 * in the kernel until somebody who has the descriptor has it woken.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Nothing of this range is told by this descriptor any more; who missed a page of it goes on, and
 * finds zeros where nothing is. Whole pages of the process that made the descriptor, whether told
 * or not.
 */
void missed_pages_leave(int pages_fd, uint64_t hva, size_t bytes);
