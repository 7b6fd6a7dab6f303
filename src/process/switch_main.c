/*
 * The switch's main: a process of the user's that outlives the machine that started it, and ends
 * when no card is connected any more. It holds the socket at which they join, and their lines.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "mains.h"
#include "net/switch/switch.h"
#include "report.h"

int switch_main(void)
{
	int error = lockdown_before_threads(ROLE_SWITCH, NULL);

	if (!error)
		error = lockdown(ROLE_SWITCH);
	if (!error)
		error = switch_serve(grant_fd(GRANT_CONTROL));
	return error ? complain(EXIT_FAULT, strerror(-error), "the switch", "see umbra doctor") : 0;
}
