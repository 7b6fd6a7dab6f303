/* See saved_file.h. */
#include "saved_file.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/crc32c.h"

enum { HOST_VERSION = 1, PAGE_BYTES = 4096 };
static const char host_magic[8] = { 'U', 'M', 'B', 'R', 'A', 'H', 'S', 'T' };

struct foot {
	char magic[sizeof(host_magic)];
	uint32_t version, crc;
	uint64_t machine_bytes, host_bytes;
};
_Static_assert(sizeof(struct foot) == 32, "as in the file");

static uint64_t page_end(uint64_t bytes) { return bytes + -bytes % PAGE_BYTES; }

/* Whether its numbers are those of a file of this length. */
static bool foot_fits(const struct foot *foot, uint64_t file_bytes)
{
	return foot->host_bytes && foot->host_bytes <= SAVED_HOST_BYTES && foot->machine_bytes &&
	       foot->machine_bytes < file_bytes &&
	       page_end(foot->machine_bytes) + foot->host_bytes + sizeof(*foot) == file_bytes;
}

int saved_file_look(int fd, struct saved_file *ret)
{
	struct stat st;
	struct foot foot;

	if (fstat(fd, &st))
		return -errno;
	*ret = (struct saved_file){ .machine_bytes = (uint64_t)st.st_size };
	if (st.st_size < (off_t)sizeof(foot))
		return 0;
	if (pread(fd, &foot, sizeof(foot), st.st_size - (off_t)sizeof(foot)) != sizeof(foot))
		return -EIO;
	if (memcmp(foot.magic, host_magic, sizeof(host_magic)) != 0)
		return 0;
	if (foot.version != HOST_VERSION)
		return -ENOTSUP;
	if (!foot_fits(&foot, (uint64_t)st.st_size))
		return -EBADMSG;
	ret->machine_bytes = foot.machine_bytes;
	ret->host_at = page_end(foot.machine_bytes);
	ret->host_bytes = foot.host_bytes;
	ret->host_crc = foot.crc;
	return 0;
}

int saved_file_read_host(int fd, char **ret_text)
{
	struct saved_file file;
	int error = saved_file_look(fd, &file);
	char *text;

	*ret_text = NULL;
	if (error || !file.host_bytes)
		return error;
	text = malloc(file.host_bytes + 1);
	if (!text)
		return -ENOMEM;
	if (pread(fd, text, file.host_bytes, (off_t)file.host_at) != (ssize_t)file.host_bytes)
		error = -EIO;
	else if (crc32c(0, text, file.host_bytes) != file.host_crc)
		error = -EBADMSG;
	text[file.host_bytes] = 0;
	if (!error && strlen(text) != file.host_bytes)
		error = -EBADMSG;
	if (error)
		free(text);
	else
		*ret_text = text;
	return error;
}

uint8_t *saved_file_host_part(uint64_t machine_bytes, const char *text, size_t *ret_bytes)
{
	const size_t zeros = (size_t)(page_end(machine_bytes) - machine_bytes);
	const size_t bytes = strlen(text);
	struct foot foot = { .version = HOST_VERSION,
			     .crc = crc32c(0, text, bytes),
			     .machine_bytes = machine_bytes,
			     .host_bytes = bytes };
	uint8_t *part = calloc(1, zeros + bytes + sizeof(foot));

	assert(bytes && bytes <= SAVED_HOST_BYTES);
	if (!part)
		return NULL;
	memcpy(foot.magic, host_magic, sizeof(host_magic));
	memcpy(part + zeros, text, bytes);
	memcpy(part + zeros + bytes, &foot, sizeof(foot));
	*ret_bytes = zeros + bytes + sizeof(foot);
	return part;
}
