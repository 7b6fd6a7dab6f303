/* See verbs.h. */
#include "verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const struct verb verbs[] = {
	{ .name = "run", .run = verb_run, .operand = OPERAND_FILE, .about = "boots a machine" },
	{ .name = "ps", .run = verb_running, .about = "lists machines that have a name" },
	{ .name = "top", .run = verb_top, .about = "shows what machines use of the host" },
	{ .name = "info",
	  .run = verb_running,
	  .operand = OPERAND_MACHINE,
	  .about = "says what a machine is, and where it is" },
	{ .name = "stop",
	  .run = verb_running,
	  .operand = OPERAND_MACHINE,
	  .about = "asks a guest to power off" },
	{ .name = "kill",
	  .run = verb_running,
	  .operand = OPERAND_MACHINE,
	  .about = "ends a machine at once" },
	{ .name = "pause",
	  .run = verb_running,
	  .operand = OPERAND_MACHINE,
	  .about = "has a machine stand still" },
	{ .name = "resume",
	  .run = verb_running,
	  .operand = OPERAND_MACHINE,
	  .about = "lets it go on" },
	{ .name = "memory",
	  .run = verb_running,
	  .operand = OPERAND_MACHINE,
	  .about = "shows or sets what memory guests have" },
	{ .name = "save",
	  .run = verb_save,
	  .operand = OPERAND_MACHINE,
	  .about = "writes a machine to a file" },
	{ .name = "fork",
	  .run = verb_fork,
	  .operand = OPERAND_MACHINE,
	  .about = "makes machines of one that runs" },
	{ .name = "listen", .run = verb_listen, .about = "takes machines that another host sends" },
	{ .name = "exec",
	  .run = verb_exec,
	  .operand = OPERAND_MACHINE,
	  .about = "runs a program in a machine" },
	{ .name = "cp",
	  .run = verb_copy,
	  .operand = OPERAND_FILE,
	  .about = "copies a file into a machine or out of it" },
	{ .name = "share",
	  .run = verb_share,
	  .operand = OPERAND_MACHINE,
	  .about = "mounts a folder of the host's in a machine" },
	{ .name = "console",
	  .run = verb_console,
	  .operand = OPERAND_MACHINE,
	  .about = "shows a machine's console" },
	{ .name = "screenshot",
	  .run = verb_screenshot,
	  .operand = OPERAND_MACHINE,
	  .about = "writes what is on a guest's screen" },
	{ .name = "trace",
	  .run = verb_trace,
	  .operand = OPERAND_MACHINE,
	  .about = "writes what a machine's processors ask for" },
	{ .name = "debug",
	  .run = verb_debug,
	  .operand = OPERAND_WORD,
	  .words = "block",
	  .about = "lists what code a machine executes" },
	{ .name = "far", .run = verb_far, .about = "shares a disk or a channel with another host" },
	{ .name = "bus",
	  .run = verb_bus,
	  .operand = OPERAND_MACHINE,
	  .about = "shows channels between machines" },
	{ .name = "disk",
	  .run = verb_disk,
	  .operand = OPERAND_WORD,
	  .words = "create info map check read write convert compare resize snapshot commit "
		   "stream rebase compact export-changes import export serve repair-link freeze "
		   "shrink replay rescue watch layers attach detach",
	  .about = "makes, checks and changes disks" },
	{ .name = "image",
	  .run = verb_image,
	  .operand = OPERAND_WORD,
	  .words = "build scan get set tag packages files export history policy key sign verify "
		   "keep fetch drop index search",
	  .about = "says what images are, and finds them" },
	{ .name = "page", .run = verb_page, .about = "says where a browser finds the page" },
	{ .name = "mcp", .run = verb_mcp, .about = "offers machines as tools to agents" },
	{ .name = "demo", .run = verb_demo, .about = "boots a Debian that it builds, once" },
	{ .name = "doctor", .run = verb_doctor, .about = "says what this host offers" },
};
enum { VERBS = sizeof(verbs) / sizeof(verbs[0]) };

const struct verb *verb_find(const char *name)
{
	for (size_t n = 0; n < VERBS; n++)
		if (!strcmp(verbs[n].name, name))
			return &verbs[n];
	return NULL;
}

void verbs_print(void)
{
	static const char *const operands[] = { [OPERAND_NONE] = "none",
						[OPERAND_FILE] = "file",
						[OPERAND_MACHINE] = "machine",
						[OPERAND_WORD] = "word" };

	for (size_t n = 0; n < VERBS; n++)
		printf("%s\t%s\t%s\t%s\n", verbs[n].name, operands[verbs[n].operand],
		       verbs[n].words ? verbs[n].words : "-", verbs[n].about);
}

void verbs_print_help(void)
{
	for (size_t n = 0; n < VERBS; n++)
		printf("  %-9s %s\n", verbs[n].name, verbs[n].about);
}

char *verbs_names(void)
{
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	for (size_t n = 0; out && n < VERBS; n++)
		fprintf(out, "%s%s", n ? ", " : "", verbs[n].name);
	if (out)
		fclose(out);
	return text;
}
