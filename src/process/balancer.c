/* See balancer.h. One thread, one poll. */
#include "balancer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "balance/balance.h"
#include "balancer_internal.h"
#include "control/protocol.h"

/* who has brought a machine stays, to hear of the balancer's end */
enum { ASKERS = 8 + BALANCE_GUESTS };
enum { STAYS_BUSY_MS = 2000, LONELY_MS = 5000 };
/* of a host that has not much beyond its reserve: what one program can take within 250 ms */
enum { CLOSE_MS = 20 };
#define CLOSE_BYTES (2ull << 30)
#define FALL_BYTES (64ull << 20)
enum { HEAR_MS = 10, REQUEST_BYTES = 1024, OWN_FDS = 2 };
enum { RESERVE_SHARE = 20, SAMPLE_MS = 1000 };
#define RESERVE_LEAST_BYTES (256ull << 20)

enum wish { ASKS_JOIN, ASKS_INFO, ASKS_HISTORY, ASKS_RESERVE };

static const struct control_verb verbs[] = {
	{ .name = "join", .number = ASKS_JOIN },
	{ .name = "info", .number = ASKS_INFO },
	{ .name = "history", .number = ASKS_HISTORY },
	{ .name = "reserve",
	  .number = ASKS_RESERVE,
	  .member = { { "bytes", CONTROL_NUMBER, true } } },
	{ 0 },
};

struct asker {
	int fd; /* -1: nobody */
	char line[REQUEST_BYTES];
	size_t line_used;
	char *out; /* what goes out, before more is heard; NULL */
	size_t out_at, out_bytes;
	int brought_fd; /* -1: none */
};

struct balancer {
	int listen_fd;
	const int *host_fds;
	int pressure_fd; /* that wakes; -1 */
	struct balance *balance;
	struct balance_host host;
	struct link link[BALANCE_GUESTS];
	struct balance_guest guest[BALANCE_GUESTS];
	struct balance_verdict verdict[BALANCE_GUESTS];
	struct history history;
	struct asker asker[ASKERS];
	uint64_t reserve_bytes; /* as it was set; 0: of the host's size */
	uint64_t turn_available_bytes; /* of the host, at the last turn */
	int64_t turn_ms, busy_until_ms, lonely_ms, sample_ms;
	bool is_due; /* something has come too soon after the last turn to have one of its own */
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the host ---- */

static void look_at_host(struct balancer *balancer)
{
	struct balance_host *host = &balancer->host;
	const uint64_t share = host->total_bytes / RESERVE_SHARE;

	host->now_us = (uint64_t)now_ms() * 1000;
	measure_host(balancer->host_fds, host);
	host->reserve_bytes = balancer->reserve_bytes;
	if (!host->reserve_bytes)
		host->reserve_bytes = share > RESERVE_LEAST_BYTES ? share : RESERVE_LEAST_BYTES;
}

/* ---- a turn ---- */

static bool tell_all(struct balancer *balancer)
{
	bool moved = false;

	for (unsigned n = 0; n < BALANCE_GUESTS; n++) {
		struct link *link = &balancer->link[n];
		const struct balance_verdict *verdict = &balancer->verdict[n];

		if (link->fd < 0 || !balancer->guest[n].can_move || !balancer->guest[n].reports)
			continue;
		if (verdict->moves || !link->advised_bytes)
			history_move(&balancer->history, link, verdict, balancer->turn_ms);
		moved |= verdict->moves;
		if (verdict->target != link->advised_bytes)
			link_advise(link, verdict->target);
	}
	return moved;
}

static void turn(struct balancer *balancer)
{
	const int64_t now = now_ms();
	bool grows = false;

	balancer->turn_ms = now;
	balancer->is_due = false;
	look_at_host(balancer);
	balancer->turn_available_bytes = balancer->host.available_bytes;
	for (unsigned n = 0; n < BALANCE_GUESTS; n++) {
		const uint64_t before = balancer->guest[n].resident;

		link_describe(&balancer->link[n], now, &balancer->guest[n]);
		grows |= balancer->guest[n].resident > before;
	}
	balance_turn(balancer->balance, &balancer->host, balancer->guest, balancer->verdict);
	if (tell_all(balancer) || grows)
		balancer->busy_until_ms = now + STAYS_BUSY_MS;
	if (now < balancer->sample_ms)
		return;
	balancer->sample_ms = now + SAMPLE_MS;
	history_sample(&balancer->history, &balancer->host, balancer->link, balancer->guest,
		       balancer->verdict);
}

/* ---- who asks ---- */

static void asker_close(struct asker *asker)
{
	close(asker->fd);
	free(asker->out);
	if (asker->brought_fd >= 0)
		close(asker->brought_fd);
	*asker = (struct asker){ .fd = -1, .brought_fd = -1 };
}

static void answer(struct asker *asker, char *line)
{
	asker->out = line;
	asker->out_at = 0;
	asker->out_bytes = line ? strlen(line) : 0;
}

static int join(struct balancer *balancer, struct asker *asker)
{
	if (asker->brought_fd < 0)
		return -EINVAL;
	for (unsigned n = 0; n < BALANCE_GUESTS; n++) {
		if (balancer->link[n].fd >= 0)
			continue;
		link_open(&balancer->link[n], asker->brought_fd);
		asker->brought_fd = -1;
		return 0;
	}
	return -ENOSPC;
}

static json_t *describe_all(const struct balancer *balancer)
{
	json_t *machines = json_array();

	for (unsigned n = 0; n < BALANCE_GUESTS; n++)
		if (balancer->guest[n].is_there)
			json_array_append_new(machines,
					      link_json(&balancer->link[n], &balancer->guest[n],
							&balancer->verdict[n]));
	return json_pack("{s:o, s:o, s:o}", "host", host_json(&balancer->host), "machines",
			 machines, "moves",
			 history_moves_json(&balancer->history, balancer->turn_ms));
}

static void take_request(struct balancer *balancer, struct asker *asker,
			 const struct control_request *request)
{
	int error = 0;
	json_t *more = NULL;

	switch ((enum wish)request->verb->number) {
	case ASKS_JOIN: error = join(balancer, asker); break;
	case ASKS_INFO: more = describe_all(balancer); break;
	case ASKS_HISTORY: more = history_json(&balancer->history); break;
	case ASKS_RESERVE: balancer->reserve_bytes = control_number(request, "bytes"); break;
	}
	answer(asker, error ? control_failure(request->id, error, NULL)
			    : control_success(request->id, more));
}

static void take_line(struct balancer *balancer, struct asker *asker, size_t bytes)
{
	struct control_request request;
	const char *reason;

	if (control_parse(asker->line, bytes, verbs, &request, &reason))
		answer(asker, control_failure(request.id, -EINVAL, reason));
	else
		take_request(balancer, asker, &request);
	control_request_free(&request);
}

/* False: nobody is there any more, or it says too much. */
static bool asker_hear(struct balancer *balancer, struct asker *asker)
{
	int fd = -1;
	ssize_t got = receive_with(asker->fd, asker->line + asker->line_used,
				   sizeof(asker->line) - asker->line_used, &fd, 1);
	char *end;

	if (fd >= 0 && asker->brought_fd >= 0)
		close(asker->brought_fd);
	if (fd >= 0)
		asker->brought_fd = fd;
	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR);
	asker->line_used += (size_t)got;
	end = memchr(asker->line, '\n', asker->line_used);
	if (!end)
		return asker->line_used < sizeof(asker->line);
	take_line(balancer, asker, (size_t)(end - asker->line));
	asker->line_used = 0; /* one request at a time: what came behind it is lost */
	return true;
}

static bool asker_tell(struct asker *asker)
{
	ssize_t sent = send(asker->fd, asker->out + asker->out_at, asker->out_bytes - asker->out_at,
			    MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0)
		return errno == EAGAIN || errno == EINTR;
	asker->out_at += (size_t)sent;
	if (asker->out_at < asker->out_bytes)
		return true;
	free(asker->out);
	asker->out = NULL;
	return true;
}

static void accept_asker(struct balancer *balancer)
{
	int fd = accept4(balancer->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned n = 0; n < ASKERS && fd >= 0; n++) {
		if (balancer->asker[n].fd >= 0)
			continue;
		balancer->asker[n].fd = fd;
		return;
	}
	if (fd >= 0)
		close(fd);
}

/* ---- the loop ---- */

static unsigned links(const struct balancer *balancer)
{
	unsigned count = 0;

	for (unsigned n = 0; n < BALANCE_GUESTS; n++)
		count += balancer->link[n].fd >= 0;
	return count;
}

/* Machines are heard some times between two turns at most, whatever they say. */
static void set_events(const struct balancer *balancer, struct pollfd *fds, bool hears)
{
	fds[0] = (struct pollfd){ .fd = balancer->listen_fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = balancer->pressure_fd, .events = POLLPRI };
	for (unsigned n = 0; n < ASKERS; n++)
		fds[OWN_FDS + n] =
			(struct pollfd){ .fd = balancer->asker[n].fd,
					 .events = balancer->asker[n].out ? POLLOUT : POLLIN };
	for (unsigned n = 0; n < BALANCE_GUESTS; n++)
		fds[OWN_FDS + ASKERS + n] =
			(struct pollfd){ .fd = hears ? balancer->link[n].fd : -1,
					 .events = POLLIN };
}

static void take_events(struct balancer *balancer, const struct pollfd *fds)
{
	for (unsigned n = 0; n < ASKERS; n++) {
		struct asker *asker = &balancer->asker[n];

		if (fds[OWN_FDS + n].revents &&
		    !(asker->out ? asker_tell(asker) : asker_hear(balancer, asker)))
			asker_close(asker);
	}
	for (unsigned n = 0; n < BALANCE_GUESTS; n++)
		if (fds[OWN_FDS + ASKERS + n].revents && !link_hear(&balancer->link[n]))
			link_close(&balancer->link[n]);
	if (fds[0].revents)
		accept_asker(balancer);
}

/* When the next turn is due. */
static int64_t next_turn_ms(const struct balancer *balancer)
{
	if (balancer->is_due)
		return balancer->turn_ms + HEAR_MS;
	return balancer->turn_ms +
	       (balancer->turn_ms < balancer->busy_until_ms ? BALANCE_BUSY_MS : BALANCE_IDLE_MS);
}

/* Whether what is left can be gone before the next turn. */
static bool is_close(const struct balancer *balancer)
{
	const struct balance_host *host = &balancer->host;

	return links(balancer) && host->available_bytes < host->reserve_bytes + CLOSE_BYTES;
}

/* The host alone is looked at, which costs less than a turn. */
static bool has_fallen(struct balancer *balancer)
{
	look_at_host(balancer);
	return balancer->host.available_bytes + FALL_BYTES < balancer->turn_available_bytes;
}

static void wait_and_turn(struct balancer *balancer)
{
	struct pollfd fds[OWN_FDS + ASKERS + BALANCE_GUESTS];
	const int64_t now = now_ms();
	const bool hears = now >= balancer->turn_ms + HEAR_MS;
	int64_t wait = next_turn_ms(balancer) - now;

	if (!hears)
		wait = balancer->turn_ms + HEAR_MS - now;
	else if (wait > CLOSE_MS && is_close(balancer))
		wait = CLOSE_MS;
	set_events(balancer, fds, hears);
	if (poll(fds, sizeof(fds) / sizeof(fds[0]), wait > 0 ? (int)wait : 0) <= 0) {
		if (hears && (now_ms() >= next_turn_ms(balancer) || has_fallen(balancer)))
			turn(balancer);
		return;
	}
	take_events(balancer, fds);
	/* what a machine has said, and a host that stalls, do not wait for their turn */
	if (hears)
		turn(balancer);
	else
		balancer->is_due = true;
}

int balancer_serve(int listen_fd, const int host_fds[2], bool wakes)
{
	struct balancer *balancer = calloc(1, sizeof(*balancer));

	if (!balancer)
		return -ENOMEM;
	*balancer = (struct balancer){ .listen_fd = listen_fd,
				       .host_fds = host_fds,
				       .pressure_fd = wakes ? host_fds[1] : -1,
				       .balance = balance_create() };
	if (!balancer->balance)
		return -ENOMEM;
	for (unsigned n = 0; n < ASKERS; n++)
		balancer->asker[n].fd = balancer->asker[n].brought_fd = -1;
	for (unsigned n = 0; n < BALANCE_GUESTS; n++)
		link_clear(&balancer->link[n]);
	balancer->lonely_ms = now_ms();
	while (now_ms() - balancer->lonely_ms < LONELY_MS) {
		wait_and_turn(balancer);
		if (links(balancer))
			balancer->lonely_ms = now_ms();
	}
	balance_destroy(balancer->balance);
	free(balancer);
	return 0;
}
