/*
 * The hub's main: a process of the user's that outlives the machine that started it, and ends when
 * no port is joined any more. It holds the socket where joiners come, and what they bring.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "mains.h"
#include "report.h"
#include "share/hub.h"

int hub_main(void)
{
	const int pid = getpid();
	int error;

	tzset(); /* reads the time zone's file: now or never */
	error = lockdown_before_threads(ROLE_HUB, NULL);
	if (!error)
		error = lockdown(ROLE_HUB);
	if (!error)
		error = hub_serve(grant_fd(GRANT_CONTROL), pid);
	return error ? complain(EXIT_FAULT, strerror(-error), "the hub", "see umbra doctor") : 0;
}
