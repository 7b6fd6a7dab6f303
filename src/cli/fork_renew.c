/* See fork_renew.h. */
#include "fork_renew.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "agent_line.h"
#include "cli.h"
#include "control/names.h"
#include "process/plan.h"

enum { WORDS_BYTES = 64, ID_BYTES = 16, ID_TEXT_BYTES = 2 * ID_BYTES + 1 };

/* So long a child that is very busy may not look: it was forked in the middle of that. */
enum { BUSY_SECONDS = 30 };

static bool take_word(struct fork_renew *renew, const char *word)
{
	const bool all = !strcmp(word, "all");
	const bool hostname = !strcmp(word, "hostname");
	const bool machine_id = !strcmp(word, "machine-id");

	renew->random = true; /* whoever has something anew has them anew */
	renew->hostname |= all || hostname;
	renew->machine_id |= all || machine_id;
	return all || hostname || machine_id || !strcmp(word, "random");
}

int fork_renew_parse(struct fork_renew *renew, const char *text)
{
	char words[WORDS_BYTES];
	char *rest = words;
	char *word;

	if (plan_set_text(words, sizeof(words), text))
		words[0] = 0;
	while ((word = strsep(&rest, ",")))
		if (!take_word(renew, word))
			return complain(EXIT_USAGE, "not what a child can have anew", text,
					"say random, hostname, machine-id or all");
	return 0;
}

/* As systemd makes one: random, with the marks of such a UUID. */
static int draw_id(char text[ID_TEXT_BYTES])
{
	uint8_t id[ID_BYTES];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return -errno;
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	for (unsigned n = 0; n < ID_BYTES; n++)
		snprintf(text + 2 * n, 3, "%02x", id[n]);
	return 0;
}

static int say_twin(const struct fork_renew *renew, const char *child, struct agent_line *line)
{
	struct {
		struct agent_twin twin;
		char text[NAME_MAX_BYTES + 1 + ID_TEXT_BYTES];
	} said;
	char id[ID_TEXT_BYTES] = "";
	int error = renew->machine_id ? draw_id(id) : 0;
	int bytes;

	if (!error && getrandom(said.twin.random, AGENT_RANDOM_BYTES, 0) != AGENT_RANDOM_BYTES)
		error = -errno;
	bytes = snprintf(said.text, sizeof(said.text), "%s%c%s", renew->hostname ? child : "", 0,
			 id);
	if (!error)
		error = agent_say(line, AGENT_TWIN, &said, sizeof(said.twin) + (size_t)bytes + 1);
	explicit_bzero(&said, sizeof(said));
	return error;
}

static int hear_done(struct agent_line *line)
{
	struct agent_said said = { .data = NULL };
	int error = agent_hear_soon(line, &said);

	if (error < 0)
		return error;
	if (said.kind == AGENT_FAILED)
		return agent_failure(&said);
	return said.kind == AGENT_DONE ? 0 : -EPROTO;
}

int fork_renew(const struct fork_renew *renew, const char *child)
{
	struct agent_line line;
	int error;

	if (!renew->random)
		return 0;
	error = agent_connect(child, BUSY_SECONDS, &line);
	if (error)
		return agent_complain(child, error);
	error = say_twin(renew, child, &line);
	if (!error)
		error = hear_done(&line);
	agent_close(&line);
	return error ? complain(EXIT_UNUSABLE, strerror(-error), child,
				"what --renew names is not anew: see the guest's /etc")
		     : 0;
}
