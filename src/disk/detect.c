/*
 * Which format a file looks like: for the text of an error alone. What a file is opened as is
 * always what its user says, since a guest that writes a raw disk can make it look like anything.
 */
#include "disk_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOOTER_BYTES = 512, OLD_FOOTER_BYTES = 511 };

static bool begins(const char *head, const char *magic, size_t bytes)
{
	return !memcmp(head, magic, bytes);
}

static bool has_footer(int fd, off_t at)
{
	char tail[8];

	return at >= 0 && pread(fd, tail, sizeof(tail), at) == sizeof(tail) &&
	       begins(tail, "conectix", sizeof(tail));
}

bool disk_looks_like(const char *path, enum disk_format *ret)
{
	char head[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	bool found = true;
	bool is_fixed_vhd;

	if (fd < 0)
		return false;
	if (pread(fd, head, sizeof(head) - 1, 0) < 0)
		head[0] = 0;
	is_fixed_vhd = !fstat(fd, &st) && (has_footer(fd, st.st_size - FOOTER_BYTES) ||
					   has_footer(fd, st.st_size - OLD_FOOTER_BYTES));
	close(fd);
	if (begins(head, "vhdxfile", 8))
		*ret = DISK_VHDX;
	else if (begins(head, "QFI\xfb", 4))
		*ret = DISK_QCOW2;
	else if (begins(head, "KDMV", 4) || begins(head, "COWD", 4) ||
		 begins(head, "# Disk DescriptorFile", 21))
		*ret = DISK_VMDK;
	else if (begins(head, "conectix", 8) || is_fixed_vhd)
		*ret = DISK_VHD;
	else
		found = false;
	return found;
}
