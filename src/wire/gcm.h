/*
 * AES-128-GCM (NIST SP 800-38D) with the processor's instructions, for records of TLS (record.h):
 * 16 bytes of tag, 12 of nonce, no data longer than GCM_MOST_BYTES.
 *
 *   - No branch and no address depends on a key or on data: the time says nothing of them.
 *   - Vector registers are used: not in an engine's C, where they hold the guest's state.
 *   - A nonce is used once with a key: that is the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GCM_KEY_BYTES = 16,
	GCM_NONCE_BYTES = 12,
	GCM_TAG_BYTES = 16,
	GCM_BLOCK_BYTES = 16,
	GCM_ROUNDS = 10,
	GCM_LANES = 8, /* blocks at once */
	GCM_MOST_BYTES = 1 << 20,
};

/* power: of the hash's key, from the first on, as the processor multiplies them. */
struct gcm {
	_Alignas(16) uint8_t round[GCM_ROUNDS + 1][GCM_BLOCK_BYTES];
	_Alignas(16) uint8_t power[GCM_LANES][GCM_BLOCK_BYTES];
};

/* Whether this processor has them; without, nothing below may be called. */
bool gcm_is_here(void);
void gcm_begin(struct gcm *gcm, const uint8_t key[GCM_KEY_BYTES]);
/* about: no more than a block, which is covered by the tag and not changed. data: in place. */
void gcm_seal(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const void *about,
	      size_t about_bytes, uint8_t *data, size_t bytes, uint8_t ret_tag[GCM_TAG_BYTES]);
/* False: it is not what was sealed; data is then of no use. */
bool gcm_open(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const void *about,
	      size_t about_bytes, uint8_t *data, size_t bytes, const uint8_t tag[GCM_TAG_BYTES]);
