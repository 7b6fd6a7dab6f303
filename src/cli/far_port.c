/* See far_port.h. */
#include "far_port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"
#include "ipc/role.h"
#include "ipc/spawn.h"
#include "process/meeting.h"
#include "share/hub_line.h"
#include "share_option.h"

enum { RULES_BYTES = 4096, PLACE_MS = 10000 };

int far_port_reach_hub(const char *hub)
{
	int line = line_connect(hub);
	int program;

	if (line != -ENOENT && line != -ECONNREFUSED)
		return line;
	program = spawn_open_program();
	line = program < 0 ? program : meeting_start(hub, ROLE_HUB, program);
	if (program >= 0)
		close(program);
	return line ? line : line_connect(hub);
}

void far_port_bring_rules(int line)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_RULES };
	char path[RULES_BYTES];
	int file = -1;

	if (!share_rules_path(path, sizeof(path)))
		file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	line_send(line, &message, &file, file >= 0);
	if (file >= 0)
		close(file);
}

/* ---- a place that is kept ---- */

/* It has the pipe, and what tells it that its parent is gone. */
static _Noreturn void keep(int life, int end)
{
	struct pollfd parent = { .fd = life, .events = POLLIN };

	if (dup2(life, STDIN_FILENO) < 0 || dup2(end, STDOUT_FILENO) < 0)
		_exit(EXIT_FAULT);
	syscall(SYS_close_range, STDERR_FILENO, ~0u, 0);
	parent.fd = STDIN_FILENO;
	while (poll(&parent, 1, -1) < 0)
		;
	poll(NULL, 0, PLACE_MS);
	_exit(0);
}

int far_port_keep_place(void)
{
	int life[2];
	int end[2];
	pid_t keeper;

	if (pipe2(life, O_CLOEXEC) || pipe2(end, O_CLOEXEC))
		return -errno;
	keeper = fork();
	if (!keeper) {
		close(life[1]);
		keep(life[0], end[1]);
	}
	close(life[0]); /* the other end stays open for as long as this process lives */
	close(end[1]);
	return keeper < 0 ? -errno : end[0];
}

void far_port_hold(int line, int end)
{
	const struct wire_message message = { .magic = WIRE_MAGIC, .kind = WIRE_HOLD };

	line_send(line, &message, &end, 1);
}
