/*
 * The balancer's main: a process of the user's that outlives the machine that started it, and ends
 * when there is no machine any more. It opens what says how the host's memory is, then gives up
 * its rights.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "balancer.h"
#include "control/protocol.h"
#include "ipc/lockdown.h"
#include "ipc/spawn.h"
#include "mains.h"
#include "report.h"

/* Of each machine its socket, what it occupies, and who has brought it; and some who ask. */
enum { DESCRIPTORS = 2048 };

/*
 * Woken when somebody has waited for memory 20 ms of 2 s, where the host lets users ask for that
 * (*ret_wakes); read in any case. -1: the host does not say.
 */
static int open_pressure(bool *ret_wakes)
{
	static const char trigger[] = "some 20000 2000000";
	static const char path[] = "/proc/pressure/memory";
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	*ret_wakes = fd >= 0 && write(fd, trigger, sizeof(trigger)) >= 0;
	if (*ret_wakes)
		return fd;
	if (fd >= 0)
		close(fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int balancer_main(void)
{
	bool wakes;
	const int host_fds[2] = { open("/proc/meminfo", O_RDONLY | O_CLOEXEC),
				  open_pressure(&wakes) };
	int error;

	control_protocol_init();
	spawn_raise_descriptors(DESCRIPTORS);
	error = lockdown_before_threads(ROLE_BALANCER, NULL);
	if (!error)
		error = lockdown(ROLE_BALANCER);
	if (!error)
		error = balancer_serve(grant_fd(GRANT_CONTROL), host_fds, wakes);
	return error ? complain(EXIT_FAULT, strerror(-error), "the balancer", "see umbra doctor")
		     : 0;
}
