/*
 * Opening an image for what will be done with it: policies decide before the caller gets the disk
 * (policy.c), and a rule that is passed over for a reason is in the history before that. Every verb
 * opens disks here, and so will every machine.
 */
#include <stdio.h>
#include <string.h>

#include "image/image_internal.h"

static int admit_all(struct disk *disk, unsigned actions, const struct image_opener *who,
		     bool *ret_overridden, struct image_refusal *refusal)
{
	int error = 0;

	*ret_overridden = false;
	for (int action = ACTION_READ; action <= ACTION_INSPECT && !error; action++) {
		bool overridden = false;

		if (actions & IMAGE_ACTION(action))
			error = image_admit(disk, (enum image_action)action, &who->policies,
					    who->override, &overridden, refusal);
		*ret_overridden |= overridden;
	}
	return error;
}

static int record(struct disk *disk, const struct image_opener *who)
{
	return image_add_history(
		disk, who->by, "policy overridden",
		json_pack("{s:s%}", "reason", who->override, strlen(who->override)));
}

/* A writer has nobody beside it, so a disk that is open for reading makes room; what is opened
 * again is asked again. */
static int record_closed(const char *path, const struct disk_options *options, unsigned actions,
			 const struct image_opener *who, struct disk **disk,
			 struct image_refusal *refusal, struct disk_error *error)
{
	struct disk_options writing = *options;
	struct disk *writer;
	bool overridden;
	int result, closed;

	writing.write = true;
	writing.direct = false;
	disk_close(*disk);
	result = disk_open(path, &writing, &writer, error);
	if (result)
		return result;
	result = record(writer, who);
	closed = disk_close(writer);
	if (!result && !closed)
		result = disk_open(path, options, disk, error);
	else
		disk_refuse_as(error, REFUSAL_OVERRIDE, result ? result : closed, path,
			       DISK_NOWHERE, "that a policy is overridden cannot be recorded: %s",
			       disk_strerror(result ? result : closed));
	if (result || closed)
		return result ? result : closed;
	result = admit_all(*disk, actions, who, &overridden, refusal);
	if (result)
		disk_close(*disk);
	return result;
}

static int open_admitted(const char *path, const struct disk_options *options, unsigned actions,
			 const struct image_opener *who, struct disk **ret,
			 struct image_refusal *refusal, struct disk_error *error)
{
	bool overridden;
	int result;

	result = disk_open(path, options, ret, error);
	if (result)
		return result;
	result = admit_all(*ret, actions, who, &overridden, refusal);
	if (!result && !overridden)
		return 0;
	if (!result)
		/* the one that was passed over: what fails from here on is not its refusal */
		refusal->rule[0] = 0;
	if (!result && !options->write)
		return record_closed(path, options, actions, who, ret, refusal, error);
	if (!result) {
		result = record(*ret, who);
		if (result)
			disk_refuse_as(error, REFUSAL_OVERRIDE, result, path, DISK_NOWHERE,
				       "that a policy is overridden cannot be recorded: %s",
				       disk_strerror(result));
	}
	if (result)
		disk_close(*ret);
	return result;
}

int image_open(const char *path, const struct disk_options *options, unsigned actions,
	       const struct image_opener *who, struct disk **ret, struct image_refusal *refusal,
	       struct disk_error *error)
{
	struct disk *disk = NULL;
	int result;

	*refusal = (struct image_refusal){ 0 };
	*error = (struct disk_error){ .kind = REFUSAL_NONE };
	result = open_admitted(path, options, actions, who, &disk, refusal, error);
	*ret = result ? NULL : disk;
	return result;
}
