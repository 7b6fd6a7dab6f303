/* umbra disk serve, and the operations on a disk that is being served (--socket). */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "serve/served.h"
#include "disk_cli.h"

static struct served served; /* the handler of a signal has to find it */

static void stop(int signal)
{
	(void)signal;
	__atomic_store_n(&served.stop, true, __ATOMIC_RELAXED);
}

/* ---- policies and history ---- */

static int admit(struct disk *disk, const char *what, struct disk_error *failure)
{
	struct disk *changed =
		!strcmp(what, "commit") && disk_parent(disk) ? disk_parent(disk) : disk;
	int error = disk_cli_allows(changed, !strcmp(what, "snapshot") ? ACTION_FORK : ACTION_WRITE,
				    failure);

	return error || strcmp(what, "stream") ? error
					       : disk_cli_allows(disk, ACTION_EXPORT, failure);
}

static void note(struct disk *disk, const char *what) { disk_access_note(disk, what, NULL); }

/*
 * Clients read everything out, so that exporting has to be allowed. A disk that is read only notes
 * it where its file can be written.
 */
static int attach(const struct arguments *arguments, struct disk **ret)
{
	const unsigned actions = IMAGE_ACTION(arguments->read_only ? ACTION_READ : ACTION_WRITE) |
				 IMAGE_ACTION(ACTION_ATTACH) | IMAGE_ACTION(ACTION_EXPORT);
	const struct disk_options write = { .write = !arguments->read_only };
	enum disk_format format;
	int code = disk_cli_open_with(arguments, arguments->file, arguments->format, actions, write,
				      ret);

	if (!code && !arguments->read_only)
		disk_access_note(*ret, "attached", NULL);
	if (code || !arguments->read_only)
		return code;
	disk_parse_format(arguments->format, &format);
	disk_close(*ret);
	disk_cli_note_closed(arguments, arguments->file, format, "attached",
			     json_pack("{s:b}", "read-only", 1));
	return disk_cli_open_with(arguments, arguments->file, arguments->format, actions, write,
				  ret);
}

int verb_disk_serve(struct arguments *arguments)
{
	char control[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct disk *disk;
	int code, error;

	if (!arguments->socket)
		return complain(EXIT_USAGE, "no socket given", arguments->file,
				"say --socket PATH");
	if (snprintf(control, sizeof(control), "%s.control", arguments->socket) >=
	    (int)sizeof(control))
		return complain(EXIT_USAGE, "too long a path for a socket", arguments->socket,
				"name a shorter one");
	code = attach(arguments, &disk);
	if (code)
		return code;
	error = served_init(&served, disk, arguments->read_only);
	served.admit = admit;
	served.note = note;
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = stop }, NULL);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = stop }, NULL);
	if (!error)
		error = serve(&served, arguments->socket, control);
	code = error ? complain(EXIT_UNUSABLE, strerror(-error), arguments->socket,
				"name a socket that nobody listens on")
		     : 0;
	disk = served.top ? served.top : disk;
	if (!arguments->read_only)
		disk_access_note(disk, "detached",
				 json_pack("{s:s}", "end", error ? strerror(-error) : "in order"));
	return disk_access_close(disk, code);
}

/* ---- the other side ---- */

static int ask(int fd, const json_t *what)
{
	char *text = json_dumps(what, JSON_COMPACT);
	int error = text && dprintf(fd, "%s\n", text) > 0 ? 0 : -EIO;

	free(text);
	return error;
}

/* Shows progress until the last line; its exit code. */
static int listen_to(int fd, const char *where)
{
	enum { LINE_BYTES = 4096 };
	struct progress progress;
	FILE *from = fdopen(fd, "r");
	char line[LINE_BYTES];
	int code;

	progress_begin(&progress, 0);
	progress.plain = true;
	while (from && fgets(line, sizeof(line), from)) {
		json_t *json = json_loads(line, 0, NULL);
		const char *reason = json_string_value(json_object_get(json, "reason"));

		if (json_object_get(json, "all")) {
			progress.all = (uint64_t)json_integer_value(json_object_get(json, "all"));
			progress_show(&progress,
				      (uint64_t)json_integer_value(json_object_get(json, "done")));
		}
		if (json_object_get(json, "ok")) {
			progress_end(&progress);
			code = json_is_true(json_object_get(json, "ok"))
				       ? 0
				       : (int)json_integer_value(json_object_get(json, "code"));
			if (code)
				complain(code, reason ? reason : "failed", where,
					 "see umbra disk --help");
			json_decref(json);
			fclose(from);
			return code;
		}
		json_decref(json);
	}
	if (from)
		fclose(from);
	return complain(EXIT_UNUSABLE, "the server went away", where, "look at its end");
}

int disk_ask_server(const struct arguments *arguments, const char *what, const char *file)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char *path = file ? realpath(".", NULL) : NULL;
	char *whole = NULL;
	json_t *json = json_pack("{s:i, s:s}", "id", 1, "do", what);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (file && asprintf(&whole, "%s%s%s", *file == '/' ? "" : path, *file == '/' ? "" : "/",
			     file) >= 0)
		json_object_set_new(json, "file", json_string(whole));
	if (arguments->has_size)
		json_object_set_new(json, "size", json_integer((json_int_t)arguments->size));
	free(path);
	free(whole);
	error = snprintf(to.sun_path, sizeof(to.sun_path), "%s.control", arguments->socket) >=
				(int)sizeof(to.sun_path)
			? -ENAMETOOLONG
			: 0;
	if (!error && (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to))))
		error = -errno;
	if (!error)
		error = ask(fd, json);
	json_decref(json);
	if (error)
		return complain(EXIT_UNUSABLE, strerror(-error), arguments->socket,
				"name the socket of a umbra disk serve that runs");
	return listen_to(fd, arguments->socket);
}
