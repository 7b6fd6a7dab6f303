/* See spare.h. */
#include "spare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "run_internal.h"

static _Noreturn void become_broker(int line)
{
	const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct grants grants;

	grants_clear(&grants);
	grants.fd[GRANT_EARLY] = line;
	grants.fd[GRANT_PROGRAM] = spawn_open_program();
	setsid();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(nothing, fd);
	if (grants.fd[GRANT_PROGRAM] >= 0)
		spawn_become(ROLE_BROKER, &grants);
	_exit(EXIT_FAULT);
}

static int begin_broker(struct early *ret)
{
	int there;
	int error = early_make_line(ret, &there);

	if (error)
		return error;
	ret->process.pid = spawn_fork(&ret->process.pidfd);
	if (!ret->process.pid)
		become_broker(there);
	close(there);
	if (ret->process.pid > 0)
		return 0;
	error = ret->process.pid;
	early_end(ret);
	return error;
}

int spare_begin(struct spare *ret)
{
	struct machine_options found = { 0 };
	char reason[128];
	const int error = begin_broker(&ret->broker);

	if (error)
		return error;
	machine_find_host(&found, NULL, reason, sizeof(reason)); /* long on a virtual machine */
	ret->host = found.host;
	return 0;
}

/* Its log is its standard error; nothing of it stays open here, where it would be waited for. */
static int give(struct spare *spare, struct run *run)
{
	int error;

	run->grants.errors = detach_open_log(run->options.name);
	if (run->grants.errors < 0)
		return complain(EXIT_UNUSABLE, strerror(-run->grants.errors), run->options.name,
				"see umbra run --help");
	error = early_give(&spare->broker, ROLE_BROKER, &run->grants);
	for (unsigned n = 0; n < GRANTS; n++)
		if (run->grants.fd[n] >= 0)
			close(run->grants.fd[n]);
	close(run->grants.errors);
	return error ? complain(EXIT_FAULT, strerror(-error), "starting the broker",
				"see umbra doctor")
		     : 0;
}

/* What was made for one that does not run is removed. */
int spare_restore(struct spare *spare, const char *file, const char *name, int pages,
		  const struct saved_arrival *arrival, const struct share_plan *ports)
{
	char number[16];
	struct run run = { .options = { .console = "stdio", .restore = file, .name = name,
					.pages_from = number, .detach = true },
			   .plan = plan_new(), .broker = spare->broker.process.pid,
			   .host = &spare->host, .arrival = arrival,
			   .ports_are_offered = true };
	int code = run.plan ? 0
			    : complain(EXIT_FAULT, strerror(ENOMEM), name, "see umbra doctor");

	snprintf(number, sizeof(number), "%d", pages);
	grants_clear(&run.grants);
	if (!code)
		run.plan->shares = *ports;
	if (!code && spare->begun.ns)
		run.plan->machine.begun = spare->begun;
	if (!code)
		code = run_prepare(&run);
	if (!code) {
		run.grants.fd[GRANT_PLAN] = plan_seal(run.plan, ROLE_BROKER);
		code = give(spare, &run);
	}
	if (!code)
		code = detach_wait(name, spare->broker.process.pidfd);
	if (code)
		run_remove_layers(&run);
	return code;
}
