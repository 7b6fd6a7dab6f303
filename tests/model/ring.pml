/*
 * A ring with long work and cancellation (src/hv/extension/packet_ring.c, src/hv/extension/work.c), small: ENTRIES places, IDS requests, one guest, one
 * processor in the doorbell, one worker.
 *
 * Checked: every request has exactly one outcome and its completion is read once; no completion overwrites one that was not read;
 * the guest that asks for events and then sleeps is woken; everything ends. Defining one of the BUGs must make it fail
 * (tests/model/run): BUG_ROOM forgets work under way when it looks for room, BUG_ORDER tells before it has written, BUG_WISH asks
 * for events after the last look, BUG_TWICE lets a cancelled request finish as well.
 */
#define ENTRIES 2
#define IDS 4

mtype = { FREE, QUEUED, RUNNING, FINISHED };

byte request_tail, request_head;       /* in guest memory; the host's own head is the same variable, nobody else writes it */
byte completion_tail, completion_head; /* counting, not wrapped */
byte slot[ENTRIES];                    /* id + 1 of a completion not yet read, 0 empty */
byte written;                          /* completions written, the host's own tail */
bool wants, event;
mtype state[IDS];
bool cancel[IDS];
byte outcomes[IDS], read_by_guest[IDS];
byte in_flight;
bool lock, over;

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

inline complete(id)
{
	outcomes[id]++;
#ifdef BUG_ORDER
	completion_tail = written + 1;
#endif
	assert(slot[written % ENTRIES] == 0);
	slot[written % ENTRIES] = id + 1;
	written++;
	completion_tail = written;
	if
	:: wants -> event = true
	:: else
	fi
}

/* The doorbell: takes what there is room for. One step of the model is one step under the lock or one look at guest memory. */
proctype doorbell()
{
	byte tail, head, id;

end:	do
	:: request_head != request_tail && !over ->
		tail = request_tail;
		head = completion_head;
		acquire();
		if
#ifdef BUG_ROOM
		:: written - head < ENTRIES ->
#else
		:: written - head + in_flight < ENTRIES ->
#endif
			release();
			id = request_head;
			acquire();
			in_flight++;
			state[id] = QUEUED;
			release();
			request_head++
		:: else -> release()
		fi
	od
}

proctype worker()
{
	byte id;

end:	do
	:: acquire();
		id = 0;
		do
		:: id < IDS && state[id] != QUEUED -> id++
		:: else -> break
		od;
		if
		:: id == IDS -> release();
			(over || state[0] == QUEUED || state[1] == QUEUED || state[2] == QUEUED || state[3] == QUEUED);
			if
			:: over -> break
			:: else
			fi
		:: else ->
			state[id] = RUNNING;
			release();
			/* a piece of work, and the look at cancel between two pieces */
			skip;
			acquire();
			state[id] = FINISHED;
			in_flight--;
			complete(id);
			state[id] = FREE;
			release()
		fi
	od
}

proctype canceller()
{
	byte n, id;

	for (n : 1 .. 2) {
		select(id : 0 .. 3);
		acquire();
		if
		:: state[id] == QUEUED ->
			state[id] = FINISHED;
			in_flight--;
			complete(id);
#ifndef BUG_TWICE
			state[id] = FREE
#else
			state[id] = QUEUED
#endif
		:: state[id] == RUNNING -> cancel[id] = true
		:: else
		fi;
		release()
	}
}

proctype guest()
{
	byte submitted, taken, id;

	do
	:: submitted < IDS && submitted - request_head < ENTRIES -> submitted++; request_tail = submitted
	:: completion_tail != taken ->
		id = slot[taken % ENTRIES];
		assert(id != 0);
		slot[taken % ENTRIES] = 0;
		read_by_guest[id - 1]++;
		assert(read_by_guest[id - 1] == 1);
		taken++;
		completion_head = taken
	:: taken == IDS -> break
	:: submitted == IDS && completion_tail == taken && taken < IDS -> /* sleep until an event */
#ifdef BUG_WISH
		if
		:: completion_tail == taken -> wants = true; event; event = false
		:: else
		fi;
#else
		wants = true;
		if
		:: completion_tail == taken -> event; event = false
		:: else
		fi;
#endif
		wants = false
	od;
	over = true;
	for (id : 0 .. 3) { assert(outcomes[id] == 1 && read_by_guest[id] == 1) }
}

init { atomic { run doorbell(); run worker(); run canceller(); run guest() } }
