/* See fork_ports.h. */
#include "fork_ports.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "process/port_make.h"
#include "share_option.h"

int fork_ports_describe(const uint8_t kind[SHARE_PORTS], json_t *machine)
{
	json_t *all = json_array();

	for (unsigned n = 0; n < SHARE_PORTS && kind[n]; n++)
		json_array_append_new(all, json_integer(kind[n]));
	return json_object_set_new(machine, "ports", all) ? -ENOMEM : 0;
}

int fork_ports_learn(struct fork_ports *ports, const char *machine, const json_t *info)
{
	const json_t *all = json_object_get(info, "ports");

	if (json_array_size(all) > SHARE_PORTS)
		return complain(EXIT_UNUSABLE, "it says of more than two ports", machine,
				"see umbra info");
	for (size_t n = 0; n < json_array_size(all); n++) {
		const json_int_t kind = json_integer_value(json_array_get(all, n));

		if (kind < 1 || kind > SHARE_PORT_KINDS)
			return complain(EXIT_UNUSABLE, "what it says of its ports is wrong",
					machine, "see umbra info");
		ports->kind[ports->count++] = (uint8_t)kind;
	}
	if (ports->given.count && !share_option_fits(&ports->given, ports->kind))
		return complain(EXIT_USAGE, "a child has its parent's kinds of ports", machine,
				"say --serve and --bind as it was started with, or none of them");
	return 0;
}

static int make_port(const struct fork_ports *ports, unsigned n, struct child_ports *ret,
		     int kit[KIT_PORT_FDS])
{
	const bool is_joined = n < ret->plan.count;
	struct port_parts parts;
	int error = port_make(is_joined ? ports->kind[n] : SHARE_PORT_NONE, &parts);

	if (error)
		return error;
	kit[KIT_PORT] = ret->memory[n] = parts.memory;
	kit[KIT_PORT_BELL] = ret->bell[n] = parts.bell;
	kit[KIT_PORT_ANSWER] = ret->answer[n] = parts.answer;
	kit[KIT_PORT_LINE] = parts.machine_line;
	if (is_joined)
		ret->line[n] = parts.joiner_line;
	else
		close(parts.joiner_line);
	return 0;
}

void child_ports_begin(struct child_ports *ports)
{
	*ports = (struct child_ports){ .count = 0 };
	memset(ports->line, -1, sizeof(ports->line));
}

int fork_ports_of_child(const struct fork_ports *ports, const char *name, struct child_ports *ret,
			int kit[KIT_PORT_FDS * SHARE_PORTS])
{
	int code = 0;
	int error = 0;

	child_ports_begin(ret);
	ret->count = ports->count;
	if (name) {
		ret->plan = ports->given;
		code = share_option_take(&ret->plan, name);
	}
	for (unsigned n = 0; n < ports->count && !code && !error; n++)
		error = make_port(ports, n, ret, kit + n * KIT_PORT_FDS);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "ports", "see umbra doctor");
	return code;
}

void child_ports_give(const struct child_ports *ports, struct grants *ret)
{
	for (unsigned n = 0; n < ports->plan.count; n++) {
		ret->fd[GRANT_PORTS + n] = ports->memory[n];
		ret->fd[GRANT_PORT_BELLS + n] = ports->bell[n];
		ret->fd[GRANT_PORT_ANSWERS + n] = ports->answer[n];
		ret->fd[GRANT_WINDOW_LINES + n] = ports->line[n];
	}
}

/* The rest of the kit is closed with the process. */
void child_ports_close(struct child_ports *ports)
{
	for (unsigned n = 0; n < SHARE_PORTS; n++)
		if (ports->line[n] >= 0)
			close(ports->line[n]);
}
