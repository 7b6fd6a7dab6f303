/*
 * The parts of the balancer: balancer.c serves, balancer_link.c speaks with a machine, and
 * balancer_history.c keeps what was. See balancer.h.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "balance/balance.h"

enum { LINK_LINE_BYTES = 16384, LINK_NAME_BYTES = 72, OCCUPIED_FDS = 2 };
enum { HISTORY_MOVES = 64, HISTORY_MACHINES = 32 };

/* ---- balancer_link.c ---- */

/* A connection to a machine, and what it has said last. */
struct link {
	int fd; /* -1: none */
	char line[LINK_LINE_BYTES];
	size_t line_used;
	int occupied_fd[OCCUPIED_FDS]; /* /proc/PID/statm, smaps_rollup; -1: there is none */
	char name[LINK_NAME_BYTES];
	struct balance_guest said;
	bool is_known;
	uint64_t given_back, shared_bytes, advised_bytes; /* advised: 0: nothing yet */
	char mode[32];
	int64_t shared_ms; /* when what it shares was looked at */
};

/* As recv(); descriptors that come along go to fds, as many as there are, and the rest nowhere. */
ssize_t receive_with(int socket_fd, void *data, size_t bytes, int *fds, unsigned count);
void link_clear(struct link *link);
/* It is asked to tell whenever it has something new. */
void link_open(struct link *link, int fd);
void link_close(struct link *link);
/* False: the machine is gone, or says what is none of it. */
bool link_hear(struct link *link);
/* What is known of it now. */
void link_describe(struct link *link, int64_t now_ms, struct balance_guest *ret);
/* What cannot be said now is said at the next turn. */
void link_advise(struct link *link, uint64_t bytes);
json_t *link_json(const struct link *link, const struct balance_guest *guest,
		  const struct balance_verdict *verdict);

/* fds: /proc/meminfo, and /proc/pressure/memory or -1. */
void measure_host(const int fds[2], struct balance_host *host);
json_t *host_json(const struct balance_host *host);

/* ---- balancer_history.c ---- */

struct history_machine {
	char name[LINK_NAME_BYTES];
	uint32_t assigned, demand, target, occupied;
};

/* Sizes in MiB. */
struct history_sample {
	uint32_t available, reserve, machines;
	struct history_machine machine[HISTORY_MACHINES];
};

struct history_move {
	char name[LINK_NAME_BYTES];
	int64_t at_ms;
	uint64_t from, to;
	enum balance_reason reason;
};

struct history {
	uint64_t moves, samples; /* since it began; the last are kept */
	struct history_move move[HISTORY_MOVES];
	struct history_sample *sample; /* NULL: there is no memory for them */
};

void history_move(struct history *history, const struct link *link,
		  const struct balance_verdict *verdict, int64_t now_ms);
void history_sample(struct history *history, const struct balance_host *host,
		    const struct link *link, const struct balance_guest *guest,
		    const struct balance_verdict *verdict);
json_t *history_moves_json(const struct history *history, int64_t now_ms);
json_t *history_json(const struct history *history);
