/*
 * The processes of one machine: what each is given, and what is left to it. Every process but the
 * forker, and the broker of a forked machine (cli/fork_child.c) or of one that goes on from a file
 * (cli/run.c), is started by execve with its own memory (spawn.h), gets exactly the descriptors of
 * its row, and keeps exactly the system calls of its row (lockdown.h).
 *
 *   role      is given                                           namespaces of its own
 *   machine   rings, events, slots of the disks, what it boots   all, from its first instruction;
 *                                                                an empty root
 *   broker    rings, events, terminal, control socket            all, before its guest runs
 *   disk      slots, events; it opens the disks itself           all, before the disks are read
 *   keeper    memory and pipes of what lies beside disks         all; files in the folders of the
 *             disks are left
 *   supervisor  one network card's memory and pipes, or what     none: it starts net processes or
 *             a relay is given, with a list of calls and the     the relay
 *             user's files, and looks at nothing that a guest can write
 *   switch    the socket where net processes join it, and   all
 *             their lines
 *   relay     connections' memory and events, the socket where  all; the folder of that socket
 *             programs of the host connect                      stays its working directory
 *   balancer  the socket where machines are brought to it       all, once it has opened what
 *             says how the host's memory is
 *   net       one network card's memory and pipes; it opens      all, but the network
 *             ports itself
 *   line      one network card's memory and pipes, and a tap or  all
 *             a switch's line: a net process that opens nothing
 *   joiner    one port's memory and events (share_port.h),  none: it joins the hub and starts it
 *             a pipe   as a supervisor does, and looks at nothing that a guest can write
 *   hub       the socket where joiners come, their lines,   all
 *             and memory and events of ports
 *   pager     a saved machine's file, a line by which its     all, before the file is read
 *             machine process says where its pages go
 *   folder    a folder of the user's, and a line to an agent   all; the folder is its root
 *   wire      a connection to another host, a line to who      all, once it has the key
 *             started it, a key: umbra-wire, another program
 *   forker    two sockets of the broker's (forker.h)             the machine process's, whose
 *             memory it shares
 *
 *   - A descriptor has the same number in every process: grant_fd(). What is not in a process's row
 *     is closed before it begins.
 *   - A row of system calls is complete: any other call, or one whose arguments are not as its row
 *     says, ends the process.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum role {
	ROLE_MACHINE,
	ROLE_BROKER,
	ROLE_DISK,
	ROLE_KEEPER,
	ROLE_SUPERVISOR,
	ROLE_NET,
	ROLE_LINE,
	ROLE_FORKER,
	ROLE_SWITCH,
	ROLE_RELAY,
	ROLE_JOINER,
	ROLE_HUB,
	ROLE_BALANCER,
	ROLE_PAGER,
	ROLE_FOLDER,
	ROLE_WIRE,
	ROLES
};

enum grant {
	GRANT_PLAN,        /* sealed memory: what the process shall do (process/plan.h) */
	GRANT_PROGRAM,     /* this program, to start the other roles from */
	GRANT_RINGS,       /* memory: struct broker_memory */
	GRANT_TO_BROKER,   /* event: a record is in the ring to the broker */
	GRANT_TO_MACHINE,  /* event: a record is in the ring to the machine */
	GRANT_SLOTS,       /* memory: struct block_memory */
	GRANT_DOORBELL,    /* event: requests are in the slots */
	GRANT_ANSWER,      /* event: replies are in the slots */
	GRANT_READY,       /* pipe: a byte once a helper can serve */
	GRANT_END,         /* pipe: closed once the machine is gone */
	GRANT_KERNEL,      /* what the machine boots, read only */
	GRANT_INITRD,
	GRANT_SAVED,
	GRANT_CONSOLE,     /* where the guest's console goes, when that is a file */
	GRANT_CONTROL,     /* a socket that listens (control/machine_control.h) */
	GRANT_SIDE,        /* memory: struct keeper_memory (process/keeper.h), or pager_left */
	GRANT_ASK_OUT,     /* pipe: a byte for each request to the keeper: the disk process's end */
	GRANT_ASK_IN,      /* the keeper's */
	GRANT_TOLD_OUT,    /* pipe: a byte for each answer: the keeper's end */
	GRANT_TOLD_IN,     /* the disk process's */
	GRANT_MACHINE,     /* the machine process, to be killed */
	/* of each of NET_CARDS cards (net_card.h): the machine process has them by number */
	GRANT_CARDS,       /* memory: struct net_card_memory */
	GRANT_CARDS_LAST = GRANT_CARDS + 3,
	GRANT_CARD_BELLS,  /* pipe: a byte or more, requests are in its slots */
	GRANT_CARD_BELLS_LAST = GRANT_CARD_BELLS + 3,
	GRANT_CARD_ANSWERS, /* pipe: the same of replies; this end is read */
	GRANT_CARD_ANSWERS_LAST = GRANT_CARD_ANSWERS + 3,
	GRANT_CARD_TAPS,   /* its tap; the broker's, to be given away */
	GRANT_CARD_TAPS_LAST = GRANT_CARD_TAPS + 3,
	/* the one card of who serves it */
	GRANT_CARD,
	GRANT_CARD_BELL,   /* this end is read */
	GRANT_CARD_ANSWER,
	GRANT_TAP,
	GRANT_LAYERS,      /* socket: files that disks go on in (process/layer.h) */
	GRANT_CONNECTIONS, /* memory: struct connection_memory (connection_slots.h) */
	GRANT_CONNECTION_BELL, /* event: requests are in its slots */
	GRANT_CODE,        /* memory for a forked machine's translated code */
	/* of each of SHARE_PORTS ports (share_port.h): the machine process has them by number */
	GRANT_PORTS,       /* memory: struct share_memory */
	GRANT_PORTS_LAST = GRANT_PORTS + 1,
	GRANT_PORT_BELLS,  /* event: requests are in its slots */
	GRANT_PORT_BELLS_LAST = GRANT_PORT_BELLS + 1,
	GRANT_PORT_ANSWERS, /* event: replies are */
	GRANT_PORT_ANSWERS_LAST = GRANT_PORT_ANSWERS + 1,
	GRANT_WINDOW_LINES, /* socket: windows come from the joiner (port_window.h) */
	GRANT_WINDOW_LINES_LAST = GRANT_WINDOW_LINES + 1,
	/* what a forked machine is given lies before these (forker_abi.h) */
	GRANT_FORK_ASK,    /* socket: a byte for each fork that the forker shall make */
	GRANT_FORK_KIT,    /* socket: what a forked machine is given, and who it is (forker.h) */
	GRANT_FORK_SELF,   /* the machine process, as its forker knows it */
	GRANT_LISTENER,    /* the socket where programs of the host connect to the guest's */
	/* the one port of who joins it */
	GRANT_PORT,
	GRANT_PORT_BELL,
	GRANT_PORT_ANSWER,
	GRANT_WINDOW_LINE, /* the joiner's end */
	GRANT_PAGER,       /* socket: a machine process and its pager (vm/demand.h), an end each */
	GRANT_PAGES,       /* socket: what there is of a file that is being filled */
	GRANT_EXTENTS,     /* socket: what is wanted of disks that arrive (process/extents.h) */
	GRANT_EXTENT_BITS, /* memory: what has come of them; read only */
	GRANT_FOLDER,      /* a folder of the user's, as a path */
	/* of who starts others, and of these: an empty file system (lockdown_to_start()) */
	GRANT_ROOT,
	GRANT_EARLY, /* socket: the other descriptors are still to come (early.h) */
	/* of the broker of one of several children (lockdown_make_room()) */
	GRANT_ROOM,      /* a process in the namespaces that they share */
	GRANT_ROOM_LINE, /* socket: it ends when nobody has this */
	/* of a broker: these ends, of a machine process and a pager that were begun for it */
	GRANT_EARLY_MACHINE,
	GRANT_EARLY_PAGER,
	GRANT_PAGEMAP, /* of the machine process, in its broker (process/rejoin.h) */
	GRANTS,
	/* umbra-wire has no plan: these are descriptors 3, 4 and 5 in any case */
	GRANT_WIRE_CONNECTION = GRANT_PLAN, /* a socket of the Internet */
	GRANT_WIRE_LINE = GRANT_PROGRAM, /* socket: what is said, in the clear */
	GRANT_WIRE_KEY = GRANT_RINGS, /* closed before anything is heard */
};

enum { GRANT_FIRST_FD = 3 };
/* In a broker: where the processes lie that serve its machine, to be killed. */
enum { HELPERS_MOST = 12, HELPERS_FIRST_FD = 240 };

/* Any of them: a bit each, of which there are as many as there may ever be grants (role.c). */
typedef unsigned __int128 grant_set;
#define GRANT(grant) ((grant_set)1 << (grant))
static inline int grant_fd(enum grant grant) { return GRANT_FIRST_FD + (int)grant; }

/* What has to be true of a call's arguments. */
enum call_condition {
	CALL_ANY,
	CALL_ON_GRANTS, /* argument 0 is one of these descriptors */
	CALL_OWN_PROCESS, /* argument 0 is this process */
	CALL_ON_PROCESSES, /* argument 0 is the machine process, or one that serves it */
	CALL_NO_EXECUTION, /* argument 2 has no PROT_EXEC */
	CALL_ANONYMOUS, /* the same, and argument 3 has MAP_ANONYMOUS and is of nobody else's */
	CALL_OWN_MEMORY, /* CALL_ANONYMOUS, and it replaces nothing of the forker's page */
	CALL_OWN_OR_WINDOW, /* CALL_OWN_MEMORY, or a window that has come, without PROT_EXEC */
	CALL_RECEIVED, /* argument 0 is the descriptor that has come (port_window.h) */
	CALL_OFF_PAGE, /* arguments 0 and 1 are no place in the forker's page */
	CALL_WAIT_OR_WAKE, /* argument 1 only waits or wakes, without priority inheritance */
	CALL_GIVE_BACK, /* argument 2 gives memory back, sizes its pages, or keeps it from a fork */
	CALL_EMPTY, /* CALL_GIVE_BACK, or argument 2 empties what is shared, or asks for pages */
	CALL_TERMINAL, /* of standard input, argument 1 reads or sets a terminal's attributes */
	CALL_LOCKS, /* argument 1 is about locks of the file */
	CALL_SEALS, /* argument 1 adds seals to memory */
	CALL_RING_ENTER, /* argument 3 only waits or wakes */
	CALL_ON_OPEN_FILE, /* argument 3 says that there is no path; else it is refused */
	CALL_READABLE_BYTES, /* argument 1 asks how many bytes can be read */
	CALL_BLOCKING, /* argument 1 is about whether a descriptor blocks, or execve closes it */
	CALL_INTERNET, /* TCP or UDP over IPv4 or IPv6; others of these are refused, or end it */
	CALL_LOCAL, /* argument 0 is of sockets of this host, argument 1 of streams */
	CALL_READS_ONLY, /* argument 2 opens for reading, and makes nothing */
	CALL_REFUSED, /* never: it fails with EACCES, and does not end the process */
	CALL_OWN_OR_RECEIVED, /* of forked_calls alone: private memory, or argument 4 has come */
	CALL_NEVER, /* of forked_calls alone: it ends the process */
	CALL_THREAD, /* argument 0 makes a thread of this process */
	CALL_UNKNOWN, /* it fails as if the host did not know it */
	CALL_FILE_CONTROL, /* argument 1 asks for flags or locks, or copies the descriptor */
	CALL_OWN_MAPPING, /* CALL_OWN_MEMORY, or shared: of its rings, slots, cards, code */
	CALL_FORK, /* argument 0 is flags of the forker's: a fork, a forker, a thread */
	CALL_FILTER, /* arguments 0 and 1 add a list of calls, and nobody who answers for it */
	CALL_TAKE_PLACE, /* pages take others' place, or leave their own: arguments 0 to 4 */
	CALL_GS, /* argument 0 sets the base of GS */
	CALL_PAGES, /* argument 1 brings pages that are missed, or is done with that */
	/* of who starts other roles, and of these until they give up more */
	CALL_PROCESS, /* argument 0 makes a process with memory of its own */
	CALL_BY_DESCRIPTOR, /* argument 4 says that there is no path */
	CALL_NOT_BOTH, /* argument 2 is not both PROT_WRITE and PROT_EXEC */
	CALL_OPENS, /* CALL_READS_ONLY, or a file is made that was not there, as resolv.conf is */
	CALL_OF_COPY, /* argument 1 is a mode that nobody may write by */
	CALL_DESCRIPTORS, /* argument 1 copies a descriptor, or is about its flags or seals */
	CALL_GIVE_UP, /* argument 0 takes rights from this process, or has it end */
	CALL_OWN_ONLY, /* argument 0 is 0: of nobody else */
	CALL_SOCKETS, /* CALL_INTERNET, or streams or packets of this host */
	CALL_CARDS, /* CALL_READABLE_BYTES, or argument 1 is about a tap's frames */
};

/* Without a pointer: each process of a machine would have to write an address into each row. */
struct role_call {
	char name[24]; /* none: the end */
	uint32_t number;
	enum call_condition condition;
	grant_set grants;
};

struct role_description {
	const char *name;
	grant_set grants;
	/*
	 * How many of descriptors 0, 1, 2 it keeps, from the end: 3 all, 1 standard error, which is
	 * grants.errors.
	 */
	unsigned stdio;
	/* clone() flags with which it begins, where the host permits them. */
	int spawn_namespaces;
	/* unshare() flags with which it goes on after lockdown_before_threads(). */
	int own_namespaces;
	/* With namespaces of its own: no file is left, not even to be asked for. */
	bool empties_root;
	/* Of files there is left a copy of what names the host's name servers. */
	bool keeps_resolver;
	/* Landlock lets it connect to whom it wants. */
	bool connects;
	/* The other ones end in their own time: nothing may be lost. */
	bool dies_with_parent;
	/* Landlock keeps its signals to itself, where the host has that. */
	bool signals_nobody;
	const struct role_call *calls; /* ended by one without a name; NULL: it keeps all */
	/*
	 * What is left before that, while it opens what others made (lockdown_for_opening()); NULL:
	 * it opens nothing. Any other call fails.
	 */
	const struct role_call *opening_calls;
	/*
	 * Of who starts other roles, instead of `calls`: all of these inherit it, so it has what
	 * they need to begin, and what they keep (lockdown_to_start()). Any other call fails.
	 */
	const struct role_call *starting_calls;
	/*
	 * Of one that was forked, and has the forker's list already: of these calls it keeps what
	 * the row says, and all others as they are. Together no more than `calls`, and the end of a
	 * pipe (GRANT_READY).
	 */
	const struct role_call *forked_calls;
};

const struct role_description *role_describe(enum role role);
/* Of who starts what listens at a place where others meet, besides its starting_calls. */
extern const struct role_call meeting_calls[];
/* -ENOENT */
int role_find(const char *name, enum role *ret);
/* Which descriptors this process was given; before it opens anything. */
grant_set role_grants_here(void);
/* Whether this one is among them. */
bool role_was_given(enum grant grant);
