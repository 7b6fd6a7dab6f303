/* Of a plan each role is given what it has to know, and zeros in place of the rest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "process/plan.h"

static int failures;

static void expect(bool good, const char *role, const char *what)
{
	if (good)
		return;
	printf("plan: %s: %s\n", role, what);
	failures++;
}

static bool is_zero(const void *data, size_t bytes)
{
	const uint8_t *at = data;

	for (size_t n = 0; n < bytes; n++)
		if (at[n])
			return false;
	return true;
}

static struct plan *make_plan(void)
{
	struct plan *plan = plan_new();

	if (!plan)
		abort();
	plan->machine.cpus = 3;
	plan->disks.count = 1;
	strcpy(plan->disks.disk[0].path, "/disk");
	plan->nets.count = 1;
	strcpy(plan->relay.name, "relay");
	plan->shares.count = 1;
	plan->restores = true;
	plan->early_pager = 7;
	strcpy(plan->source, "source");
	strcpy(plan->description, "description");
	return plan;
}

#define HAS(member) (!is_zero(&got->member, sizeof(got->member)))
#define SAME(member) (!memcmp(&got->member, &plan->member, sizeof(got->member)))
#define CHECK_PART(member, wanted)                                                                 \
	expect((wanted) ? SAME(member) : !HAS(member), name, #member)

static void check_role(const struct plan *plan, enum role role)
{
	const char *name = role_describe(role)->name;
	const bool is_broker = role == ROLE_BROKER;
	const int fd = plan_seal(plan, role);
	const struct plan *got = fd < 0 ? MAP_FAILED
					: mmap(NULL, sizeof(*got), PROT_READ, MAP_PRIVATE, fd, 0);

	if (got == MAP_FAILED || lseek(fd, 0, SEEK_END) != sizeof(*got))
		abort();
	expect(plan_is_sound(got), name, "it is none");
	CHECK_PART(machine, is_broker || role == ROLE_MACHINE);
	CHECK_PART(disks, is_broker || role == ROLE_DISK || role == ROLE_KEEPER);
	CHECK_PART(nets, is_broker || role == ROLE_SUPERVISOR || role == ROLE_NET ||
				 role == ROLE_LINE);
	CHECK_PART(relay, is_broker || role == ROLE_SUPERVISOR || role == ROLE_RELAY);
	CHECK_PART(shares, is_broker || role == ROLE_JOINER);
	CHECK_PART(restores, true);
	CHECK_PART(early_pager, true);
	CHECK_PART(source, is_broker || role == ROLE_PAGER);
	CHECK_PART(description, is_broker);
	munmap((void *)(uintptr_t)got, sizeof(*got));
	close(fd);
}

int main(void)
{
	struct plan *plan = make_plan();

	for (unsigned role = 0; role < ROLES; role++)
		check_role(plan, (enum role)role);
	free(plan);
	return failures != 0;
}
