/* See far_dial.h. */
#include "far_dial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"

enum { MOST_DELAY_MS = 5000 };

void far_pause_ms(int timeout_ms) { poll(NULL, 0, timeout_ms); }

int far_longer_ms(int delay_ms) { return delay_ms < MOST_DELAY_MS ? 2 * delay_ms : delay_ms; }

static int dial_once(const struct far_dial *dial, struct wire_line *ret)
{
	const int fd = place_connect(dial->place->host, dial->place->port);

	if (fd < 0)
		return fd;
	wire_line_tune(fd);
	return wire_line_open(fd, false, &dial->choice->secret, ret);
}

static void *dial_always(void *context)
{
	const struct far_dial *dial = context;
	bool is_said = false;
	uint8_t word;

	while (read(dial->wanted[0], &word, 1) == 1) {
		int delay_ms = FAR_FIRST_DELAY_MS;
		struct wire_line line;
		int error;

		while ((error = dial_once(dial, &line))) {
			if (error == -EACCES && !is_said)
				complain(0, "the far side has another key", dial->choice->place,
					 "give both sides the same one");
			is_said |= error == -EACCES;
			far_pause_ms(delay_ms);
			delay_ms = far_longer_ms(delay_ms);
		}
		if (write(dial->connected, &line, sizeof(line)) != sizeof(line))
			break;
	}
	return NULL;
}

int far_dial_begin(struct far_dial *dial)
{
	pthread_t thread;

	if (pipe2(dial->wanted, O_CLOEXEC))
		return -errno;
	return -pthread_create(&thread, NULL, dial_always, dial);
}

void far_dial_again(const struct far_dial *dial)
{
	if (write(dial->wanted[1], "", 1) != 1)
		abort();
}
