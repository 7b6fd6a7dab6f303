/* See far_port.h. */
#include "far_port.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "cli.h"
#include "ipc/role.h"
#include "ipc/spawn.h"
#include "process/meeting.h"
#include "share/hub_line.h"
#include "share_option.h"

enum { RULES_BYTES = 4096 };

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
