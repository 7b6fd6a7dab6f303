/*
 * The relay process's main: the sockets of the host's by which its programs and the guest's talk
 * (net/relay). The folder in which it looks for who listens becomes its root: it can name nobody
 * who listens elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "mains.h"
#include "net/relay/relay.h"
#include "plan.h"
#include "report.h"

/* A supervisor's first process tells that it can serve. */
static int tell_ready(void)
{
	int error = 0;

	if (!role_was_given(GRANT_READY))
		return 0;
	if (write(grant_fd(GRANT_READY), "", 1) != 1)
		error = -errno;
	close(grant_fd(GRANT_READY));
	return error;
}

static int give_up_rights(const char *folder)
{
	int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 ? -errno : lockdown_in_folder(ROLE_RELAY, fd);

	if (!error)
		error = tell_ready();
	return error ? error : lockdown(ROLE_RELAY);
}

int relay_main(void)
{
	const struct plan *plan = plan_of_process();
	struct connection_memory *memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE,
						MAP_SHARED, grant_fd(GRANT_CONNECTIONS), 0);
	struct relay_options options = { .memory = memory,
					 .doorbell_fd = grant_fd(GRANT_CONNECTION_BELL),
					 .answer_fd = grant_fd(GRANT_ANSWER),
					 .listener_fd = grant_fd(GRANT_LISTENER),
					 .end_fd = grant_fd(GRANT_END) };
	int error;

	if (!plan || memory == MAP_FAILED)
		return complain(EXIT_USAGE, "it has no plan", "the relay",
				"use umbra run: it starts the processes of a machine");
	close(grant_fd(GRANT_CONNECTIONS));
	options.name = plan->relay.name;
	error = give_up_rights(plan->relay.folder);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "the relay", "see umbra doctor");
	return relay_serve(&options) ? EXIT_FAULT : 0;
}
