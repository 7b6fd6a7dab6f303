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
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int served_init(struct served *served, struct disk *top, bool read_only)
{
	pthread_rwlockattr_t fair;

	*served = (struct served){ .top = top, .read_only = read_only };
	pthread_rwlockattr_init(&fair);
	/* a change waits for no later request */
	pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_mutex_init(&served->job, NULL);
	return -pthread_rwlock_init(&served->lock, &fair);
}

int served_end(struct served *served) { return disk_close(served->top); }

/* Released. False: the peer is gone. */
static bool say(struct control *control, char *line)
{
	size_t bytes = line ? strlen(line) : 0;
	bool good = line && send(control->fd, line, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;

	free(line);
	return good;
}

static void alone(void *context, bool begin)
{
	struct control *control = context;

	if (begin) {
		control->alone_since = now_ns();
		pthread_rwlock_wrlock(&control->served->lock);
		return;
	}
	pthread_rwlock_unlock(&control->served->lock);
	if (now_ns() - control->alone_since > control->served->longest_alone_ns)
		control->served->longest_alone_ns = now_ns() - control->alone_since;
}

static int step(void *context, uint64_t done, uint64_t all)
{
	struct control *control = context;

	if (__atomic_load_n(&control->served->stop, __ATOMIC_RELAXED))
		return -EINTR;
	if (now_ns() - control->shown < PROGRESS_NS)
		return 0;
	control->shown = now_ns();
	return say(control, control_progress(control->id, done, all)) ? 0 : -EINTR;
}

static int snapshot(struct control *control, const char *file, struct disk_error *failure)
{
	struct served *served = control->served;
	struct disk *child;
	int error = disk_snapshot(served->top, file, &child, failure);

	if (error)
		return error;
	alone(control, true);
	served->top = child;
	alone(control, false);
	say(control, control_progress(control->id, 1, 2)); /* requests go to the child */
	error = disk_settle(child);
	if (error)
		disk_refuse_host(failure, error, file, "making its parent clean");
	return error;
}

static int act(struct control *control, const struct control_request *request,
	       struct disk_error *failure)
{
	struct disk_job job = { .step = step, .alone = alone, .context = control };
	struct disk *disk = control->served->top;
	int error = control->served->read_only ? -EROFS : 0;

	if (error)
		disk_refuse_as(failure, REFUSAL_HOST, error, disk_path(disk), DISK_NOWHERE,
			       "%s: it is served read only", request->verb->name);
	if (!error && control->served->admit)
		error = control->served->admit(disk, request->verb->name, failure);
	if (error)
		return error;
	switch (request->verb->number) {
	case VERB_SNAPSHOT: return snapshot(control, control_text(request, "file"), failure);
	case VERB_COMMIT: return disk_commit(disk, &job, failure);
	case VERB_STREAM: error = disk_stream(disk, &job); break;
	default: error = disk_resize(disk, control_number(request, "size")); break;
	}
	if (error)
		disk_refuse_host(failure, error, disk_path(disk), request->verb->name);
	return error;
}

/* One at a time, and told of when it went well. */
static int act_alone(struct control *control, const struct control_request *request,
		     struct disk_error *failure)
{
	int error;

	if (request->verb->number == VERB_STOP) {
		__atomic_store_n(&control->served->stop, true, __ATOMIC_RELAXED);
		return 0;
	}
	pthread_mutex_lock(&control->served->job);
	error = act(control, request, failure);
	if (!error && control->served->note)
		control->served->note(control->served->top, request->verb->name);
	pthread_mutex_unlock(&control->served->job);
	return error;
}

/* True: another line may follow. */
static bool one_line(struct control *control, const char *text, size_t bytes)
{
	struct control_request request;
	struct disk_error failure = { .kind = REFUSAL_NONE };
	const char *reason;
	bool good;
	int error = control_parse(text, bytes, verbs, &request, &reason);

	control->id = request.id;
	if (error)
		return say(control, control_failure(request.id, error, reason));
	error = act_alone(control, &request, &failure);
	if (error)
		good = say(control, control_failure(request.id, error, failure.text));
	else
		good = say(
			control,
			control_success(
				request.id,
				json_pack("{s:I}", "longest_wait_us",
					  (json_int_t)(control->served->longest_alone_ns / 1000))));
	control_request_free(&request);
	return good;
}

void control_serve(struct served *served, int fd)
{
	struct control control = { .served = served, .fd = fd };
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
			if (!one_line(&control, line, (size_t)(end - line)))
				return;
			used -= (size_t)(end + 1 - line);
			memmove(line, end + 1, used);
			line[used] = 0;
		}
	}
}
