/*
 * What an agent says, who is the guest's and may lie: to who has asked (cli/agent_line.h), and to
 * the relay that follows it (net/relay/conversation.h). In which pieces it comes makes no
 * difference, and no frame is longer than what came.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/agent_line.h"
#include "fuzz.h"
#include "net/relay/conversation.h"
#include "process/report.h"

enum { MOST_BYTES = 100000, PIECE_BYTES = 4096, SEED_FRAMES = 7 };

struct heard { uint64_t frames, bytes, sum; int end; };

static void must(bool good)
{
	if (!good)
		abort();
}

/* Nobody connects here. */
int complain(int code, const char *what, const char *where, const char *remedy)
{
	(void)code;
	(void)what;
	(void)where;
	(void)remedy;
	abort();
}

static void take(struct agent_line *line, struct heard *heard)
{
	struct agent_said said = { .data = NULL };
	int got;

	while ((got = agent_next(line, &said)) > 0) {
		must(said.bytes <= AGENT_FRAME_BYTES && said.data >= line->data &&
		     said.data + said.bytes <= line->data + sizeof(line->data));
		heard->frames++;
		heard->bytes += said.bytes;
		heard->sum = heard->sum * 31 + said.kind;
		for (uint32_t n = 0; n < said.bytes; n++)
			heard->sum = heard->sum * 31 + said.data[n];
		if (said.kind == AGENT_FAILED)
			must(agent_failure(&said) < 0);
	}
	must(!got || got == -EPROTO);
	heard->end = got;
}

static struct heard hear(const uint8_t *data, size_t bytes, size_t piece)
{
	static struct agent_line line;
	struct heard heard = { .frames = 0 };
	int ends[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	line.used = 0;
	line.fd = ends[0];
	for (size_t at = 0; at < bytes && !heard.end; at += piece) {
		const size_t part = bytes - at < piece ? bytes - at : piece;

		must(send(ends[1], data + at, part, 0) == (ssize_t)part);
		must(!agent_receive(&line));
		take(&line, &heard);
	}
	close(ends[1]);
	agent_close(&line);
	return heard;
}

static bool is_over(const uint8_t *data, size_t bytes, size_t piece)
{
	static const struct { struct agent_frame head; uint8_t data[4]; } exec = {
		.head = { .kind = AGENT_EXEC, .bytes = 4 }
	};
	struct conversation conversation = { .asked = 0 };

	conversation_asks(&conversation, (const uint8_t *)&exec, sizeof(exec));
	for (size_t at = 0; at < bytes; at += piece)
		conversation_answers(&conversation, data + at,
				     bytes - at < piece ? bytes - at : piece);
	return conversation_is_over(&conversation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct heard whole;
	struct heard parts;
	size_t piece;

	bytes = bytes < MOST_BYTES ? bytes : MOST_BYTES;
	piece = bytes ? data[0] % 60 + 1 : 1;
	whole = hear(data, bytes, PIECE_BYTES);
	parts = hear(data, bytes, piece);
	must(whole.frames == parts.frames && whole.bytes == parts.bytes &&
	     whole.sum == parts.sum && whole.end == parts.end);
	must(is_over(data, bytes, PIECE_BYTES) == is_over(data, bytes, piece));
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const uint32_t kinds[] = { AGENT_OUTPUT, AGENT_ERRORS, AGENT_FAILED, AGENT_FILE,
					  AGENT_FUSE };
	const struct agent_exited exited = { .code = n, .again = 1 };
	size_t used = 0;

	for (unsigned k = 0; k < n % SEED_FRAMES; k++) {
		const struct agent_frame head = { .kind = kinds[(n + k) % 5],
						  .bytes = n * k * 37 % 3000 };

		memcpy(data + used, &head, sizeof(head));
		memset(data + used + sizeof(head), (int)n, head.bytes);
		used += sizeof(head) + head.bytes;
	}
	memcpy(data + used, &(struct agent_frame){ AGENT_EXITED, sizeof(exited) },
	       sizeof(struct agent_frame));
	memcpy(data + used + sizeof(struct agent_frame), &exited, sizeof(exited));
	return used + sizeof(struct agent_frame) + sizeof(exited);
}
