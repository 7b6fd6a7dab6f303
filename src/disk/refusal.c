/* See refusal.h. */
#include "refusal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "disk.h"

enum place { NOWHERE, AT };
struct row {
	const char *kind;
	int code; /* 0: the host's */
	enum place place; /* AT: always with an offset */
	const char *structure, *expected;
	const char *remedy; /* NULL: the code's */
};
static const struct row rows[REFUSALS] = {
#define REFUSAL(name, number, where, what, wanted, how) \
	[REFUSAL_##name] = { .kind = #name,             \
			     .code = (number),          \
			     .place = (where),          \
			     .structure = (what),       \
			     .expected = (wanted),      \
			     .remedy = (how) },
#include "refusals.h"
#undef REFUSAL
};

const char *disk_remedy(int code)
{
	switch (code) {
	case -ESTALE:
		return "see what differs with umbra disk check --chain; open it with the parent it "
		       "was made on, or accept this one with repair-link";
	case -EPERM: return "allow the parent's place with --parents";
	case -EROFS: return "thaw it with umbra disk freeze --undo, or use another file";
	case -EMFILE:
	case -ENFILE:
		return "allow more open files with ulimit -n, or shorten the chain with stream";
	case -ELOOP:
		return "restore one of its parents from a copy, or shorten the chain with stream";
	case -EAGAIN:
	case -EBUSY: return "try again when it is free";
	case -EUCLEAN: return "replay it with umbra disk replay";
	case -ENOENT: return "name a file that is there, or the place of its parent with --parents";
	case -EEXIST: return "name a new file";
	case -EIO: return "look at the host's storage; what was not flushed before is lost";
	case -ENODATA:
	case -EBADMSG: return "restore it from a copy";
	case -EMEDIUMTYPE:
		return "say which format it has, with --format (of convert, --from; of a parent, "
		       "--parent-format)";
	case -ENOSPC:
	case -EDQUOT: return "make room, or choose another place";
	case -EACCES: return "use a file and a place that you may write, or only read it";
	case -ENOMEM: return "close other programs, or allow more memory with ulimit -v";
	default: return "see umbra disk --help";
	}
}

/* In UTF-8: one of C0, or the first byte of one of C1, which terminals obey as well. */
static bool is_control(const char *at)
{
	const unsigned char byte = (unsigned char)at[0];
	const unsigned char next = (unsigned char)at[1];

	return byte < 0x20 || byte == 0x7f || (byte == 0xc2 && next >= 0x80 && next < 0xa0);
}

/* Paths and more come out of files. */
static void make_safe(char *text)
{
	for (; *text; text++)
		if (is_control(text))
			*text = '?';
}

/* All of it is there. */
static void tell(struct disk_error *error)
{
	struct disk_refusal_parts parts;
	char place[40] = "";

	make_safe(error->path);
	make_safe(error->found);
	disk_error_parts(error, &parts);
	if (parts.offset != DISK_NOWHERE)
		snprintf(place, sizeof(place), " at offset %" PRIu64, parts.offset);
	snprintf(error->text, sizeof(error->text), "%s: %s%s: %s; expected: %s; %s", parts.path,
		 parts.structure, place, parts.found, parts.expected, parts.remedy);
}

static void keep_path(struct disk_error *error, const char *path)
{
	size_t bytes = strlen(path);

	if (bytes < sizeof(error->path))
		memcpy(error->path, path, bytes + 1);
	else
		snprintf(error->path, sizeof(error->path), "...%s",
			 path + bytes + sizeof("...") - sizeof(error->path));
}

static int refuse(struct disk_error *error, enum disk_refusal kind, int code, const char *path,
		  uint64_t offset, const char *format, va_list arguments)
{
	assert(kind > REFUSAL_NONE && kind < REFUSALS && code < 0);
	assert((offset != DISK_NOWHERE) == (rows[kind].place == AT));
	if (!error)
		return code;
	error->kind = kind;
	error->code = code;
	error->offset = offset;
	keep_path(error, path);
	vsnprintf(error->found, sizeof(error->found), format, arguments);
	if (!error->found[0]) /* of what a sandbox says, which may be lost */
		snprintf(error->found, sizeof(error->found), "it is not known what");
	tell(error);
	return code;
}

int disk_refuse(struct disk_error *error, enum disk_refusal kind, const char *path, uint64_t offset,
		const char *format, ...)
{
	va_list arguments;
	int code;

	va_start(arguments, format);
	code = refuse(error, kind, rows[kind].code, path, offset, format, arguments);
	va_end(arguments);
	return code;
}

int disk_refuse_as(struct disk_error *error, enum disk_refusal kind, int code, const char *path,
		   uint64_t offset, const char *format, ...)
{
	va_list arguments;

	assert(!rows[kind].code || rows[kind].code == code);
	va_start(arguments, format);
	refuse(error, kind, code, path, offset, format, arguments);
	va_end(arguments);
	return code;
}

int disk_refuse_host(struct disk_error *error, int code, const char *path, const char *doing)
{
	return disk_refuse_as(error, code == -ENOMEM ? REFUSAL_MEMORY : REFUSAL_HOST, code, path,
			      DISK_NOWHERE, "%s: %s", doing, disk_strerror(code));
}

int disk_refuse_type(struct disk_error *error, int code, const char *path)
{
	return disk_refuse_as(error, REFUSAL_NO_DISK, code, path, DISK_NOWHERE,
			      "no regular file or block device (%s)", strerror(-code));
}

void disk_error_rename(struct disk_error *error, const char *path)
{
	keep_path(error, path);
	tell(error);
}

void disk_error_add(struct disk_error *error, const char *text)
{
	size_t used = strlen(error->found);

	snprintf(error->found + used, sizeof(error->found) - used, "%s", text);
	tell(error);
}

void disk_error_parts(const struct disk_error *error, struct disk_refusal_parts *ret)
{
	const struct row *row = &rows[error->kind];

	assert(error->kind > REFUSAL_NONE && error->kind < REFUSALS);
	*ret = (struct disk_refusal_parts){
		.kind = row->kind,
		.path = error->path,
		.structure = row->structure,
		.found = error->found,
		.expected = row->expected,
		.remedy = row->remedy ? row->remedy : disk_remedy(error->code),
		.offset = error->offset,
	};
}
