/* Which main a process has, see mains.h. */
#include "mains.h"

#include "ipc/role.h"
#include "report.h"

int process_main(const char *name)
{
	static int (*const mains[ROLES])(void) = {
		[ROLE_MACHINE] = machine_main,
		[ROLE_BROKER] = broker_main,
		[ROLE_DISK] = disk_main,
		[ROLE_KEEPER] = keeper_main,
		[ROLE_SUPERVISOR] = supervisor_main,
		[ROLE_NET] = net_main,
		[ROLE_LINE] = line_main,
		[ROLE_SWITCH] = switch_main,
		[ROLE_RELAY] = relay_main,
		[ROLE_JOINER] = joiner_main,
		[ROLE_HUB] = hub_main,
		[ROLE_BALANCER] = balancer_main,
		[ROLE_PAGER] = pager_main,
		[ROLE_FOLDER] = folder_main,
	};
	enum role role;

	if (role_find(name, &role) || !mains[role])
		return complain(EXIT_USAGE, "no such role", name,
				"use umbra run: it starts the processes of a machine");
	return mains[role]();
}
