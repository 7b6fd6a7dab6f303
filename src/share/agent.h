/*
 * An agent of the user's own that decides, over a Unix stream socket: a line is asked, a line is
 * answered, in order.
 *
 *   ask NUMBER ACT MACHINE INSTANCE CLASS TO_SIDE\n
 *   NUMBER allow|deny [REASON]\n
 *
 * Answers are kept for the rules' lifetime. No answer in AGENT_WAIT_MS, another number, or anything
 * else: the answer is no, as long, and the agent is taken for gone: another has to be given.
 */
#pragma once

#include <stdint.h>

#include "rules.h"

struct agent;

enum { AGENT_WAIT_MS = 50, AGENT_REASON_BYTES = 80 };

struct agent_counters { uint64_t asked, kept, failed; };

/* NULL: no memory. */
struct agent *agent_create(void);
void agent_destroy(struct agent *agent);
/* Asks this one from now on, which is the agent's to close; what was answered is forgotten. */
void agent_set(struct agent *agent, int fd);
/* Whether there is one that has not failed. */
bool agent_is_there(const struct agent *agent);
/* RULE_ALLOW or RULE_DENY; why, in reason[AGENT_REASON_BYTES]. */
enum rule_answer agent_decide(struct agent *agent, const struct question *question,
			      uint32_t lifetime_ms, int64_t now_ms, char *reason);
struct agent_counters agent_counters(const struct agent *agent);
