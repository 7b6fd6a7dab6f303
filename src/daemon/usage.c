/* See usage.h; and GET /v1/usage: the same of every machine, with what it counts. */
#include "usage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/process_time.h"
#include "counters.h"
#include "daemon.h"

enum { PLACE_BYTES = 64, LINE_BYTES = 1024, MS_PER_S = 1000 };
enum { NS_PER_MS = 1000000, THREADS_MOST = 256, KIB_SHIFT = 10 };

/* ---- /proc ---- */

static FILE *open_of(long long pid, const char *file)
{
	char path[PLACE_BYTES];

	snprintf(path, sizeof(path), "/proc/%lld/%s", pid, file);
	return fopen(path, "re");
}

static json_int_t processor_ms_of(long long pid)
{
	return (json_int_t)(process_ticks(pid) * MS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

static unsigned long long waited_ns_of(int folder, const char *thread)
{
	char path[PLACE_BYTES];
	unsigned long long waited = 0;
	int fd;
	FILE *file;

	snprintf(path, sizeof(path), "%.20s/schedstat", thread);
	fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (file && fscanf(file, "%*u %llu", &waited) != 1)
		waited = 0;
	if (file)
		fclose(file);
	else if (fd >= 0)
		close(fd);
	return waited;
}

/* Of its threads; -1: the host does not say. */
static json_int_t waited_ms_of(long long pid)
{
	char path[PLACE_BYTES];
	unsigned long long sum = 0;
	const struct dirent *entry;
	unsigned threads = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%lld/task", pid);
	folder = opendir(path);
	if (!folder)
		return -1;
	while (threads < THREADS_MOST && (entry = readdir(folder)))
		if (*entry->d_name != '.') {
			sum += waited_ns_of(dirfd(folder), entry->d_name);
			threads++;
		}
	closedir(folder);
	return (json_int_t)(sum / NS_PER_MS);
}

static json_int_t occupied_by(long long pid)
{
	FILE *file = open_of(pid, "statm");
	long long pages = 0;

	if (file && fscanf(file, "%*d %lld", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages * sysconf(_SC_PAGESIZE);
}

struct share { json_int_t unique, shared; bool is_known; };

static void add_shares(struct share *share, long long pid)
{
	FILE *file = open_of(pid, "smaps_rollup");
	char line[LINE_BYTES];
	long long kibibytes;

	while (file && fgets(line, sizeof(line), file)) {
		share->is_known = true;
		if (sscanf(line, "Private_%*[^:]: %lld", &kibibytes) == 1)
			share->unique += kibibytes << KIB_SHIFT;
		if (sscanf(line, "Shared_%*[^:]: %lld", &kibibytes) == 1)
			share->shared += kibibytes << KIB_SHIFT;
	}
	if (file)
		fclose(file);
}

static void set(json_t *figures, const char *name, json_int_t value)
{
	json_object_set_new(figures, name, json_integer(value));
}

void usage_measure(json_t *figures, const json_t *description, bool shares)
{
	long long process = json_integer_value(json_object_get(description, "process"));
	long long broker = json_integer_value(json_object_get(description, "pid"));
	json_int_t waited_ms = waited_ms_of(process);
	struct share share = { 0 };

	set(figures, "processor-ms", processor_ms_of(process) + processor_ms_of(broker));
	set(figures, "occupied", occupied_by(process) + occupied_by(broker));
	if (waited_ms >= 0)
		set(figures, "waited-ms", waited_ms);
	if (!shares)
		return;
	add_shares(&share, process);
	if (!share.is_known)
		return;
	add_shares(&share, broker);
	set(figures, "unique", share.unique);
	set(figures, "shared", share.shared);
}

/* ---- GET /v1/usage ---- */

struct gather { struct api_call *call; json_t *all; };

static void heard(void *context, const char *name, json_t *answer)
{
	const struct gather *gather = context;
	const char *text = json_string_value(json_object_get(answer, "counters"));

	if (text)
		json_object_set_new(json_object_get(gather->all, name), "counters",
				    counters_json(text));
}

static void done(void *context)
{
	struct gather *gather = context;

	call_answer(gather->call, 200, gather->all);
	call_release(gather->call);
	free(gather);
}

static json_t *measure_all(const struct api_call *call)
{
	const bool shares = call_flag(call, "shares");
	json_t *all = json_object();

	for (const struct known_machine *machine = call->daemon->machines.first; machine;
	     machine = machine->next) {
		json_t *figures = machine->description ? json_object() : NULL;

		if (!figures)
			continue;
		usage_measure(figures, machine->description, shares);
		json_object_set_new(all, machine->name, figures);
	}
	return all;
}

void call_usage(struct api_call *call)
{
	struct gather *gather = calloc(1, sizeof(*gather));

	if (!gather) {
		call_fail_errno(call, -ENOMEM, "ask again");
		return;
	}
	call_hold(call);
	*gather = (struct gather){ call, measure_all(call) };
	counters_ask_all(call->daemon, heard, done, gather);
}
