/*
 * AES-128-GCM for records of TLS (record.h), by nettle: 16 bytes of tag, 12 of nonce, no data
 * longer than GCM_MOST_BYTES.
 *
 *   - A nonce is used once with a key: that is the caller's.
 *   - Vector registers are used: not in an engine's C, where they hold the guest's state.
 */
#pragma once

#include <nettle/gcm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GCM_KEY_BYTES = 16,
	GCM_NONCE_BYTES = 12,
	GCM_TAG_BYTES = 16,
	GCM_MOST_BYTES = 1 << 20,
};

struct gcm { struct gcm_aes128_ctx context; };

/*
 * Whether this processor has instructions for it. Without, it is slow, and its tables leave traces
 * of the key in caches: another cipher is better then.
 */
bool gcm_has_instructions(void);
void gcm_begin(struct gcm *gcm, const uint8_t key[GCM_KEY_BYTES]);
/* about: is covered by the tag and not changed. data: in place. */
void gcm_seal(struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const void *about,
	      size_t about_bytes, uint8_t *data, size_t bytes, uint8_t ret_tag[GCM_TAG_BYTES]);
/* False: it is not what was sealed; data is then of no use. */
bool gcm_open(struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const void *about,
	      size_t about_bytes, uint8_t *data, size_t bytes, const uint8_t tag[GCM_TAG_BYTES]);
