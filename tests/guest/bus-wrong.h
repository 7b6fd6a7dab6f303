/*
 * What wrong acts on the bus share: a storage channel that was opened for this one, and how it came
 * out.
 */
#pragma once

#include "vmbus.h"

extern struct channel ch;
extern struct vmbus_offer offered;
/* 16 pages */
extern uint8_t *scratch;

enum { ANSWERED = 1, BROKEN = 2, QUIET = 3, REFUSED = 4, MADE = 5 };
/* Whether the channel still answers, or is broken. */
uint64_t after(void);
/* Of an answer, which is NULL when none came: QUIET, MADE or REFUSED. */
uint64_t answer_outcome(const void *answer, bool good);
/* QUIET when the host says nothing to this message, else ANSWERED. */
uint64_t after_message(const void *payload, uint32_t bytes);
/* REFUSED or MADE, by the status in the answer to this GPADL_HEADER or OPEN. */
uint64_t gpadl_outcome(const struct vmbus_gpadl_header *header, uint32_t gfns);
uint64_t open_outcome(uint32_t relid, uint32_t gpadl, uint32_t vp_index, uint32_t host_ring_page);
/* A channel that is closed, with a GPADL 5 of `pages` pages on it. */
void closed_with_gpadl(uint32_t pages);
/*
 * A packet with a head of the caller's: type, where the payload begins and where the packet ends,
 * in units of 8 bytes.
 */
uint64_t packet_outcome(uint16_t type, uint16_t data_units, uint16_t units, uint32_t written_bytes);
/* A GPA-direct packet with a TEST UNIT READY and a head of ranges of the caller's. */
uint64_t ranges_outcome(const void *ranges, uint32_t bytes);
/* The SRB status of a READ (16) of sector 0 into these ranges. */
uint64_t read_into(const uint64_t *gfns, uint32_t count, uint32_t offset, uint32_t bytes);
/* SRB status and sense key << 8 of a command. */
uint64_t command_outcome(const uint8_t *cdb, uint8_t cdb_bytes, uint8_t direction, uint32_t bytes);
/*
 * The memory's channel instead of the storage's; one message, and whether the channel still answers
 * a question about its version.
 */
uint64_t memory_outcome(uint16_t type, const uint64_t *words, uint32_t count);

/*
 * The channel of keys and values, or another component's, on which the host has offered versions.
 * An answer of it: a head as the host's, with these things changed.
 */
struct component_answer {
	uint16_t type;         /* 2: of keys; 0: of versions */
	uint8_t other_number;  /* added to the number of what is answered */
	bool is_question;
	uint32_t status;
};
/*
 * Another device's channel, and what comes of a packet on it: ANSWERED, QUIET or BROKEN. Of the
 * screen's: a message of this kind.
 */
void device_open(uint32_t offer);
uint64_t device_outcome(const void *payload, uint32_t bytes);
uint64_t video_outcome(uint32_t kind, const void *body, uint32_t bytes);
/* What it has said is in here. */
extern uint8_t *const device_answer;
void component_open(uint32_t offer);
/* Versions 3.0 and 4.0 are taken. */
void component_agree(void);
void component_answer(const struct component_answer *answer, const void *data, uint32_t bytes);
/* The next question of the host's is there: ANSWERED; it says nothing: QUIET; or BROKEN. */
uint64_t component_outcome(void);
/* How many questions it asks, when each is answered so. */
uint64_t component_questions(const void *data, uint32_t bytes);

/* ---- sub-channels (sub-channels.c) ---- */

extern struct channel sub;
/* Asks for so many; the status that came, or BROKEN. */
uint64_t subs_ask(uint16_t count);
/* The offer of the first, which has been asked for. */
bool sub_offered(struct vmbus_offer *ret);
/* Asks for one, and opens it as `sub`. */
void sub_open(void);
/*
 * The first is closed, which takes the further one away that was offered, and opened again as
 * GPADL `gpadl`; with its first words.
 */
void first_reopen(uint32_t gpadl);
/* The status of an operation on it; BROKEN: nothing came. */
uint64_t sub_operation(uint32_t operation);
