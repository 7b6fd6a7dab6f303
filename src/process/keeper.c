/* The disk process's side of keeper.h. */
#include "keeper.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/role.h"

/* Of one that is only read, too, where it is recorded that a rule was passed over. */
bool keeper_has_side_file(const struct disk_plan *plan, uint32_t disk)
{
	const struct disk_choice *choice = &plan->disk[disk];

	return choice->path[0] && choice->format != DISK_VHDX &&
	       (!choice->read_only || plan->place.override[0]);
}

bool keeper_is_needed(const struct disk_plan *plan)
{
	for (uint32_t n = 0; n < plan->count; n++)
		if (keeper_has_side_file(plan, n))
			return true;
	return false;
}

void check_keeper(const struct keeper_client *client)
{
	assert(client->memory && client->lock && client->disk < BLOCK_DISKS);
	assert(client->side.context == client && client->side.load && client->side.store);
	/* who has the lock asks: nobody else does meanwhile */
	assert(pthread_mutex_trylock(client->lock) == EBUSY);
}

/* With the lock. -EPIPE: the keeper is gone. */
static int keeper_ask(struct keeper_client *client, enum keeper_request request, uint64_t bytes)
{
	char byte = 0;

	assert(request == KEEPER_LOAD || request == KEEPER_STORE);
	assert(bytes <= KEEPER_BYTES);
	check_keeper(client);
	client->memory->request = request;
	client->memory->disk = client->disk;
	client->memory->bytes = bytes;
	if (write(grant_fd(GRANT_ASK_OUT), &byte, 1) != 1 ||
	    read(grant_fd(GRANT_TOLD_IN), &byte, 1) != 1)
		return -EPIPE;
	return client->memory->error;
}

static int keeper_load(void *context, uint8_t **ret, size_t *ret_bytes)
{
	struct keeper_client *client = context;
	int error;

	pthread_mutex_lock(client->lock);
	error = keeper_ask(client, KEEPER_LOAD, 0);
	*ret_bytes = client->memory->bytes;
	*ret = !error && *ret_bytes <= KEEPER_BYTES ? malloc(*ret_bytes + 1) : NULL;
	if (*ret)
		memcpy(*ret, client->memory->data, *ret_bytes);
	else if (!error)
		error = -ENOMEM;
	pthread_mutex_unlock(client->lock);
	return error;
}

static int keeper_store(void *context, const uint8_t *bytes, size_t count, bool *ret_unsynced)
{
	struct keeper_client *client = context;
	int error = -EFBIG;

	*ret_unsynced = false;
	if (count > KEEPER_BYTES)
		return error;
	pthread_mutex_lock(client->lock);
	memcpy(client->memory->data, bytes, count);
	error = keeper_ask(client, KEEPER_STORE, count);
	*ret_unsynced = error == -EPIPE || (error && client->memory->unsynced);
	pthread_mutex_unlock(client->lock);
	return error;
}

void keeper_client_init(struct keeper_client *client, struct keeper_memory *memory,
			pthread_mutex_t *lock, uint32_t disk)
{
	assert(memory && lock);
	*client = (struct keeper_client){ .memory = memory, .lock = lock, .disk = disk };
	client->side = (struct disk_side_keeper){ .load = keeper_load,
						  .store = keeper_store,
						  .context = client };
}
