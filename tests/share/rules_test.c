/* Rules as they are read and as they decide, and an agent that answers, hangs, lies and dies. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "abi/share.h"
#include "share/agent.h"
#include "share/rules.h"

static int failures;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

/* ---- rules ---- */

static const char example[] =
	"# who may do what\n"
	"deny  thief  offer,see,open,pass  *\n"
	"allow store  offer   store/*\n"
	"allow web    see,open store/shelf class packet from 22:00 until 06:00\r\n"
	"allow web    pass    store/shelf to serves bytes 10M requests 2k\n"
	"ask   *      pass    store/shelf   # whoever else\n"
	"\n"
	"agent /run/agent 250";

static struct rules rules;

static void parse(const char *text) { rules_parse(&rules, text, strlen(text)); }

static unsigned line_for(enum rule_act act, const char *machine, unsigned minute, unsigned to_side)
{
	const struct question question = { .act = act, .machine = machine,
					   .instance = "store/shelf", .class = "packet",
					   .to_side = to_side, .minute = minute };
	const struct rule *rule = rules_find(&rules, &question);

	return rule ? rule->line : 0;
}

static void decisions(void)
{
	parse("allow web lend */*\ndeny web lend-ro */*\nallow mail lend-ro */*\n");
	expect("who may lend may lend to be read", line_for(ACT_LEND_RO, "web", 0, 0) == 1);
	expect("but not the other way round", line_for(ACT_LEND, "mail", 0, 0) == 0 &&
						      line_for(ACT_LEND_RO, "mail", 0, 0) == 3);
	parse(example);
	expect("six rules", rules.count == 5 && !rules.wrong_line);
	expect("an agent", !strcmp(rules.agent, "/run/agent") && rules.agent_lifetime_ms == 250);
	expect("the first that fits", line_for(ACT_OFFER, "thief", 0, 0) == 2);
	expect("a pattern", line_for(ACT_OFFER, "store", 0, 0) == 3);
	expect("in the evening", line_for(ACT_OPEN, "web", 22 * 60, 0) == 4);
	expect("after midnight", line_for(ACT_OPEN, "web", 5 * 60 + 59, 0) == 4);
	expect("not in the morning", line_for(ACT_OPEN, "web", 6 * 60, 0) == 0);
	expect("nobody else", line_for(ACT_OPEN, "mail", 22 * 60, 0) == 0);
	expect("one direction", line_for(ACT_PASS, "web", 0, SHARE_SERVES) == 5);
	expect("the other is asked about", line_for(ACT_PASS, "web", 0, SHARE_BINDS) == 6);
	expect("rates", rules.rule[3].bytes_per_s == 10000000 &&
				rules.rule[3].requests_per_s == 2000);
}

static void wrong_texts(void)
{
	static const char *const texts[] = {
		"allow", "allow a", "allow a open", "allow a fly b", "allow a open b class",
		"allow a open b colour red", "allow a open b bytes 0", "allow a open b bytes 5x",
		"allow a open b bytes -1", "allow a open b from 24:00", "allow a open b from 12:60",
		"allow a open b from 12", "allow a open b to nobody", "permit a open b",
		"agent", "agent relative", "agent /a 0", "agent /a 9999999", "allow a open, b",
		"allow a open 01234567890123456789012345678901234567890123456789012345678901234567"
		"89"
		"0123456789012345678901234567890123456789012345678901234567890123456789",
		"allow 01234567890123456789012345678901234567890123456789012345678901234 open b",
		"allow a open b class 0123456789abcdef",
		"allow a open b x x x x x x x x x x x x x x x x x x x x x x x x x x x",
	};
	char long_line[700];

	for (size_t n = 0; n < sizeof(texts) / sizeof(texts[0]); n++) {
		char text[512];

		snprintf(text, sizeof(text), "allow a offer a/x\n%s\nallow b open a/x\n", texts[n]);
		parse(text);
		if (rules.count || rules.wrong_line != 2)
			expect(texts[n], false);
	}
	expect("a line that is wrong leaves no rule", true);
	memset(long_line, 'a', sizeof(long_line));
	rules_parse(&rules, long_line, sizeof(long_line));
	expect("a long line", rules.wrong_line == 1 && !rules.count);
	rules_parse(&rules, "allow a open b\0\n", 16);
	expect("a NUL", rules.wrong_line == 1);
	parse("");
	expect("nothing allows nothing", line_for(ACT_OPEN, "web", 0, 0) == 0);
}

/* ---- the agent ---- */

enum manner { GOOD, SILENT, OTHER_NUMBER, RUBBISH, LONG, TWO_LINES, GONE };
struct fake { int fd; enum manner manner; };

static void answer(const struct fake *fake, const char *asked)
{
	char text[1024] = "";
	unsigned long number = 0;

	sscanf(asked, "ask %lu", &number);
	switch (fake->manner) {
	case GOOD:
		snprintf(text, sizeof(text), "%lu %s\n", number,
			 strstr(asked, " web ") ? "allow it is \"known\"" : "deny who?");
		break;
	case OTHER_NUMBER: snprintf(text, sizeof(text), "%lu allow\n", number + 1); break;
	case RUBBISH: snprintf(text, sizeof(text), "%lu allowed\n", number); break;
	case LONG: memset(text, 'a', sizeof(text) - 1); break;
	case TWO_LINES: snprintf(text, sizeof(text), "%lu allow\n%lu allow\n", number, number + 1);
		break;
	default: break;
	}
	if (*text)
		send(fake->fd, text, strlen(text), MSG_NOSIGNAL);
}

static void *fake_agent(void *context)
{
	struct fake *fake = context;
	char asked[512];
	ssize_t got;

	while (fake->manner != GONE && (got = read(fake->fd, asked, sizeof(asked) - 1)) > 0) {
		asked[got] = 0;
		answer(fake, asked);
	}
	close(fake->fd);
	return NULL;
}

static enum rule_answer ask(struct agent *agent, const char *machine, int64_t now_ms, char *reason)
{
	const struct question question = { .act = ACT_PASS, .machine = machine,
					   .instance = "store/shelf", .class = "packet" };

	return agent_decide(agent, &question, 1000, now_ms, reason);
}

static void with_agent(enum manner manner, void (*test)(struct agent *agent))
{
	struct agent *agent = agent_create();
	struct fake fake = { .manner = manner };
	pthread_t thread;
	int pair[2];

	if (!agent || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		abort();
	fake.fd = pair[1];
	agent_set(agent, pair[0]);
	pthread_create(&thread, NULL, fake_agent, &fake);
	test(agent);
	agent_destroy(agent);
	pthread_join(thread, NULL);
}

static void good(struct agent *agent)
{
	char reason[AGENT_REASON_BYTES];

	expect("an agent allows", ask(agent, "web", 0, reason) == RULE_ALLOW);
	expect("and its reason is plain", !strcmp(reason, "agent: it is ?known?"));
	expect("it denies", ask(agent, "mail", 0, reason) == RULE_DENY);
	expect("what it said is kept", ask(agent, "web", 999, reason) == RULE_ALLOW &&
					       agent_counters(agent).asked == 2);
	ask(agent, "web", 1000, reason);
	expect("as long as it may be", agent_counters(agent).asked == 3);
}

/* From then on nobody is asked. */
static void bad(struct agent *agent)
{
	char reason[AGENT_REASON_BYTES];
	bool allows = ask(agent, "web", 0, reason) == RULE_ALLOW;

	expect("one that fails allows nothing", !allows && agent_counters(agent).failed == 1);
	expect("and is taken for gone", !agent_is_there(agent));
	expect("also later", ask(agent, "web", 5000, reason) == RULE_DENY);
}

/* The second line is there before it is asked: no answer to what comes. */
static void two_lines(struct agent *agent)
{
	char reason[AGENT_REASON_BYTES];

	ask(agent, "web", 0, reason);
	expect("an answer before the question", ask(agent, "mail", 0, reason) == RULE_DENY);
}

int main(void)
{
	decisions();
	wrong_texts();
	with_agent(GOOD, good);
	for (enum manner manner = SILENT; manner <= GONE; manner++)
		with_agent(manner, manner == TWO_LINES ? two_lines : bad);
	return failures != 0;
}
