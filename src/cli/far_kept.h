/*
 * What umbra far --packets must not forget, in two files that are mapped: FILE has the words below,
 * FILE.port the memory of its port at the hub, with the packets. So a process that is killed and
 * started again goes on where the last one was: no packet is lost, and none comes twice.
 *
 *   from the hub    the slot has it -> held[n % ...] -> stream.sent = n       now it is this side's
 *                   stream.acked = n                                         the other side has it
 *   to the hub      the slot has it -> given[slot] -> given[slot].number     now it is this side's
 *                   stream.had = n -> ACK                                    the other side forgets
 *
 *   - Each step is one word that is written last. What is counted behind it is made of it again
 *     when the file is opened (far_kept_open()): slots, the numbers that were had, and the order.
 *   - What the hub has answered, and nobody has taken, is taken again: a packet that is held is
 *     passed over, and its number, too.
 *   - One process has it at a time. Of another boot, channel or side it begins anew: what was
 *     written to a disk is not as old as what is in another host's memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/share_port.h"
#include "share/far_stream.h"

enum { FAR_KEPT_BOOT_BYTES = 40, FAR_KEPT_WHAT_BYTES = 168 };

/* One that the other side has not acknowledged; epoch, number: at the hub. */
struct far_held { uint32_t slot, bytes; uint64_t word, epoch, number; };
/* One that the hub has not answered; number: this side's at the hub, 0: the slot has none. */
struct far_given { uint64_t number, session, far_number; };

struct far_kept {
	uint64_t magic;
	char boot[FAR_KEPT_BOOT_BYTES]; /* zeros: the kernel does not say */
	char what[FAR_KEPT_WHAT_BYTES];
	uint64_t side;
	uint64_t epoch; /* of the port */
	struct far_stream stream;
	uint64_t number_sent, peer_epoch, had; /* at the hub */
	uint64_t far_word, last_word;
	uint32_t openings, collected;
	struct far_held held[SHARE_RECEIVE_SLOTS]; /* number n at n % SHARE_RECEIVE_SLOTS */
	struct far_given given[SHARE_SLOTS];
};

struct far_files { struct far_kept *kept; struct share_memory *memory; int memory_fd; };

/*
 * path: FILE; what: MACHINE/NAME; side: at the hub. 0; -EBUSY: another process has it; -errno.
 * *ret_is_new: nothing is known.
 */
int far_kept_open(const char *path, const char *what, uint32_t side, struct far_files *ret,
		  bool *ret_is_new);
/* Numbers that were had as the packets say that are there; after far_kept_open(). */
void far_kept_recover(struct far_kept *kept);
/* How many are held. */
static inline uint64_t far_kept_held(const struct far_kept *kept)
{
	return kept->stream.sent - kept->stream.acked;
}
/* Whether this slot's packet is held. */
bool far_kept_holds(const struct far_kept *kept, unsigned slot);
/* Slots whose packets the hub has not answered, in their order; how many. */
unsigned far_kept_order(const struct far_kept *kept, uint8_t order[SHARE_SEND_SLOTS]);
