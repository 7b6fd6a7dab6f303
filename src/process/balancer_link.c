/* See balancer_internal.h. What a machine says, and what the host's kernel says of its process. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "balancer_internal.h"

enum { PAGE_BYTES = 4096, TEXT_BYTES = 4096, SHARED_EVERY_MS = 5000, LINE_BYTES = 96 };

/* ---- descriptors ---- */

ssize_t receive_with(int socket_fd, void *data, size_t bytes, int *fds, unsigned count)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(OCCUPIED_FDS * sizeof(int))];
	} ancillary;
	struct iovec vector = { .iov_base = data, .iov_len = bytes };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = &ancillary,
				  .msg_controllen = sizeof(ancillary) };
	ssize_t got = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	const struct cmsghdr *head = got < 0 ? NULL : CMSG_FIRSTHDR(&message);
	size_t brought = 0;

	assert(count <= OCCUPIED_FDS); /* the room for them */
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
		brought = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t n = 0; n < brought; n++) {
		int fd;

		memcpy(&fd, CMSG_DATA(head) + n * sizeof(fd), sizeof(fd));
		if (n < count)
			fds[n] = fd;
		else
			close(fd);
	}
	return got;
}

/* The file's text from its beginning; "" where there is none. */
static void read_text(int fd, char text[TEXT_BYTES])
{
	ssize_t got = fd < 0 ? -1 : pread(fd, text, TEXT_BYTES - 1, 0);

	text[got > 0 ? got : 0] = 0;
}

/* The number behind a word; 0: it is not there. */
static uint64_t number_after(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	return at ? strtoull(at + strlen(word), NULL, 10) : 0;
}

void measure_host(const int fds[2], struct balance_host *host)
{
	char text[TEXT_BYTES];

	read_text(fds[0], text);
	host->total_bytes = number_after(text, "MemTotal:") << 10;
	host->available_bytes = number_after(text, "MemAvailable:") << 10;
	read_text(fds[1], text);
	host->stall_us = number_after(text, "total=");
}

json_t *host_json(const struct balance_host *host)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "total", (json_int_t)host->total_bytes,
			 "available", (json_int_t)host->available_bytes, "reserve",
			 (json_int_t)host->reserve_bytes, "stalled-us", (json_int_t)host->stall_us);
}

/* ---- a machine ---- */

void link_clear(struct link *link)
{
	memset(link, 0, sizeof(*link));
	link->fd = -1;
	for (unsigned n = 0; n < OCCUPIED_FDS; n++)
		link->occupied_fd[n] = -1;
}

void link_open(struct link *link, int fd)
{
	static const char watch[] = "{\"id\":1,\"do\":\"watch\"}\n";

	assert(fd >= 0);
	link_clear(link);
	link->fd = fd;
	if (send(fd, watch, sizeof(watch) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		link_close(link);
}

void link_close(struct link *link)
{
	close(link->fd);
	for (unsigned n = 0; n < OCCUPIED_FDS; n++)
		if (link->occupied_fd[n] >= 0)
			close(link->occupied_fd[n]);
	link_clear(link);
}

static uint64_t number_of(const json_t *machine, const char *key)
{
	json_int_t number = json_integer_value(json_object_get(machine, key));

	return number > 0 ? (uint64_t)number : 0;
}

static bool is_text(const json_t *machine, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(machine, key));

	return value && !strcmp(value, text);
}

static void copy_text(char *to, size_t bytes, const json_t *machine, const char *key)
{
	const char *value = json_string_value(json_object_get(machine, key));

	snprintf(to, bytes, "%s", value ? value : "");
}

/* A number of the machine process's, which may say anything: of `most`, its broker's word. */
static uint64_t bounded(const json_t *machine, const char *key, uint64_t most)
{
	const uint64_t number = number_of(machine, key);

	return number < most ? number : most;
}

/* One that can have no more regions has at most what it holds. */
static void take_machine(struct link *link, const json_t *machine)
{
	struct balance_guest *said = &link->said;
	const uint64_t memory = number_of(machine, "memory");
	const uint64_t held = bounded(machine, "held", memory);
	const uint64_t assigned = bounded(machine, "assigned", memory);
	const uint64_t inflated = held > assigned ? held - assigned : 0;
	const uint64_t committed = number_of(machine, "committed");
	const bool grows =
		is_text(machine, "growth", "can") || is_text(machine, "growth", "refused");

	copy_text(link->name, sizeof(link->name), machine, "name");
	copy_text(link->mode, sizeof(link->mode), machine, "memory-mode");
	said->can_move = (is_text(machine, "memory-mode", "automatic") ||
			  is_text(machine, "memory-mode", "balanced")) &&
			 !json_object_get(machine, "silent");
	said->least = number_of(machine, "memory-min");
	said->most = grows ? memory : held;
	said->weight = (unsigned)number_of(machine, "memory-weight");
	said->buffer_percent = (unsigned)number_of(machine, "memory-buffer");
	said->reports = number_of(machine, "reports");
	said->assigned = assigned;
	said->available = bounded(machine, "available", memory);
	said->committed = committed > inflated ? committed - inflated : 0;
	link->given_back = number_of(machine, "given-back");
	link->is_known = assigned;
}

static void take_line(struct link *link, size_t bytes)
{
	json_t *line = json_loadb(link->line, bytes, JSON_REJECT_DUPLICATES, NULL);
	const json_t *machine = json_object_get(line, "machine");

	if (json_is_object(machine))
		take_machine(link, machine);
	json_decref(line);
}

bool link_hear(struct link *link)
{
	int fds[OCCUPIED_FDS] = { -1, -1 };
	ssize_t got = receive_with(link->fd, link->line + link->line_used,
				   sizeof(link->line) - link->line_used, fds, OCCUPIED_FDS);
	char *end;

	assert(link->line_used < sizeof(link->line));
	for (unsigned n = 0; n < OCCUPIED_FDS; n++) {
		if (fds[n] < 0)
			continue;
		if (link->occupied_fd[n] >= 0)
			close(link->occupied_fd[n]);
		link->occupied_fd[n] = fds[n];
	}
	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR);
	link->line_used += (size_t)got;
	while ((end = memchr(link->line, '\n', link->line_used))) {
		take_line(link, (size_t)(end - link->line));
		link->line_used -= (size_t)(end + 1 - link->line);
		memmove(link->line, end + 1, link->line_used);
	}
	return link->line_used < sizeof(link->line);
}

/* What it shares with machines that were forked from it, or it from them, counts in part. */
static void look_at_shared(struct link *link, int64_t now_ms)
{
	char text[TEXT_BYTES];
	uint64_t resident, part;

	if (now_ms - link->shared_ms < SHARED_EVERY_MS)
		return;
	link->shared_ms = now_ms;
	read_text(link->occupied_fd[1], text);
	resident = number_after(text, "\nRss:") << 10;
	part = number_after(text, "\nPss:") << 10;
	link->shared_bytes = resident > part ? resident - part : 0;
}

static uint64_t resident_of(const struct link *link)
{
	char text[TEXT_BYTES];
	uint64_t bytes;
	char *end;

	read_text(link->occupied_fd[0], text);
	strtoull(text, &end, 10); /* the size of its address space */
	bytes = strtoull(end, NULL, 10) * PAGE_BYTES;
	if (!bytes)
		return link->said.assigned;
	return bytes > link->shared_bytes ? bytes - link->shared_bytes : 0;
}

void link_describe(struct link *link, int64_t now_ms, struct balance_guest *ret)
{
	*ret = link->said;
	ret->is_there = link->fd >= 0 && link->is_known;
	if (!ret->is_there)
		return;
	look_at_shared(link, now_ms);
	ret->resident = resident_of(link);
}

void link_advise(struct link *link, uint64_t bytes)
{
	char line[LINE_BYTES];
	int length =
		snprintf(line, sizeof(line), "{\"id\":2,\"do\":\"advise\",\"bytes\":%lu}\n", bytes);

	assert(length > 0 && (size_t)length < sizeof(line));
	if (send(link->fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) == length)
		link->advised_bytes = bytes;
}

json_t *link_json(const struct link *link, const struct balance_guest *guest,
		  const struct balance_verdict *verdict)
{
	return json_pack(
		"{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:i, "
		"s:s}",
		"name", link->name, "mode", link->mode, "assigned", (json_int_t)guest->assigned,
		"target", (json_int_t)verdict->target, "demand", (json_int_t)verdict->demand,
		"working-set", (json_int_t)verdict->working_set, "available",
		(json_int_t)guest->available, "pressure", (int)verdict->pressure_percent,
		"occupied", (json_int_t)guest->resident, "shared", (json_int_t)link->shared_bytes,
		"given-back", (json_int_t)link->given_back, "least", (json_int_t)guest->least,
		"most", (json_int_t)guest->most, "weight", (int)guest->weight, "reason",
		balance_reason_text(verdict->reason));
}
