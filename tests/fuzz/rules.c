/* The user's rules for channels between machines: text that anybody may have written. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "share/rules.h"

static const char *const seeds[] = {
	"allow store offer,pass store/*\nallow web see,open store/shelf class packet from 08:00 "
	"until 18:00\n",
	"allow web pass store/shelf to serves bytes 10M requests 2k\nask * see,open,pass */*\n"
	"agent /run/user/1000/my-agent 500\n",
	"# nothing\n\ndeny * * */*\nallow a?c* lend */*? class disk from 22:00 until 06:00\n",
};

static void ask(const struct rules *rules, enum rule_act act, unsigned minute)
{
	const struct question question = { .act = act, .machine = "web",
					   .instance = "store/shelf", .class = "packet",
					   .to_side = 1 + minute % 2, .minute = minute };
	const struct rule *rule = rules_find(rules, &question);

	if (!rule)
		return;
	if (rules->wrong_line || rule < rules->rule || rule >= rules->rule + rules->count ||
	    !(rule->acts & 1u << act) || rule->answer > RULE_ASK)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct rules rules;
	char *exact = malloc(bytes ? bytes : 1);

	if (!exact)
		return 0;
	memcpy(exact, data, bytes);
	rules_parse(&rules, exact, bytes);
	fuzz_message();
	free(exact);
	if (rules.count > RULES_MOST || (rules.wrong_line && rules.count) ||
	    !memchr(rules.agent, 0, sizeof(rules.agent)))
		abort();
	for (unsigned n = 0; n < rules.count; n++)
		if (!memchr(rules.rule[n].machine, 0, sizeof(rules.rule[n].machine)) ||
		    !memchr(rules.rule[n].instance, 0, sizeof(rules.rule[n].instance)) ||
		    !memchr(rules.rule[n].class, 0, sizeof(rules.rule[n].class)) ||
		    rules.rule[n].from_minute >= DAY_MINUTES)
			abort();
	for (unsigned n = 0; n < RULE_ACTS * 4; n++)
		ask(&rules, (enum rule_act)(n % RULE_ACTS), n * 71 % DAY_MINUTES);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const char *seed = seeds[n % (sizeof(seeds) / sizeof(seeds[0]))];

	memcpy(data, seed, strlen(seed));
	return strlen(seed);
}
