/* See agent.h. */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/crc32c.h"

enum { ANSWERS = 256, LINE_BYTES = 320, REASON_BYTES = AGENT_REASON_BYTES, NOBODY = -1 };

/* An answer that was given: the whole question is its key. */
struct answer {
	int64_t until_ms;
	bool allows;
	char question[LINE_BYTES], reason[REASON_BYTES];
};

struct agent {
	int fd;
	uint64_t number;
	struct agent_counters counters;
	struct answer answer[ANSWERS];
};

struct agent *agent_create(void)
{
	struct agent *agent = calloc(1, sizeof(*agent));

	if (agent)
		agent->fd = NOBODY;
	return agent;
}

void agent_destroy(struct agent *agent)
{
	agent_set(agent, NOBODY);
	free(agent);
}

void agent_set(struct agent *agent, int fd)
{
	if (agent->fd != NOBODY)
		close(agent->fd);
	agent->fd = fd;
	memset(agent->answer, 0, sizeof(agent->answer));
}

bool agent_is_there(const struct agent *agent) { return agent->fd != NOBODY; }
struct agent_counters agent_counters(const struct agent *agent) { return agent->counters; }

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A line, whole and in time; false: there is none. */
static bool read_line(int fd, char line[LINE_BYTES])
{
	const int64_t until = now_ms() + AGENT_WAIT_MS;
	size_t used = 0;

	while (used < LINE_BYTES - 1) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		const int64_t left = until - now_ms();
		ssize_t got;

		if (left < 0 || poll(&wait, 1, (int)left) <= 0)
			return false;
		got = recv(fd, line + used, LINE_BYTES - 1 - used, MSG_DONTWAIT);
		if (got <= 0)
			return false;
		used += (size_t)got;
		line[used] = 0;
		if (line[used - 1] == '\n')
			return !memchr(line, 0, used) && strchr(line, '\n') == line + used - 1;
	}
	return false;
}

/* What it says to this number: allows, and why. False: rubbish. */
static bool understand(char *line, uint64_t number, struct answer *ret)
{
	char start[64];
	bool allows;
	size_t length;

	line[strcspn(line, "\n")] = 0;
	length = (size_t)snprintf(start, sizeof(start), "%lu allow", number);
	allows = !strncmp(line, start, length);
	if (!allows) {
		length = (size_t)snprintf(start, sizeof(start), "%lu deny", number);
		if (strncmp(line, start, length) != 0)
			return false;
	}
	if (line[length] && line[length] != ' ')
		return false;
	ret->allows = allows;
	snprintf(ret->reason, sizeof(ret->reason), "agent: %.64s",
		 line[length] ? line + length + 1 : "no reason given");
	for (char *at = ret->reason; *at; at++)
		if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
			*at = '?';
	return true;
}

static void ask(struct agent *agent, struct answer *ret)
{
	char line[LINE_BYTES + 32];
	const uint64_t number = ++agent->number;
	const int bytes =
		snprintf(line, sizeof(line), "ask %lu %s\n", number, ret->question);

	ret->allows = false;
	snprintf(ret->reason, sizeof(ret->reason), "there is no agent");
	if (agent->fd == NOBODY)
		return;
	agent->counters.asked++;
	if (send(agent->fd, line, (size_t)bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == bytes &&
	    read_line(agent->fd, line) && understand(line, number, ret))
		return;
	agent->counters.failed++;
	close(agent->fd);
	agent->fd = NOBODY;
	ret->allows = false;
	snprintf(ret->reason, sizeof(ret->reason), "the agent did not answer");
}

enum rule_answer agent_decide(struct agent *agent, const struct question *question,
			      uint32_t lifetime_ms, int64_t now, char *reason)
{
	char text[LINE_BYTES];
	struct answer *answer;

	snprintf(text, sizeof(text), "%s %s %s %s %u", rule_act_name(question->act),
		 question->machine, question->instance, question->class, question->to_side);
	answer = &agent->answer[crc32c(0, text, strlen(text)) % ANSWERS];
	if (now < answer->until_ms && !strcmp(answer->question, text)) {
		agent->counters.kept++;
	} else {
		memcpy(answer->question, text, sizeof(text));
		ask(agent, answer);
		answer->until_ms = now + lifetime_ms;
	}
	memcpy(reason, answer->reason, AGENT_REASON_BYTES);
	return answer->allows ? RULE_ALLOW : RULE_DENY;
}
