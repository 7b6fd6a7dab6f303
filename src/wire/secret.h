/*
 * By what umbra-wire knows the other side, as who starts it says by a pipe: 32 bytes are a key.
 * Anything else is WIRE_CERTIFICATES, then for each of enum wire_part a length in four bytes,
 * little-endian, and so many: PEM, and a name.
 */
#pragma once

#include "record.h"

enum { WIRE_SECRET_BYTES = 60000, WIRE_CERTIFICATES = 'C' };
/* What an umbra-wire that began before is given: a connection, a pipe with the secret. */
enum { WIRE_LATER_FDS = 2 };
/* What umbra-wire says first of each; WIRE_KEYS: struct wire_keys follows, and it has ended. */
enum { WIRE_CONNECTION = 'C', WIRE_SHOWN = 'Y', WIRE_KEYS = 'K' };
/* Of what goes through from now on: of what comes, of what is sent. */
struct wire_keys { struct record_keys from, to; };
enum wire_part {
	WIRE_CERTIFICATE, /* this side's, with those between it and the authority */
	WIRE_PRIVATE_KEY,
	WIRE_AUTHORITY, /* whose certificates are believed */
	WIRE_HOST, /* whom the other side's has to name; "": it is a client */
	WIRE_PARTS
};
