/* See demand.h. */
#include "demand.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/role.h"
#include "machine_internal.h"
#include "saved_pages.h"

/* Newer than the headers of some hosts. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* The lowest numbers are for what comes later (ipc/port_window.h). */
static int open_behind_grants(void)
{
	const int low = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	int fd;

	if (low < 0)
		return -errno;
	fd = fcntl(low, F_DUPFD_CLOEXEC, grant_fd(GRANTS));
	if (fd < 0)
		fd = -errno;
	close(low);
	return fd;
}

/* -errno: the host has it not, or does not permit it. */
static int register_memory(const struct demand_hello *hello)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
	struct uffdio_register range = { .range = { .start = hello->hva, .len = hello->bytes },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	const int fd = open_behind_grants();

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) {
		const int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

/* fd < 0: without one. */
static bool say(int line, const struct demand_hello *hello, int fd)
{
	union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int))]; } control = {
		.head = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
			  .cmsg_type = SCM_RIGHTS }
	};
	struct iovec part = { .iov_base = (void *)(uintptr_t)hello, .iov_len = sizeof(*hello) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	return sendmsg(line, &message, MSG_NOSIGNAL) == sizeof(*hello);
}

static void advise_size(const struct machine *machine, int advice)
{
	madvise(machine->memory.ram, machine->memory.ram_bytes, advice);
}

void demand_begin(struct machine *machine)
{
	struct demand_hello hello = { .hva = (uintptr_t)machine->memory.ram,
				      .bytes = machine->memory.ram_bytes };

	if (!machine->options.has_pager)
		return;
	/* nothing is there but what comes */
	madvise(machine->memory.ram, hello.bytes, MADV_DONTNEED);
	/*
	 * and not in large pages: who misses a page where one could be has the kernel make one, two
	 * megabytes of zeros, before it tells of the page that is missed, and throws it away
	 */
	advise_size(machine, MADV_NOHUGEPAGE);
	machine->demand.pages_fd = register_memory(&hello);
	if (machine->demand.pages_fd < 0) {
		hello = (struct demand_hello){ 0 };
		advise_size(machine, MADV_HUGEPAGE);
	}
	machine->demand.is_asked = say(machine->options.pager_fd, &hello, machine->demand.pages_fd);
}

/* The next word of the pager's. */
static bool hear(const struct machine *machine, char word)
{
	char heard = 0;

	return read(machine->options.pager_fd, &heard, 1) == 1 && heard == word;
}

bool demand_is_served(struct machine *machine)
{
	struct demand *demand = &machine->demand;

	/* without pages of the kernel's that waits until all of the file is there */
	demand->is_on = demand->is_asked && hear(machine, DEMAND_SERVES);
	demand->is_whole = !demand->is_on;
	if (demand->is_asked && !demand->is_on)
		advise_size(machine, MADV_HUGEPAGE);
	return demand->is_on;
}

/* Whether that is so within as many milliseconds. */
static bool seems_whole_within(const struct machine *machine, unsigned ms)
{
	struct pollfd line = { .fd = machine->options.pager_fd, .events = POLLIN };
	const struct timespec most = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	/* its word waits, or its line has ended */
	return !machine->demand.is_on || ppoll(&line, 1, &most, NULL) > 0;
}

bool demand_seems_whole(const struct machine *machine) { return seems_whole_within(machine, 0); }

int demand_wait_whole(struct machine *machine)
{
	struct demand *demand = &machine->demand;

	if (!demand->is_on || demand->is_whole)
		return 0;
	demand->is_whole = hear(machine, DEMAND_WHOLE);
	if (demand->is_whole) /* who is forked now would keep it without them */
		advise_size(machine, MADV_HUGEPAGE);
	return demand->is_whole ? 0 : -EIO;
}

void demand_note_first(struct demand *demand, uint32_t frame, uint32_t pages)
{
	if (demand->first_count < DEMAND_FIRST_MOST && pages <= SAVED_ENTRY_PAGES)
		demand->first[demand->first_count++] =
			(struct demand_run){ .frame = frame, .pages = pages };
}

void demand_touch_first(const struct machine *machine)
{
	const struct demand *demand = &machine->demand;
	const uint64_t frames = machine->memory.ram_bytes / GUEST_PAGE_BYTES;

	for (unsigned n = 0; n < demand->first_count; n++) {
		const uint64_t end = (uint64_t)demand->first[n].frame + demand->first[n].pages;

		for (uint64_t frame = demand->first[n].frame; frame < end && frame < frames;
		     frame++)
			(void)*(const volatile uint8_t *)(machine->memory.ram +
							  frame * GUEST_PAGE_BYTES);
	}
}

void demand_size_pages(const struct machine *machine)
{
	enum { LOOK_MS = 100 };

	if (!machine->demand.is_on)
		return;
	while (!machine_has_ended(machine))
		if (seems_whole_within(machine, LOOK_MS)) {
			advise_size(machine, MADV_HUGEPAGE);
			return;
		}
}
