/*
 * Refusals that a file alone does not cause: of disks that others use, of what changes while it is
 * read, and of calls that no verb makes so. refusals.py has all the others, and sees that each kind
 * of the table is in one of the two.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/vhdx.h"
#include "disk/disk_internal.h"
#include "lib/crc32c.h"

enum { SIZE_BYTES = 4 << 20, BLOCK_BYTES = 1 << 20 };

static char directory[] = "/tmp/umbra-refusal-XXXXXX";
static unsigned faults;

static const char *path_of(const char *name)
{
	static char text[4][80];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", directory, name);
	return text[turn];
}

static void must(int error, const struct disk_error *why)
{
	if (!error)
		return;
	fprintf(stderr, "refusal_test: %s\n", why->text);
	exit(1);
}

/* All of it is there, and it is of this kind. */
static void want(int result, enum disk_refusal kind, const struct disk_error *why)
{
	struct disk_refusal_parts parts;

	if (!result || why->kind != kind) {
		printf("refusal_test: kind %d, not %d: %d, %s\n", (int)why->kind, (int)kind, result,
		       why->text);
		faults++;
		return;
	}
	disk_error_parts(why, &parts);
	if (result != why->code || !*parts.path || !*parts.structure || !*parts.found ||
	    !*parts.expected || !*parts.remedy || !strstr(why->text, parts.path) ||
	    !strstr(why->text, parts.found) || !strstr(why->text, parts.remedy)) {
		printf("refusal_test: is not complete: %s\n", why->text);
		faults++;
	}
}

static void make(const char *name, const char *parent, uint64_t bytes)
{
	const struct disk_create what = { .format = DISK_VHDX,
					  .size_bytes = bytes,
					  .block_bytes = BLOCK_BYTES,
					  .parent = parent,
					  .no_sync = true };
	struct disk_error why;

	must(disk_create(path_of(name), &what, &why), &why);
}

static struct disk *open_disk(const char *name, enum disk_format format, bool write)
{
	const struct disk_options options = { .format = format, .write = write, .no_sync = true };
	struct disk_error why;
	struct disk *disk;

	must(disk_open(path_of(name), &options, &disk, &why), &why);
	return disk;
}

static void test_in_use(void)
{
	const struct disk_options options = { .format = DISK_VHDX };
	struct disk *user = open_disk("base.vhdx", DISK_VHDX, true);
	struct disk_error why;
	struct disk *other;

	want(disk_open(path_of("base.vhdx"), &options, &other, &why), REFUSAL_IN_USE, &why);
	disk_close(user);
}

/* ---- a file that changes whenever it is read ---- */

static int moving_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	static uint8_t more;
	const struct disk_file *below = context;
	int error = file_readv(below, offset, iov, count);

	/* somebody writes into its log */
	if (!error && offset == VHDX_MIB && iov->iov_len)
		((uint8_t *)iov->iov_base)[0] = ++more;
	return error;
}

static int64_t moving_size(void *context) { return file_size(context); }
static void moving_close(void *context) { file_close(context); }

static void test_moving(void)
{
	static const struct disk_file_ops ops = { .readv = moving_readv,
						  .size = moving_size,
						  .close = moving_close };
	const struct disk_options options = { .format = DISK_VHDX, .beside_writer = true };
	struct disk_file below;
	struct disk_file file = { .ops = &ops,
				  .context = &below,
				  .sync = PTHREAD_MUTEX_INITIALIZER };
	struct disk_error why;
	struct disk *disk;

	if (disk_file_open(path_of("base.vhdx"), false, false, &below))
		abort();
	want(disk_open_file(file, path_of("base.vhdx"), &options, &disk, &why), REFUSAL_MOVING,
	     &why);
}

static void write_file(const char *name, const char *text)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	size_t bytes = strlen(text);

	if (fd < 0 || write(fd, text, bytes) != (ssize_t)bytes || ftruncate(fd, 1 << 16) ||
	    close(fd))
		abort();
}

/* Of a disk in use all its files count: here only an extent is written. */
static void test_moved(void)
{
	const struct disk_options options = { .format = DISK_VMDK, .beside_writer = true };
	struct disk_file writer;
	struct disk_error why;
	struct disk *disk;

	write_file("flat", "before");
	write_file("used.vmdk", "# Disk DescriptorFile\nCID=1\nRW 128 FLAT \"flat\" 0\n");
	if (disk_file_open(path_of("used.vmdk"), true, false, &writer))
		abort();
	must(disk_open(path_of("used.vmdk"), &options, &disk, &why), &why);
	if (!disk->in_use || disk_has_moved(disk)) {
		printf("refusal_test: nobody has written\n");
		faults++;
	}
	usleep(20000); /* the clock of files goes in ticks */
	write_file("flat", "behind");
	if (!disk_has_moved(disk)) {
		printf("refusal_test: an extent was written, and that is not seen\n");
		faults++;
	}
	disk_close(disk);
	file_close(&writer);
}

/* ---- commit ---- */

static void test_grown(void)
{
	struct disk *child = open_disk("child.vhdx", DISK_VHDX, true);
	struct disk_error why;

	if (disk_resize(child, SIZE_BYTES + BLOCK_BYTES))
		abort();
	want(disk_commit(child, NULL, &why), REFUSAL_COMMIT_GROWN, &why);
	disk_close(child);
}

/* Another data identifier in both headers, as by a writer that knows of no locks. */
static void change_data(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CLOEXEC);
	struct vhdx_header header;

	for (int n = 0; n < 2; n++) {
		if (pread(fd, &header, sizeof(header), (off_t)VHDX_HEADER_OFFSET(n)) !=
		    sizeof(header))
			abort();
		header.data_write = guid_new();
		header.checksum = 0;
		header.checksum = crc32c(0, &header, sizeof(header));
		if (pwrite(fd, &header, sizeof(header), (off_t)VHDX_HEADER_OFFSET(n)) !=
		    sizeof(header))
			abort();
	}
	close(fd);
}

static void test_changed(void)
{
	struct disk *child;
	struct disk_error why;

	make("changing.vhdx", NULL, SIZE_BYTES);
	make("onchanging.vhdx", path_of("changing.vhdx"), 0);
	child = open_disk("onchanging.vhdx", DISK_VHDX, true);
	change_data("changing.vhdx");
	want(disk_commit(child, NULL, &why), REFUSAL_COMMIT_CHANGED, &why);
	disk_close(child);
}

/* ---- calls that no verb makes so ---- */

static void test_calls(void)
{
	struct disk_create vmdk = { .format = DISK_VMDK, .parent = path_of("base.vhdx") };
	struct disk *from = open_disk("base.vhdx", DISK_VHDX, false);
	struct disk_error why;
	struct disk *to;

	make("small.vhdx", NULL, BLOCK_BYTES);
	to = open_disk("small.vhdx", DISK_VHDX, true);
	want(disk_copy(from, to, NULL, &why), REFUSAL_COPY_TARGET, &why);
	want(disk_rebase(to, path_of("base.vhdx"), DISK_VHDX, NULL, &why), REFUSAL_NO_CHILD, &why);
	vmdk.parent_format = DISK_VHDX;
	want(disk_convert(from, path_of("new.vmdk"), &vmdk, NULL, &why), REFUSAL_NO_PARENT_FORMAT,
	     &why);
	disk_close(to);
	disk_close(from);
}

/* A host that does not lock files lets a child be opened beside the one that is rebased. */
static void test_loop(void)
{
	struct disk_error why;
	struct disk *child;

	make("grandchild.vhdx", path_of("child.vhdx"), 0);
	child = open_disk("child.vhdx", DISK_VHDX, true);
	file_lock(&child->file, FILE_UNLOCKED);
	want(disk_rebase(child, path_of("grandchild.vhdx"), DISK_VHDX, NULL, &why),
	     REFUSAL_REBASE_LOOP, &why);
	disk_close(child);
}

/* A parent that was opened before. */
static void test_format(void)
{
	static const char text[] = "# Disk DescriptorFile\nCID=1\nparentCID=2\n"
				   "parentFileNameHint=\"base.vmdk\"\nRW 8192 ZERO\n";
	struct disk_options options = { .format = DISK_VMDK };
	int fd = open(path_of("child.vmdk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct disk_error why;
	struct disk *child;

	if (fd < 0 || write(fd, text, sizeof(text) - 1) != sizeof(text) - 1 || close(fd))
		abort();
	options.parent = open_disk("base.vhdx", DISK_VHDX, false);
	want(disk_open(path_of("child.vmdk"), &options, &child, &why), REFUSAL_VMDK_PARENT_FORMAT,
	     &why);
	disk_close(options.parent);
}

static void test_raw(void)
{
	int fd = open(path_of("disk.raw"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct disk_error why;
	struct disk *raw, *child;

	if (fd < 0 || ftruncate(fd, SIZE_BYTES) || close(fd))
		abort();
	raw = open_disk("disk.raw", DISK_RAW, true);
	want(disk_snapshot(raw, path_of("onraw.vhdx"), &child, &why), REFUSAL_SNAPSHOT_FORMAT,
	     &why);
	disk_close(raw);
}

/* What comes out of a file, or of a sandbox that is lost. */
static void test_what_was_found(void)
{
	static const char path[] = "a\033[2Jb\xc2\x9b\x33\x31mc\xc3\x9c";
	static const char name[] = "";
	static const char controls[] = "\033\x7f\xc2";
	struct disk_error why;

	want(disk_refuse_as(&why, REFUSAL_HOST, -EIO, path, DISK_NOWHERE, "%s", name),
	     REFUSAL_HOST, &why);
	if (strpbrk(why.text, controls) || !strstr(why.path, "\xc3\x9c")) {
		printf("refusal_test: it steers a terminal, or is spoilt: %s\n", why.text);
		faults++;
	}
}

int main(void)
{
	char command[100];

	if (!mkdtemp(directory))
		return 1;
	make("base.vhdx", NULL, SIZE_BYTES);
	make("child.vhdx", path_of("base.vhdx"), 0);
	test_in_use();
	test_moving();
	test_moved();
	test_calls();
	test_raw();
	test_format();
	test_loop();
	test_changed();
	test_grown();
	test_what_was_found();
	snprintf(command, sizeof(command), "rm -r %s", directory);
	if (system(command))
		return 1;
	printf("refusal_test: %u faults\n", faults);
	return faults != 0;
}
