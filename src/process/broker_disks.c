/* See broker_disks.h. */
#include "broker_disks.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/check.h"

void check_disk_work(const struct disk_work *work)
{
	const bool is_with_disks =
		work->state == DISK_WORK_FILES || work->state == DISK_WORK_CLOSE;

	assert(work->control && work->state <= DISK_WORK_CLOSE);
	assert((work->asked > 0) == is_with_disks);
	assert(work->error <= 0 && work->error >= -CONTROL_ERRNO_MAX);
	if (work->state != DISK_WORK_IDLE)
		assert(work->control->ask.runs && work->control->ask.kind == RECORD_DISK);
}

void disk_work_init(struct disk_work *work, struct control *control)
{
	*work = (struct disk_work){ .control = control };
}

static struct record_disk *record_of(struct disk_work *work)
{
	return &work->control->change.record;
}

static bool finish(struct disk_work *work, int error)
{
	work->state = DISK_WORK_IDLE;
	control_disk_changed(work->control, error);
	CHECK(check_disk_work(work));
	return false;
}

static bool tell_machine(struct disk_work *work)
{
	struct control_ask *ask = &work->control->ask;

	work->state = DISK_WORK_TELL;
	ask->bytes = sizeof(*record_of(work));
	memcpy(ask->data, record_of(work), ask->bytes);
	CHECK(check_disk_work(work));
	return true;
}

/* ---- the disk process ---- */

static void ask_for(struct disk_work *work, const struct layer_ask *ask, const int *files,
		    unsigned count)
{
	int error = layer_send(ask, files, count);

	work->asked += !error;
	if (error && !work->error)
		work->error = error;
}

/* Who brought the files knows more than the machine shall: the last one is the disk. */
static void send_file(struct disk_work *work, unsigned n)
{
	const struct control_chain *chain = &work->control->chain;
	const struct control_file *file = &chain->file[n];
	struct layer_ask ask = { .kind = LAYER_FILE,
				 .disk = record_of(work)->number };
	enum disk_format format;

	if (!disk_format_parse(file->format, &format)) {
		work->error = -EINVAL;
		return;
	}
	ask.format = format;
	if (!n)
		ask.flags |= LAYER_FILE_FIRST;
	if (n + 1 == chain->count) {
		ask.flags |= LAYER_FILE_LAST;
		if (!work->control->change.read_only)
			ask.flags |= LAYER_FILE_WRITE;
		if (work->control->change.is_dvd)
			ask.flags |= LAYER_FILE_DVD;
	}
	memcpy(ask.path, file->path, sizeof(file->path));
	ask_for(work, &ask, file->fd, file->fds);
}

static void ask_plainly(struct disk_work *work, enum layer_kind kind)
{
	const struct layer_ask ask = { .kind = kind,
				       .disk = record_of(work)->number,
				       .size_bytes = work->control->change.size_bytes };

	ask_for(work, &ask, NULL, 0);
}

static bool close_disk(struct disk_work *work)
{
	work->state = DISK_WORK_CLOSE;
	ask_plainly(work, LAYER_DETACH);
	return work->asked ? false : finish(work, work->error);
}

/* ---- what follows what ---- */

static bool begin_coming(struct disk_work *work)
{
	const unsigned count = work->control->chain.count;

	if (!count) { /* a drive without a disc */
		record_of(work)->disk = block_empty_drive();
		return tell_machine(work);
	}
	for (unsigned n = 0; n < count && !work->error; n++)
		send_file(work, n);
	control_chain_close(work->control);
	return work->asked ? false : finish(work, work->error);
}

bool disk_work_begin(struct disk_work *work)
{
	assert(work->state == DISK_WORK_IDLE);
	work->asked = 0;
	work->error = 0;
	work->state = DISK_WORK_FILES;
	if (record_of(work)->what == DISK_COMES)
		return begin_coming(work);
	if (record_of(work)->what == DISK_GOES)
		return tell_machine(work);
	ask_plainly(work, LAYER_RESIZE);
	return work->asked ? false : finish(work, work->error);
}

bool disk_work_heard(struct disk_work *work, const struct layer_answer *answer)
{
	CHECK(check_disk_work(work));
	if (!work->asked)
		return false;
	work->asked--;
	if (answer->error && !work->error)
		work->error = answer->error;
	if (work->asked)
		return false;
	if (work->state == DISK_WORK_CLOSE || work->error)
		return finish(work, work->error);
	record_of(work)->disk = answer->disk;
	return tell_machine(work);
}

bool disk_work_done(struct disk_work *work, const struct record_done *done)
{
	const uint32_t what = record_of(work)->what;
	const int error = done->error > 0 || done->error < -CONTROL_ERRNO_MAX ? -EIO : done->error;

	if (work->state != DISK_WORK_TELL)
		return false;
	work->error = error;
	work->control->change.is_gone = what == DISK_GOES && !error;
	if ((what == DISK_GOES && !error) || (what == DISK_COMES && error)) {
		if (control_disk_has_file(work->control))
			close_disk(work);
		else
			finish(work, error);
		return true;
	}
	finish(work, error);
	return true;
}
