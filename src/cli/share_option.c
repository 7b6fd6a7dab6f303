/* See share_option.h. */
#include "share_option.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "abi/share.h"
#include "cli.h"
#include "disk_cli.h"
#include "control/names.h"

static const char *const classes[] = { "packet", "disk" };

static int complain_of_port(const char *what, const char *text)
{
	return complain(EXIT_USAGE, what, text,
			"say --serve NAME[=disk], or --bind MACHINE/NAME[=disk]");
}

/* Before `=`, and the class, "packet" where none is said. */
static int take_class(struct wire_join *join, char *text)
{
	const char *class = classes[0];
	char *equals = strchr(text, '=');

	if (equals) {
		*equals = 0;
		class = equals + 1;
	}
	for (size_t n = 0; n < sizeof(classes) / sizeof(classes[0]); n++)
		if (!strcmp(class, classes[n]))
			return plan_set_text(join->class, sizeof(join->class), class);
	return -EINVAL;
}

static int add(struct share_plan *shares, const char *text, uint32_t side)
{
	struct share_choice *port = &shares->port[shares->count];
	char words[WIRE_INSTANCE_BYTES + WIRE_CLASS_BYTES];

	if (shares->count == SHARE_PORTS)
		return complain(EXIT_USAGE, "too many ports", text, "there may be two");
	if (plan_set_text(words, sizeof(words), text) || take_class(&port->join, words))
		return complain_of_port("not a class of port", text);
	port->join.side = side;
	shares->count++;
	return plan_set_text(port->join.instance, sizeof(port->join.instance), words)
		       ? complain_of_port("too long", text)
		       : 0;
}

int share_option_serve(struct share_plan *shares, const char *text)
{
	int code = add(shares, text, SHARE_SERVES);

	if (!code && !name_is_valid(shares->port[shares->count - 1].join.instance))
		code = complain_of_port("not a name", text);
	return code;
}

int share_option_bind(struct share_plan *shares, const char *text)
{
	int code = add(shares, text, SHARE_BINDS);
	char words[WIRE_INSTANCE_BYTES];
	char *slash;

	if (code)
		return code;
	memcpy(words, shares->port[shares->count - 1].join.instance, sizeof(words));
	slash = strchr(words, '/');
	if (!slash)
		return complain_of_port("not MACHINE/NAME", text);
	*slash = 0;
	if (!name_is_valid(words) || !name_is_valid(slash + 1))
		return complain_of_port("not MACHINE/NAME", text);
	return 0;
}

static uint8_t kind_of(const struct wire_join *join)
{
	return share_port_kind(join->side,
			  strcmp(join->class, "disk") ? SHARE_CLASS_PACKET : SHARE_CLASS_DISK);
}

void share_option_kinds(const struct share_plan *shares, uint8_t ret[SHARE_PORTS])
{
	for (unsigned n = 0; n < SHARE_PORTS; n++)
		ret[n] = n < shares->count ? kind_of(&shares->port[n].join) : SHARE_PORT_NONE;
}

bool share_option_fits(const struct share_plan *shares, const uint8_t kind[SHARE_PORTS])
{
	uint8_t own[SHARE_PORTS];

	share_option_kinds(shares, own);
	return !memcmp(own, kind, sizeof(own));
}

int share_rules_path(char *path, size_t bytes)
{
	return cli_user_file("XDG_CONFIG_HOME", ".config", "share.rules", path, bytes);
}

int share_option_take(struct share_plan *shares, const char *name)
{
	for (unsigned n = 0; n < shares->count; n++) {
		struct share_choice *port = &shares->port[n];
		char served[WIRE_INSTANCE_BYTES];
		size_t bytes;

		if (!name)
			return complain(EXIT_USAGE, "rules are about machines with names",
					"--serve and --bind", "add --name NAME");
		if (name_hub_path(port->hub, sizeof(port->hub)))
			return complain(EXIT_USAGE, "no folder for the hub's socket", port->hub,
					"set XDG_RUNTIME_DIR to a folder that is yours");
		if (share_rules_path(port->rules, sizeof(port->rules)))
			port->rules[0] = 0;
		strcpy(port->join.machine, name);
		if (port->join.side != SHARE_SERVES)
			continue;
		memcpy(served, port->join.instance, sizeof(served));
		bytes = (size_t)snprintf(port->join.instance, sizeof(port->join.instance), "%s/%s",
					 name, served);
		if (bytes >= sizeof(port->join.instance))
			return complain_of_port("too long", served);
	}
	return 0;
}
