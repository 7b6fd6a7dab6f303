/*
 * The process that reads hostile file systems (image/scan/sandbox.h): what it says in its pipe
 * comes, and anything else that it writes, executes or asks for ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image/scan/sandbox.h"

enum { WORD = 0x5a };

struct act { const char *what; int (*work)(void *context, int pipe); int result; };

static int foreign; /* a descriptor of the caller's that could be written */

static int take(void *context, int pipe)
{
	bool *came = context;
	char byte = 0;

	while (read(pipe, &byte, 1) == 1)
		*came |= byte == WORD;
	return 0;
}

static int say(void *context, int pipe)
{
	const char word = WORD;

	(void)context;
	return sandbox_write(pipe, &word, 1);
}

static int write_elsewhere(void *context, int pipe)
{
	(void)context;
	(void)pipe;
	return write(foreign, "x", 1) == 1 ? 0 : 1;
}

static int write_at_a_place(void *context, int pipe)
{
	(void)context;
	(void)pipe;
	return pwrite(foreign, "x", 1, 0) == 1 ? 0 : 1;
}

static int get_executable(void *context, int pipe)
{
	void *at = mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)context;
	(void)pipe;
	return at == MAP_FAILED;
}

static int map_a_file(void *context, int pipe)
{
	void *at = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, foreign, 0);

	(void)context;
	(void)pipe;
	return at == MAP_FAILED;
}

static int open_a_file(void *context, int pipe)
{
	(void)context;
	(void)pipe;
	return open("/etc/passwd", O_RDONLY) < 0;
}

static int reach_out(void *context, int pipe)
{
	(void)context;
	(void)pipe;
	return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static const struct act acts[] = {
	{ "a word in the pipe", say, 0 },
	{ "a byte into another descriptor", write_elsewhere, -EBADMSG },
	{ "a byte at a place of it", write_at_a_place, -EBADMSG },
	{ "executable memory", get_executable, -EBADMSG },
	{ "another's file as memory", map_a_file, -EBADMSG },
	{ "a file", open_a_file, -EBADMSG },
	{ "a socket", reach_out, -EBADMSG },
};

int main(void)
{
	int failures = 0;

	foreign = memfd_create("foreign", MFD_CLOEXEC);
	if (foreign < 0 || ftruncate(foreign, 1))
		return 2;
	for (unsigned n = 0; n < sizeof(acts) / sizeof(acts[0]); n++) {
		bool came = false;
		const struct sandbox sandbox = { .work = acts[n].work,
						 .take = take,
						 .context = &came };
		int result = sandbox_run(&sandbox);
		bool good = result == acts[n].result && came == !acts[n].result;

		printf("%s %s\n", good ? "ok  " : "FAIL", acts[n].what);
		failures += !good;
	}
	return failures != 0;
}
