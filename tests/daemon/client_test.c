/* What clients.py has libumbra-client do: a machine's life. usage: client_test SOCKET KERNEL */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "umbra-client.h"

enum { TURN_NS = 20000000, TURNS = 3000, DONE = 200, CREATED = 201, BEGUN = 202, ABSENT = 404 };

static int failed;

static void check(const char *what, bool good, const struct umbra_answer *answer)
{
	if (good)
		return;
	printf("client_test: %s: %u %s\n", what, answer->status, answer->text ? answer->text : "");
	failed = 1;
}

/* Takes the answer. */
static void check_status(const char *what, int error, unsigned status, struct umbra_answer *answer)
{
	if (error)
		printf("client_test: %s: %s\n", what, strerror(-error));
	check(what, !error && answer->status == status, answer);
	umbra_answer_free(answer);
}

/* Of an operation: until it does not run any more. */
static void await(struct umbra_client *client, const char *place)
{
	const struct timespec pause = { 0, TURN_NS };
	struct umbra_answer answer = { 0 };
	bool runs = true;

	for (unsigned n = 0; runs && n < TURNS; n++) {
		umbra_answer_free(&answer);
		if (umbra_client_ask(client, "GET", place, NULL, &answer))
			break;
		runs = strstr(answer.text, "\"state\":\"running\"");
		if (runs)
			nanosleep(&pause, NULL);
	}
	check("an operation", answer.text && strstr(answer.text, "\"state\":\"done\""), &answer);
	umbra_answer_free(&answer);
}

static void create(struct umbra_client *client, const char *kernel)
{
	const struct umbra_create_machine one = { .name = "one",
						  .kernel = kernel,
						  .append = "a \"b\" \\ \n\303\274",
						  .memory = "64M",
						  .cpus = 1,
						  .no_bus = true };
	struct umbra_answer answer;

	umbra_client_set_key(client, "key");
	check_status("create", umbra_create_machine(client, &one, &answer), CREATED, &answer);
	umbra_client_set_key(client, "key");
	check_status("again", umbra_create_machine(client, &one, &answer), CREATED, &answer);
}

static void live(struct umbra_client *client)
{
	const struct umbra_start_machine start = { .machine = "one" };
	const struct umbra_get_machine get = { .machine = "one" };
	const struct umbra_kill_machine end = { .machine = "one" };
	struct umbra_answer answer;
	char place[sizeof(answer.location)] = "";

	if (!umbra_start_machine(client, &start, &answer))
		memcpy(place, answer.location, sizeof(place));
	check_status("start", 0, BEGUN, &answer);
	await(client, place);
	check("get", !umbra_get_machine(client, &get, &answer) && answer.bytes &&
			     strstr(answer.text, "\"running\"") &&
			     strstr(answer.text, "a \\\"b\\\" \\\\ \\n\303\274"),
	      &answer);
	umbra_answer_free(&answer);
	if (!umbra_kill_machine(client, &end, &answer))
		memcpy(place, answer.location, sizeof(place));
	check_status("kill", 0, BEGUN, &answer);
	await(client, place);
}

static void be_refused(struct umbra_client *client)
{
	const struct umbra_get_machine odd = { .machine = "no/body?x=\303\274" };
	const struct umbra_get_machine nobody = { .machine = "nobody" };
	const struct umbra_run_program empty = { .machine = "one" };
	const struct umbra_get_disk disk = { .file = "/no where/&file=x", .chain = true };
	struct umbra_answer answer;

	check_status("nobody", umbra_get_machine(client, &nobody, &answer), ABSENT, &answer);
	check("an odd name", !umbra_get_machine(client, &odd, &answer) && answer.status >= 400,
	      &answer);
	umbra_answer_free(&answer);
	check("what is missing", umbra_run_program(client, &empty, &answer) == -EINVAL, &answer);
	check("a query", !umbra_get_disk(client, &disk, &answer) && answer.status == 409 &&
				 strstr(answer.text, "/no where/&file=x"),
	      &answer);
	umbra_answer_free(&answer);
	check("no request",
	      umbra_client_ask(client, "GET", "/v1/x HTTP/1.1\r\nX: y", NULL, &answer) == -EINVAL,
	      &answer);
}

int main(int argc, char **argv)
{
	struct umbra_client *client = umbra_client_open(argc > 2 ? argv[1] : NULL);
	struct umbra_client *nowhere = umbra_client_open("/nowhere/socket");
	struct umbra_answer answer;

	if (!client || !nowhere || argc < 3)
		return 1;
	check_status("version", umbra_get_version(client, &answer), DONE, &answer);
	check("nobody is there", umbra_get_version(nowhere, &answer) == -ENOENT, &answer);
	create(client, argv[2]);
	live(client);
	be_refused(client);
	umbra_client_close(nowhere);
	umbra_client_close(client);
	return failed;
}
