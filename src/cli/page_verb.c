/* umbra page: the address of the web page, asked of the daemon on its socket. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "option.h"
#include "client/umbra-client.h"

static const char page_help[] =
	"usage: umbra page [--end] [--json]\n"
	"Says an address for a browser of this host, at which umbrad shows machines, their\n"
	"memory, disks, images and channels, and does what the command does. It is good once,\n"
	"for five minutes; the browser's tab is let in from then on, until it was not used for\n"
	"twelve hours or umbrad ends. --end: whoever was let in before is not any more.\n";

struct page_arguments { bool json, end; };

static int parse_page(int argc, char **argv, struct page_arguments *arguments)
{
	static const struct option longs[] = { { "end", 0, 0, 'e' },
					       { "json", 0, 0, 'j' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 'e': arguments->end = true; break;
		case 'j': arguments->json = true; break;
		case 'h': fputs(page_help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	if (optind == argc)
		return 0;
	return complain(EXIT_USAGE, "unexpected argument", argv[optind], "see umbra page --help");
}

static int show(const struct umbra_answer *answer, bool as_json)
{
	json_t *said = json_loads(answer->text, 0, NULL);
	const char *address = json_string_value(json_object_get(said, "address"));
	const char *reason = json_string_value(json_object_get(said, "reason"));
	int code = 0;

	if (!address)
		code = complain(EXIT_UNUSABLE, reason ? reason : "it does not know of the page",
				"umbrad", "end an older one, and start that of this version");
	else if (as_json)
		puts(answer->text);
	else
		puts(address);
	json_decref(said);
	return code;
}

int verb_page(int argc, char **argv)
{
	struct page_arguments arguments = { false };
	struct umbra_client *client;
	struct umbra_answer answer;
	const char *body;
	int code = parse_page(argc, argv, &arguments);
	int error;

	if (code)
		return code;
	body = arguments.end ? "{\"end\":true}" : "{}";
	client = umbra_client_open(NULL);
	error = client ? umbra_client_ask(client, "POST", "/v1/page", body, &answer) : -errno;
	if (error) {
		code = complain(EXIT_UNUSABLE, strerror(-error), "umbrad",
				"start it: umbrad &, or systemctl --user start umbrad.socket");
	} else {
		code = show(&answer, arguments.json);
		umbra_answer_free(&answer);
	}
	umbra_client_close(client);
	return code;
}
