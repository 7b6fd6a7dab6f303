/*
 * What the user's policy agent answers to three questions, which ends after that: it allows what a
 * line says that has the question's number, and nothing else.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "share/agent.h"

enum { QUESTIONS = 3, MOST_BYTES = 4096 };

static const char *const seeds[] = {
	"1 allow because it may\n2 deny\n3 allow\n",
	"1 deny no\n2 allow\n2 allow\n3 deny \x01\x02\n",
	"7 allow\n1 maybe\n",
};

static void check_reason(const char *reason)
{
	if (!memchr(reason, 0, AGENT_REASON_BYTES))
		abort();
	for (; *reason; reason++)
		if ((unsigned char)*reason < ' ' || *reason == 0x7f)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const char *const machines[QUESTIONS] = { "a", "b", "c" };
	struct agent *agent = agent_create();
	int ends[2];

	bytes = bytes < MOST_BYTES ? bytes : MOST_BYTES;
	if (!agent || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends))
		abort();
	if (bytes && send(ends[1], data, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		abort();
	shutdown(ends[1], SHUT_WR); /* nobody waits for more */
	agent_set(agent, ends[0]);
	for (unsigned n = 0; n < QUESTIONS; n++) {
		const struct question question = { .act = ACT_SEE, .machine = machines[n],
						   .instance = "store/shelf", .class = "disk" };
		char reason[AGENT_REASON_BYTES];
		enum rule_answer answer = agent_decide(agent, &question, 1000, n, reason);

		check_reason(reason);
		if (answer != RULE_DENY && answer != RULE_ALLOW)
			abort();
		if (answer == RULE_ALLOW && !memmem(data, bytes, "allow", strlen("allow")))
			abort();
	}
	agent_destroy(agent);
	close(ends[1]);
	for (size_t n = 0; n < bytes; n++)
		if (data[n] == '\n')
			fuzz_message();
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const char *seed = seeds[n % (sizeof(seeds) / sizeof(seeds[0]))];

	memcpy(data, seed, strlen(seed));
	return strlen(seed);
}
