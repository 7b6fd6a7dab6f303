/* See outcome.h. Texts of the machine process are one line, printable ASCII. */
#include "outcome.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "report.h"
#include "vm/machine.h"

/* The first line of a text that is not ours. */
static void print_foreign(const char *before, const char *text)
{
	fprintf(stderr, "%s%.*s\n", before, (int)strcspn(text, "\n"), text);
}

/* The line of the guest's log that says why; its first line when none does. */
static void print_crash(const char *text)
{
	const char *line = strstr(text, "Kernel panic");

	if (!line)
		line = text[0] ? text : "triple fault";
	print_foreign("umbra: the guest crashed: ", line);
}

static const char *refusal_remedy(int error)
{
	switch (error) {
	case -ENOMEM: return "give another --memory";
	case -E2BIG: return "shorten --append";
	default: return "name a bzImage or a multiboot image";
	}
}

static int report_refusal(struct broker_end *end, const struct plan *plan)
{
	end->text[strcspn(end->text, "\n")] = 0;
	if (plan->restores)
		return complain(EXIT_UNUSABLE, end->text, plan->source,
				end->code == -ENOTSUP ? "restore it where it was saved"
						      : "save the machine again");
	return complain(end->code == -E2BIG ? EXIT_USAGE : EXIT_UNUSABLE, end->text, plan->source,
			refusal_remedy(end->code));
}

/* One that ends with a code has said why. */
static int report_helper(const struct broker_end *end)
{
	int status = end->helper_status;
	char where[64];

	if (WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status);
	snprintf(where, sizeof(where), "the %s process", role_describe(end->helper)->name);
	return complain(EXIT_FAULT, WIFEXITED(status) ? "it ended" : strsignal(WTERMSIG(status)),
			where, "please report it");
}

static int report_death(const struct broker_end *end, const struct plan *plan)
{
	/* of a process that was not begun here nobody tells how it ended */
	if (plan->adopts && !end->text[0])
		return complain(EXIT_FAULT, "it ended without a word", "the machine process",
				"see in the host's log whether it was killed");
	fprintf(stderr,
		"umbra: the machine process ended on a fault of its own (status %#x), "
		"please report it",
		(unsigned)end->wait_status);
	print_foreign(": ", end->text);
	return EXIT_FAULT;
}

static int report_end(const struct broker_end *end, const struct plan *plan)
{
	switch (end->code) {
	case MACHINE_POWERED_OFF: case MACHINE_RESET: case MACHINE_STOPPED: return 0;
	case MACHINE_DEBUG_EXIT: return end->debug_exit_code & 0xff;
	case MACHINE_CRASHED: print_crash(end->text); return EXIT_GUEST_CRASHED;
	case MACHINE_OUT_OF_TIME:
		print_foreign("umbra: the guest was ", end->text);
		return EXIT_OUT_OF_TIME;
	default:
		return complain(EXIT_FAULT, "the host refused what the machine needs", plan->source,
				"see umbra doctor");
	}
}

int outcome_report(struct broker_end *end, const struct plan *plan)
{
	fputs(end->statistics, stderr);
	if (end->unmapped)
		fprintf(stderr, "umbra: the perf map lacks %lu blocks of code; what was last "
				"translated is not in it\n",
			end->unmapped);
	if (end->outcome == BROKER_HELPER_ENDED || end->helper_status)
		return report_helper(end);
	switch (end->outcome) {
	case BROKER_STOPPED: return 0;
	case BROKER_REFUSED: return report_refusal(end, plan);
	case BROKER_MACHINE_DIED: return report_death(end, plan);
	case BROKER_RUBBISH:
		return complain(EXIT_FAULT, "the machine process broke the protocol", "broker",
				"please report it");
	default: return report_end(end, plan);
	}
}
