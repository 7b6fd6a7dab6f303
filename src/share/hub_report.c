/*
 * What umbra bus shows, as JSON: names and reasons hold no character that JSON would have escaped
 * (rules.h, agent.h), for a name that does is not shown.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hub_internal.h"
#include "hub_line.h"

struct text { int line; bool failed; size_t used; struct wire_message message; };

static void text_flush(struct text *text)
{
	if (text->failed)
		return;
	text->message.text[text->used] = 0;
	text->failed = line_send(text->line, &text->message, NULL, 0) != 0;
	text->used = 0;
}

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
	const size_t room = sizeof(text->message.text) - 1;
	char piece[1024];
	va_list arguments;
	int bytes;

	va_start(arguments, format);
	bytes = vsnprintf(piece, sizeof(piece), format, arguments);
	va_end(arguments);
	if (bytes < 0 || (size_t)bytes >= sizeof(piece)) {
		text->failed = true;
		return;
	}
	if (text->used + (size_t)bytes > room)
		text_flush(text);
	memcpy(text->message.text + text->used, piece, (size_t)bytes);
	text->used += (size_t)bytes;
}

static const char *plain(const char *name)
{
	for (const char *at = name; *at; at++)
		if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
			return "?";
	return name;
}

static const char *state_of(const struct port *port)
{
	if (!port->peer)
		return "alone";
	return __atomic_load_n(&port->memory->peer_is_there, __ATOMIC_RELAXED) ? "open" : "joined";
}

static void add_port(struct text *text, const struct port *port, bool is_first)
{
	const struct decision *pass = &port->decision[ACT_PASS];

	add(text, "%s\n  {\"machine\": \"%s\", \"instance\": \"%s\", \"class\": \"%s\", "
		  "\"side\": \"%s\", \"state\": \"%s\", \"peer\": \"%s\"",
	    is_first ? "" : ",", plain(port->join.machine), plain(port->join.instance),
	    plain(port->join.class), port->join.side == SHARE_SERVES ? "serves" : "binds",
	    state_of(port), port->peer ? plain(port->peer->join.machine) : "");
	add(text, ", \"waiting\": %u, \"empty\": %u, \"packets\": %lu, \"bytes\": %lu, "
		  "\"lost\": %lu, \"held\": %lu, \"bytes_per_s\": %lu, \"requests_per_s\": %lu",
	    port->waiting.count, port->empty.count, port->packets, port->bytes, port->lost,
	    port->held, pass->bytes_per_s, pass->requests_per_s);
	add(text, ", \"passed_packets_per_s\": %lu, \"passed_bytes_per_s\": %lu}",
	    port->packets_rate.per_s, port->bytes_rate.per_s);
}

static void add_decision(struct text *text, const struct log_line *line, bool is_first)
{
	add(text, "%s\n  {\"at\": %ld, \"machine\": \"%s\", \"act\": \"%s\", \"instance\": \"%s\", "
		  "\"class\": \"%s\", \"allowed\": %s, \"reason\": \"%s\"}",
	    is_first ? "" : ",", (long)line->at_s, plain(line->machine), rule_act_name(line->act),
	    plain(line->instance), plain(line->class), line->allows ? "true" : "false",
	    plain(line->reason));
}

bool hub_show(const struct hub *hub, int line)
{
	struct text text = { .line = line,
			     .message = { .magic = WIRE_MAGIC, .kind = WIRE_TEXT } };
	const struct agent_counters agent = agent_counters(hub->agent);
	const uint64_t first = hub->decisions > HUB_LOG ? hub->decisions - HUB_LOG : 0;
	bool is_first = true;

	add(&text, "{\"pid\": %d, \"rules\": %u, \"wrong_line\": %u, \"rules_read\": %lu, ",
	    hub->pid, hub->rules.count, hub->rules.wrong_line, hub->rules_read);
	add(&text, "\"joints\": %lu, \"broken\": %lu, \"decisions_made\": %lu, \"denied\": %lu,\n",
	    hub->joints, hub->broken, hub->decisions, hub->denied);
	add(&text, " \"agent\": {\"there\": %s, \"asked\": %lu, \"kept\": %lu, \"failed\": %lu},\n"
		   " \"ports\": [",
	    agent_is_there(hub->agent) ? "true" : "false", agent.asked, agent.kept, agent.failed);
	for (unsigned n = 0; n < HUB_PORTS; n++)
		if (hub->port[n].memory) {
			add_port(&text, &hub->port[n], is_first);
			is_first = false;
		}
	add(&text, "],\n \"decisions\": [");
	for (uint64_t n = first; n < hub->decisions; n++)
		add_decision(&text, &hub->log[n % HUB_LOG], n == first);
	add(&text, "]}\n");
	text_flush(&text);
	/* the one without any is the last */
	text_flush(&text);
	return !text.failed;
}
