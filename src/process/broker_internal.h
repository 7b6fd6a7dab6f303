/* Inside the broker; what it is to who uses it is broker.h's. */
#pragma once

#include "broker.h"
#include "broker_disks.h"
#include "broker_fork.h"
#include "broker_trace.h"
#include "control/machine_control.h"
#include "errors.h"
#include "life.h"
#include "perf_map.h"
#include "rejoin.h"
#include "terminal.h"

enum { INPUT_BYTES = 512 };

/* What the machine process is still to be told, in this order. */
enum message {
	SAY_STOP,
	SAY_SAVE,
	SAY_SHUT_DOWN,
	SAY_MEMORY,
	SAY_ADVICE,
	SAY_RESUME,
	SAY_LOOK,
	SAY_FREEZE,
	SAY_THAW,
	SAY_FORK,
	SAY_ASK,
	SAY_TRACE,
	SAY_FORK_ENDED,
	SAY_REJOIN,
	SAY_GO_ON,
	MESSAGES
};

struct helper { enum role role; pid_t pid; int end_fd; };

struct broker {
	struct broker_end *end;
	struct broker_memory *memory;
	struct ring_end from_machine, to_machine;
	int rings_fd, event_from, event_to, signals, input;
	pid_t machine;
	bool machine_exited, stuck_told;
	bool adopted; /* the machine process is not its child */
	bool shut_down_waits; /* until the guest goes on */
	struct fork fork;
	struct disk_work disks;
	struct helper helper[HELPERS_MOST];
	unsigned helpers, helper_ms;
	uint64_t answers_due_ms; /* whoever waits for the machine has waited enough then; 0 */
	uint64_t door_until_ms; /* whoever is to have it forked for its guest comes by then; 0 */
	struct errors errors;
	struct life life;
	unsigned unsaid; /* a set of enum message */
	uint8_t pending[INPUT_BYTES];
	size_t pending_used;
	struct console console;
	struct terminal terminal;
	struct control control;
	struct tracer tracer;
	struct perf_map perf_map;
	struct rejoin rejoin;
};

/* broker.c */
/* The machine process is to be told that, too, as soon as its ring has room. */
void broker_say(struct broker *b, enum message message);
/* It ends, and so does the machine process; the first outcome is the one that is told. */
void broker_kill(struct broker *b, enum broker_outcome outcome);
/* What somebody who asks has wished is begun; context: the broker. */
void broker_grant(void *context, enum control_wish wish);
/* Of processes that have ended, unless a fork is being made: their numbers have to stay theirs. */
void broker_take_ends(struct broker *b);

/* broker_forking.c */
/* There is something to hear at the kit's socket, or in the pipe of who is made. */
void broker_fork_turn(struct broker *b, bool socket, bool pipe);
/* After everything else of a turn: whoever is waited for may have had enough time. */
void broker_fork_look_at_time(struct broker *b, uint64_t now_ms);
/* The disk process has said something: of layers, or of a disk that comes, goes or grows. */
void broker_layers_heard(struct broker *b);
/* The disks of a machine that was saved, and stands, go on in layers. */
void broker_begin_layers_of_save(struct broker *b);
void broker_save_turn(struct broker *b);
/* Records of the machine's: RECORD_FORK_READY and RECORD_WANT_FORK. False: rubbish. */
bool broker_take_fork_ready(struct broker *b, const uint8_t *data, uint32_t bytes);
bool broker_take_want_fork(struct broker *b, const uint8_t *data, uint32_t bytes);
