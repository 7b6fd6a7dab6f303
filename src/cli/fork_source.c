/* See fork_source.h. */
#include "fork_source.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/machine.h"
#include "vm/saved_file.h"

enum { SILENCE_MS = 60000, ERRNO_MAX = 4095 };

/* ---- what it says ---- */

/* 0 once it may have said something; -EIO: it does not. */
static int wait_for_word(struct fork_source *source)
{
	struct pollfd fds[] = { { .fd = source->event, .events = POLLIN },
				{ .fd = source->pidfd, .events = POLLIN } };
	uint64_t count;

	if (poll(fds, 2, SILENCE_MS) <= 0)
		return -EIO;
	if (fds[0].revents & POLLIN)
		return read(source->event, &count, sizeof(count)) == sizeof(count) ? 0 : -EIO;
	return -EIO; /* it has ended, and said nothing before */
}

/* A record of this kind, of no more than `most` bytes, into data. 0 or -errno. */
static int hear(struct fork_source *source, uint32_t kind, uint8_t data[RING_RECORD_MAX_BYTES],
		uint32_t *ret_bytes)
{
	uint32_t said;
	int got;

	while (!(got = ring_get(&source->from_machine, &said, data, ret_bytes))) {
		const int error = brief_wait_looks(&source->wait) ? 0 : wait_for_word(source);

		if (error)
			return error;
	}
	brief_wait_found(&source->wait);
	return got > 0 && said == kind ? 0 : -EBADMSG;
}

static int read_machine(struct fork_source *source, uint64_t at, uint8_t *to, size_t bytes)
{
	const struct record_read wanted = { .at = at, .bytes = bytes };
	uint8_t data[RING_RECORD_MAX_BYTES];
	int error = ring_put(&source->to_machine, RECORD_READ, &wanted, sizeof(wanted));

	while (!error && bytes) {
		uint32_t got;

		error = hear(source, RECORD_SAVED, data, &got);
		if (!error && (!got || got > bytes))
			error = -EBADMSG;
		if (error)
			break;
		memcpy(to, data, got);
		to += got;
		bytes -= got;
	}
	return error;
}

/* ---- what there is ---- */

static int hear_serves(struct fork_source *source, uint64_t most_bytes)
{
	uint8_t data[RING_RECORD_MAX_BYTES];
	struct record_serves serves;
	uint32_t bytes;
	int error = hear(source, RECORD_SERVES, data, &bytes);

	if (error)
		return error;
	if (bytes != sizeof(serves))
		return -EBADMSG;
	memcpy(&serves, data, sizeof(serves));
	if (serves.error)
		return serves.error < 0 && serves.error >= -ERRNO_MAX ? (int)serves.error
								      : -EBADMSG;
	if (serves.bytes > most_bytes || serves.bytes < MACHINE_SAVED_HEAD_BYTES ||
	    serves.parts_at > serves.bytes)
		return -EBADMSG;
	source->machine_bytes = source->bytes = serves.bytes;
	source->parts_at = serves.parts_at;
	return 0;
}

/* A restore believes what the head says. */
static int check_head(struct fork_source *source, bool has_bus)
{
	uint8_t head[MACHINE_SAVED_HEAD_BYTES];
	const struct boot_file file = { .data = head, .bytes = sizeof(head) };
	struct machine_saved saved;
	int error = read_machine(source, 0, head, sizeof(head));

	if (error)
		return error;
	return machine_read_saved(&file, &saved) || saved.has_bus != has_bus ? -EBADMSG : 0;
}

int fork_source_open(struct fork_source *source, const int rings[3], int pidfd, uint64_t most_bytes,
		     bool has_bus)
{
	int error;

	*source = (struct fork_source){ .event = rings[1], .pidfd = pidfd,
					 .wait = { .is_far = true } };
	source->memory = mmap(NULL, sizeof(*source->memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			      rings[0], 0);
	if (source->memory == MAP_FAILED) {
		source->memory = NULL;
		return -errno;
	}
	source->from_machine = (struct ring_end){ .memory = &source->memory->to_broker };
	source->to_machine = (struct ring_end){ .memory = &source->memory->to_machine,
						.wake_fd = rings[2] };
	error = hear_serves(source, most_bytes);
	return error ? error : check_head(source, has_bus);
}

int fork_source_add_host(struct fork_source *source, const char *host_text)
{
	size_t bytes = 0;

	if (!host_text)
		return 0;
	source->host = saved_file_host_part(source->machine_bytes, host_text, &bytes);
	source->bytes += bytes;
	return source->host ? 0 : -ENOMEM;
}

int fork_source_read(struct fork_source *source, uint64_t at, uint8_t *to, size_t bytes)
{
	const uint64_t left = at < source->machine_bytes ? source->machine_bytes - at : 0;
	const size_t of_machine = bytes < left ? bytes : (size_t)left;
	int error = 0;

	if (at > source->bytes || bytes > source->bytes - at)
		return -EINVAL;
	if (of_machine)
		error = read_machine(source, at, to, of_machine);
	if (!error && bytes > of_machine)
		memcpy(to + of_machine, source->host + (at + of_machine - source->machine_bytes),
		       bytes - of_machine);
	return error;
}

void fork_source_close(struct fork_source *source)
{
	if (source->memory)
		munmap(source->memory, sizeof(*source->memory));
	free(source->host);
}
