/*
 * The keeper's main, see keeper.h: replaces what lies beside the disks of a machine, by names that
 * it was given before.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "keeper.h"
#include "mains.h"
#include "reaper.h"
#include "report.h"

static int keeper_reply_file(struct keeper_memory *memory, const char *path)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_side_load(path, &bytes, &count);

	if (error)
		return error;
	if (count > KEEPER_BYTES)
		error = -EFBIG;
	else
		memcpy(memory->data, bytes, count);
	memory->bytes = error ? 0 : count;
	free(bytes);
	return error;
}

static int keeper_replace_file(struct keeper_memory *memory, const char *path, uint64_t count)
{
	uint8_t *bytes = count <= KEEPER_BYTES ? malloc(count + 1) : NULL;
	bool unsynced = false;
	int error = -ENOMEM;

	if (bytes) {
		memcpy(bytes, memory->data, count); /* what is checked is this copy */
		error = disk_side_store(path, bytes, count, &unsynced);
	}
	memory->unsynced = unsynced;
	free(bytes);
	return error;
}

static int keeper_act(struct keeper_memory *memory, const struct disk_plan *plan)
{
	uint32_t request = __atomic_load_n(&memory->request, __ATOMIC_RELAXED);
	uint32_t disk = __atomic_load_n(&memory->disk, __ATOMIC_RELAXED);
	uint64_t bytes = __atomic_load_n(&memory->bytes, __ATOMIC_RELAXED);

	if (disk >= plan->count || !keeper_has_side_file(plan, disk))
		return -EPERM;
	return request == KEEPER_LOAD ? keeper_reply_file(memory, plan->disk[disk].path)
				      : keeper_replace_file(memory, plan->disk[disk].path, bytes);
}

static void open_folders(const struct disk_plan *plan, int folders[BLOCK_DISKS + 1])
{
	unsigned used = 0;

	for (unsigned n = 0; n < plan->count; n++) {
		char *copy =
			keeper_has_side_file(plan, n) ? strdup(plan->disk[n].path) : NULL;
		int fd = copy ? open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

		assert(used < BLOCK_DISKS);
		if (fd >= 0)
			folders[used++] = fd;
		free(copy);
	}
	folders[used] = -1;
}

int keeper_main(void)
{
	const struct plan *plan = plan_of_process();
	struct keeper_memory *memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE,
					    MAP_SHARED, grant_fd(GRANT_SIDE), 0);
	int folders[BLOCK_DISKS + 1];
	char byte = 0;
	int error;

	close(grant_fd(GRANT_SIDE));
	if (!plan || memory == MAP_FAILED)
		return complain(EXIT_USAGE, "it has no plan", "the keeper",
				"use umbra run: it starts the processes of a machine");
	error = reaper_make(grant_fd(GRANT_END), REAPER_MS);
	close(grant_fd(GRANT_END));
	open_folders(&plan->disks, folders);
	if (!error)
		error = lockdown_before_threads(ROLE_KEEPER, folders);
	if (!error)
		error = lockdown(ROLE_KEEPER);
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "what lies beside disks",
				"see umbra doctor");
	if (write(grant_fd(GRANT_READY), &byte, 1) != 1)
		return EXIT_FAULT;
	close(grant_fd(GRANT_READY));
	while (read(grant_fd(GRANT_ASK_IN), &byte, 1) == 1) {
		memory->error = keeper_act(memory, &plan->disks);
		if (write(grant_fd(GRANT_TOLD_OUT), &byte, 1) != 1)
			break;
	}
	return 0;
}
