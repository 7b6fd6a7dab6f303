/*
 * Between the two halves of emission_test: one looks inside the engine, the other has Zydis and
 * libc.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { EMISSION_SLOT_REGISTERS = 16 };

/* A copy of a guest's instruction: struct emitted_copy, out of the engine. */
struct emission {
	const uint8_t *host;
	unsigned bytes, looked_up_bytes, r10_ahead;
	bool writable;
	const char *error; /* what the engine's own validator says of it; NULL: good */
	/* what it says of a copy that was spoilt */
	bool accepts_fewer_bytes, accepts_read_only, accepts_other_immediate;
};

void emission_begin(void);
/* A loaded segment is in the way, or not: in 16- and 32-bit code. */
void emission_set_mode(unsigned code_bits, bool flat);
/*
 * Translates the one instruction, with HLT behind it. How many copies were emitted; the last one is
 * in *ret.
 */
unsigned emission_translate(const uint8_t *bytes, unsigned count, struct emission *ret);
/* A block as it was emitted. mark: where its instructions begin, from both begins. */
enum { EMISSION_MARKS = 256 };
struct emission_block {
	const uint8_t *host;
	unsigned host_bytes, guest_bytes, marks;
	unsigned all_bytes; /* with polls and stubs behind the hot code */
	struct { uint16_t host, guest; } mark[EMISSION_MARKS];
};
/* Of the code at `bytes`, of a user's or a kernel's; false: there is none. */
bool emission_block(const uint8_t *bytes, unsigned count, bool user, struct emission_block *ret);
/* The same of the block that begins at `offset` of a page of code. */
bool emission_block_in_page(const uint8_t *page, unsigned offset, bool user,
			    struct emission_block *ret);
/* Displacement from GS of a displaced register's slot. */
int32_t emission_slot(unsigned reg);
/* What lies at a displacement from GS. */
enum emission_field {
	FIELD_OTHER,
	FIELD_REGISTER, /* of the guest's, displaced */
	FIELD_FLAGS,    /* the word, and where RAX is meanwhile */
	FIELD_PAGE,     /* of code that floats */
	FIELD_JUMP,     /* RIP, keys, sites, the jump cache, slots, thunks */
	FIELD_KICK,
};
enum emission_field emission_field(int32_t displacement);
