/* umbra far: a disk, or a channel, of one host for machines of another. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "option.h"
#include "far_verb.h"

enum { OPERANDS = 3 };

static const char far_help[] =
	"usage: umbra far serve DISK [ADDRESS:]PORT --key FILE [--format FORMAT] [--read-only]\n"
	"       umbra far reach MACHINE/NAME HOST:PORT --key FILE\n"
	"       umbra far serve --packets MACHINE/NAME [ADDRESS:]PORT --key FILE [--record FILE]\n"
	"       umbra far reach --packets MACHINE/NAME HOST:PORT --key FILE [--record FILE]\n"
	"A disk of one host for the machines of another (docs/sharing.md). serve: has the disk,\n"
	"and listens (at 127.0.0.1 unless an ADDRESS is given; PORT 0: any, which it says).\n"
	"reach: joins it to the bus here, as if a machine MACHINE served NAME; a machine uses it\n"
	"with umbra run --bind MACHINE/NAME=disk, where the rules allow it. --packets: the same\n"
	"of the channel that MACHINE serves there, which `far` binds; what is on its way lies in\n"
	"the record (beside the hub's socket unless told), so that one that was killed and is\n"
	"started again goes on. FILE has the key that both have (umbra listen --make-key FILE\n"
	"makes one).\n";

static int run(int count, char **operands, const char *key, struct far_choice *choice)
{
	const bool serves = count && !strcmp(operands[0], "serve");
	int code;

	if (choice->record && !choice->packets)
		return complain(EXIT_USAGE, "that is of packets", "--record", "say --packets");
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
					       { "record", 1, 0, 'R' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct far_choice choice = { .read_only = false };
	const char *key = NULL;
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 'k': key = optarg; break;
		case 'f': choice.format = optarg; break;
		case 'r': choice.read_only = true; break;
		case 'p': choice.packets = true; break;
		case 'R': choice.record = optarg; break;
		case 'h': fputs(far_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	return run(argc - optind, argv + optind, key, &choice);
}
