/* umbra far: a disk, or a channel, of one host for machines of another. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "far_verb.h"

enum { OPERANDS = 3 };

static const char far_help[] =
	"usage: umbra far serve DISK [ADDRESS:]PORT --key FILE [--format FORMAT] [--read-only]\n"
	"       umbra far reach MACHINE/NAME HOST:PORT --key FILE\n"
	"       umbra far serve --packets MACHINE/NAME [ADDRESS:]PORT --key FILE\n"
	"       umbra far reach --packets MACHINE/NAME HOST:PORT --key FILE\n"
	"A disk of one host for the machines of another (docs/sharing.md). serve: has the disk,\n"
	"and listens (at 127.0.0.1 unless an ADDRESS is given; PORT 0: any, which it says).\n"
	"reach: joins it to the bus here, as if a machine MACHINE served NAME; a machine uses it\n"
	"with umbra run --bind MACHINE/NAME=disk, where the rules allow it. --packets: the same\n"
	"of the channel that MACHINE serves there, which `far` binds. FILE has the key that\n"
	"both have (umbra listen --make-key FILE makes one).\n";

static int run(int count, char **operands, const char *key, struct far_choice *choice)
{
	const bool serves = count && !strcmp(operands[0], "serve");
	int code;

	if (count != OPERANDS || !key || (!serves && strcmp(operands[0], "reach") != 0))
		return complain(EXIT_USAGE, key ? "not understood" : "no key", "umbra far",
				"see umbra far --help");
	choice->what = operands[1];
	choice->place = operands[2];
	code = wire_key_read(key, &choice->secret);
	if (code)
		return code;
	if (choice->packets)
		return far_packets(choice, !serves);
	return serves ? far_serve(choice) : far_reach(choice);
}

int verb_far(int argc, char **argv)
{
	static const struct option longs[] = { { "key", 1, 0, 'k' },
					       { "format", 1, 0, 'f' },
					       { "read-only", 0, 0, 'r' },
					       { "packets", 0, 0, 'p' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct far_choice choice = { .read_only = false };
	const char *key = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (option) {
		case 'k': key = optarg; break;
		case 'f': choice.format = optarg; break;
		case 'r': choice.read_only = true; break;
		case 'p': choice.packets = true; break;
		case 'h': fputs(far_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	return run(argc - optind, argv + optind, key, &choice);
}
