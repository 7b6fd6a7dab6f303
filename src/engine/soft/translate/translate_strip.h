/*
 * Between the files of strips: a loop whose block jumps back to its own begin, and the streams of
 * accesses in its body.
 */
#pragma once

#include "translate_internal.h"

enum { STREAMS = 3, BODY_INSNS = 32, SIDE_EXITS = 8 };

/*
 * What goes through the same registers, within 256 bytes. base and index are those at the top of
 * the body; an access may name a copy of one.
 */
struct stream {
	uint8_t base, index, scale_log2;
	int32_t low, high;   /* of displacements, as if all was accessed at the top of the body */
	int32_t stride;      /* in bytes an iteration, or: */
	uint8_t stride_reg;  /* which register says; NO_REG: none */
	uint8_t narrow_reg;  /* one of its registers goes on in 32 bits: which; or NO_REG */
	bool stride_is_wide; /* that register, in 64 bits */
	bool write;
	bool base_in_delta, index_in_delta;
};

struct strip {
	struct translation *translation;
	unsigned jump, streams, copies;
	struct stream stream[STREAMS];
	uint8_t used_by[BODY_INSNS]; /* which stream, by instruction */
	unsigned lookups;            /* of an ordinary iteration */
	/* what is left of the pages goes by that each iteration: the widest, or stride_reg */
	int32_t stride;
	uint8_t stride_reg;
	bool stride_is_wide; /* of 64 bits */
	/* jumps, until it is known where they lead; where a head that was short goes on */
	uint8_t *fails[2 * STREAMS + 4], *leaves[2], *skipped, *short_before, *head;
	unsigned fail_count;
	struct { uint8_t *from; unsigned insn; } exits[2 * SIDE_EXITS];
	unsigned exit_count;
};

/* translate_stream.c: whether the block's body can be done in strips; what it accesses. */
bool translate_find_streams(struct strip *strip);
