/*
 * The main of who serves a folder of the user's to a guest (folder/folder_server.h): `umbra share`
 * goes on as it. The folder becomes its root, and all of the user's files that it can name.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "folder/folder_server.h"
#include "ipc/lockdown.h"
#include "mains.h"
#include "plan.h"
#include "report.h"

int folder_main(void)
{
	const struct plan *plan = plan_of_process();
	const int folder = grant_fd(GRANT_FOLDER);
	struct folder_server *server;
	int error;

	if (!plan)
		return complain(EXIT_USAGE, "it has no plan", "a folder", "use umbra share");
	umask(0); /* the guest has its own */
	error = lockdown_on_folder(ROLE_FOLDER, folder, !plan->folder_is_read_only);
	/* it looks who it is, as this host's files say it from here on */
	server = error ? NULL : folder_server_create(folder, plan->folder_is_read_only,
					      plan->folder_is_alone);
	if (!error)
		error = server ? lockdown(ROLE_FOLDER) : -ENOMEM;
	if (!error)
		error = folder_server_run(server, grant_fd(GRANT_CONTROL));
	if (error == -EBADMSG)
		return complain(EXIT_UNUSABLE, "its agent says what cannot be", "a shared folder",
				"use the umbra-agent of this Umbra");
	return error ? complain(EXIT_FAULT, strerror(-error), "a shared folder",
				"see umbra doctor")
		     : 0;
}
