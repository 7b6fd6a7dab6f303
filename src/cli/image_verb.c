/* umbra image: what an image says about itself, and the catalog of a shelf of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_cli.h"
#include "image_cli.h"
#include "option.h"

static const char help[] =
	"usage: umbra image build FOLDER|TAR IMAGE [--size SIZE] [--agent FILE|none]\n"
	"       umbra image scan FILE [--digests | --packages-only]\n"
	"       umbra image get FILE [KEY]    umbra image set FILE KEY=VALUE... | --from JSON    "
	"umbra image tag FILE [TAG | -TAG]...\n"
	"       umbra image packages FILE [PATTERN]    umbra image files FILE [PATTERN]    "
	"umbra image export FILE --to spdx|cyclonedx\n"
	"       umbra image history FILE    "
	"umbra image policy FILE [read|write|fork|export|attach]\n"
	"       umbra image key NEW    umbra image sign FILE --key KEY    "
	"umbra image verify FILE [--key KEY.pub | --key HEX]\n"
	"       umbra image keep FILE NAME [--from DATA]    umbra image fetch FILE NAME > DATA    "
	"umbra image drop FILE NAME\n"
	"       umbra image index DIRECTORY... [--catalog C]    "
	"umbra image search QUERY [--explain] [--limit N] [--catalog C]\n"
	"build makes a disk that boots (umbra run IMAGE) of a root file system that has a kernel "
	"in its /boot, with umbra-agent in it\n"
	"(umbra exec, umbra cp); 8G, of which the image holds what is used.\n"
	"All others take --format raw, vhd, qcow2 or vmdk (vhdx when nothing is said); "
	"other formats keep what they say in FILE.umbra. All that\n"
	"print take --json.\n"
	"KEY is title, compatible, expires, rights, patches, network, tags, configuration, "
	"saved-states, extensions or policy, and names\n"
	"below it with dots; VALUE is JSON or text, nothing removes. A QUERY is for example\n"
	"       os:debian pkg:\"openssl<3.0.15\" file:/etc/nginx/* tag:web not:expired\n"
	"Policies: the image's own (umbra image set FILE policy.no-export=true), "
	"~/.config/umbra/policy.json, /etc/umbra/policy.json; see\n"
	"docs/image.md. Ends 0; 1 nothing found, or not as signed; 64 usage; 65 unusable file; "
	"78 a policy.\n";

static int parse(int argc, char **argv, struct image_arguments *arguments)
{
	static const struct option longs[] = {
		{ "digests", 0, 0, 'd' }, { "packages-only", 0, 0, 'p' },
		{ "from", 1, 0, 'f' },    { "to", 1, 0, 't' },
		{ "key", 1, 0, 'k' },     { "catalog", 1, 0, 'c' },
		{ "limit", 1, 0, 'l' },   { "json", 0, 0, 'j' },
		{ "explain", 0, 0, 'e' }, { "format", 1, 0, 'F' },
		{ "parents", 1, 0, 'P' }, { "override", 1, 0, 'V' },
		{ "size", 1, 0, 's' },    { "agent", 1, 0, 'a' },
		{ "help", 0, 0, 'h' },    { 0 },
	};
	int option;

	while ((option = option_of_verb("image", argc, argv, "+", longs)) != -1 ||
	       (optind < argc && arguments->count < IMAGE_VALUES)) {
		if (option == -1 && !strcmp(argv[optind - 1], "--")) {
			while (optind < argc && arguments->count < IMAGE_VALUES)
				arguments->values[arguments->count++] = argv[optind++];
			break;
		}
		switch (option) {
		case -1: /* words may begin with a dash: tags that go */
			arguments->values[arguments->count++] = argv[optind++];
			while (optind < argc && argv[optind][0] == '-' && argv[optind][1] &&
			       argv[optind][1] != '-' && arguments->count < IMAGE_VALUES)
				arguments->values[arguments->count++] = argv[optind++];
			break;
		case 's': arguments->size = optarg; break;
		case 'a': arguments->agent = optarg; break;
		case 'd': arguments->digests = true; break;
		case 'p': arguments->packages_only = true; break;
		case 'f': arguments->disk.from = optarg; break;
		case 't': arguments->disk.to = optarg; break;
		case 'k': arguments->key = optarg; break;
		case 'c': arguments->catalog = optarg; break;
		case 'l': arguments->limit = optarg; break;
		case 'j': arguments->disk.json = true; break;
		case 'e': arguments->explain = true; break;
		case 'F': arguments->disk.format = optarg; break;
		case 'P':
			if (arguments->disk.place_count == PLACES)
				return complain(EXIT_USAGE, "more places than 16", optarg,
						"name a directory above them");
			arguments->disk.places[arguments->disk.place_count++] = optarg;
			break;
		case 'V': arguments->disk.override = optarg; break;
		case 'h': fputs(help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	}
	if (optind < argc)
		return complain(EXIT_USAGE, "too many arguments", argv[optind],
				"do it in two steps");
	arguments->disk.file = arguments->count ? arguments->values[0] : NULL;
	return arguments->count ? 0
				: complain(EXIT_USAGE, "nothing is named", "image",
					   "see umbra image --help");
}

int image_cli_open(const struct image_arguments *arguments, enum image_action action,
		   struct disk **ret)
{
	return disk_cli_open(&arguments->disk, arguments->disk.file, arguments->disk.format, action,
			     ret);
}

int image_failed(const char *path, int error)
{
	switch (error) {
	case -EBADMSG:
		return complain(EXIT_UNUSABLE, "what it says about itself is not sound", path,
				"restore it from a copy");
	case -ENOTSUP:
		return complain(EXIT_UNUSABLE, "what it says is of a later version", path,
				"use a later umbra");
	case -EFBIG:
		return complain(EXIT_UNUSABLE, "there is no room for that much", path,
				"see the limits in docs/image.md");
	default: return disk_access_failed(path, error);
	}
}

int image_failed_content(const char *path, int error)
{
	return error == -ENOENT ? complain(EXIT_UNUSABLE, "it was never scanned for that", path,
					   "say umbra image scan")
				: image_failed(path, error);
}

/* ---- the catalog ---- */

static int verb_index(struct image_arguments *arguments)
{
	return image_index(arguments->catalog, arguments->values, arguments->count,
			   arguments->disk.json);
}

static int verb_search(struct image_arguments *arguments)
{
	if (arguments->count > 1)
		return complain(EXIT_USAGE, "more than one query", arguments->values[1],
				"put it in quotes");
	return image_search(arguments->catalog, arguments->values[0], arguments->limit,
			    arguments->disk.json, arguments->explain);
}

int verb_image(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*verb)(struct image_arguments *arguments);
	} verbs[] = {
		{ .name = "build", .verb = image_verb_build },
		{ .name = "scan", .verb = image_verb_scan },
		{ .name = "get", .verb = image_verb_get },
		{ .name = "set", .verb = image_verb_set },
		{ .name = "tag", .verb = image_verb_tag },
		{ .name = "packages", .verb = image_verb_packages },
		{ .name = "files", .verb = image_verb_files },
		{ .name = "export", .verb = image_verb_export },
		{ .name = "history", .verb = image_verb_history },
		{ .name = "policy", .verb = image_verb_policy },
		{ .name = "key", .verb = image_verb_key },
		{ .name = "sign", .verb = image_verb_sign },
		{ .name = "verify", .verb = image_verb_verify },
		{ .name = "keep", .verb = image_verb_keep },
		{ .name = "fetch", .verb = image_verb_fetch },
		{ .name = "drop", .verb = image_verb_drop },
		{ .name = "index", .verb = verb_index },
		{ .name = "search", .verb = verb_search },
	};
	struct image_arguments arguments = { 0 };
	int code;

	if (argc >= 2 && !strcmp(argv[1], "--help")) {
		fputs(help, stdout);
		return 0;
	}
	for (size_t n = 0; argc >= 2 && n < sizeof(verbs) / sizeof(verbs[0]); n++)
		if (!strcmp(argv[1], verbs[n].name)) {
			code = parse(argc - 1, argv + 1, &arguments);
			return code ? code : verbs[n].verb(&arguments);
		}
	return complain(EXIT_USAGE, "no such verb", argc >= 2 ? argv[1] : "image",
			"see umbra image --help");
}
