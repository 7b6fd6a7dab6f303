/* See talk.h. */
#include "talk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "control/machine_control.h"
#include "control/names.h"

enum { LINE_BYTES = CONTROL_OUT_BYTES, ERRNO_MAX = 4095, WORDS_BYTES = 512 };

/* The last line of what the processes of a machine have said, without its begin. "": nothing. */
static void last_words(const char *name, char text[WORDS_BYTES])
{
	static const char begin[] = "umbra: ";
	char path[WORDS_BYTES];
	char *last;
	ssize_t got;
	int fd = name_log_path(name, path, sizeof(path))
			 ? -1
			 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	text[0] = 0;
	if (fd < 0)
		return;
	if (lseek(fd, 1 - WORDS_BYTES, SEEK_END) < 0)
		lseek(fd, 0, SEEK_SET);
	got = read(fd, text, WORDS_BYTES - 1);
	close(fd);
	while (got > 0 && text[got - 1] == '\n')
		got--;
	text[got > 0 ? got : 0] = 0;
	last = strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text;
	if (!strncmp(last, begin, strlen(begin)))
		last += strlen(begin);
	memmove(text, last, strlen(last) + 1);
}

/* One that went on by itself, and has ended, has said why, unless it was told to. */
static int nobody_runs(const char *name)
{
	char words[WORDS_BYTES];
	char remedy[WORDS_BYTES + 32];

	last_words(name, words);
	snprintf(remedy, sizeof(remedy), "the last one said: %s", words);
	return complain(EXIT_UNUSABLE, "no machine of that name runs", name,
			words[0] ? remedy : "umbra ps lists those that do");
}

int talk_failed(const char *name, int error)
{
	if (error == -ENOENT)
		return nobody_runs(name);
	return complain(EXIT_UNUSABLE, strerror(-error), name, "see umbra ps");
}

int talk_refused(const char *name)
{
	int error;
	FILE *peer = talk_to(name, &error);

	if (!peer)
		return talk_failed(name, error);
	fclose(peer);
	return complain(EXIT_UNUSABLE, "it did not answer", name, "see umbra ps, or try again");
}

bool talk_ask(FILE *peer, const char *verb)
{
	assert(!strpbrk(verb, "\"\\\n")); /* as JSON has it */
	return fprintf(peer, "{\"id\":1,\"do\":\"%s\"}\n", verb) > 0 && !fflush(peer);
}

json_t *talk_hear(FILE *peer)
{
	char line[LINE_BYTES];

	return fgets(line, LINE_BYTES, peer) ? json_loads(line, JSON_REJECT_DUPLICATES, NULL)
					     : NULL;
}

int talk_hear_end(FILE *peer)
{
	json_t *answer = talk_hear(peer);
	json_int_t number = json_integer_value(json_object_get(answer, "errno"));
	int error = -ECONNRESET;

	if (json_is_true(json_object_get(answer, "ok")))
		error = 0;
	else if (number > 0 && number <= ERRNO_MAX)
		error = -(int)number;
	json_decref(answer);
	assert(error <= 0);
	return error;
}

void talk_hear_out(FILE *peer)
{
	for (json_t *line = talk_hear(peer); line; line = talk_hear(peer))
		json_decref(line);
}

FILE *talk_to(const char *name, int *ret_error)
{
	int fd = name_connect(name);
	FILE *peer = fd < 0 ? NULL : fdopen(fd, "r+");

	*ret_error = fd < 0 ? fd : 0;
	return peer;
}

json_t *talk_describe(FILE *peer)
{
	json_t *answer = talk_ask(peer, "info") ? talk_hear(peer) : NULL;
	json_t *machine = json_object_get(answer, "machine");

	json_incref(machine);
	json_decref(answer);
	return json_is_object(machine) ? machine : NULL;
}
