/* See job.h. */
#include "job_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "lib/check.h"

enum { PIECE_BYTES = 1 << 16 };
/* What a pipe holds is read in as many; what is written meanwhile by others is not waited for. */
enum { LAST_PIECES = 64 };

void check_job(const struct job *job)
{
	assert(job->output_used <= JOB_OUTPUT_BYTES);
	assert(job->output ? job->output_used < job->output_room : !job->output_used);
	assert(!job->output || !job->output[job->output_used]);
	assert(job->errors_used <= JOB_ERROR_BYTES && !job->errors[job->errors_used]);
	assert(job->input_at <= job->input_size);
	assert(job->error_file < 0 || job->plan.leaves_others);
}

static void source_close(struct loop *loop, struct loop_source *source)
{
	if (source->fd < 0)
		return;
	loop_remove(loop, source);
	close(source->fd);
	source->fd = -1;
}

static void job_free(struct job *job)
{
	for (unsigned n = 0; n < PIPES; n++)
		source_close(job->loop, &job->end[n].source);
	source_close(job->loop, &job->input);
	source_close(job->loop, &job->process);
	if (job->error_file >= 0)
		close(job->error_file);
	free(job->input_bytes);
	free(job->output);
	free(job);
}

static void finish(struct job *job)
{
	const struct job_result result = { .code = job->code,
				      .output = job->output ? job->output : "",
					   .errors = job->errors,
					   .output_bytes = job->output_used,
					   .is_cut = job->is_cut };

	if (job->plan.ended)
		job->plan.ended(job->plan.context, &result);
	job_free(job);
}

/* ---- what it says ---- */

static void keep_output(struct job *job, const char *data, size_t bytes)
{
	size_t room = job->output_room;
	char *grown;

	if (job->is_cut) /* or there would be a hole */
		return;
	if (bytes > JOB_OUTPUT_BYTES - job->output_used) {
		bytes = JOB_OUTPUT_BYTES - job->output_used;
		job->is_cut = true;
	}
	while (room < job->output_used + bytes + 1)
		room = room ? room * 2 : PIECE_BYTES / 16;
	grown = room == job->output_room ? job->output : realloc(job->output, room);
	if (!grown) {
		job->is_cut = true;
		return;
	}
	job->output = grown;
	job->output_room = room;
	memcpy(grown + job->output_used, data, bytes);
	job->output_used += bytes;
	grown[job->output_used] = 0;
}

/* A line of errors that says how far it is is none. */
static void take_error_line(struct job *job, size_t begin)
{
	unsigned long long done;
	unsigned long long all;

	if (sscanf(job->errors + begin, "{\"done\":%llu,\"all\":%llu}\n", &done, &all) != 2)
		return;
	if (job->plan.progress)
		job->plan.progress(job->plan.context, done, all);
	job->errors_used = begin;
	job->errors[begin] = 0;
}

static size_t last_line(const struct job *job)
{
	size_t at = job->errors_used;

	while (at && job->errors[at - 1] != '\n')
		at--;
	return at;
}

static void keep_error(struct job *job, char byte)
{
	if (job->errors_used == JOB_ERROR_BYTES) {
		job->errors_used /= 2;
		memmove(job->errors, job->errors + job->errors_used, job->errors_used);
	}
	if (byte == '\n') {
		size_t begin = last_line(job);

		job->errors[job->errors_used++] = byte;
		job->errors[job->errors_used] = 0;
		take_error_line(job, begin);
		return;
	}
	job->errors[job->errors_used++] = byte ? byte : '?';
	job->errors[job->errors_used] = 0;
}

/* False: there is nothing more now. */
static bool take_piece(struct pipe_end *end)
{
	struct job *job = end->job;
	char data[PIECE_BYTES];
	ssize_t got = end->source.fd < 0 ? -1 : read(end->source.fd, data, sizeof(data));

	if (got < 0 && (end->source.fd < 0 || errno == EAGAIN || errno == EINTR))
		return false;
	if (got <= 0) {
		source_close(job->loop, &end->source);
		return false;
	}
	if (end == &job->end[OUTPUT])
		keep_output(job, data, (size_t)got);
	else
		for (ssize_t n = 0; n < got; n++)
			keep_error(job, data[n]);
	CHECK(check_job(job));
	return true;
}

static void pipe_ready(void *context, uint32_t events)
{
	(void)events;
	take_piece(context);
}

static void take_error_file(struct job *job)
{
	char data[JOB_ERROR_BYTES];
	ssize_t got = job->error_file < 0 ? 0 : pread(job->error_file, data, sizeof(data), 0);

	for (ssize_t n = 0; n < got; n++)
		keep_error(job, data[n]);
}

static void process_ready(void *context, uint32_t events)
{
	struct job *job = context;
	int status;

	(void)events;
	if (waitpid(job->pid, &status, WNOHANG) != job->pid)
		return;
	job->code = child_exit_code(status);
	job->has_exited = true;
	for (unsigned n = 0; n < PIPES; n++)
		for (unsigned piece = 0; piece < LAST_PIECES; piece++)
			if (!take_piece(&job->end[n]))
				break;
	take_error_file(job);
	finish(job);
}

static void input_ready(void *context, uint32_t events)
{
	struct job *job = context;
	ssize_t put = write(job->input.fd, job->input_bytes + job->input_at,
			    job->input_size - job->input_at);

	(void)events;
	if (put < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (put > 0)
		job->input_at += (size_t)put;
	CHECK(check_job(job));
	if (put < 0 || job->input_at == job->input_size)
		source_close(job->loop, &job->input);
}

/* ---- its start ---- */

struct pipes { int input[2], output[2], errors[2]; };

static void pipes_close(struct pipes *pipes)
{
	const int all[] = { pipes->input[0], pipes->input[1], pipes->output[0], pipes->output[1],
			    pipes->errors[0], pipes->errors[1] };

	for (unsigned n = 0; n < sizeof(all) / sizeof(all[0]); n++)
		if (all[n] >= 0)
			close(all[n]);
}

static int pipes_open(struct pipes *pipes, const struct job_plan *plan)
{
	*pipes = (struct pipes){ { -1, -1 }, { -1, -1 }, { -1, -1 } };
	if (pipe2(pipes->output, O_CLOEXEC))
		return -errno;
	if (plan->leaves_others)
		pipes->errors[1] = memfd_create("umbra-errors", MFD_CLOEXEC);
	else if (pipe2(pipes->errors, O_CLOEXEC))
		return -errno;
	if (pipes->errors[1] < 0)
		return -errno;
	if (plan->input)
		return pipe2(pipes->input, O_CLOEXEC) ? -errno : 0;
	pipes->input[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return pipes->input[0] < 0 ? -errno : 0;
}

static int spawn(const struct job_plan *plan, const struct pipes *pipes, pid_t *ret)
{
	const struct child_plan child = { .program = plan->program,
					  .arguments = plan->arguments,
					  .fd = { pipes->input[0], pipes->output[1],
						  pipes->errors[1] } };

	return child_spawn(&child, ret);
}

static int watch(struct job *job, struct loop_source *source, int *fd, uint32_t events)
{
	source->fd = *fd;
	*fd = -1;
	fcntl(source->fd, F_SETFL, fcntl(source->fd, F_GETFL) | O_NONBLOCK);
	return loop_add(job->loop, source, events);
}

static int watch_all(struct job *job, struct pipes *pipes)
{
	int process = pidfd_open(job->pid, 0);
	int error = process < 0 ? -errno : watch(job, &job->process, &process, EPOLLIN);

	if (!error)
		error = watch(job, &job->end[OUTPUT].source, &pipes->output[0], EPOLLIN);
	if (!error && pipes->errors[0] >= 0)
		error = watch(job, &job->end[ERRORS].source, &pipes->errors[0], EPOLLIN);
	if (!error && job->plan.leaves_others) {
		job->error_file = pipes->errors[1];
		pipes->errors[1] = -1;
	}
	if (!error && job->plan.input)
		error = watch(job, &job->input, &pipes->input[1], EPOLLOUT);
	return error;
}

static struct job *job_new(struct loop *loop, const struct job_plan *plan)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->loop = loop;
	job->plan = *plan;
	job->error_file = -1;
	job->process = (struct loop_source){ -1, process_ready, job };
	job->input = (struct loop_source){ -1, input_ready, job };
	for (unsigned n = 0; n < PIPES; n++) {
		job->end[n].job = job;
		job->end[n].source = (struct loop_source){ -1, pipe_ready, &job->end[n] };
	}
	job->input_size = plan->input ? plan->input_bytes : 0;
	job->input_bytes = plan->input ? malloc(plan->input_bytes + 1) : NULL;
	if (plan->input && job->input_bytes)
		memcpy(job->input_bytes, plan->input, plan->input_bytes);
	if (!plan->input || job->input_bytes)
		return job;
	free(job);
	return NULL;
}

int job_start(struct loop *loop, const struct job_plan *plan, struct job **ret)
{
	struct job *job = job_new(loop, plan);
	struct pipes pipes;
	int error = job ? pipes_open(&pipes, plan) : -ENOMEM;

	if (!job)
		return error;
	if (!error)
		error = spawn(plan, &pipes, &job->pid);
	if (!error) {
		error = watch_all(job, &pipes);
		if (error) {
			kill(job->pid, SIGKILL);
			waitpid(job->pid, NULL, 0);
		}
	}
	pipes_close(&pipes);
	if (error)
		job_free(job);
	else if (ret)
		*ret = job;
	return error;
}

void job_cancel(struct job *job)
{
	if (!job->has_exited)
		kill(job->pid, SIGTERM);
}

void job_leave(struct job *job) { job_free(job); }
