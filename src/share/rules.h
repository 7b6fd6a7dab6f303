/*
 * Who may do what on the bus between machines: the user's rules, a text file of lines
 *
 *   allow|deny|ask MACHINE ACT[,ACT]... INSTANCE [OPTION]...      # a comment
 *   agent PATH [LIFETIME_MS]
 *
 * ACT: offer, see, open, pass, lend (pages), lend-ro (that the other only reads; a part of lend).
 * MACHINE: who acts. INSTANCE: OWNER/NAME, what it is
 * about. Both are patterns with * and ?. OPTION: class CLASS; to serves|binds (of pass and lend:
 * the direction); bytes N and requests N (of pass: so many a second; k, M, G); from HH:MM until
 * HH:MM (the host's time).
 *
 * The first line that fits decides; where none does, and where there is no file or one that is
 * wrong, the answer is no. `ask` leaves it to the agent (agent.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum rule_act { ACT_OFFER, ACT_SEE, ACT_OPEN, ACT_PASS, ACT_LEND, ACT_LEND_RO, RULE_ACTS };
enum rule_answer { RULE_DENY, RULE_ALLOW, RULE_ASK };

enum {
	RULES_MOST = 256,
	RULES_FILE_BYTES = 64 << 10,
	RULE_PATH_BYTES = 108,
	DAY_MINUTES = 24 * 60
};

struct rule {
	uint16_t line;
	uint8_t answer, acts; /* enum rule_answer; a bit each */
	char machine[WIRE_MACHINE_BYTES], instance[WIRE_INSTANCE_BYTES], class[WIRE_CLASS_BYTES];
	uint8_t side;		     /* of who gets it: enum share_side; 0: both */
	uint16_t from_minute, until_minute; /* equal: always; until may be of the next day */
	uint64_t bytes_per_s, requests_per_s; /* 0: no limit */
};
struct rules {
	unsigned count;
	struct rule rule[RULES_MOST];
	char agent[RULE_PATH_BYTES]; /* "": there is none */
	uint32_t agent_lifetime_ms;
	uint16_t wrong_line; /* then there is no rule; 0: the text was right */
};

struct question {
	enum rule_act act;
	const char *machine, *instance, *class;
	unsigned to_side; /* of ACT_PASS */
	unsigned minute;  /* of the day */
};

/* The text, which needs no end. A line that is wrong: no rules at all, and wrong_line. */
void rules_parse(struct rules *ret, const char *text, size_t bytes);
/* The rule that decides; NULL: none does, so no. */
const struct rule *rules_find(const struct rules *rules, const struct question *question);
const char *rule_act_name(enum rule_act act);
