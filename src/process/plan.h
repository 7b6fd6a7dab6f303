/*
 * What the processes of a machine shall do, as `umbra run` has understood it: plain data in sealed
 * memory, no pointers. A process checks its plan before it believes it: size, magic number, ends of
 * texts, ranges.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "console.h"
#include "disk/disk.h"
#include "ipc/block.h"
#include "ipc/net_card.h"
#include "ipc/role.h"
#include "ipc/share_port.h"
#include "net/relay/relay.h"
#include "share/wire.h"
#include "vm/machine.h"

enum {
	PLAN_PATH_BYTES = 4096,
	PLAN_LINE_BYTES = 32768,
	PLAN_DESCRIPTION_BYTES = 8192,
	PLAN_REASON_BYTES = 1024,
	PLAN_PARENTS = 16,
	PLAN_ARRIVING = 64,
	PLAN_FORWARDS = 32,
	PLAN_NET_NAME_BYTES = 72,
	PLAN_SOCKET_BYTES = 108,
	PLAN_KEYS_BYTES = 8192,
};

struct machine_plan {
	uint64_t memory_bytes, start_memory_bytes, least_memory_bytes, overhead_bytes, hv_features;
	uint32_t memory_buffer_percent, memory_weight;
	uint32_t cpus, time_limit_s;
	struct machine_moment begun; /* when the plan was */
	uint32_t without, mmu_tables_left_open; /* engine.h */
	uint16_t debug_exit;
	bool has_bus, statistics, test_device, display;
	bool forks; /* its broker may have it forked */
	bool guest_forks; /* its guest may ask for that (cli/fork_door.h) */
	bool perf_map; /* perf_map.h */
	uint8_t port[SHARE_PORTS]; /* share_port_kind() of each that it has, joined or not */
	struct cpu_model model;
	struct cpu_host host;
	char command_line[PLAN_LINE_BYTES];
	char given_keys[PLAN_KEYS_BYTES]; /* for the guest, a line KEY=VALUE each */
};

/*
 * path "": none of this number, or a drive without a disc. id: by which the guest has known it at
 * another place, of a format that has none; zero: by where the file lies.
 */
struct disk_choice {
	char path[PLAN_PATH_BYTES];
	struct guid id;
	enum disk_format format;
	bool read_only, direct, is_dvd;
};

/*
 * Where a disk's parents may lie, and what of the user's own decides about it; "": there is none.
 */
struct disk_place {
	uint32_t parent_count;
	char parent[PLAN_PARENTS][PLAN_PATH_BYTES];
	char user_policy[PLAN_PATH_BYTES], catalog[PLAN_PATH_BYTES];
	char override[PLAN_REASON_BYTES];
	char user_name[64];
};

/*
 * Files of disks' chains that are still arriving from another host (extents.h): FOLDER/0 and so on,
 * in the order of their disks, each the parent of the one before it. What the machine goes on in is
 * none of them: the disk's own path, made on the first of its files; or, of a disk that is read
 * alone, what that is going to be called. first: the block that it begins with, of all of them.
 */
struct arriving_file { uint64_t bytes, first; uint32_t disk; enum disk_format format; };
struct arriving_plan {
	uint32_t count;
	uint64_t blocks;
	char folder[PLAN_PATH_BYTES];
	struct arriving_file file[PLAN_ARRIVING];
};

struct disk_plan {
	uint32_t count;
	struct disk_choice disk[BLOCK_DISKS];
	struct disk_place place;
	struct arriving_plan arriving;
};

/* How many numbers its disks can have while it runs; a machine without disks gets none. */
static inline unsigned disk_places(const struct disk_plan *plan)
{
	const unsigned places = plan->count + BLOCK_HOT_DISKS;

	if (!plan->count)
		return 0;
	return places < BLOCK_DISKS ? places : BLOCK_DISKS;
}

enum net_choice_kind { NET_USER, NET_TAP, NET_SWITCH, NET_CHOICES };

/* Connections to a port of the host's; address: as it is on the wire. */
struct net_forward { uint32_t address; uint16_t host_port, guest_port; bool is_udp; };

struct net_choice {
	enum net_choice_kind kind;
	uint8_t mac[NET_MAC_BYTES];
	char name[PLAN_NET_NAME_BYTES]; /* of a tap or a switch, for messages */
	char path[PLAN_SOCKET_BYTES]; /* where a switch listens */
	bool host_loopback;
	uint32_t forwards;
	struct net_forward forward[PLAN_FORWARDS];
};

/* `mine`: of who serves one card, which. */
struct net_plan { uint32_t count, mine; struct net_choice card[NET_CARDS]; };

/*
 * Where programs of the host connect to the guest's: a socket, and in which folder others are
 * looked for; "": nowhere.
 */
struct relay_plan { char folder[PLAN_SOCKET_BYTES]; char name[RELAY_NAME_BYTES]; };

/* A port: as it joins the hub, which listens at `hub`; rules: the user's, perhaps not there. */
struct share_choice {
	struct wire_join join;
	char hub[PLAN_SOCKET_BYTES], rules[PLAN_PATH_BYTES];
};

/* `mine`: of who joins one port, which. */
struct share_plan { uint32_t count, mine; struct share_choice port[SHARE_PORTS]; };

struct plan {
	uint32_t magic, bytes;
	struct machine_plan machine;
	struct disk_plan disks;
	struct net_plan nets;
	struct relay_plan relay;
	struct share_plan shares;
	enum console_kind console;
	bool restores;
	bool folder_is_read_only, folder_is_alone; /* that is shared with a guest */
	bool adopts;                               /* its machine process runs already */
	int32_t machine_pid;                       /* then: which */
	int32_t early_machine, early_pager; /* that were begun for it: which */
	char source[PLAN_PATH_BYTES];              /* what it boots, for messages */
	char description[PLAN_DESCRIPTION_BYTES];  /* what umbra info says; "": it has no name */
};

/* How many ports its machine has. */
unsigned plan_ports(const struct plan *plan);
/* Zeros, with its head; NULL: no memory. */
struct plan *plan_new(void);
/* Sealed memory that holds as much of it as the role has to know; -errno. */
int plan_seal(const struct plan *plan, enum role role);
/* This process's own, at grant_fd(GRANT_PLAN); NULL: it has none that can be believed. */
const struct plan *plan_of_process(void);
/* Everything that a plan has to be. */
bool plan_is_sound(const struct plan *plan);
/* Where a relay listens: a path with a folder. 0 or -ENAMETOOLONG. */
int plan_set_relay(struct relay_plan *relay, const char *path);
/* A text into a plan: 0 or -ENAMETOOLONG. */
int plan_set_text(char *to, size_t room, const char *text);
