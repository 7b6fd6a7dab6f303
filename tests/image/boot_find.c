/* What image_find_boot() says of a raw disk, for scans.py: boot_find FILE. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "disk/disk.h"
#include "image/image.h"

int main(int argc, char **argv)
{
	struct disk_error why;
	struct disk *disk;
	struct image_boot boot;
	int error;

	json_object_seed(0); /* a process that may only read cannot */
	if (argc != 2 ||
	    disk_open(argv[1], &(struct disk_options){ .format = DISK_RAW }, &disk, &why))
		return 64;
	error = image_find_boot(disk, &boot);
	if (error)
		printf("%s\n", strerror(-error));
	else
		printf("%s %lu %.*s %.*s\n", boot.root_uuid, boot.root_subvolume,
		       (int)boot.kernel_bytes, (const char *)boot.kernel, (int)boot.initrd_bytes,
		       boot.initrd ? (const char *)boot.initrd : "");
	if (!error)
		image_free_boot(&boot);
	disk_close(disk);
	return error != 0;
}
