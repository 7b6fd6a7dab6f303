/* When a connection with the agent is there for another question (net/relay/conversation.h). */
#include <stdio.h>
#include <string.h>

#include "net/relay/conversation.h"

enum { BYTES = 256 };

static int failures;
static uint8_t asks[BYTES], answers[BYTES];
static size_t asked, answered;

static void expect(const char *what, bool got, bool want)
{
	printf("%s %s\n", got == want ? "ok  " : "FAIL", what);
	failures += got != want;
}

static void add(uint8_t *to, size_t *used, uint32_t kind, const void *data, uint32_t bytes)
{
	const struct agent_frame head = { .kind = kind, .bytes = bytes };

	memcpy(to + *used, &head, sizeof(head));
	memcpy(to + *used + sizeof(head), data, bytes);
	*used += sizeof(head) + bytes;
}

static void begin(void)
{
	asked = answered = 0;
	add(asks, &asked, AGENT_EXEC, "an exec", 7);
	add(answers, &answered, AGENT_OUTPUT, "some", 4);
}

static void end(uint32_t again)
{
	const struct agent_exited exited = { .code = 7, .again = again };

	add(answers, &answered, AGENT_EXITED, &exited, sizeof(exited));
}

/* In pieces of so many bytes, and as far as is said. */
static bool is_over_after(size_t of_asks, size_t of_answers, size_t piece)
{
	struct conversation conversation = { .asked = 0 };

	for (size_t at = 0; at < of_asks; at += piece)
		conversation_asks(&conversation, asks + at,
				  of_asks - at < piece ? of_asks - at : piece);
	for (size_t at = 0; at < of_answers; at += piece)
		conversation_answers(&conversation, answers + at,
				     of_answers - at < piece ? of_answers - at : piece);
	return conversation_is_over(&conversation);
}

static void is_followed(void)
{
	unsigned early = 0;
	unsigned late = 0;

	begin();
	add(asks, &asked, AGENT_INPUT_END, "", 0);
	end(1);
	for (size_t piece = 1; piece <= answered; piece++)
		late += !is_over_after(asked, answered, piece);
	for (size_t bytes = 0; bytes < answered; bytes++)
		early += is_over_after(asked, bytes, 3);
	for (size_t bytes = 0; bytes < asked; bytes++)
		early += bytes != asked - sizeof(struct agent_frame) &&
			 is_over_after(bytes, answered, 3);
	expect("over in pieces of any size", !late, true);
	expect("not before both are whole", !early, true);
}

static void is_not_over(void)
{
	begin();
	end(0);
	expect("the agent does not stay", is_over_after(asked, answered, BYTES), false);
	begin();
	end(2);
	expect("what is no answer", is_over_after(asked, answered, BYTES), false);
	begin();
	add(answers, &answered, AGENT_EXITED, "code", 4);
	expect("an older agent", is_over_after(asked, answered, BYTES), false);
	begin();
	end(1);
	add(answers, &answered, AGENT_OUTPUT, "", 0);
	expect("something behind it", is_over_after(asked, answered, BYTES), false);
	begin();
	end(1);
	asked = 0;
	add(asks, &asked, AGENT_PUT, "file", 4);
	add(asks, &asked, AGENT_EXEC, "an exec", 7);
	expect("another question first", is_over_after(asked, answered, BYTES), false);
}

int main(void)
{
	is_followed();
	is_not_over();
	return failures != 0;
}
