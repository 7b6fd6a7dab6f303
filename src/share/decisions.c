/* What the rules, or the agent, say of a port; a decision is kept for a while, and logged once. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "hub_internal.h"

enum { SECOND = 1000 }; /* in milliseconds, and thousandths in one */

static unsigned minute_of_day(void)
{
	const time_t now = time(NULL);
	struct tm local;

	if (!localtime_r(&now, &local))
		return 0;
	return (unsigned)(local.tm_hour * 60 + local.tm_min);
}

static void log_decision(struct hub *hub, const struct question *question,
			 const struct decision *decision)
{
	struct log_line *line = &hub->log[hub->decisions++ % HUB_LOG];

	hub->denied += !decision->allows;
	*line = (struct log_line){ .at_s = time(NULL), .act = question->act,
				   .allows = decision->allows };
	snprintf(line->machine, sizeof(line->machine), "%s", question->machine);
	snprintf(line->instance, sizeof(line->instance), "%s", question->instance);
	snprintf(line->class, sizeof(line->class), "%s", question->class);
	memcpy(line->reason, decision->reason, sizeof(line->reason));
}

static void ask_agent(struct hub *hub, const struct question *question, int64_t now_ms,
		      struct decision *ret)
{
	const uint32_t lifetime_ms =
		hub->rules.agent_lifetime_ms ? hub->rules.agent_lifetime_ms : HUB_LOOK_MS;
	char reason[AGENT_REASON_BYTES];

	ret->allows = agent_decide(hub->agent, question, lifetime_ms, now_ms, reason) == RULE_ALLOW;
	ret->until_ms = now_ms + lifetime_ms;
	snprintf(ret->reason, sizeof(ret->reason), "%s", reason);
}

static void decide(struct hub *hub, const struct question *question, int64_t now_ms,
		   struct decision *ret)
{
	const struct rule *rule = rules_find(&hub->rules, question);

	*ret = (struct decision){ .is_known = true, .until_ms = now_ms + HUB_LOOK_MS };
	if (!rule && hub->rules.wrong_line) {
		snprintf(ret->reason, sizeof(ret->reason), "line %u of the rules is wrong",
			 hub->rules.wrong_line);
	} else if (!rule) {
		snprintf(ret->reason, sizeof(ret->reason), "no rule allows it");
	} else {
		ret->bytes_per_s = rule->bytes_per_s;
		ret->requests_per_s = rule->requests_per_s;
		if (rule->answer == RULE_ASK) {
			ask_agent(hub, question, now_ms, ret);
		} else {
			ret->allows = rule->answer == RULE_ALLOW;
			snprintf(ret->reason, sizeof(ret->reason), "line %u of the rules",
				 rule->line);
		}
	}
}

static const struct decision *decision_of(struct hub *hub, struct port *port, enum rule_act act,
					  int64_t now_ms)
{
	struct decision *decision = &port->decision[act];
	const struct decision before = *decision;
	struct question question = { .act = act, .machine = port->join.machine,
				     .instance = port->join.instance, .class = port->join.class };

	if (now_ms < decision->until_ms)
		return decision;
	question.minute = minute_of_day();
	if (act == ACT_PASS || act == ACT_LEND || act == ACT_LEND_RO)
		question.to_side = port->join.side == SHARE_SERVES ? SHARE_BINDS : SHARE_SERVES;
	decide(hub, &question, now_ms, decision);
	if (!before.is_known || before.allows != decision->allows ||
	    strcmp(before.reason, decision->reason) != 0)
		log_decision(hub, &question, decision);
	return decision;
}

bool hub_may_be_joined(struct hub *hub, struct port *port, int64_t now_ms)
{
	if (port->join.side == SHARE_SERVES)
		return decision_of(hub, port, ACT_OFFER, now_ms)->allows;
	return decision_of(hub, port, ACT_SEE, now_ms)->allows &&
	       decision_of(hub, port, ACT_OPEN, now_ms)->allows;
}

/*
 * A rate's share of the time since, at most a second's, in thousandths: so what is asked for every
 * millisecond is not rounded away.
 */
static uint64_t refill(uint64_t left, uint64_t per_s, int64_t passed_ms)
{
	const uint64_t more = per_s * (uint64_t)(passed_ms < SECOND ? passed_ms : SECOND);

	return left + more < per_s * SECOND ? left + more : per_s * SECOND;
}

/* Whether it can be taken; more than a second's share goes when all of that is there. */
static bool has_share(uint64_t left, uint64_t per_s, uint64_t wanted)
{
	return !per_s || left >= wanted * SECOND || left == per_s * SECOND;
}

static uint64_t take_share(uint64_t left, uint64_t wanted)
{
	return left < wanted * SECOND ? 0 : left - wanted * SECOND;
}

bool hub_may_pass(struct hub *hub, struct port *from, uint32_t bytes, int64_t *wait_until_ms)
{
	const int64_t now_ms = hub_now_ms();
	const struct decision *decision = decision_of(hub, from, ACT_PASS, now_ms);
	struct bucket *bucket = &from->bucket;
	const int64_t passed_ms = now_ms - bucket->filled_ms;

	*wait_until_ms = decision->allows ? now_ms + 1 : decision->until_ms;
	if (!decision->allows)
		return false;
	bucket->bytes = refill(bucket->bytes, decision->bytes_per_s, passed_ms);
	bucket->requests = refill(bucket->requests, decision->requests_per_s, passed_ms);
	bucket->filled_ms = now_ms;
	if (!has_share(bucket->bytes, decision->bytes_per_s, bytes) ||
	    !has_share(bucket->requests, decision->requests_per_s, 1)) {
		from->held++;
		return false;
	}
	bucket->bytes = take_share(bucket->bytes, bytes);
	bucket->requests = take_share(bucket->requests, 1);
	*wait_until_ms = 0;
	return true;
}

bool hub_may_lend(struct hub *hub, struct port *port, bool read_only)
{
	return decision_of(hub, port, read_only ? ACT_LEND_RO : ACT_LEND, hub_now_ms())->allows;
}
