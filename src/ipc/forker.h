/*
 * The forker of a machine process: a process with the same memory, that forks it when its broker
 * says so and ends it when its broker is gone.
 *
 *   broker == ask ==> forker                         a byte: fork
 *          == kit ==> what was forked                its descriptors
 *          <== kit == what was forked, the forker   a byte; the kernel says who said it
 *
 * A machine process is taken for lost, and may not make processes. So somebody else forks it, and
 * that has to be a process with its memory. The forker shares nothing else with it: it has its own
 * descriptors (the two sockets and the machine process's), its own list of calls, and executes
 * nothing but one page of the program (forker.S), in which it uses no stack and believes no memory.
 *
 *   - Whoever writes to the memory cannot make the forker fork: only the broker writes to `ask`.
 *     Nor can he have it execute anything else: the page cannot be written, no call maps another
 *     that can be executed, and none takes it away or puts something in its place
 *     (CALL_OFF_PAGE). So the forker is there for as long as its machine, which it ends when the
 *     broker is gone; its data it may lose: it needs none for that.
 *   - What is forked is in the same page until it has closed the forker's sockets, has taken its
 *     own descriptors from its kit, has made a forker and its threads, no more than
 *     FORKER_THREADS_MOST, and has given up, by a filter that lies in the page, the right to make
 *     processes and threads, to name one, and to change or pass on descriptors. Its threads are in
 *     the page until they have that filter.
 *   - Then it goes on, on one thread, at the place that forker_set_place() was told: with the
 *     memory of that moment, apart from what is not inherited (MADV_DONTFORK), and with no
 *     descriptor but its kit's.
 */
#pragma once

#include <linux/filter.h>
#include <stdint.h>
#include <sys/types.h>

#include "forker_abi.h"
#include "net_card.h"
#include "role.h"
#include "share_port.h"

/* Where a thread can go on in a process that was forked meanwhile. */
struct fork_place {
	uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip, tls;
	uint32_t goes; /* a thread that waits to go on there may: a futex */
};

/*
 * 0; then 1 each time that a thread begins there. Who called it may not have returned by then;
 * what lies in its registers then, or was changed since, cannot be relied upon.
 */
int fork_place_take(struct fork_place *place) __attribute__((returns_twice));
/*
 * A thread goes on there in what is forked from now on, once fork_place_revive() lets it, with the
 * stack and the locals of the one that took it. -ENOSPC: there are FORKER_THREADS_MOST.
 */
int fork_place_enlist(struct fork_place *place);
void fork_place_delist(const struct fork_place *place);
void fork_place_revive(struct fork_place *place);

/*
 * Starts the forker of this process, which has given up its rights but the list of calls, and has
 * no other thread. calls: of ROLE_FORKER; they stay where they are until it is there. 0 or -errno;
 * FORK_ASK and FORK_KIT are closed then.
 */
int forker_start(const struct sock_fprog *calls);
/*
 * Once it was started, before there is another thread: it is there, and has its own list of calls,
 * as it says in the memory that it shares. 0 or -ETIMEDOUT.
 */
int forker_wait(void);
/* Where the one page is that the forker executes: 4096 bytes. */
uintptr_t forker_page(void);
/* What is forked from now on goes on there. */
void forker_set_place(struct fork_place *place);
/*
 * Each thread of what was forked, when it has much to do: until then it is on the processor of the
 * host's on which that began.
 */
void forker_leave_processor(void);
/* Once, in what was forked: closes what its kit was filled up with. */
void forker_keep(grant_set kept);

/* ---- the broker's side: its ends of the two sockets ---- */

/* The broker's end first; 0 or -errno. */
int forker_make_sockets(int ask[2], int kit[2]);
/* What is forked next shall have these (-1: none); RINGS, FORK_ASK, FORK_KIT have to be there. */
int forker_ask(int ask, int kit, const int fd[GRANTS]);
/*
 * Who has said something on the kit's socket: the forker when it begins, then what it has forked,
 * or again itself: it could not. The process's id; -EAGAIN: nothing yet; -errno: there is none.
 */
pid_t forker_hear(int kit);

/* ---- what one fork takes ---- */

/*
 * Descriptors that who asks a broker for a fork sends along, so many for each: the machine
 * process's, the machine's end of the next forker's sockets, both ends of the pipe on which it says
 * that it needs the other no more. Then those of each network card that the machine has, and of
 * each port.
 */
enum fork_kit {
	KIT_RINGS, KIT_TO_BROKER, KIT_TO_MACHINE, KIT_SLOTS, KIT_DOORBELL, KIT_ANSWER, KIT_CODE,
	KIT_CONNECTIONS, KIT_CONNECTION_BELL, KIT_ASK, KIT_KIT, KIT_READY, KIT_READY_HERE, KIT_FDS
};
enum fork_kit_card { KIT_CARD, KIT_CARD_BELL, KIT_CARD_ANSWER, KIT_CARD_FDS };
enum fork_kit_port { KIT_PORT, KIT_PORT_BELL, KIT_PORT_ANSWER, KIT_PORT_LINE, KIT_PORT_FDS };
enum {
	KIT_MOST_FDS = KIT_FDS + NET_CARDS * KIT_CARD_FDS + SHARE_PORTS * KIT_PORT_FDS
};
/* Of a machine with so many cards: where its ports' begin; and with so many ports. */
static inline unsigned fork_kit_ports_at(unsigned cards) { return KIT_FDS + cards * KIT_CARD_FDS; }
static inline unsigned fork_kit_fds(unsigned cards, unsigned ports)
{
	return fork_kit_ports_at(cards) + ports * KIT_PORT_FDS;
}
/* The same for forker_ask(). */
void fork_kit_grants(const int kit[KIT_MOST_FDS], unsigned cards, unsigned ports, int fd[GRANTS]);
/*
 * At one moment: as many as who asks reads of before his socket is full, and of a machine without
 * ports as descriptors that a broker may have where the host permits 4096.
 */
enum { FORK_CHILDREN = 128, FORK_FDS = FORK_CHILDREN * KIT_MOST_FDS + 512 };
