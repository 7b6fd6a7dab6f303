/*
 * Operations on a served disk, asked for on its control socket by the control protocol
 * (control/protocol.h): snapshot, commit, stream, resize, stop. While one runs it says how far it
 * is. A peer that goes away ends its operation where everything is sound.
 *
 * The socket is the user's own (mode 0600), so that the peer may do what the user may; its lines
 * are still checked.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "control/protocol.h"
#include "served.h"

enum { PROGRESS_NS = 100000000 };
enum verb { VERB_SNAPSHOT, VERB_COMMIT, VERB_STREAM, VERB_RESIZE, VERB_STOP };

static const struct control_verb verbs[] = {
	{ .name = "snapshot",
	  .number = VERB_SNAPSHOT,
	  .member = { { "file", CONTROL_TEXT, true } } },
	{ .name = "commit", .number = VERB_COMMIT },
	{ .name = "stream", .number = VERB_STREAM },
	{ .name = "resize", .number = VERB_RESIZE, .member = { { "size", CONTROL_NUMBER, true } } },
	{ .name = "stop", .number = VERB_STOP },
	{ 0 },
};

struct control { struct served *served; int fd; const char *id; uint64_t shown, alone_since; };

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int served_init(struct served *s, struct disk *top, bool read_only)
{
	pthread_rwlockattr_t fair;

	*s = (struct served){ .top = top, .read_only = read_only };
	pthread_rwlockattr_init(&fair);
	/* a change waits for no later request */
	pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_mutex_init(&s->job, NULL);
	return -pthread_rwlock_init(&s->lock, &fair);
}

int served_end(struct served *s) { return disk_close(s->top); }

/* Released. False: the peer is gone. */
static bool say(struct control *c, char *line)
{
	size_t bytes = line ? strlen(line) : 0;
	bool good = line && send(c->fd, line, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;

	free(line);
	return good;
}

static void alone(void *context, bool begin)
{
	struct control *c = context;

	if (begin) {
		c->alone_since = now_ns();
		pthread_rwlock_wrlock(&c->served->lock);
		return;
	}
	pthread_rwlock_unlock(&c->served->lock);
	if (now_ns() - c->alone_since > c->served->longest_alone_ns)
		c->served->longest_alone_ns = now_ns() - c->alone_since;
}

static int step(void *context, uint64_t done, uint64_t all)
{
	struct control *c = context;

	if (__atomic_load_n(&c->served->stop, __ATOMIC_RELAXED))
		return -EINTR;
	if (now_ns() - c->shown < PROGRESS_NS)
		return 0;
	c->shown = now_ns();
	return say(c, control_progress(c->id, done, all)) ? 0 : -EINTR;
}

static int snapshot(struct control *c, const char *file, struct disk_error *e)
{
	struct served *s = c->served;
	struct disk *child;
	int error = disk_snapshot(s->top, file, &child, e);

	if (error)
		return error;
	alone(c, true);
	s->top = child;
	alone(c, false);
	say(c, control_progress(c->id, 1, 2)); /* requests go to the child */
	error = disk_settle(child);
	if (error)
		snprintf(e->text, sizeof(e->text), "%s: %s", file, strerror(-error));
	return error;
}

static int act(struct control *c, const struct control_request *r, struct disk_error *e)
{
	struct disk_job job = { .step = step, .alone = alone, .context = c };
	struct disk *d = c->served->top;
	int error = c->served->read_only ? -EROFS : 0;

	snprintf(e->text, sizeof(e->text), "%s: not possible", r->verb->name);
	if (!error && c->served->admit)
		error = c->served->admit(d, r->verb->name, e);
	if (error)
		return error;
	switch (r->verb->number) {
	case VERB_SNAPSHOT: return snapshot(c, control_text(r, "file"), e);
	case VERB_COMMIT: return disk_commit(d, &job, e);
	case VERB_STREAM: error = disk_stream(d, &job); break;
	default: error = disk_resize(d, control_number(r, "size")); break;
	}
	if (error)
		snprintf(e->text, sizeof(e->text), "%s: %s", disk_path(d), strerror(-error));
	return error;
}

/* One at a time, and told of when it went well. */
static int act_alone(struct control *c, const struct control_request *r, struct disk_error *e)
{
	int error;

	if (r->verb->number == VERB_STOP) {
		__atomic_store_n(&c->served->stop, true, __ATOMIC_RELAXED);
		return 0;
	}
	pthread_mutex_lock(&c->served->job);
	error = act(c, r, e);
	if (!error && c->served->note)
		c->served->note(c->served->top, r->verb->name);
	pthread_mutex_unlock(&c->served->job);
	return error;
}

/* True: another line may follow. */
static bool one_line(struct control *c, const char *text, size_t bytes)
{
	struct control_request request;
	struct disk_error e = { "" };
	const char *reason;
	bool good;
	int error = control_parse(text, bytes, verbs, &request, &reason);

	c->id = request.id;
	if (error)
		return say(c, control_failure(request.id, error, reason));
	error = act_alone(c, &request, &e);
	if (error)
		good = say(c, control_failure(request.id, error, e.text));
	else
		good = say(c, control_success(
				      request.id,
				      json_pack("{s:I}", "longest_wait_us",
						(json_int_t)(c->served->longest_alone_ns / 1000))));
	control_request_free(&request);
	return good;
}

void control_serve(struct served *served, int fd)
{
	struct control c = { .served = served, .fd = fd };
	char line[CONTROL_REQUEST_BYTES];
	size_t used = 0;

	while (used < sizeof(line) - 1) {
		ssize_t n = recv(fd, line + used, sizeof(line) - 1 - used, 0);
		char *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		used += (size_t)n;
		line[used] = 0;
		while ((end = memchr(line, '\n', used))) {
			if (!one_line(&c, line, (size_t)(end - line)))
				return;
			used -= (size_t)(end + 1 - line);
			memmove(line, end + 1, used);
			line[used] = 0;
		}
	}
}
