/* The invariants of the door's connections, each broken: check_*() sees it; and who is admitted. */
#include <stdio.h>

#include "../lib/caught.h"
#include "door/connections.h"

enum { USER = 1000, OTHER = 1001, FIRST_PROCESS = 100 };

static struct connections *in(void *connections) { return connections; }
static void check_of(void *connections) { check_connections(connections); }
static void of_nobody(void *connections) { in(connections)->connection[1].user = NOBODY; }
static void without_a_process(void *connections) { in(connections)->connection[1].process = 0; }
static void process_twice(void *connections)
{
	in(connections)->connection[1].process = in(connections)->connection[0].process;
}
static void more_than_there_is_room(void *connections)
{
	in(connections)->count = CONNECTIONS + 1;
}
static void too_many_of_one(void *connections)
{
	for (unsigned n = 0; n <= CONNECTIONS_OF_ONE; n++)
		in(connections)->connection[n] =
			(struct connection){ .process = (pid_t)n + 1, .user = USER };
	in(connections)->count = CONNECTIONS_OF_ONE + 1;
}

static const struct spoiling of_connections[] = {
	{ "a connection of nobody", of_nobody },
	{ "a connection without a process", without_a_process },
	{ "a process twice", process_twice },
	{ "more connections than there is room for", more_than_there_is_room },
	{ "more connections of a user than he may have", too_many_of_one },
};

static unsigned add_all(struct connections *connections, uid_t user)
{
	unsigned count = 0;

	for (; connections_admit(connections, user); count++)
		connections_add(connections, (pid_t)(FIRST_PROCESS + connections->count), user);
	return count;
}

static unsigned expect(bool is_right, const char *what)
{
	if (!is_right)
		printf("%s\n", what);
	return !is_right;
}

static unsigned of_admission(void)
{
	static struct connections connections;
	unsigned faults = expect(add_all(&connections, USER) == CONNECTIONS_OF_ONE,
				 "a user has not what he may have");

	faults += expect(!connections_admit(&connections, NOBODY), "nobody is admitted");
	for (uid_t user = OTHER; connections_admit(&connections, user); user++)
		add_all(&connections, user);
	faults += expect(connections.count == CONNECTIONS, "all have not what they may have");
	connections_forget(&connections, 1);
	faults += expect(connections.count == CONNECTIONS, "one of no connection is forgotten");
	connections_forget(&connections, FIRST_PROCESS);
	faults += expect(connections_admit(&connections, USER), "one that has ended still counts");
	check_connections(&connections);
	return faults;
}

int main(void)
{
	static struct connections connections;
	unsigned missed;

	connections_add(&connections, FIRST_PROCESS, USER);
	connections_add(&connections, FIRST_PROCESS + 1, OTHER);
	missed = CAUGHT_MISSED("connections", check_of, &connections, of_connections);
	return missed + of_admission() != 0;
}
