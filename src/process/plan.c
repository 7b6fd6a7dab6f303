/* See plan.h. */
#include "plan.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/spawn.h"
#include "vm/machine.h"

enum { PLAN_MAGIC = 0x4e414c50 };

struct plan *plan_new(void)
{
	struct plan *plan = calloc(1, sizeof(*plan));

	if (!plan)
		return NULL;
	plan->magic = PLAN_MAGIC;
	plan->bytes = sizeof(*plan);
	plan->machine.begun = machine_moment_now();
	return plan;
}

#define ROLE(role) (1u << (role))
static_assert((int)ROLES < 32, "each has its bit");

/*
 * A machine process learns neither names of files nor of itself, the others nothing of the
 * machine; of disks and networks know those who serve them, and the pager how its file is called.
 * The broker has all of it. count_at: where it says how many there are: of none, which is most of
 * a plan, nothing is written, and somebody waits for that.
 */
static const struct kept { size_t at, bytes; uint32_t roles; size_t count_at; } kept_parts[] = {
#define MEMBER(member) offsetof(struct plan, member), sizeof(((struct plan *)NULL)->member)
#define COUNT(member) offsetof(struct plan, member.count)
	{ 0, offsetof(struct plan, machine), UINT32_MAX, 0 },
	{ MEMBER(machine), ROLE(ROLE_MACHINE), 0 },
	{ MEMBER(disks), ROLE(ROLE_DISK) | ROLE(ROLE_KEEPER), COUNT(disks) },
	{ MEMBER(nets), ROLE(ROLE_SUPERVISOR) | ROLE(ROLE_NET) | ROLE(ROLE_LINE), COUNT(nets) },
	{ MEMBER(relay), ROLE(ROLE_SUPERVISOR) | ROLE(ROLE_RELAY), 0 },
	{ MEMBER(shares), ROLE(ROLE_JOINER), COUNT(shares) },
	{ offsetof(struct plan, console),
	  offsetof(struct plan, source) - offsetof(struct plan, console), UINT32_MAX, 0 },
	{ MEMBER(source), ROLE(ROLE_PAGER), 0 },
	{ MEMBER(description), 0, 0 },
#undef COUNT
#undef MEMBER
};
enum { KEPT_PARTS = sizeof(kept_parts) / sizeof(kept_parts[0]) };

unsigned plan_ports(const struct plan *plan)
{
	unsigned count = 0;

	while (count < SHARE_PORTS && plan->machine.port[count])
		count++;
	return count;
}

static bool is_kept(const struct plan *plan, const struct kept *kept, enum role role)
{
	const uint8_t *count = (const uint8_t *)plan + kept->count_at;

	if (role != ROLE_BROKER && !(kept->roles & ROLE(role)))
		return false;
	return !kept->count_at || *(const uint32_t *)(const void *)count;
}

int plan_seal(const struct plan *plan, enum role role)
{
	struct spawn_part parts[KEPT_PARTS];
	unsigned count = 0;

	assert(plan_is_sound(plan));
	for (const struct kept *kept = kept_parts; kept < kept_parts + KEPT_PARTS; kept++)
		if (is_kept(plan, kept, role))
			parts[count++] = (struct spawn_part){
				.data = (const uint8_t *)plan + kept->at,
				.at = kept->at,
				.bytes = kept->bytes,
			};
	return spawn_seal_parts("umbra-plan", parts, count, sizeof(*plan));
}

int plan_set_text(char *to, size_t room, const char *text)
{
	size_t bytes = strlen(text) + 1;

	if (bytes > room)
		return -ENAMETOOLONG;
	memcpy(to, text, bytes);
	return 0;
}

int plan_set_relay(struct relay_plan *relay, const char *path)
{
	const char *slash = strrchr(path, '/');
	const size_t bytes = (size_t)(slash + 1 - path);

	if (bytes >= sizeof(relay->folder) ||
	    plan_set_text(relay->name, sizeof(relay->name), slash + 1))
		return -ENAMETOOLONG;
	memcpy(relay->folder, path, bytes);
	relay->folder[bytes] = 0;
	return 0;
}

static bool has_end(const char *text, size_t room) { return memchr(text, 0, room); }

/* Lines, each with its end, a key and a value. */
static bool keys_are_sound(const char *text)
{
	while (*text) {
		const char *end = strchr(text, '\n');
		const char *middle = strchr(text, '=');

		if (!end || !middle || middle > end || middle == text)
			return false;
		text = end + 1;
	}
	return true;
}

static bool machine_is_sound(const struct machine_plan *machine)
{
	return machine->cpus <= MACHINE_MAX_CPUS &&
	       machine->start_memory_bytes <= machine->memory_bytes &&
	       machine->least_memory_bytes <= machine->memory_bytes &&
	       has_end(machine->command_line, sizeof(machine->command_line)) &&
	       has_end(machine->given_keys, sizeof(machine->given_keys)) &&
	       keys_are_sound(machine->given_keys);
}

static bool arriving_is_sound(const struct arriving_plan *arriving)
{
	if (arriving->count > PLAN_ARRIVING ||
	    !has_end(arriving->folder, sizeof(arriving->folder)))
		return false;
	for (uint32_t n = 0; n < arriving->count; n++)
		if (arriving->file[n].disk >= BLOCK_DISKS ||
		    arriving->file[n].format >= DISK_FORMATS ||
		    arriving->file[n].first >= arriving->blocks)
			return false;
	return true;
}

static bool disks_are_sound(const struct disk_plan *disk)
{
	const struct disk_place *place = &disk->place;

	if (disk->count > BLOCK_DISKS || place->parent_count > PLAN_PARENTS)
		return false;
	for (uint32_t n = 0; n < disk->count; n++)
		if (!has_end(disk->disk[n].path, sizeof(disk->disk[n].path)))
			return false;
	for (uint32_t n = 0; n < place->parent_count; n++)
		if (!has_end(place->parent[n], sizeof(place->parent[n])))
			return false;
	return arriving_is_sound(&disk->arriving) &&
	       has_end(place->user_policy, sizeof(place->user_policy)) &&
	       has_end(place->catalog, sizeof(place->catalog)) &&
	       has_end(place->override, sizeof(place->override)) &&
	       has_end(place->user_name, sizeof(place->user_name));
}

static bool nets_are_sound(const struct net_plan *nets)
{
	if (nets->count > NET_CARDS || (nets->count && nets->mine >= nets->count))
		return false;
	for (uint32_t n = 0; n < nets->count; n++)
		if (nets->card[n].kind >= NET_CHOICES || nets->card[n].forwards > PLAN_FORWARDS ||
		    !has_end(nets->card[n].name, sizeof(nets->card[n].name)) ||
		    !has_end(nets->card[n].path, sizeof(nets->card[n].path)))
			return false;
	return true;
}

static bool port_is_sound(const struct share_choice *port)
{
	return has_end(port->join.machine, sizeof(port->join.machine)) &&
	       has_end(port->join.instance, sizeof(port->join.instance)) &&
	       has_end(port->join.class, sizeof(port->join.class)) &&
	       has_end(port->hub, sizeof(port->hub)) && has_end(port->rules, sizeof(port->rules));
}

static bool shares_are_sound(const struct share_plan *shares)
{
	if (shares->count > SHARE_PORTS || (shares->count && shares->mine >= shares->count))
		return false;
	for (uint32_t n = 0; n < shares->count; n++)
		if (!port_is_sound(&shares->port[n]))
			return false;
	return true;
}

bool plan_is_sound(const struct plan *plan)
{
	return plan->magic == PLAN_MAGIC && plan->bytes == sizeof(*plan) &&
	       plan->console < CONSOLE_KINDS && machine_is_sound(&plan->machine) &&
	       disks_are_sound(&plan->disks) && nets_are_sound(&plan->nets) &&
	       shares_are_sound(&plan->shares) &&
	       has_end(plan->relay.folder, sizeof(plan->relay.folder)) &&
	       has_end(plan->relay.name, sizeof(plan->relay.name)) &&
	       has_end(plan->source, sizeof(plan->source)) &&
	       has_end(plan->description, sizeof(plan->description));
}

const struct plan *plan_of_process(void)
{
	const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int fd = grant_fd(GRANT_PLAN);
	const struct plan *plan;
	struct stat st;

	if (fcntl(fd, F_GET_SEALS) != seals || fstat(fd, &st) || st.st_size != sizeof(*plan))
		return NULL;
	plan = mmap(NULL, sizeof(*plan), PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return plan != MAP_FAILED && plan_is_sound(plan) ? plan : NULL;
}
