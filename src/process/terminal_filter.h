/*
 * What of a guest's output reaches a terminal. A list of what passes, not of what does not: a
 * sequence is put out as a whole, once it is complete and on the list, and everything else is
 * dropped.
 *
 *   text      printable ASCII, BEL BS TAB LF CR, UTF-8 of U+00A0 and above
 *   escapes   ESC 7 8 D E M = >, ESC ( or ) with B or 0
 *   controls  CSI with at most 16 numbers of at most 4 digits: cursor, erasing, scrolling, colours,
 *             margins (A-H J K L M P S T X d f m r s u @),
 *             CSI 4 h and l, CSI ? h and l with 1 6 7 12 25 47 1047 1048 1049
 *
 *  1. What comes out is a sequence of the tokens above: a terminal cannot be in another state than
 *     the filter after any of them. So no
 *     title, clipboard, key definition, report, mouse or paste mode, printer or window operation
 *     can be reached, whatever bytes come in.
 *  2. Nothing is kept but one token, of FILTER_TOKEN_BYTES at most.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { FILTER_TOKEN_BYTES = 96 };

struct terminal_filter {
	int state;
	uint8_t token[FILTER_TOKEN_BYTES];
	size_t used;
	unsigned left;         /* bytes of a UTF-8 sequence that are still to come */
	size_t string_bytes;   /* of a string that is dropped */
};

/* out: room for bytes + FILTER_TOKEN_BYTES. How much is in it. */
size_t terminal_filter(struct terminal_filter *filter, const uint8_t *in, size_t bytes,
		       uint8_t *out);
/* What can be seen of both: what is kept is the beginning of one of these. */
void check_terminal_filter(const struct terminal_filter *filter);
