/*
 * See gcm.h. Blocks are numbers of 128 bits whose first bit is x^0; the processor multiplies such
 * whose last one is. So each is turned around by bytes, and the product moved up by a bit. Products
 * of a whole row of blocks are added before one reduction, each by its own power of the key.
 */
#include "gcm.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#define WITH_INSTRUCTIONS __attribute__((target("aes,pclmul,avx")))
/* So that a whole row stays in registers. */
#define IN_PLACE WITH_INSTRUCTIONS __attribute__((always_inline)) static inline
#define UNROLLED _Pragma("GCC unroll 8")
enum { COUNTER_WORD = 3 };

/* A product that is not reduced. */
struct product { __m128i low, middle, high; };

bool gcm_is_here(void)
{
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul") &&
	       __builtin_cpu_supports("avx");
}

static __m128i load(const void *from) { return _mm_loadu_si128(from); }

IN_PLACE __m128i turn(__m128i value)
{
	return _mm_shuffle_epi8(value, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
						    14, 15));
}

/* ---- the cipher ---- */

/* With what AESKEYGENASSIST says of the one before. */
WITH_INSTRUCTIONS static __m128i next_round(__m128i before, __m128i assist)
{
	assist = _mm_shuffle_epi32(assist, 0xff);
	before = _mm_xor_si128(before, _mm_slli_si128(before, 4));
	before = _mm_xor_si128(before, _mm_slli_si128(before, 8));
	return _mm_xor_si128(before, assist);
}

/* The constant is part of the instruction. */
#define ROUND(number, constant) \
	(round[number] = next_round(round[(number) - 1], \
				    _mm_aeskeygenassist_si128(round[(number) - 1], constant)))

WITH_INSTRUCTIONS static void expand_key(struct gcm *gcm, const uint8_t key[GCM_KEY_BYTES])
{
	__m128i round[GCM_ROUNDS + 1];

	round[0] = load(key);
	ROUND(1, 0x01);
	ROUND(2, 0x02);
	ROUND(3, 0x04);
	ROUND(4, 0x08);
	ROUND(5, 0x10);
	ROUND(6, 0x20);
	ROUND(7, 0x40);
	ROUND(8, 0x80);
	ROUND(9, 0x1b);
	ROUND(10, 0x36);
	memcpy(gcm->round, round, sizeof(round));
}

IN_PLACE void encrypt(const struct gcm *gcm, __m128i block[], unsigned blocks)
{
	__m128i round = load(gcm->round[0]);

	UNROLLED for (unsigned n = 0; n < blocks; n++)
		block[n] = _mm_xor_si128(block[n], round);
	for (unsigned number = 1; number < GCM_ROUNDS; number++) {
		round = load(gcm->round[number]);
		UNROLLED for (unsigned n = 0; n < blocks; n++)
			block[n] = _mm_aesenc_si128(block[n], round);
	}
	round = load(gcm->round[GCM_ROUNDS]);
	UNROLLED for (unsigned n = 0; n < blocks; n++)
		block[n] = _mm_aesenclast_si128(block[n], round);
}

IN_PLACE __m128i counter(__m128i nonce, uint32_t number)
{
	return _mm_insert_epi32(nonce, (int)__builtin_bswap32(number), COUNTER_WORD);
}

/* ---- the hash ---- */

IN_PLACE void add_product(struct product *sum, __m128i factor, __m128i by)
{
	const __m128i first = _mm_clmulepi64_si128(factor, by, 0x10);
	const __m128i second = _mm_clmulepi64_si128(factor, by, 0x01);

	sum->low = _mm_xor_si128(sum->low, _mm_clmulepi64_si128(factor, by, 0x00));
	sum->high = _mm_xor_si128(sum->high, _mm_clmulepi64_si128(factor, by, 0x11));
	sum->middle = _mm_xor_si128(sum->middle, _mm_xor_si128(first, second));
}

/* By one bit, all 256. */
IN_PLACE void move_up(__m128i *low, __m128i *high)
{
	const __m128i out_of_low = _mm_srli_epi32(*low, 31);
	const __m128i out_of_high = _mm_srli_epi32(*high, 31);

	*low = _mm_or_si128(_mm_slli_epi32(*low, 1), _mm_slli_si128(out_of_low, 4));
	*high = _mm_or_si128(_mm_slli_epi32(*high, 1), _mm_slli_si128(out_of_high, 4));
	*high = _mm_or_si128(*high, _mm_srli_si128(out_of_low, 12));
}

/* Modulo x^128 + x^7 + x^2 + x + 1. */
IN_PLACE __m128i reduce(const struct product *product)
{
	__m128i low = _mm_xor_si128(product->low, _mm_slli_si128(product->middle, 8));
	__m128i high = _mm_xor_si128(product->high, _mm_srli_si128(product->middle, 8));
	__m128i carried;
	__m128i folded;

	move_up(&low, &high);
	carried = _mm_xor_si128(_mm_slli_epi32(low, 31), _mm_slli_epi32(low, 30));
	carried = _mm_xor_si128(carried, _mm_slli_epi32(low, 25));
	low = _mm_xor_si128(low, _mm_slli_si128(carried, 12));
	folded = _mm_xor_si128(_mm_srli_epi32(low, 1), _mm_srli_epi32(low, 2));
	folded = _mm_xor_si128(folded, _mm_srli_epi32(low, 7));
	folded = _mm_xor_si128(folded, _mm_srli_si128(carried, 4));
	return _mm_xor_si128(high, _mm_xor_si128(low, folded));
}

/* What was hashed so far, and these blocks behind it. */
IN_PLACE __m128i hash(const struct gcm *gcm, __m128i so_far, const __m128i block[],
		      unsigned blocks)
{
	struct product sum = { _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128() };

	UNROLLED for (unsigned n = 0; n < blocks; n++) {
		__m128i value = turn(block[n]);

		if (!n)
			value = _mm_xor_si128(value, so_far);
		add_product(&sum, value, load(gcm->power[blocks - 1 - n]));
	}
	return reduce(&sum);
}

WITH_INSTRUCTIONS void gcm_begin(struct gcm *gcm, const uint8_t key[GCM_KEY_BYTES])
{
	__m128i zeros = _mm_setzero_si128();
	__m128i power;

	expand_key(gcm, key);
	encrypt(gcm, &zeros, 1);
	power = turn(zeros);
	memcpy(gcm->power[0], &power, sizeof(power));
	for (unsigned n = 1; n < GCM_LANES; n++) {
		struct product next = { _mm_setzero_si128(), _mm_setzero_si128(),
					_mm_setzero_si128() };

		add_product(&next, power, load(gcm->power[0]));
		power = reduce(&next);
		memcpy(gcm->power[n], &power, sizeof(power));
	}
}

/* ---- both ---- */

struct run {
	const struct gcm *gcm;
	__m128i nonce; /* a counter's block, of which the number is missing */
	bool opens; /* what is hashed is what comes, not what becomes of it */
	__m128i hash;
};

WITH_INSTRUCTIONS static struct run begin_run(const struct gcm *gcm,
					      const uint8_t nonce[GCM_NONCE_BYTES], bool opens)
{
	uint8_t block[GCM_BLOCK_BYTES] = { 0 };

	memcpy(block, nonce, GCM_NONCE_BYTES);
	return (struct run){ .gcm = gcm, .nonce = load(block), .opens = opens };
}

/* As many blocks as there are lanes, or fewer; the last may be short of `bytes`. */
WITH_INSTRUCTIONS static void run_row(struct run *run, uint32_t number, uint8_t *data, size_t bytes)
{
	const unsigned blocks = (unsigned)((bytes + GCM_BLOCK_BYTES - 1) / GCM_BLOCK_BYTES);
	uint8_t room[GCM_LANES * GCM_BLOCK_BYTES] = { 0 };
	__m128i stream[GCM_LANES];
	__m128i block[GCM_LANES];

	UNROLLED for (unsigned n = 0; n < blocks; n++)
		stream[n] = counter(run->nonce, number + n);
	encrypt(run->gcm, stream, blocks);
	memcpy(room, data, bytes);
	UNROLLED for (unsigned n = 0; n < blocks; n++)
		block[n] = load(room + n * (size_t)GCM_BLOCK_BYTES);
	if (run->opens)
		run->hash = hash(run->gcm, run->hash, block, blocks);
	UNROLLED for (unsigned n = 0; n < blocks; n++)
		block[n] = _mm_xor_si128(block[n], stream[n]);
	memcpy(room, block, blocks * sizeof(block[0]));
	memcpy(data, room, bytes);
	if (run->opens)
		return;
	memset(room + bytes, 0, sizeof(room) - bytes);
	UNROLLED for (unsigned n = 0; n < blocks; n++)
		block[n] = load(room + n * (size_t)GCM_BLOCK_BYTES);
	run->hash = hash(run->gcm, run->hash, block, blocks);
}

/* The same for one that is whole: the compiler unrolls it. */
WITH_INSTRUCTIONS static void run_whole_row(struct run *run, uint32_t number, uint8_t *data)
{
	__m128i stream[GCM_LANES];
	__m128i block[GCM_LANES];

	UNROLLED for (unsigned n = 0; n < GCM_LANES; n++)
		stream[n] = counter(run->nonce, number + n);
	encrypt(run->gcm, stream, GCM_LANES);
	UNROLLED for (unsigned n = 0; n < GCM_LANES; n++)
		block[n] = load(data + n * (size_t)GCM_BLOCK_BYTES);
	if (run->opens)
		run->hash = hash(run->gcm, run->hash, block, GCM_LANES);
	UNROLLED for (unsigned n = 0; n < GCM_LANES; n++)
		block[n] = _mm_xor_si128(block[n], stream[n]);
	if (!run->opens)
		run->hash = hash(run->gcm, run->hash, block, GCM_LANES);
	memcpy(data, block, sizeof(block));
}

WITH_INSTRUCTIONS static void run_all(struct run *run, uint8_t *data, size_t bytes)
{
	const size_t row_bytes = (size_t)GCM_LANES * GCM_BLOCK_BYTES;
	uint32_t number = 2; /* the first is the tag's */

	assert(bytes <= GCM_MOST_BYTES);
	for (; bytes >= row_bytes; bytes -= row_bytes) {
		run_whole_row(run, number, data);
		data += row_bytes;
		number += GCM_LANES;
	}
	if (bytes)
		run_row(run, number, data, bytes);
}

WITH_INSTRUCTIONS static void hash_about(struct run *run, const void *about, size_t about_bytes)
{
	uint8_t room[GCM_BLOCK_BYTES] = { 0 };
	__m128i block;

	assert(about_bytes <= sizeof(room));
	memcpy(room, about, about_bytes);
	block = load(room);
	run->hash = hash(run->gcm, _mm_setzero_si128(), &block, 1);
}

WITH_INSTRUCTIONS static __m128i tag_of(struct run *run, size_t about_bytes, size_t bytes)
{
	const __m128i lengths = turn(_mm_set_epi64x((long long)about_bytes * 8,
						    (long long)bytes * 8));
	__m128i first = counter(run->nonce, 1);

	encrypt(run->gcm, &first, 1);
	return _mm_xor_si128(turn(hash(run->gcm, run->hash, &lengths, 1)), first);
}

WITH_INSTRUCTIONS void gcm_seal(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES],
				const void *about, size_t about_bytes, uint8_t *data, size_t bytes,
				uint8_t ret_tag[GCM_TAG_BYTES])
{
	struct run run = begin_run(gcm, nonce, false);
	__m128i tag;

	hash_about(&run, about, about_bytes);
	run_all(&run, data, bytes);
	tag = tag_of(&run, about_bytes, bytes);
	memcpy(ret_tag, &tag, sizeof(tag));
}

WITH_INSTRUCTIONS bool gcm_open(const struct gcm *gcm, const uint8_t nonce[GCM_NONCE_BYTES],
				const void *about, size_t about_bytes, uint8_t *data, size_t bytes,
				const uint8_t tag[GCM_TAG_BYTES])
{
	struct run run = begin_run(gcm, nonce, true);
	__m128i differs;

	hash_about(&run, about, about_bytes);
	run_all(&run, data, bytes);
	differs = _mm_xor_si128(tag_of(&run, about_bytes, bytes), load(tag));
	return _mm_testz_si128(differs, differs);
}
