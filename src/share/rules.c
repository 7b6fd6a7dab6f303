/* See rules.h. */
#include "rules.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi/share.h"

enum { WORDS = 24, LINE_BYTES = 512, DEFAULT_LIFETIME_MS = 1000, MOST_LIFETIME_MS = 600000 };

#define MOST_PER_S 1000000000000ull

static const char *const act_names[RULE_ACTS] = {
	[ACT_OFFER] = "offer", [ACT_SEE] = "see", [ACT_OPEN] = "open", [ACT_PASS] = "pass",
	[ACT_LEND] = "lend", [ACT_LEND_RO] = "lend-ro"
};

const char *rule_act_name(enum rule_act act) { return act_names[act]; }

/* ---- words ---- */

static bool take_text(char *to, size_t room, const char *word)
{
	size_t bytes = strlen(word) + 1;

	if (bytes > room)
		return false;
	memcpy(to, word, bytes);
	return true;
}

static bool take_acts(uint8_t *ret, char *words)
{
	char *word;

	while ((word = strsep(&words, ","))) {
		unsigned act = 0;

		while (act < RULE_ACTS && strcmp(word, act_names[act]) != 0)
			act++;
		if (act == RULE_ACTS)
			return false;
		*ret |= (uint8_t)(1u << act);
	}
	if (*ret & 1u << ACT_LEND)
		*ret |= 1u << ACT_LEND_RO;
	return true;
}

/* A number of at most 18 digits, perhaps with k, M or G. */
static bool take_rate(uint64_t *ret, const char *word)
{
	static const char units[] = "kMG";
	char *end;
	uint64_t value = strtoull(word, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (*word < '0' || *word > '9' || !value || value > MOST_PER_S / 1000)
		return false;
	if (*end && (!unit || end[1]))
		return false;
	for (const char *at = units; unit && at <= unit; at++)
		value *= 1000;
	*ret = value;
	return value <= MOST_PER_S;
}

static bool take_minute(uint16_t *ret, const char *word)
{
	unsigned hour, minute;
	int used = 0;

	if (sscanf(word, "%2u:%2u%n", &hour, &minute, &used) != 2 || word[used])
		return false;
	*ret = (uint16_t)(hour * 60 + minute);
	return hour < 24 && minute < 60;
}

static bool take_side(uint8_t *ret, const char *word)
{
	if (!strcmp(word, "serves"))
		*ret = SHARE_SERVES;
	else if (!strcmp(word, "binds"))
		*ret = SHARE_BINDS;
	else
		return false;
	return true;
}

static bool take_option(struct rule *rule, const char *name, const char *value)
{
	if (!strcmp(name, "class"))
		return take_text(rule->class, sizeof(rule->class), value);
	if (!strcmp(name, "to"))
		return take_side(&rule->side, value);
	if (!strcmp(name, "bytes"))
		return take_rate(&rule->bytes_per_s, value);
	if (!strcmp(name, "requests"))
		return take_rate(&rule->requests_per_s, value);
	if (!strcmp(name, "from"))
		return take_minute(&rule->from_minute, value);
	if (!strcmp(name, "until"))
		return take_minute(&rule->until_minute, value);
	return false;
}

/* ---- lines ---- */

static unsigned split(char *line, char *words[WORDS])
{
	unsigned count = 0;
	char *word;

	line[strcspn(line, "#")] = 0;
	while ((word = strsep(&line, " \t\r")))
		if (*word && count < WORDS)
			words[count++] = word;
	return count;
}

static bool take_rule(struct rules *rules, enum rule_answer answer, char *words[WORDS],
		      unsigned count)
{
	struct rule *rule = &rules->rule[rules->count];

	if (count < 4 || count % 2 || rules->count == RULES_MOST)
		return false;
	*rule = (struct rule){ .answer = (uint8_t)answer };
	if (!take_text(rule->machine, sizeof(rule->machine), words[1]) ||
	    !take_acts(&rule->acts, words[2]) ||
	    !take_text(rule->instance, sizeof(rule->instance), words[3]))
		return false;
	for (unsigned n = 4; n < count; n += 2)
		if (!take_option(rule, words[n], words[n + 1]))
			return false;
	rules->count++;
	return true;
}

static bool take_agent(struct rules *rules, char *words[WORDS], unsigned count)
{
	uint64_t lifetime_ms = DEFAULT_LIFETIME_MS;

	if (count < 2 || count > 3 || words[1][0] != '/' ||
	    !take_text(rules->agent, sizeof(rules->agent), words[1]))
		return false;
	if (count == 3 && (!take_rate(&lifetime_ms, words[2]) || lifetime_ms > MOST_LIFETIME_MS))
		return false;
	rules->agent_lifetime_ms = (uint32_t)lifetime_ms;
	return true;
}

static bool take_line(struct rules *rules, char *line)
{
	static const char *const answers[] = {
		[RULE_DENY] = "deny", [RULE_ALLOW] = "allow", [RULE_ASK] = "ask"
	};
	char *words[WORDS];
	unsigned count = split(line, words);

	if (!count)
		return true;
	if (count == WORDS)
		return false;
	for (unsigned n = RULE_DENY; n <= RULE_ASK; n++)
		if (!strcmp(words[0], answers[n]))
			return take_rule(rules, (enum rule_answer)n, words, count);
	return !strcmp(words[0], "agent") && take_agent(rules, words, count);
}

void rules_parse(struct rules *ret, const char *text, size_t bytes)
{
	uint16_t number = 0;

	*ret = (struct rules){ .count = 0 };
	while (bytes) {
		const char *end = memchr(text, '\n', bytes);
		size_t length = end ? (size_t)(end - text) : bytes;
		unsigned before = ret->count;
		char line[LINE_BYTES];

		number++;
		if (length < sizeof(line)) {
			memcpy(line, text, length);
			line[length] = 0;
		}
		if (length >= sizeof(line) || memchr(text, 0, length) || !take_line(ret, line)) {
			*ret = (struct rules){ .wrong_line = number };
			return;
		}
		if (ret->count > before)
			ret->rule[before].line = number;
		text += length;
		bytes -= length;
		if (bytes) {
			text++;
			bytes--;
		}
	}
}

/* ---- decisions ---- */

static bool is_time(const struct rule *rule, unsigned minute)
{
	const unsigned from = rule->from_minute;
	const unsigned until = rule->until_minute;

	if (from == until)
		return true;
	if (from < until)
		return minute >= from && minute < until;
	return minute >= from || minute < until;
}

static bool fits(const struct rule *rule, const struct question *question)
{
	if (!(rule->acts & 1u << question->act) || !is_time(rule, question->minute))
		return false;
	if (rule->class[0] && strcmp(rule->class, question->class) != 0)
		return false;
	if (rule->side && question->to_side && rule->side != question->to_side)
		return false;
	return !fnmatch(rule->machine, question->machine, 0) &&
	       !fnmatch(rule->instance, question->instance, 0);
}

const struct rule *rules_find(const struct rules *rules, const struct question *question)
{
	for (unsigned n = 0; n < rules->count; n++)
		if (fits(&rules->rule[n], question))
			return &rules->rule[n];
	return NULL;
}
