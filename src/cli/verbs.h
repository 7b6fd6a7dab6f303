/*
 * The command's verbs, as a table: what runs them, what umbra --help says of them, and what
 * completions of shells offer after them (tools/completion).
 */
#pragma once

/* What comes after a verb. */
enum verb_operand { OPERAND_NONE, OPERAND_FILE, OPERAND_MACHINE, OPERAND_WORD };

struct verb {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the verb */
	enum verb_operand operand;
	const char *words; /* of OPERAND_WORD: its own verbs, by blanks */
	const char *about;
};

/* NULL: there is none of that name. */
const struct verb *verb_find(const char *name);
/* One a line: name, operand, words or -, what it does; by tabs. */
void verbs_print(void);
/* For --help. */
void verbs_print_help(void);
/* All names, by commas; to be freed. */
char *verbs_names(void);
