/* See memory_all.h. What is asked of the balancer is in process/balancer.h. */
#include "memory_all.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "balance_join.h"
#include "cli.h"
#include "memory_svg.h"
#include "reader.h"

enum { MIB_SHIFT = 20, LIVE_MS = 500, MOVES_SHOWN = 8 };

static long long mebibytes(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key)) >> MIB_SHIFT;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* 0 and what is answered, to be released; -ENOENT: no balancer; -errno. */
static int ask(const char *request, json_t **ret)
{
	int fd = balance_connect();
	FILE *balancer = fd < 0 ? NULL : fdopen(fd, "r+");
	json_t *answer = NULL;

	*ret = NULL;
	if (!balancer)
		return fd < 0 ? fd : -ENOMEM;
	if (fprintf(balancer, "%s\n", request) > 0 && !fflush(balancer))
		answer =
			json_loadf(balancer, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, NULL);
	fclose(balancer);
	if (json_is_true(json_object_get(answer, "ok")))
		*ret = answer;
	else
		json_decref(answer);
	return *ret ? 0 : -EPROTO;
}

static int failed(int error)
{
	if (error == -ENOENT)
		return complain(EXIT_UNUSABLE, "no machine whose memory is adjusted runs",
				"umbra memory",
				"run one with --name and --memory start=512M,min=256M,max=4G");
	return complain(EXIT_UNUSABLE, strerror(-error), "the balancer", "ask again");
}

/* It was asked what there is: that is an answer, too. */
static int print_nobody(bool json)
{
	puts(json ? "{\"machines\": [], \"moves\": []}"
		  : "no machine whose memory is adjusted runs");
	return 0;
}

static void print_host(const json_t *host)
{
	printf("host: %lld of %lld MiB available, %lld in reserve\n", mebibytes(host, "available"),
	       mebibytes(host, "total"), mebibytes(host, "reserve"));
}

static void print_machine(const json_t *machine)
{
	printf("%-20s %8lld %8lld %8lld %7lld%% %8lld %8lld %8lld  %s%s%s\n",
	       text_of(machine, "name"), mebibytes(machine, "assigned"),
	       mebibytes(machine, "target"), mebibytes(machine, "demand"),
	       (long long)json_integer_value(json_object_get(machine, "pressure")),
	       mebibytes(machine, "occupied"), mebibytes(machine, "shared"),
	       mebibytes(machine, "given-back"), text_of(machine, "mode"),
	       strcmp(text_of(machine, "mode"), "balanced") ? "" : ": ",
	       strcmp(text_of(machine, "mode"), "balanced") ? "" : text_of(machine, "reason"));
}

static void print_moves(const json_t *moves)
{
	const size_t count = json_array_size(moves);

	for (size_t n = count > MOVES_SHOWN ? count - MOVES_SHOWN : 0; n < count; n++) {
		const json_t *move = json_array_get(moves, n);

		printf("%8.1f s ago  %-20s %6lld -> %6lld MiB  %s\n",
		       (double)json_integer_value(json_object_get(move, "ago-ms")) / 1000,
		       text_of(move, "name"), mebibytes(move, "from"), mebibytes(move, "to"),
		       text_of(move, "reason"));
	}
}

static void print_all(const json_t *answer)
{
	const json_t *machines = json_object_get(answer, "machines");
	const json_t *machine;
	size_t n;

	print_host(json_object_get(answer, "host"));
	printf("%-20s %8s %8s %8s %8s %8s %8s %8s  %s\n", "MiB", "ASSIGNED", "TARGET", "DEMAND",
	       "PRESSURE", "OCCUPIED", "SHARED", "GIVEN", "WHY");
	json_array_foreach(machines, n, machine) print_machine(machine);
	print_moves(json_object_get(answer, "moves"));
}

static int show_once(bool json)
{
	json_t *answer;
	int error = ask("{\"id\":1,\"do\":\"info\"}", &answer);

	if (error)
		return error == -ENOENT ? print_nobody(json) : failed(error);
	json_object_del(answer, "id");
	json_object_del(answer, "ok");
	if (json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		puts("");
	} else {
		print_all(answer);
	}
	json_decref(answer);
	return 0;
}

/* Until there is nobody any more, or nobody who looks at it. */
static int show_live(void)
{
	json_t *answer;
	int error = ask("{\"id\":1,\"do\":\"info\"}", &answer);

	if (error)
		return error == -ENOENT ? print_nobody(false) : failed(error);
	while (!error) {
		int code;

		if (isatty(STDOUT_FILENO))
			fputs(TERMINAL_HOME_AND_CLEAR, stdout);
		print_all(answer);
		json_decref(answer);
		code = reader_wait(LIVE_MS);
		if (code)
			return code;
		error = ask("{\"id\":1,\"do\":\"info\"}", &answer);
	}
	return error == -ENOENT ? 0 : failed(error);
}

static int show_history(void)
{
	json_t *answer;
	int error = ask("{\"id\":1,\"do\":\"history\"}", &answer);

	if (error && error != -ENOENT)
		return failed(error);
	if (error)
		answer = json_pack("{s:[]}", "samples");
	json_dumpf(json_object_get(answer, "samples"), stdout, JSON_COMPACT);
	puts("");
	json_decref(answer);
	return 0;
}

static int write_svg(const char *path)
{
	json_t *answer;
	int error = ask("{\"id\":1,\"do\":\"history\"}", &answer);
	FILE *file;

	if (error)
		return failed(error);
	file = fopen(path, "wx");
	error = file ? 0 : -errno;
	if (file) {
		memory_svg(file, json_object_get(answer, "samples"));
		error = ferror(file) ? -EIO : 0;
		if (fclose(file))
			error = -errno;
	}
	json_decref(answer);
	return error ? complain(EXIT_UNUSABLE, strerror(-error), path,
				"name a file that is not there yet, where one can be written")
		     : 0;
}

static int set_reserve(const char *text)
{
	char request[96];
	uint64_t bytes = 0;
	json_t *answer;
	int error;

	if (strcmp(text, "auto") && (!parse_size(text, &bytes) || !bytes || bytes > INT64_MAX))
		return complain(EXIT_USAGE, "not a memory size", text,
				"say for example --reserve 2G, or --reserve auto");
	snprintf(request, sizeof(request), "{\"id\":1,\"do\":\"reserve\",\"bytes\":%lu}", bytes);
	error = ask(request, &answer);
	json_decref(answer);
	return error ? failed(error) : 0;
}

int memory_all(const struct memory_all *wanted)
{
	if (wanted->reserve)
		return set_reserve(wanted->reserve);
	if (wanted->svg)
		return write_svg(wanted->svg);
	if (wanted->history)
		return show_history();
	return wanted->live ? show_live() : show_once(wanted->json);
}
