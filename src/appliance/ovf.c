/* See ovf.h: reading a descriptor, by libexpat, which is loaded when it is needed. */
#include "ovf.h"

#include <errno.h>
#include <expat.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/late.h"
#include "lib/plain_text.h"

#define CALLS(call)                                                                               \
	call(XML_ParserCreateNS) call(XML_ParserFree) call(XML_SetUserData)                       \
		call(XML_SetElementHandler) call(XML_SetStartDoctypeDeclHandler) call(XML_Parse)  \
			call(XML_StopParser) call(XML_GetCurrentByteIndex) call(XML_GetErrorCode) \
				call(XML_ErrorString)
CALLS(LATE_CALL)

#define SEPARATOR '|' /* between a namespace and a name */
#define SIZE_MAX_BYTES (64ull << 40)

struct file {
	char id[OVF_NAME_BYTES], name[OVF_NAME_BYTES];
	uint64_t bytes;
};

struct reader {
	XML_Parser parser;
	struct ovf *ovf;
	struct ovf_error *error;
	struct file file[OVF_DISKS_MAX];
	char of_disk[OVF_DISKS_MAX][OVF_NAME_BYTES]; /* the file's identifier */
	unsigned files, systems;
	int result;
};

static bool load(void)
{
	static const struct late_call calls[] = { CALLS(LATE_ROW) };
	static const struct late_library library = {
		.file = "libexpat.so.1",
		.call = calls,
		.calls = sizeof(calls) / sizeof(calls[0]),
	};

	return late_load(&library);
}

static void refuse(struct reader *reader, int code, enum ovf_part part, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static void refuse(struct reader *reader, int code, enum ovf_part part, const char *format, ...)
{
	XML_Index at = XML_GetCurrentByteIndex(reader->parser);
	va_list arguments;

	if (reader->result)
		return;
	reader->result = code;
	reader->error->part = part;
	reader->error->offset = at < 0 ? 0 : (uint64_t)at;
	va_start(arguments, format);
	vsnprintf(reader->error->text, sizeof(reader->error->text), format, arguments);
	va_end(arguments);
	XML_StopParser(reader->parser, XML_FALSE);
}

static const char *local(const char *name)
{
	const char *last = strrchr(name, SEPARATOR);

	return last ? last + 1 : name;
}

/* NULL: it is not there. */
static const char *attribute(const char **attributes, const char *name)
{
	for (; *attributes; attributes += 2)
		if (!strcmp(local(attributes[0]), name))
			return attributes[1];
	return NULL;
}

static void copy(struct reader *reader, char to[OVF_NAME_BYTES], const char *from)
{
	if (!from)
		from = "";
	if (strlen(from) >= OVF_NAME_BYTES)
		refuse(reader, -EBADMSG, OVF_XML, "a name of more than %d bytes",
		       OVF_NAME_BYTES - 1);
	else
		strcpy(to, from);
}

static bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return !errno && !*end;
}

/* "byte * 2^30", as the specification has it, and the words of earlier ones. */
static bool parse_unit(const char *text, uint64_t *ret)
{
	static const struct {
		const char *name;
		unsigned bits;
	} words[] = {
		{ "byte", 0 }, { "KiloBytes", 10 }, { "MegaBytes", 20 }, { "GigaBytes", 30 }
	};
	unsigned bits;
	unsigned used = 0;

	for (size_t n = 0; text && n < sizeof(words) / sizeof(words[0]); n++)
		if (!strcmp(text, words[n].name)) {
			*ret = 1ull << words[n].bits;
			return true;
		}
	*ret = 1;
	if (!text || !*text)
		return true;
	if (sscanf(text, "byte * 2^%2u%n", &bits, &used) != 1 || text[used] || bits > 40)
		return false;
	*ret = 1ull << bits;
	return true;
}

bool ovf_is_plain(const char *name)
{
	unsigned bytes;

	for (const char *at = name; *at; at += bytes) {
		bytes = plain_character(at);
		if (!bytes || strchr("/\\:", *at))
			return false;
	}
	return *name && *name != '.' && strlen(name) < OVF_NAME_BYTES;
}

static void take_file(struct reader *reader, const char **attributes)
{
	struct file *file = &reader->file[reader->files];
	const char *name = attribute(attributes, "href");
	const char *bytes = attribute(attributes, "size");
	const char *packing = attribute(attributes, "compression");

	if (reader->files == OVF_DISKS_MAX) {
		refuse(reader, -ENOTSUP, OVF_FILE, "more than %d files", OVF_DISKS_MAX);
		return;
	}
	if (!name || !ovf_is_plain(name))
		refuse(reader, -EPERM, OVF_FILE,
		       "a file whose href is not the name of one beside it");
	else if (packing && *packing && strcmp(packing, "identity"))
		refuse(reader, -ENOTSUP, OVF_FILE, "the file %.100s is compressed by %.20s", name,
		       packing);
	else if (attribute(attributes, "chunkSize"))
		refuse(reader, -ENOTSUP, OVF_FILE, "the file %.100s is in pieces (chunkSize)",
		       name);
	else if (bytes && !parse_number(bytes, &file->bytes))
		refuse(reader, -EBADMSG, OVF_FILE, "the size of %.100s is no number", name);
	copy(reader, file->id, attribute(attributes, "id"));
	copy(reader, file->name, name);
	reader->files++;
}

static void take_disk(struct reader *reader, const char **attributes)
{
	struct ovf_disk *disk = &reader->ovf->disk[reader->ovf->disks];
	uint64_t unit = 1;

	if (reader->ovf->disks == OVF_DISKS_MAX) {
		refuse(reader, -ENOTSUP, OVF_DISK, "more than %d disks", OVF_DISKS_MAX);
		return;
	}
	if (!parse_number(attribute(attributes, "capacity"), &disk->size_bytes) ||
	    !parse_unit(attribute(attributes, "capacityAllocationUnits"), &unit) ||
	    !disk->size_bytes || disk->size_bytes > SIZE_MAX_BYTES / unit)
		refuse(reader, -EBADMSG, OVF_DISK,
		       "a disk whose capacity is no number, nothing, or more than 64 TiB");
	else if (attribute(attributes, "parentRef"))
		refuse(reader, -ENOTSUP, OVF_DISK, "a disk that is a child of another (parentRef)");
	else
		disk->size_bytes *= unit;
	copy(reader, disk->format, attribute(attributes, "format"));
	copy(reader, reader->of_disk[reader->ovf->disks], attribute(attributes, "fileRef"));
	reader->ovf->disks++;
}

static void on_element(void *context, const char *name, const char **attributes)
{
	struct reader *reader = context;

	if (reader->result)
		return;
	name = local(name);
	if (!strcmp(name, "File"))
		take_file(reader, attributes);
	else if (!strcmp(name, "Disk"))
		take_disk(reader, attributes);
	else if (!strcmp(name, "VirtualSystem") && reader->systems++)
		refuse(reader, -ENOTSUP, OVF_MACHINE, "more than one machine (VirtualSystem)");
	else if (!strcmp(name, "VirtualSystem"))
		copy(reader, reader->ovf->name, attribute(attributes, "id"));
}

static void on_end(void *context, const char *name)
{
	(void)context;
	(void)name;
}

/* Entities are declared there, and grow. */
static void on_doctype(void *context, const char *name, const char *system, const char *public,
		       int has_subset)
{
	(void)name;
	(void)system;
	(void)public;
	(void)has_subset;
	refuse(context, -EBADMSG, OVF_XML, "a document type, which no descriptor has");
}

/* Which file each disk is in. */
static void join(struct reader *reader)
{
	for (unsigned n = 0; n < reader->ovf->disks && !reader->result; n++) {
		struct ovf_disk *disk = &reader->ovf->disk[n];
		unsigned at = 0;

		if (!*reader->of_disk[n])
			continue;
		while (at < reader->files && strcmp(reader->file[at].id, reader->of_disk[n]))
			at++;
		if (at == reader->files) {
			refuse(reader, -EBADMSG, OVF_DISK,
			       "a disk of the file %.100s, which is not named", reader->of_disk[n]);
			return;
		}
		for (unsigned other = 0; other < n; other++)
			if (!strcmp(reader->ovf->disk[other].file, reader->file[at].name))
				refuse(reader, -EBADMSG, OVF_DISK, "two disks of the file %.100s",
				       reader->file[at].name);
		memcpy(disk->file, reader->file[at].name, sizeof(disk->file));
		disk->file_bytes = reader->file[at].bytes;
	}
}

static void read_all(struct reader *reader, const char *text, size_t bytes)
{
	XML_SetUserData(reader->parser, reader);
	XML_SetElementHandler(reader->parser, on_element, on_end);
	XML_SetStartDoctypeDeclHandler(reader->parser, on_doctype);
	if (XML_Parse(reader->parser, text, (int)bytes, 1) != XML_STATUS_OK)
		refuse(reader, -EBADMSG, OVF_XML, "no XML: %s",
		       XML_ErrorString(XML_GetErrorCode(reader->parser)));
	join(reader);
	if (!reader->ovf->disks)
		refuse(reader, -EBADMSG, OVF_DISK, "no disks (Disk in DiskSection)");
}

int ovf_read(const char *text, size_t bytes, struct ovf *ret, struct ovf_error *error)
{
	struct reader *reader;
	int result;

	*ret = (struct ovf){ .disks = 0 };
	*error = (struct ovf_error){ .text = "libexpat is not there, or no memory" };
	if (bytes > OVF_BYTES_MAX) {
		error->part = OVF_XML;
		snprintf(error->text, sizeof(error->text), "%zu bytes: is larger than %d", bytes,
			 OVF_BYTES_MAX);
		return -EBADMSG;
	}
	if (!load())
		return -ENOSYS;
	reader = calloc(1, sizeof(*reader));
	if (!reader)
		return -ENOMEM;
	reader->ovf = ret;
	reader->error = error;
	reader->parser = XML_ParserCreateNS(NULL, SEPARATOR);
	if (reader->parser)
		read_all(reader, text, bytes);
	result = reader->parser ? reader->result : -ENOMEM;
	if (reader->parser)
		XML_ParserFree(reader->parser);
	free(reader);
	return result;
}
