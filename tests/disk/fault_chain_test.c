/*
 * Long operations on a chain of files in which the n-th access to the host's files fails, or the
 * n-th allocation, for every n that they have: snapshot of a disk in use, commit, stream, rebase,
 * compact, export of changes, copy, resize, freeze. Whatever the operation returns, once the fault
 * is gone the chain opens and reads the same, and the operation done again succeeds.
 *
 * usage: fault_chain_test [STEP [DIRECTORY]]; every STEP-th n alone.
 */
#include <fcntl.h>

#include "chain.h"
#include "faults.h"

static uint64_t runs, faults;

static int do_export(struct disk *disk, struct disk_error *error)
{
	unlink(chain_path("delta.vhdx"));
	return disk_export_changes(disk, chain_path("base.vhdx"), chain_path("delta.vhdx"), NULL,
				   error);
}

static int do_copy(struct disk *disk, struct disk_error *reason)
{
	struct disk *to;
	int error, closed;

	unlink(chain_path("copy.vhdx"));
	error = disk_create(chain_path("copy.vhdx"),
			    &(struct disk_create){ .format = DISK_VHDX,
						   .size_bytes = CHAIN_BYTES,
						   .block_bytes = 1 << 20 },
			    reason);
	if (!error)
		error = chain_open("copy.vhdx", true, &to, reason);
	if (error)
		return error;
	error = disk_copy(disk, to, NULL, reason);
	closed = disk_close(to);
	return error ? error : closed;
}

/* With a parent beside it, whose content it then knows. */
static int do_write_out(struct disk *disk, enum disk_format format, const char *name,
			struct disk_error *reason)
{
	struct disk_create what = { .format = format, .packing = DISK_PACKED_ZSTD };

	if (format == DISK_QCOW2) {
		what.parent = chain_path("base.vhdx");
		what.parent_format = DISK_VHDX;
	}
	unlink(chain_path(name));
	return disk_convert(disk, chain_path(name), &what, NULL, reason);
}

static int do_qcow2(struct disk *disk, struct disk_error *reason)
{
	return do_write_out(disk, DISK_QCOW2, "out.qcow2", reason);
}

static int do_vmdk(struct disk *disk, struct disk_error *reason)
{
	return do_write_out(disk, DISK_VMDK, "out.vmdk", reason);
}

static int qcow2(void) { return chain_with_top(do_qcow2); }
static int vmdk(void) { return chain_with_top(do_vmdk); }
static int export(void) { return chain_with_top(do_export); }
static int copy(void) { return chain_with_top(do_copy); }

static const struct { const char *name, *result; int (*act)(void);
} operations[] = {
	{ "snapshot", "child.vhdx", chain_snapshot },
	{ "commit", "middle.vhdx", chain_commit },
	{ "stream", NULL, chain_stream },
	{ "compact", NULL, chain_compact },
	{ "shrink", NULL, chain_shrink },
	{ "rebase", NULL, chain_rebase },
	{ "repair-link", NULL, chain_repair },
	{ "export", "delta.vhdx", export },
	{ "copy", "copy.vhdx", copy },
	{ "convert to qcow2", NULL, qcow2 },
	{ "convert to vmdk", NULL, vmdk },
	{ "resize", NULL, chain_resize },
	{ "freeze", NULL, chain_freeze },
};

static void wrong(const char *operation, const char *how, long n, const char *what)
{
	fprintf(stderr, "fault_chain_test: %s, %s %ld: %s\n", operation, how, n, what);
	faults++;
}

/* A frozen file stays so, and one that has no parent any more is not streamed. */
static bool is_done(unsigned k, int error)
{
	return error == -EROFS || (error == -EINVAL && operations[k].act == chain_stream);
}

static void look(unsigned k, const char *how, long n)
{
	char why[600];
	int error;

	runs++;
	if (!chain_reads("top.vhdx", why, sizeof(why)))
		wrong(operations[k].name, how, n, why);
	error = operations[k].act();
	if (error && !is_done(k, error)) {
		snprintf(why, sizeof(why), "done again it fails: %s", strerror(-error));
		wrong(operations[k].name, how, n, why);
	}
	if (!chain_reads("top.vhdx", why, sizeof(why)) ||
	    (operations[k].result && !chain_reads(operations[k].result, why, sizeof(why))))
		wrong(operations[k].name, how, n, why);
}

static void sweep(unsigned k, const char *how, long *left, int error, long step)
{
	bool over = false;

	for (long n = 0; !over; n += step) {
		chain_again();
		*left = n;
		access_error = error;
		unsynced_forget();
		counting = true;
		operations[k].act();
		counting = false;
		over = *left >= 0;
		*left = -1;
		look(k, how, n);
	}
}

int main(int argc, char **argv)
{
	long step = argc > 1 ? strtol(argv[1], NULL, 0) : 1;

	chain_make(argc > 2 ? argv[2] : "/dev/shm");
	for (unsigned k = 0; k < sizeof(operations) / sizeof(operations[0]); k++) {
		sweep(k, "access", &accesses_left, EIO, step);
		sweep(k, "full at access", &accesses_left, ENOSPC, step);
		sweep(k, "allocation", &allocations_left, 0, step);
	}
	chain_end();
	printf("fault_chain_test: %lu runs with a fault, %lu faults in them\n", runs, faults);
	return faults != 0;
}
