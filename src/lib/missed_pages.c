/* See missed_pages.h. */
#include "missed_pages.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

/*
 * The kernel wakes who waits before it stops telling: a page that is missed in between makes its
 * thread wait for ever where nobody reads the descriptor, and nobody closes it. Once it has stopped
 * none begins to wait.
 */
void missed_pages_leave(int pages_fd, uint64_t hva, size_t bytes)
{
	struct uffdio_range range = { .start = hva, .len = bytes };

	ioctl(pages_fd, UFFDIO_UNREGISTER, &range);
	ioctl(pages_fd, UFFDIO_WAKE, &range);
}
