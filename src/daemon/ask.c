/* See ask.h. */
#include "ask.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/names.h"
#include "lib/check.h"
#include "ask_internal.h"

void check_question(const struct question *question)
{
	assert(question->ask.answered && question->ask.loop);
	assert(question->source.fd >= 0 && question->source.ready);
	assert(question->source.context == question);
	/* it ends at its deadline at the latest */
	assert(question->timer.due && question->timer.context == question);
	assert(question->timer.at_ms);
	/* a whole line would have been answered, as would have been too long a one */
	assert(question->used < sizeof(question->text));
	assert(!memchr(question->text, '\n', question->used));
}

static void question_end(struct question *question, json_t *answer)
{
	loop_remove(question->ask.loop, &question->source);
	loop_unset(question->ask.loop, &question->timer);
	close(question->source.fd);
	question->ask.answered(question->ask.context, answer);
	json_decref(answer);
	free(question);
}

static void question_late(void *context) { question_end(context, NULL); }

static void question_ready(void *context, uint32_t events)
{
	struct question *question = context;
	ssize_t got = recv(question->source.fd, question->text + question->used,
			   sizeof(question->text) - question->used, 0);
	const char *end;

	(void)events;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		question_end(question, NULL);
		return;
	}
	question->used += (size_t)got;
	end = memchr(question->text, '\n', question->used);
	if (end)
		question_end(question, json_loadb(question->text, (size_t)(end - question->text),
						  JSON_REJECT_DUPLICATES, NULL));
	else if (question->used == sizeof(question->text))
		question_end(question, NULL);
	else
		CHECK(check_question(question));
}

int ask_machine(const struct ask *ask)
{
	int fd = name_connect_now(ask->machine);
	struct question *question = fd < 0 ? NULL : malloc(sizeof(*question));
	size_t bytes = strlen(ask->line);

	if (fd < 0)
		return fd;
	if (!question || send(fd, ask->line, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) {
		free(question);
		close(fd);
		return -ECONNRESET;
	}
	question->ask = *ask;
	question->used = 0;
	question->source = (struct loop_source){ fd, question_ready, question };
	question->timer = (struct loop_timer){ .due = question_late, .context = question };
	if (loop_add(ask->loop, &question->source, EPOLLIN)) {
		free(question);
		close(fd);
		return -ENOMEM;
	}
	loop_set(ask->loop, &question->timer, ask->deadline_ms);
	CHECK(check_question(question));
	return 0;
}
