/*
 * Records of TLS as they are sealed here: AES-128-GCM says what its specification says, and what
 * the host's GnuTLS says; of what was changed, left out or sent again nothing is taken; an end, or
 * what nobody has agreed on, is an end. Invariant 1 of sealed.h, broken, is seen.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "caught.h"
#include "wire/sealed.h"

enum { MOST = 3 * RECORD_DATA_BYTES, HEX_BYTES = 128 };

/* Of SP 800-38D's authors: test cases 1 to 4 of AES-128. */
struct vector { const char *key, *nonce, *about, *data, *sealed, *tag; };
#define KEY_4 "feffe9928665731c6d6a8f9467308308"
#define NONCE_4 "cafebabefacedbaddecaf888"
#define DATA_4 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" \
	       "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
#define SEALED_4 "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e" \
		 "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
static const struct vector vectors[] = {
	{ .key = "00000000000000000000000000000000", .nonce = "000000000000000000000000",
	  .about = "", .data = "", .sealed = "", .tag = "58e2fccefa7e3061367f1d57a4e7455a" },
	{ .key = "00000000000000000000000000000000", .nonce = "000000000000000000000000",
	  .about = "", .data = "00000000000000000000000000000000",
	  .sealed = "0388dace60b6a392f328c2b971b2fe78",
	  .tag = "ab6e47d42cec13bdf53a67b21257bddf" },
	{ .key = KEY_4, .nonce = NONCE_4, .about = "", .data = DATA_4 "1aafd255",
	  .sealed = SEALED_4 "473f5985", .tag = "4d5c2af327cd64a62cf35abd2ba6fab4" },
};

static size_t bytes_of(const char *text, uint8_t *to)
{
	size_t n = 0;

	for (; text[2 * n]; n++) {
		const char digits[] = { text[2 * n], text[2 * n + 1], 0 };

		to[n] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return n;
}

static unsigned wrong_vectors(void)
{
	unsigned wrong = 0;

	for (size_t n = 0; n < sizeof(vectors) / sizeof(vectors[0]); n++) {
		const struct vector *vector = &vectors[n];
		uint8_t key[HEX_BYTES];
		uint8_t nonce[HEX_BYTES];
		uint8_t about[HEX_BYTES];
		uint8_t data[HEX_BYTES];
		uint8_t sealed[HEX_BYTES];
		uint8_t tag[HEX_BYTES];
		uint8_t said[GCM_TAG_BYTES];
		size_t about_bytes = bytes_of(vector->about, about);
		size_t bytes = bytes_of(vector->data, data);
		struct gcm gcm;

		bytes_of(vector->key, key);
		bytes_of(vector->nonce, nonce);
		bytes_of(vector->sealed, sealed);
		bytes_of(vector->tag, tag);
		gcm_begin(&gcm, key);
		gcm_seal(&gcm, nonce, about, about_bytes, data, bytes, said);
		if (memcmp(data, sealed, bytes) != 0 || memcmp(said, tag, sizeof(said)) != 0) {
			printf("test case %zu of the specification\n", n);
			wrong++;
		}
	}
	return wrong;
}

/* ---- records ---- */

static const struct wire_keys both = {
	.from = { .key = "0123456789abcde", .nonce = "nonces12345", .number = 3 },
	.to = { .key = "0123456789abcde", .nonce = "nonces12345", .number = 3 },
};

static uint8_t data[MOST];
static uint8_t got[MOST];
static uint8_t wire[MOST + 16 * RECORD_MORE_BYTES];

/* What arrives of records that were sealed so, after that was done to them. */
static bool arrives(size_t bytes, size_t changed, size_t left_out)
{
	struct wire_sealed *sealed = wire_sealed_make(&both);
	int ends[2];
	bool is_there;

	if (!sealed || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		exit(1);
	if (changed < bytes)
		wire[changed] ^= 1;
	if (!wire_send(ends[0], wire + left_out, bytes - left_out))
		exit(1);
	if (changed < bytes)
		wire[changed] ^= 1;
	shutdown(ends[0], SHUT_WR);
	is_there = wire_sealed_receive(sealed, ends[1], got, 2 * 100);
	close(ends[0]);
	close(ends[1]);
	free(sealed);
	return is_there;
}

/* Two records; each bit of the second's bytes counts, and so does that the first was there. */
static unsigned wrong_changes(void)
{
	const size_t each = 100 + RECORD_MORE_BYTES;
	struct record_way way;
	unsigned wrong = 0;

	record_begin(&way, &both.to);
	for (unsigned n = 0; n < 2; n++)
		record_seal(&way, RECORD_DATA, data + n * 100, 100, wire + n * each);
	if (!arrives(2 * each, 2 * each, 0) || memcmp(got, data, 200) != 0) {
		printf("what was sealed does not arrive\n");
		wrong++;
	}
	for (size_t at = 0; at < 2 * each; at++)
		if (arrives(2 * each, at, 0)) {
			printf("byte %zu was changed, and it is taken\n", at);
			wrong++;
		}
	if (arrives(2 * each, 2 * each, each)) {
		printf("a record was left out, and the next is taken\n");
		wrong++;
	}
	memcpy(wire + each, wire, each);
	if (arrives(2 * each, 2 * each, 0)) {
		printf("a record is taken twice\n");
		wrong++;
	}
	return wrong;
}

/* Both ways, in parts of another length than they were sent in. */
static unsigned wrong_lengths(void)
{
	struct wire_sealed *one = wire_sealed_make(&both);
	struct wire_sealed *other = wire_sealed_make(&both);
	unsigned wrong = 0;
	int ends[2];

	if (!one || !other || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		exit(1);
	for (size_t bytes = 1; bytes < MOST && !wrong; bytes += bytes < 300 ? 1 : 4099) {
		wrong += !wire_sealed_send(one, ends[0], data, bytes);
		wrong += bytes > 1 && !wire_sealed_receive(other, ends[1], got, bytes / 2);
		wrong += bytes > 1 && !wire_sealed_holds(other);
		wrong += !wire_sealed_receive(other, ends[1], got + bytes / 2, bytes - bytes / 2);
		wrong += memcmp(got, data, bytes) != 0 || !wire_sealed_is_empty(other);
		if (wrong)
			printf("%zu bytes do not arrive\n", bytes);
	}
	close(ends[0]);
	close(ends[1]);
	free(one);
	free(other);
	return wrong;
}

/* One record of a kind, with so many bytes; `number`: of the first. */
static bool takes(unsigned kind, size_t bytes, uint64_t number)
{
	struct wire_keys keys = both;
	struct wire_sealed *sealed;
	struct record_way way;
	int ends[2];
	bool is_taken;

	keys.to.number = keys.from.number = number;
	sealed = wire_sealed_make(&keys);
	record_begin(&way, &keys.to);
	if (!sealed || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		exit(1);
	is_taken = !record_seal(&way, (enum record_kind)kind, data, bytes, wire) &&
		   wire_send(ends[0], wire, bytes + RECORD_MORE_BYTES);
	shutdown(ends[0], SHUT_WR);
	is_taken = is_taken && wire_sealed_receive(sealed, ends[1], got, 1);
	close(ends[0]);
	close(ends[1]);
	free(sealed);
	return is_taken;
}

static unsigned wrong_kinds(void)
{
	unsigned wrong = 0;

	for (unsigned kind = 0; kind < 256; kind++)
		if (takes(kind, 10, 0) != (kind == RECORD_DATA)) {
			printf("kind %u\n", kind);
			wrong++;
		}
	if (takes(RECORD_DATA, 0, 0) || !takes(RECORD_DATA, RECORD_DATA_BYTES, 0)) {
		printf("an empty record, or a full one\n");
		wrong++;
	}
	if (!takes(RECORD_DATA, 1, RECORDS_MOST - 1) || takes(RECORD_DATA, 1, RECORDS_MOST)) {
		printf("the last record of a key\n");
		wrong++;
	}
	return wrong;
}

/* ---- an end ---- */

enum { DRIP_BYTES = 200, DRIP_US = 50000, END_MS = 200 };

/* A record, a byte at a time, until somebody has had enough of it. */
static void drip(int socket)
{
	struct record_way way;

	record_begin(&way, &both.to);
	record_seal(&way, RECORD_DATA, data, DRIP_BYTES, wire);
	for (size_t n = 0; n < DRIP_BYTES + RECORD_MORE_BYTES; n++) {
		if (send(socket, wire + n, 1, MSG_NOSIGNAL) != 1)
			_exit(0);
		usleep(DRIP_US);
	}
	_exit(1);
}

/* Who has the key and says less than a record for ever is waited for no longer than another. */
static unsigned wrong_ends(void)
{
	struct wire_sealed *sealed = wire_sealed_make(&both);
	int ends[2];
	int status;
	pid_t peer;

	if (!sealed || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		exit(1);
	peer = fork();
	if (!peer) {
		close(ends[1]);
		drip(ends[0]);
	}
	close(ends[0]);
	wire_sealed_end(sealed, ends[1], END_MS);
	close(ends[1]);
	free(sealed);
	if (waitpid(peer, &status, 0) == peer && !status)
		return 0;
	printf("an end waits for a record that does not come\n");
	return 1;
}

/* ---- the invariant ---- */

static void check_of(void *sealed) { check_wire_sealed(sealed); }
static void data_in_what_is_sealed(void *of)
{
	struct wire_sealed *sealed = of;

	sealed->data_bytes = sealed->next - sealed->data + 1;
}
static void next_behind_the_end(void *of)
{
	struct wire_sealed *sealed = of;

	sealed->next = sealed->end + 1;
}
static void end_behind_the_room(void *of)
{
	struct wire_sealed *sealed = of;

	sealed->end = sizeof(sealed->in) + 1;
}

static const struct spoiling spoilings[] = {
	{ "data that reach into what is sealed", data_in_what_is_sealed },
	{ "a record behind what was read", next_behind_the_end },
	{ "more than there is room for", end_behind_the_room },
};

static unsigned missed_spoilings(void)
{
	struct wire_sealed *sealed = wire_sealed_make(&both);
	unsigned missed;

	if (!sealed)
		exit(1);
	sealed->data = RECORD_HEAD_BYTES;
	sealed->data_bytes = 10;
	sealed->next = sealed->end = RECORD_MOST_BYTES;
	missed = CAUGHT_MISSED("sealed", check_of, sealed, spoilings);
	free(sealed);
	return missed;
}

int main(void)
{
	for (size_t n = 0; n < MOST; n++)
		data[n] = (uint8_t)(n * 7 + n / 251);
	return wrong_vectors() + wrong_changes() + wrong_lengths() + wrong_kinds() + wrong_ends() +
			       missed_spoilings() !=
	       0;
}
