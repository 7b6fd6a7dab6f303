/*
 * Operations on a served disk, asked for on its control socket: one JSON object a line, for example {"do":"snapshot","file":"c.vhdx"};
 * answered by lines {"done":N,"all":M} while it runs and {"ok":true,...} or {"ok":false,"code":N,"error":"..."} at the end. A peer
 * that goes away ends its operation where everything is sound.
 *
 * The socket is the user's own (mode 0600), so that the peer may do what the user may; its lines are still checked.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "served.h"

enum { LINE_BYTES = 16384 };

struct control { struct served *served; int fd; uint64_t shown, alone_since; };

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
	pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP); /* a change waits for no later request */
	pthread_mutex_init(&s->job, NULL);
	return -pthread_rwlock_init(&s->lock, &fair);
}

int served_end(struct served *s) { return disk_close(s->top); }

static bool say(struct control *c, json_t *line)
{
	char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t bytes = text ? strlen(text) : 0;
	bool good = text && send(c->fd, text, bytes, MSG_NOSIGNAL | MSG_MORE) == (ssize_t)bytes && send(c->fd, "\n", 1, MSG_NOSIGNAL) == 1;

	free(text);
	json_decref(line);
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
	if (now_ns() - c->shown < 100000000)
		return 0;
	c->shown = now_ns();
	return say(c, json_pack("{s:I, s:I}", "done", (json_int_t)done, "all", (json_int_t)all)) ? 0 : -EINTR;
}

static int snapshot(struct control *c, const char *file, struct disk_error *e)
{
	struct served *s = c->served;
	struct disk *child;
	uint64_t begun = now_ns();
	int error = disk_snapshot(s->top, file, &child, e);

	if (error)
		return error;
	alone(c, true);
	s->top = child;
	alone(c, false);
	say(c, json_pack("{s:I}", "snapshot_us", (json_int_t)((now_ns() - begun) / 1000)));
	error = disk_settle(child);
	return error ? (snprintf(e->text, sizeof(e->text), "%s: %s", file, strerror(-error)), error) : 0;
}

static int act(struct control *c, const json_t *line, struct disk_error *e)
{
	struct disk_job job = { .step = step, .alone = alone, .context = c };
	const char *what = json_string_value(json_object_get(line, "do")), *file = json_string_value(json_object_get(line, "file"));
	json_int_t size = json_integer_value(json_object_get(line, "size"));
	struct disk *d = c->served->top;
	int error;

	snprintf(e->text, sizeof(e->text), "%s: not possible", what ? what : "nothing asked for");
	if (!what || c->served->read_only)
		return what ? -EROFS : -EINVAL;
	error = c->served->admit ? c->served->admit(d, what, e) : 0;
	if (error)
		return error;
	if (!strcmp(what, "snapshot") && file)
		return snapshot(c, file, e);
	if (!strcmp(what, "commit"))
		return disk_commit(d, &job, e);
	if (!strcmp(what, "stream"))
		error = disk_stream(d, &job);
	else if (!strcmp(what, "resize") && size > 0)
		error = disk_resize(d, (uint64_t)size);
	else
		return -EINVAL;
	if (error)
		snprintf(e->text, sizeof(e->text), "%s: %s", disk_path(d), strerror(-error));
	return error;
}

/* True: another line may follow. */
static bool one_line(struct control *c, const char *text)
{
	json_error_t where;
	json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &where);
	struct disk_error e = { "" };
	bool good;
	int error;

	if (!json_is_object(line)) {
		json_decref(line);
		return say(c, json_pack("{s:b, s:i, s:s}", "ok", 0, "code", EINVAL, "error", "not a JSON object"));
	}
	if (json_string_value(json_object_get(line, "do")) && !strcmp(json_string_value(json_object_get(line, "do")), "stop")) {
		__atomic_store_n(&c->served->stop, true, __ATOMIC_RELAXED);
		error = 0;
	} else {
		pthread_mutex_lock(&c->served->job);
		error = act(c, line, &e);
		if (!error && c->served->note)
			c->served->note(c->served->top, json_string_value(json_object_get(line, "do")));
		pthread_mutex_unlock(&c->served->job);
	}
	json_decref(line);
	if (error)
		good = say(c, json_pack("{s:b, s:i, s:s}", "ok", 0, "code", -error, "error", e.text));
	else
		good = say(c, json_pack("{s:b, s:I}", "ok", 1, "longest_wait_us", (json_int_t)(c->served->longest_alone_ns / 1000)));
	return good;
}

void control_serve(struct served *served, int fd)
{
	struct control c = { .served = served, .fd = fd };
	char line[LINE_BYTES];
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
			*end = 0;
			if (!one_line(&c, line))
				return;
			used -= (size_t)(end + 1 - line);
			memmove(line, end + 1, used);
			line[used] = 0;
		}
	}
}
