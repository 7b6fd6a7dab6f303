/* The arguments of the verbs on disk files: what may be said, and what was. */
#include <stdio.h>
#include <stdlib.h>

#include "disk_cli.h"
#include "option.h"

const char disk_help[] =
	"usage: umbra disk create FILE --size S [--format F] [--block-size B] "
	"[--sector-size 512|4096] [--fixed]\n"
	"       umbra disk create FILE --parent PARENT [--parent-format F] [--block-size B]\n"
	"       umbra disk info|map FILE [--json] [--chain]    "
	"umbra disk check FILE [--chain] [--quick | --digests | --rebuild] [--json]\n"
	"       umbra disk check FOLDER --chain [--quick] [--json]    umbra disk watch FOLDER\n"
	"       umbra disk read FILE --offset N --length N > DATA        "
	"umbra disk write FILE --offset N [--from DATA]\n"
	"       umbra disk convert SOURCE TARGET [--from F] [--to F] [--block-size B] [--fixed] "
	"[--no-sync]\n"
	"       umbra disk convert SOURCE TARGET --azure [--from F]\n"
	"       umbra disk convert SOURCE TARGET --to qcow2 [--compress zlib|zstd] [--parent P "
	"--parent-format F] [--block-size B]\n"
	"       umbra disk convert SOURCE TARGET --to vmdk    "
	"umbra disk convert SOURCE /dev/DEVICE --to raw --device\n"
	"       umbra disk rescue SOURCE TARGET [--from F] [--to raw|vhdx|vhd] [--json]\n"
	"       umbra disk compare FILE OTHER [--format F] [--other-format F] [--json]\n"
	"       umbra disk resize FILE --size S    umbra disk snapshot FILE CHILD    "
	"umbra disk commit CHILD\n"
	"       umbra disk stream CHILD    "
	"umbra disk rebase CHILD --parent NEW [--parent-format F]    umbra disk compact FILE\n"
	"       umbra disk shrink FILE [--format F] [--dry-run] [--json]\n"
	"       umbra disk export-changes FILE TARGET --since ANCESTOR\n"
	"       umbra disk import PACKAGE.ova|DESCRIPTOR.ovf FOLDER [--to F]    "
	"umbra disk export FILE TARGET.ova [--disk MORE]... [--format F]\n"
	"       umbra disk serve FILE --socket PATH [--read-only]    "
	"then: umbra disk snapshot CHILD|commit|stream|resize --size S --socket PATH\n"
	"       umbra disk snapshot --machine NAME    "
	"umbra disk resize DISK --machine NAME --size S\n"
	"       umbra disk attach NAME FILE[,format=F][,readonly][,dvd] [--json]    "
	"umbra disk detach NAME DISK [--json]\n"
	"       umbra disk layers FOLDER|FILE [--remove] [--json]\n"
	"       umbra disk repair-link CHILD --reason TEXT    "
	"umbra disk freeze FILE [--reason TEXT | --undo]    umbra disk replay FILE\n"
	"F is raw, vhdx (when nothing is said), vhd, qcow2 or vmdk; files of the last two are "
	"written once, by convert, and then only read: of qcow2\n"
	"with --parent what differs from that file, of vmdk stream-optimised ones. - is standard "
	"input or output (raw or vmdk) of convert. rescue takes what\n"
	"can be read, and prints a map of what is missing, which is zero then. watch tells when a "
	"parent in a folder was changed behind its children.\n"
	"shrink gives back what the file systems on a disk that nobody uses do not need (ext2 to "
	"ext4, XFS, NTFS; in partitions and LVM).\n"
	"check compares the content with the file's\n"
	"digests (--quick: does not), with --chain also with what each parent held when its child "
	"was made, and writes nothing; --digests\n"
	"makes digests that are missing, --rebuild takes the content as right.\n"
	"--machine NAME keeps the disks of a running machine, whose guest has its file systems "
	"stand still meanwhile (hv_vss_daemon).\n"
	"attach gives a running machine another disk, of which it says the number; with dvd a "
	"disc, into a drive without one if there is\n"
	"(,dvd alone: a drive). detach takes one, by number or file, once nothing of it is under "
	"way: unmount it in the guest before. resize\n"
	"--machine makes one larger, and the guest sees it.\n"
	"layers lists what machines that were forked go on in, and which of these files are left "
	"over from children that have ended;\n"
	"with --remove those go, or FILE alone: not while somebody uses it, or a file there or "
	"under a --parents PLACE is made on it. One that is\n"
	"frozen is removed only by its name: a machine that was saved may need it.\n"
	"A parent is looked for where its child says, and must lie under the child's directory or "
	"a --parents PLACE (may be repeated).\n"
	"--direct goes past the host's cache, for what is aligned to 4096 bytes; with --no-sync "
	"convert does not wait until the target is on the host's disk. --azure makes what Azure "
	"takes: a fixed vhd of whole MiB. "
	"A SIZE is a number with K, M, G or T after it. Ends 0; 64\n"
	"usage; 65 unusable file, or a parent that has changed; "
	"78 a parent that is not allowed, or a policy (umbra image --help; --override\n"
	"REASON where it allows that); compare: 1 when the contents differ.\n";

static const struct option longs[] = {
	{ "size", 1, 0, 's' },
	{ "machine", 1, 0, 'm' },
	{ "block-size", 1, 0, 'b' },
	{ "sector-size", 1, 0, 'S' },
	{ "parent", 1, 0, 'p' },
	{ "parents", 1, 0, 'P' },
	{ "from", 1, 0, 'f' },
	{ "to", 1, 0, 't' },
	{ "format", 1, 0, 'F' },
	{ "other-format", 1, 0, 'O' },
	{ "offset", 1, 0, 'o' },
	{ "length", 1, 0, 'l' },
	{ "fixed", 0, 0, 'x' },
	{ "json", 0, 0, 'j' },
	{ "chain", 0, 0, 'c' },
	{ "quick", 0, 0, 'q' },
	{ "undo", 0, 0, 'u' },
	{ "rebuild", 0, 0, 'B' },
	{ "digests", 0, 0, 'd' },
	{ "reason", 1, 0, 'r' },
	{ "parent-format", 1, 0, 'G' },
	{ "since", 1, 0, 'i' },
	{ "socket", 1, 0, 'k' },
	{ "read-only", 0, 0, 'R' },
	{ "override", 1, 0, 'V' },
	{ "direct", 0, 0, 'D' },
	{ "no-sync", 0, 0, 'N' },
	{ "azure", 0, 0, 'A' },
	{ "compress", 1, 0, 'C' },
	{ "device", 0, 0, 'E' },
	{ "dry-run", 0, 0, 'n' },
	{ "remove", 0, 0, 'e' },
	{ "disk", 1, 0, 'K' },
	{ "help", 0, 0, 'h' },
	{ 0 },
};

static int take_place(struct arguments *arguments, const char *place)
{
	if (arguments->place_count == PLACES)
		return complain(EXIT_USAGE, "more places than 16", place,
				"name a directory above them");
	arguments->places[arguments->place_count++] = place;
	return 0;
}

static int take_disk(struct arguments *arguments, const char *file)
{
	if (arguments->disk_count == FURTHER_DISKS)
		return complain(EXIT_USAGE, "more than 64 disks", file, "leave some out");
	arguments->disks[arguments->disk_count++] = file;
	return 0;
}

static int take_size(struct arguments *arguments, int option, const char *text)
{
	bool is_good = false;

	switch (option) {
	case 's': is_good = arguments->has_size = parse_size(text, &arguments->size); break;
	case 'b': is_good = parse_size(text, &arguments->block); break;
	case 'S': is_good = parse_size(text, &arguments->sector); break;
	case 'o': is_good = arguments->has_offset = parse_size(text, &arguments->offset); break;
	case 'l': is_good = arguments->has_length = parse_size(text, &arguments->length); break;
	}
	return is_good ? 0 : complain(EXIT_USAGE, "not a size", text, "say for example 4G");
}

static int take_flag(struct arguments *arguments, int option)
{
	switch (option) {
	case 'x': arguments->fixed = true; return 0;
	case 'j': arguments->json = true; return 0;
	case 'c': arguments->chain = true; return 0;
	case 'q': arguments->quick = true; return 0;
	case 'u': arguments->undo = true; return 0;
	case 'B': arguments->rebuild = true; return 0;
	case 'n': arguments->dry_run = true; return 0;
	case 'e': arguments->remove = true; return 0;
	case 'd': arguments->digests = true; return 0;
	case 'R': arguments->read_only = true; return 0;
	case 'D': arguments->direct = true; return 0;
	case 'N': arguments->no_sync = true; return 0;
	case 'A': arguments->azure = true; return 0;
	case 'E': arguments->device = true; return 0;
	default: return EXIT_USAGE;
	}
}

static int take_option(struct arguments *arguments, int option)
{
	switch (option) {
	case 's':
	case 'b':
	case 'S':
	case 'o':
	case 'l': return take_size(arguments, option, optarg);
	case 'P': return take_place(arguments, optarg);
	case 'K': return take_disk(arguments, optarg);
	case 'm': arguments->machine = optarg; return 0;
	case 'p': arguments->parent = optarg; return 0;
	case 'f': arguments->from = optarg; return 0;
	case 't': arguments->to = optarg; return 0;
	case 'F': arguments->format = optarg; return 0;
	case 'O': arguments->other_format = optarg; return 0;
	case 'r': arguments->reason = optarg; return 0;
	case 'i': arguments->since = optarg; return 0;
	case 'k': arguments->socket = optarg; return 0;
	case 'V': arguments->override = optarg; return 0;
	case 'C': arguments->compress = optarg; return 0;
	case 'G': arguments->parent_format = optarg; return 0;
	default: return take_flag(arguments, option);
	}
}

int disk_parse_arguments(int argc, char **argv, struct arguments *arguments)
{
	int code = 0;
	int option;

	while (!code && (option = option_of_verb("disk", argc, argv, "", longs)) != -1) {
		if (option == 'h') {
			fputs(disk_help, stdout);
			exit(0);
		}
		code = take_option(arguments, option);
	}
	if (code)
		return code;
	if (optind < argc)
		arguments->file = argv[optind++];
	if (optind < argc)
		arguments->other = argv[optind++];
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind],
				"see umbra disk --help");
	return arguments->file || arguments->socket || arguments->machine
		       ? 0
		       : complain(EXIT_USAGE, "no file given", "disk", "see umbra disk --help");
}
