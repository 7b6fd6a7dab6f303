/* See connections.h. */
#include "connections.h"

#include <assert.h>

#include "lib/check.h"

static unsigned count_of(const struct connections *connections, uid_t user)
{
	unsigned count = 0;

	for (unsigned n = 0; n < connections->count; n++)
		count += connections->connection[n].user == user;
	return count;
}

static bool has_process(const struct connections *connections, unsigned count, pid_t process)
{
	for (unsigned n = 0; n < count; n++)
		if (connections->connection[n].process == process)
			return true;
	return false;
}

void check_connections(const struct connections *connections)
{
	assert(connections->count <= CONNECTIONS);
	for (unsigned n = 0; n < connections->count; n++) {
		const struct connection *connection = &connections->connection[n];

		assert(connection->user != NOBODY && connection->process > 0);
		assert(count_of(connections, connection->user) <= CONNECTIONS_OF_ONE);
		assert(!has_process(connections, n, connection->process));
	}
}

bool connections_admit(const struct connections *connections, uid_t user)
{
	return user != NOBODY && connections->count < CONNECTIONS &&
	       count_of(connections, user) < CONNECTIONS_OF_ONE;
}

void connections_add(struct connections *connections, pid_t process, uid_t user)
{
	assert(connections_admit(connections, user));
	connections->connection[connections->count++] =
		(struct connection){ .process = process, .user = user };
	CHECK(check_connections(connections));
}

void connections_forget(struct connections *connections, pid_t process)
{
	for (unsigned n = 0; n < connections->count; n++)
		if (connections->connection[n].process == process) {
			connections->connection[n] = connections->connection[--connections->count];
			break;
		}
	CHECK(check_connections(connections));
}
