/* See gcm.h. */
#include "gcm.h"

#include <assert.h>
#include <nettle/memops.h>

bool gcm_has_instructions(void)
{
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}

void gcm_begin(struct gcm *gcm, const uint8_t key[GCM_KEY_BYTES])
{
	gcm_aes128_set_key(&gcm->context, key);
}

static void begin_record(struct gcm *gcm, const uint8_t *nonce, const void *about,
			 size_t about_bytes)
{
	gcm_aes128_set_iv(&gcm->context, GCM_NONCE_BYTES, nonce);
	gcm_aes128_update(&gcm->context, about_bytes, about);
}

void gcm_seal(struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const void *about,
	      size_t about_bytes, uint8_t *data, size_t bytes, uint8_t ret_tag[GCM_TAG_BYTES])
{
	assert(bytes <= GCM_MOST_BYTES);
	begin_record(gcm, nonce, about, about_bytes);
	gcm_aes128_encrypt(&gcm->context, bytes, data, data);
	gcm_aes128_digest(&gcm->context, GCM_TAG_BYTES, ret_tag);
}

bool gcm_open(struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES], const void *about,
	      size_t about_bytes, uint8_t *data, size_t bytes, const uint8_t tag[GCM_TAG_BYTES])
{
	uint8_t own[GCM_TAG_BYTES];

	assert(bytes <= GCM_MOST_BYTES);
	begin_record(gcm, nonce, about, about_bytes);
	gcm_aes128_decrypt(&gcm->context, bytes, data, data);
	gcm_aes128_digest(&gcm->context, GCM_TAG_BYTES, own);
	return memeql_sec(own, tag, GCM_TAG_BYTES);
}
