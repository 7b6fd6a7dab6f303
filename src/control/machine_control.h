/*
 * The control socket of a machine, on the broker's side: peers, who are the user (the socket's
 * folder is his alone), ask by the control protocol (protocol.h, umbra-control(7)):
 *
 *   info     "machine": what the machine is, with what it says of itself; of one whose memory is
 *            still coming how many bytes of it, "remote", and of its disks, "remote-disks"
 *   stop     as SIGTERM, so that it may take half a minute, and a second one does not wait; the
 *            connection ends with the machine
 *   kill     at once
 *   memory   how many bytes the guest shall have; 0: what it asks for. info says what came of it
 *   watch    "machine", as info; then a line with it again whenever the machine has said something
 *            new. With the first come descriptors of what its process occupies, where there are
 *            any (/proc/PID/statm, smaps_rollup)
 *   advise   how many bytes the guest shall have as long as nothing is set, until the peer that
 *            says so is gone; 0: what it asks for
 *   narrow   from now on this connection may only watch, advise, and ask for info: for who is not
 *            trusted with more. Nothing widens it again
 *   save     {"data":N} and N bytes, as often as needed; then success: everything was said, and the
 *            machine stands still until resume or
 *            stop, or until the peer is gone; or a failure: it runs
 *   pause    it stands still until resume, and stays so when the peer is gone
 *   resume   after a save, a pause, or a fork that left it standing
 *   registers
 *            "processors": where they are, once the machine has said so
 *   kit      nothing: brings descriptors for one more fork (ipc/forker.h)
 *   layer    nothing: brings an empty file, "file", that disk number "disk" goes on in when it is
 *            forked next
 *   fork     forks it once for each kit that this connection has brought, this line's included:
 *            {"child":N,"pid":P} for each, with its descriptor; then success. "parent": what it
 *            does then: keep (goes on), suspend (stands until resume), hold (the same, or until
 *            the peer is gone), end. With "asked" it is what its guest has asked for by that
 *            number, unless that is not wanted any more: "number" is then the child's. Of a
 *            machine that holds secrets "secrets" has to be "copied". With layers and without a
 *            kit its disks go on in the layers, and that is all
 *   forks    from now on this connection may have it forked for its guest, of one at a time:
 *            {"wanted":N} when that asks, {"unwanted":N} when it does not want it any more
 *   forked   "number": what came of wish N: "child", or "errno"
 *   chain    nothing: brings an open file, "file", of "format", for a disk that is attached next;
 *            the lowest parent comes first. With "side" 1 what lies beside it has come after it
 *   attach   the disk whose files this connection has brought, "readonly" where that is 1, or with
 *            "dvd" 1 as a disc (none: a drive without one); answered with its number, "disk"
 *   detach   "disk": once nothing of it is under way; of a drive with a disc that
 *   grow     "disk", "size": in bytes, larger than before
 *   freeze   has the guest's file systems stand still, until thaw, or until the peer is gone;
 *            answered once they do
 *   thaw
 *   type     "codes": keys pressed and let go, as scan codes of set 1 in hexadecimal
 *   screenshot
 *            {"data":N} and N bytes, a row of the guest's screen, 3 bytes for a pixel, as often as
 *            there are rows; then success with "width" and "height"
 *   block    {"data":N} and N bytes, as often as needed: listings (ipc/code_listing.h) of what is
 *            translated at address "at", as the page tables at "root" have it (both in
 *            hexadecimal); then success
 *   trace    {"data":N} and N bytes, a struct trace_record (ipc/trace_ring.h) each 32, whenever the
 *            machine has left any of "kinds"; after "milliseconds" success, with how many were
 *            "dropped" since nobody took them in time. It ends with its connection, too
 *   copy     begins a file in the guest, of "bytes" bytes, "name" in "folder" (a daemon of the
 *            guest's makes it); piece: "data" of it, in base64; finish: it is complete, or
 *            with "incomplete" 1 given up. It is so, too, a while after the peer is gone
 *
 *  1. Whoever has the machine saved, forked, held, frozen, or is waited for otherwise, is a peer
 *     that is connected: of one that has gone away nobody is left.
 *
 *   - Once there is no room for one more record for the peer that saves, what the machine has said
 *     goes out before more of it is taken.
 *     A peer that does not read holds up its save and the console, nobody else's stop or kill.
 *   - A peer that goes away lets the machine go on; what it was being told is thrown away.
 *   - CONTROL_PEERS at a time; others wait to be accepted.
 */
#pragma once

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/forker.h"
#include "ipc/record_ring.h"
#include "protocol.h"

enum {
	CONTROL_PATH_BYTES = 4096,
	CONTROL_LAYERS = 16,
	CONTROL_LINE_BYTES = CONTROL_PATH_BYTES + 1024, /* of a request */
	CONTROL_HEAD_BYTES = CONTROL_ID_BYTES + 32,
	CONTROL_RECORDS = 16,
	CONTROL_OUT_BYTES =
		(CONTROL_RECORDS + 1) * (RING_RECORD_MAX_BYTES + CONTROL_HEAD_BYTES) + 16384,
};
enum { CONTROL_PEERS = 7 /* two watch, one is a door */, CONTROL_FDS = 1 + CONTROL_PEERS };
enum { CONTROL_OCCUPIED_FDS = 2, CONTROL_ANSWER_MS = 120000 };
enum { CONTROL_TRACE_MS = 3600000 /* at most */ };
enum control_save { SAVE_NONE, SAVE_RUNS, SAVE_LAYERS, SAVE_HELD };
/* What the broker has to do about a line. */
enum control_wish {
	WISH_NOTHING,
	WISH_STOP,
	WISH_KILL,
	WISH_SAVE,
	WISH_RESUME,
	WISH_MEMORY,
	WISH_LOOK,
	WISH_ADVICE,
	WISH_WATCH,
	WISH_NARROW,
	WISH_KIT,
	WISH_LAYER, /* the layers that have come are to be put on: the machine stands still */
	WISH_FREEZE,
	WISH_THAW,
	WISH_FORK,
	WISH_PAUSE,
	WISH_TYPE,
	WISH_SHOW,
	WISH_LIST,
	WISH_COPY,
	WISH_COPY_PIECE,
	WISH_COPY_END,
	WISH_CHAIN,
	WISH_ATTACH,
	WISH_DETACH,
	WISH_RESIZE,
	WISH_DISK, /* control.change is to be done */
	WISH_TRACE, /* others are to be traced: control.trace.wanted */
	WISH_FORKS,
	WISH_FORKED,
	WISH_FORK_ENDED, /* the machine is to be told control.guest_fork.ended */
	WISH_ASK /* the machine is to be told what `ask` has */
};

/* What a peer says and is told: memory that is not touched before there is one. */
struct control_room {
	char line[CONTROL_LINE_BYTES];
	uint8_t out[CONTROL_OUT_BYTES];
	int kits[FORK_CHILDREN * KIT_MOST_FDS];
};

struct control_peer {
	int fd; /* -1: nobody */
	struct control_room *room;
	size_t line_used;
	size_t out_at, out_used;
	char save_id[CONTROL_ID_BYTES]; /* of the request whose save, or fork, it is */
	unsigned kit_fds;
	bool has_lost; /* descriptors that it has brought: there were too many */
	char look_id[CONTROL_ID_BYTES]; /* of the one that waits for registers */
	bool wants_registers;
	char watch_id[CONTROL_ID_BYTES];
	/* is_behind: something new was said while it did not read; or there is no machine yet */
	bool watches, has_watched, is_behind;
	bool is_narrow; /* it may advise, and hear */
};

/* What a disk goes on in. */
struct control_layer {
	uint32_t disk;
	int file; /* -1: it was passed on */
	char path[CONTROL_PATH_BYTES];
};

/* Files of a disk that is to come: of one peer at a time. */
struct control_file { unsigned fds; int fd[2]; char format[16], path[CONTROL_PATH_BYTES]; };
struct control_chain {
	struct control_peer *of; /* NULL: nobody's */
	unsigned count;
	struct control_file file[CONTROL_LAYERS];
};

/* A disk that comes, goes or grows, while control.ask is about that. */
struct control_change {
	struct record_disk record;
	bool read_only, is_dvd;
	bool is_gone; /* the machine has let go of it: it is not there, whatever comes after */
	uint64_t size_bytes;
	json_t *about; /* what is said of it then; NULL: it is gone */
};

/* What one peer at a time asks of the machine (RECORD_DONE in ipc/record_ring.h). */
struct control_ask {
	bool runs;
	struct control_peer *peer; /* NULL: who asked is gone */
	char id[CONTROL_ID_BYTES];
	uint32_t kind, bytes;
	uint8_t data[RING_RECORD_MAX_BYTES];
};

/* Of one peer at a time. */
struct control_trace {
	struct control_peer *peer; /* NULL: nobody's */
	char id[CONTROL_ID_BYTES];
	uint32_t wanted; /* 0: it is over */
	uint64_t milliseconds;
	bool has_changed; /* and the broker was not told yet */
};

/* What is waited for (machine_late.c). */
enum control_answer { ANSWER_ASK, ANSWER_FREEZE, ANSWER_LOOK, ANSWER_SAVE, CONTROL_ANSWERS };
struct control_wait {
	uint64_t until_ms; /* 0: nobody waits */
	bool has_news; /* somebody asks, or something was answered, since that was looked at */
};

/* What the guest has asked for (machine_wishes.c). */
enum guest_fork_state { GUEST_FORK_NONE, GUEST_FORK_WISHED, GUEST_FORK_BEGUN, GUEST_FORK_OVER };
struct control_guest_fork {
	enum guest_fork_state state;
	struct control_peer *door; /* who may have it forked for its guest; NULL: nobody */
	char id[CONTROL_ID_BYTES];
	uint64_t number; /* of the last wish */
	/* of the fork that has begun: which child that is, as who asked for it says; whether it is
	 * there, once that is over */
	uint32_t child;
	bool is_made;
	struct record_fork_ended ended;
};

struct control {
	int listener; /* closed by control_end(); -1: none */
	json_t *description; /* an object, or NULL */
	int process; /* the machine process's id */
	struct record_state state;
	bool has_state, has_begun;
	json_t *keys; /* what the guest's daemons say; NULL: nothing */
	struct control_peer *freezer; /* who has it frozen, or thawed; NULL: nobody, or is gone */
	char freeze_id[CONTROL_ID_BYTES];
	unsigned freezes; /* answers of the machine's that are to come */
	bool fork_end_is_due; /* nobody else tells its guest what became of its fork */
	bool is_frozen, thaw_is_due; /* due: who had it frozen is gone */
	uint64_t memory_bytes; /* of the last WISH_MEMORY */
	uint64_t advice_bytes; /* of the last WISH_ADVICE */
	struct control_peer *adviser;
	bool advice_is_dropped; /* the adviser is gone, and the machine was not told yet */
	/* of memory, and of disks, still to come; NULL: nothing */
	const _Atomic uint64_t *remote_bytes, *remote_disk_bytes;
	int occupied_fd[CONTROL_OCCUPIED_FDS]; /* for who watches; the first -1: there are none */
	unsigned looks; /* how often the machine was asked for registers, and has not answered */
	enum control_save save;
	/* Whose save it is; NULL: of one that is gone, and nobody hears of the rest. */
	struct control_peer *saver;
	bool can_fork, can_stand, forks;
	bool door_comes; /* whoever has the machine forked for its guest has not come yet */
	unsigned kit_fds; /* how many descriptors a kit has */
	bool is_left; /* nobody waits for the fork, or save, that is still under way */
	bool fork_waits; /* WISH_FORK, and the kits were not taken: the asker can still go away */
	struct control_peer *forker; /* as saver */
	unsigned layers;
	struct control_peer *layers_of; /* who has brought them; NULL: nobody, or they are used */
	bool unsettled;                 /* the answer to a fork waits for control_settled() */
	int fork_error;
	unsigned fork_children;
	enum control_wish after_fork; /* of the parent: resume, nothing, or stop */
	bool suspended;
	struct control_peer *holder; /* for whom it stands still, and no longer; NULL: nobody */
	struct control_peer *copier; /* whose file is on its way; NULL: nobody's */
	struct control_change change;
	unsigned disk_places; /* numbers that disks can have; 0: none can come */
	struct control_trace trace;
	unsigned answer_ms; /* for so long a peer waits for the machine */
	struct control_wait wait[CONTROL_ANSWERS];
	struct control_guest_fork guest_fork;
	struct control_peer peer[CONTROL_PEERS];
	/* what follows is not touched before it is needed: a child of a fork shall be small */
	struct control_ask ask;
	struct control_chain chain;
	char counters[RING_RECORD_MAX_BYTES + 1]; /* printable: what the machine counts */
	struct control_layer layer[CONTROL_LAYERS];
	struct control_room room[CONTROL_PEERS];
};

/* description: a JSON object as text, ""; before lock-down. */
void control_init(struct control *control, int listener, const char *description);
/* Invariant 1. */
void check_control(const struct control *control);
/* What the machine says of itself. */
void control_set_state(struct control *control, const struct record_state *state);
/* Lines KEY=VALUE, printable. */
void control_set_keys(struct control *control, const char *text);
/* What became of WISH_FREEZE or WISH_THAW. False: nobody has asked. */
bool control_frozen(struct control *control, int error);
/* Of what was asked: a row of the screen; its end. False: nobody has asked for it. */
bool control_shown(struct control *control, const uint8_t *data, uint32_t bytes);
bool control_asked(struct control *control, const struct record_done *done);
/* After WISH_DISK: its end, 0 or -errno. Whether the disk process has a file of it. */
void control_disk_changed(struct control *control, int error);
bool control_disk_has_file(const struct control *control);
/* The files were passed on, or are nobody's any more. */
void control_chain_close(struct control *control);
/*
 * After WISH_TRACE. How many bytes its peer can be told now: none while it has not taken what it
 * was told before.
 */
size_t control_trace_room(const struct control *control);
void control_traced(struct control *control, const void *data, uint32_t bytes);
/* Its time is over; WISH_TRACE follows, with nothing wanted. */
void control_trace_end(struct control *control, uint64_t dropped);
/*
 * At this time, after a turn: whoever waits for the machine may have waited for long enough. When
 * that has to be looked at again; 0: nobody waits.
 */
uint64_t control_look_at_time(struct control *control, uint64_t now_ms);
/* There is no room for another record. */
bool control_is_full(const struct control *control);
/* Somebody has said something that has not been looked at; control_turn() need not wait. */
bool control_has_line(const struct control *control);
/* What to poll for: CONTROL_FDS entries. */
void control_events(const struct control *control, struct pollfd fds[CONTROL_FDS]);
/*
 * After poll(): what came is taken, what can go out goes. Calls wish for everything that the broker
 * has to do.
 */
void control_turn(struct control *control, const struct pollfd fds[CONTROL_FDS],
		  void (*wish)(void *context, enum control_wish wish), void *context);
/*
 * What the machine says of a save: bytes, and the end with 0 or -errno. False: nobody has asked for
 * one.
 */
bool control_saved(struct control *control, const uint8_t *data, uint32_t bytes);
/* Where the processors are. False: nobody has asked. */
bool control_looked(struct control *control, const struct record_registers *registers,
		    unsigned count);
bool control_save_ended(struct control *control, int error, enum control_wish *ret);
/* After WISH_LAYER: its disks go on in them, and what is beneath is for good; or error. */
enum control_wish control_save_layered(struct control *control, int error);
/*
 * After WISH_FORK, while fork_waits: the kits, of kit_fds each, which are no longer the peer's; how
 * many.
 */
unsigned control_take_kits(struct control *control, int kits[FORK_CHILDREN * KIT_MOST_FDS]);
/* One more is there; pidfd goes along. False: nobody takes it. */
bool control_forked(struct control *control, unsigned child, int pid, int pidfd);
/*
 * The guest wants the machine forked, or no longer; *ret: WISH_FORK_ENDED, or nothing. False: it
 * wants that already.
 */
bool control_guest_forks(struct control *control, bool is_wanted, enum control_wish *ret);
/* Whoever was to come for that (door_comes) is not waited for any longer; as *ret above. */
enum control_wish control_door_is_late(struct control *control);
/* A disk goes on in this layer: it is what info names. */
void control_layer_is_on(struct control *control, unsigned layer);
/*
 * All are there, or error. What the machine does then. Unless it is settled control_settled()
 * follows.
 */
enum control_wish control_fork_ended(struct control *control, int error, unsigned children,
				     bool is_settled);
/*
 * Its asker, or the saver's, hears that error, and waits for nothing more; the end follows all the
 * same. Layers that nobody was asked for are nobody's.
 */
void control_fork_is_left(struct control *control, int error, bool layers_are_asked);
/*
 * That takes too long: whoever asked for a fork hears that error. Until control_settled() the
 * machine is not forked or saved.
 */
void control_leave_settling(struct control *control, int error);
/* What is beneath the layers is as its children need it, or error. */
void control_settled(struct control *control, int error);
/* The machine has ended: what can go out at once goes, and the peers are left. */
void control_end(struct control *control);
/* The machine is there, and what it occupies is known: who watches waits for that. Once. */
void control_began(struct control *control);
