/*
 * Which format a file looks like: for the text of an error alone. What a file is opened as is
 * always what its user says, since a guest that writes a raw disk can make it look like anything.
 */
#include "disk_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOOTER_BYTES = 512 };

static bool begins(const char *head, const char *magic, size_t bytes)
{
	return !memcmp(head, magic, bytes);
}

bool disk_looks_like(const char *path, enum disk_format *ret)
{
	char head[32] = "";
	char tail[8] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	bool found = true;

	if (fd < 0)
		return false;
	if (pread(fd, head, sizeof(head) - 1, 0) < 0)
		head[0] = 0;
	if (!fstat(fd, &st) && st.st_size >= FOOTER_BYTES &&
	    pread(fd, tail, sizeof(tail), st.st_size - FOOTER_BYTES) != sizeof(tail))
		tail[0] = 0;
	close(fd);
	if (begins(head, "vhdxfile", 8))
		*ret = DISK_VHDX;
	else if (begins(head, "QFI\xfb", 4))
		*ret = DISK_QCOW2;
	else if (begins(head, "KDMV", 4) || begins(head, "# Disk DescriptorFile", 21))
		*ret = DISK_VMDK;
	else if (begins(head, "conectix", 8) || begins(tail, "conectix", 8))
		*ret = DISK_VHD;
	else
		found = false;
	return found;
}
