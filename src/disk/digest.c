/* Tables of content digests: computing, keeping, bringing up to date. */
#include "digest.h"

#define XXH_INLINE_ALL
#include <sched.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "lib/check.h"

enum { MAGIC = 0x47494455, VERSION = 1, BUFFER_BYTES = 256 << 10 };
#define BLOCKS_MAX (64ull << 20)

/* ---- one digest ---- */

struct hash {
	enum digest_algorithm algorithm;
	XXH3_state_t *xxh3;
	crypto_generichash_blake2b_state blake2b;
};

static int hash_begin(struct hash *h, enum digest_algorithm algorithm)
{
	h->algorithm = algorithm;
	h->xxh3 = NULL;
	if (algorithm == DIGEST_BLAKE2B)
		return crypto_generichash_blake2b_init(&h->blake2b, NULL, 0, sizeof(struct digest))
			       ? -EIO
			       : 0;
	h->xxh3 = XXH3_createState();
	return h->xxh3 && XXH3_128bits_reset(h->xxh3) == XXH_OK ? 0 : -ENOMEM;
}

static void hash_add(struct hash *h, const void *at, size_t bytes)
{
	if (h->algorithm == DIGEST_BLAKE2B)
		crypto_generichash_blake2b_update(&h->blake2b, at, bytes);
	else
		XXH3_128bits_update(h->xxh3, at, bytes);
}

static struct digest hash_end(struct hash *h)
{
	XXH128_canonical_t canonical;
	struct digest d;

	if (h->algorithm == DIGEST_BLAKE2B) {
		crypto_generichash_blake2b_final(&h->blake2b, d.byte, sizeof(d));
		return d;
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(h->xxh3));
	XXH3_freeState(h->xxh3);
	memcpy(d.byte, canonical.digest, sizeof(d));
	return d;
}

static bool is_empty(const struct digest *d)
{
	return !memcmp(d, &(struct digest){ { 0 } }, sizeof(*d));
}

/* Goes over what the file has of a block: content is told of in order, absent ranges as they are,
 * merged. */
struct walk { struct hash hash; bool any, all_zero; uint64_t absent_at, absent_bytes; };

static void end_absent(struct walk *w)
{
	const uint64_t range[2] = { w->absent_at, w->absent_bytes };

	if (w->absent_bytes)
		hash_add(&w->hash, range, sizeof(range));
	w->absent_bytes = 0;
}

static int add_data(struct walk *w, struct disk *d, enum disk_range_kind kind, uint64_t offset,
		    uint64_t bytes, uint8_t *buffer)
{
	int error = 0;

	while (bytes && !error) {
		uint64_t n = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;

		if (kind == DISK_RANGE_ZERO)
			memset(buffer, 0, n);
		else
			error = disk_read(d, offset, buffer, n);
		if (!error)
			hash_add(&w->hash, buffer, n);
		w->all_zero = w->all_zero && (kind == DISK_RANGE_ZERO || is_zero(buffer, n));
		offset += n;
		bytes -= n;
		/* this may run beside somebody who waits for an answer: for no longer than a buffer
		 * takes */
		sched_yield();
	}
	return error;
}

int digest_block(struct disk *d, const struct digest_table *t, uint64_t block, struct digest *ret)
{
	uint64_t at = block * t->head.block_bytes;
	uint64_t end = at + t->head.block_bytes;
	struct disk_range range = { .bytes = 0 };
	struct walk w = { .all_zero = true };
	uint8_t *buffer;
	int error;

	assert(block < t->blocks);
	*ret = (struct digest){ { 0 } };
	end = end < d->size_bytes ? end : d->size_bytes;
	if (at >= end)
		return 0;
	error = disk_range(d, at, end - at, &range);
	if (error)
		return error;
	if (range.bytes == end - at &&
	    (range.kind == DISK_RANGE_ABSENT || (range.kind == DISK_RANGE_ZERO && !d->is_child)))
		return 0; /* nothing to say, which is the usual case */
	buffer = malloc(BUFFER_BYTES);
	error = buffer ? hash_begin(&w.hash, t->head.algorithm) : -ENOMEM;
	if (error) {
		free(buffer);
		return error;
	}
	for (uint64_t from = at; at < end && !error; at += range.bytes) {
		error = disk_range(d, at, end - at, &range);
		if (!error && range.kind == DISK_RANGE_ABSENT) {
			if (!w.absent_bytes)
				w.absent_at = at - from;
			w.absent_bytes += range.bytes;
			continue;
		}
		w.any = true;
		end_absent(&w);
		if (!error)
			error = add_data(&w, d, range.kind, at, range.bytes, buffer);
	}
	end_absent(&w);
	free(buffer);
	*ret = hash_end(&w.hash);
	if (!w.any || (w.all_zero && !d->is_child))
		*ret = (struct digest){ { 0 } };
	return error;
}

/* ---- tables ---- */

void check_digests(const struct digest_table *t)
{
	uint64_t block_bytes = t->head.block_bytes;

	assert(t->head.magic == MAGIC && t->head.version == VERSION);
	assert(t->head.algorithm == DIGEST_XXH3 || t->head.algorithm == DIGEST_BLAKE2B);
	assert(block_bytes >= DIGEST_BLOCK_MIN && !(block_bytes & (block_bytes - 1)));
	assert(t->of && t->blocks && t->head.present <= t->blocks);
	assert(t->head.size_bytes > (t->blocks - 1) * block_bytes);
	assert(t->head.size_bytes - (t->blocks - 1) * block_bytes <= block_bytes);
}

struct digest_table *digest_new(uint64_t size_bytes, uint32_t block_bytes,
				enum digest_algorithm algorithm)
{
	struct digest_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->head = (struct digest_head){ .magic = MAGIC,
					.version = VERSION,
					.algorithm = algorithm,
					.block_bytes = block_bytes,
					.size_bytes = size_bytes };
	t->blocks = (size_bytes + block_bytes - 1) / block_bytes;
	t->of = calloc(t->blocks, sizeof(*t->of));
	if (!t->of) {
		free(t);
		t = NULL;
	}
	return t;
}

void digest_free(struct digest_table *t)
{
	if (t)
		free(t->of);
	free(t);
}

static struct digest root_of(enum digest_algorithm algorithm, const uint8_t *at, size_t bytes)
{
	XXH128_canonical_t canonical;
	struct digest d;

	if (algorithm == DIGEST_BLAKE2B) {
		crypto_generichash_blake2b(d.byte, sizeof(d), at, bytes, NULL, 0);
		return d;
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(at, bytes));
	memcpy(d.byte, canonical.digest, sizeof(d));
	return d;
}

int digest_encode(struct digest_table *t, uint8_t **ret, size_t *ret_bytes)
{
	size_t bits = (t->blocks + 7) / 8;
	uint8_t *bytes, *to;

	t->head.present = 0;
	for (uint64_t n = 0; n < t->blocks; n++)
		t->head.present += !is_empty(&t->of[n]);
	*ret_bytes = sizeof(t->head) + bits + t->head.present * sizeof(struct digest);
	*ret = bytes = calloc(1, *ret_bytes);
	if (!bytes)
		return -ENOMEM;
	to = bytes + sizeof(t->head) + bits;
	for (uint64_t n = 0; n < t->blocks; n++)
		if (!is_empty(&t->of[n])) {
			bytes[sizeof(t->head) + n / 8] |= (uint8_t)(1 << (n & 7));
			memcpy(to, &t->of[n], sizeof(struct digest));
			to += sizeof(struct digest);
		}
	t->head.root =
		root_of(t->head.algorithm, bytes + sizeof(t->head), *ret_bytes - sizeof(t->head));
	memcpy(bytes, &t->head, sizeof(t->head));
	CHECK(check_digests(t));
	return 0;
}

int digest_decode(const uint8_t *bytes, size_t count, uint64_t size_bytes,
		  struct digest_table **ret)
{
	struct digest_head h;
	struct digest_table *t;
	struct digest root;
	uint64_t blocks;
	uint64_t used = 0;

	if (count < sizeof(h))
		return -EBADMSG;
	memcpy(&h, bytes, sizeof(h));
	if (h.magic != MAGIC || (h.algorithm != DIGEST_XXH3 && h.algorithm != DIGEST_BLAKE2B))
		return -EBADMSG;
	if (h.version != VERSION)
		return -ENOTSUP;
	if (h.block_bytes < DIGEST_BLOCK_MIN || h.block_bytes > 256 << 20 ||
	    h.block_bytes & (h.block_bytes - 1) || !h.size_bytes ||
	    (size_bytes && h.size_bytes != size_bytes))
		return -EBADMSG;
	blocks = h.size_bytes / h.block_bytes + !!(h.size_bytes % h.block_bytes);
	if (blocks > BLOCKS_MAX || h.present > blocks ||
	    count != sizeof(h) + (blocks + 7) / 8 + h.present * sizeof(struct digest))
		return -EBADMSG;
	root = root_of(h.algorithm, bytes + sizeof(h), count - sizeof(h));
	if (memcmp(&root, &h.root, sizeof(root)))
		return -EBADMSG;
	t = digest_new(h.size_bytes, h.block_bytes, h.algorithm);
	if (!t)
		return -ENOMEM;
	t->head = h;
	for (uint64_t n = 0; n < blocks; n++) {
		if (!(bytes[sizeof(h) + n / 8] >> (n & 7) & 1))
			continue;
		if (used == h.present) {
			digest_free(t);
			return -EBADMSG;
		}
		memcpy(&t->of[n],
		       bytes + sizeof(h) + (blocks + 7) / 8 + used++ * sizeof(struct digest),
		       sizeof(struct digest));
	}
	CHECK(check_digests(t));
	*ret = t;
	return 0;
}

int digest_compute(struct disk *d, enum digest_algorithm algorithm, struct digest_table **ret)
{
	struct digest_table *t = digest_new(d->size_bytes, digest_block_bytes(d), algorithm);
	int error = t ? 0 : -ENOMEM;

	for (uint64_t n = 0; !error && n < t->blocks; n++)
		error = digest_block(d, t, n, &t->of[n]);
	if (error) {
		digest_free(t);
		return error;
	}
	t->head.data_id = disk_data_id(d);
	*ret = t;
	return 0;
}

static int table_load_any(struct disk *d, struct digest_table **ret)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(d, DIGEST_ITEM_OWN, &bytes, &count);

	if (error)
		return error;
	error = digest_decode(bytes, count, 0, ret);
	free(bytes);
	return error;
}

static bool table_is_current(struct disk *d, const struct digest_table *t, struct guid id)
{
	if (t->head.size_bytes != d->size_bytes)
		return false;
	return guid_is_zero(id) ? file_stamp_holds(&d->file, &t->head.stamp)
				: guid_equal(t->head.data_id, id);
}

int digest_load(struct disk *d, struct digest_table **ret)
{
	struct digest_table *t;
	int error = table_load_any(d, &t);

	if (!error && !table_is_current(d, t, disk_data_id(d))) {
		digest_free(t);
		error = -ESTALE;
	}
	if (!error)
		*ret = t;
	return error;
}

static int table_save(struct disk *d, struct digest_table *t)
{
	uint8_t *bytes = NULL;
	size_t count;
	int error;

	t->head.data_id = disk_data_id(d);
	if (guid_is_zero(t->head.data_id))
		file_stamp_settle(&d->file, &t->head.stamp);
	error = digest_encode(t, &bytes, &count);
	if (!error)
		error = disk_write_item(d, DIGEST_ITEM_OWN, DISK_ITEM_OF_FILE, bytes, count);
	free(bytes);
	return error;
}

int digest_refresh(struct disk *d)
{
	struct digest_table *t = NULL;
	int error = disk_flush(d);

	if (!error)
		error = digest_compute(d, DIGEST_XXH3, &t);
	if (!error)
		error = table_save(d, t);
	digest_free(t);
	return error;
}

/* ---- bringing up to date ---- */

static void touched_mark(uint8_t *bits, const struct disk *d, uint64_t offset, uint64_t bytes)
{
	uint64_t last = (offset + bytes - 1) / d->touched_bytes;

	for (uint64_t n = offset / d->touched_bytes; n <= last && n < d->touched_blocks; n++) {
		uint8_t bit = (uint8_t)(1 << (n & 7));

		if (!(__atomic_load_n(&bits[n / 8], __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(&bits[n / 8], bit, __ATOMIC_SEQ_CST);
	}
}

void digest_touch(struct disk *d, uint64_t offset, uint64_t bytes)
{
	touched_mark(d->touched, d, offset, bytes);
}

void digest_written(struct disk *d, uint64_t offset, uint64_t bytes)
{
	uint8_t *copied = __atomic_load_n(&d->copied, __ATOMIC_ACQUIRE);

	if (copied)
		touched_mark(copied, d, offset, bytes);
}

void digest_touch_from(struct disk *d, uint64_t offset)
{
	if (offset < d->touched_from)
		d->touched_from = offset;
}

/* The same digests for a disk of another size. */
static int table_fit(struct disk *d, struct digest_table *t)
{
	struct digest *of;
	uint64_t blocks = (d->size_bytes + t->head.block_bytes - 1) / t->head.block_bytes;

	if (t->head.size_bytes == d->size_bytes)
		return 0;
	of = realloc(t->of, blocks * sizeof(*of));
	if (!of)
		return -ENOMEM;
	if (blocks > t->blocks)
		memset(of + t->blocks, 0, (blocks - t->blocks) * sizeof(*of));
	t->of = of;
	t->blocks = blocks;
	t->head.size_bytes = d->size_bytes;
	return 0;
}

void digest_continue(struct disk *d)
{
	struct digest_table *t;

	if (table_load_any(d, &t))
		return;
	d->opened_id = t->head.data_id;
	digest_free(t);
}

static bool was_touched(const struct disk *d, const struct digest_table *t, uint64_t block)
{
	uint64_t offset = block * t->head.block_bytes;
	uint64_t n = offset / d->touched_bytes;

	return offset + t->head.block_bytes > d->touched_from ||
	       (n < d->touched_blocks && d->touched[n / 8] >> (n & 7) & 1);
}

static bool any_touched(const struct disk *d)
{
	uint8_t any = d->touched_from != UINT64_MAX;

	for (uint64_t n = 0; n < (d->touched_blocks + 7) / 8; n++)
		any |= d->touched[n];
	return any;
}

/* A table that was not current when the disk was opened stays so: only a check computes everything.
 * */
int digest_close(struct disk *d)
{
	struct digest_table *t;
	int error = !d->touched || !any_touched(d) ? -ENOENT : table_load_any(d, &t);

	if (error)
		return digest_is_missing(error) ? 0 : error;
	if (guid_is_zero(d->opened_id) ? !d->opened_current
				       : !guid_equal(t->head.data_id, d->opened_id))
		error = -ESTALE;
	else if (t->head.block_bytes != d->touched_bytes)
		error = -ESTALE;
	else
		error = table_fit(d, t);
	for (uint64_t n = 0; !error && n < t->blocks; n++)
		if (was_touched(d, t, n))
			error = digest_block(d, t, n, &t->of[n]);
	if (!error)
		error = table_save(d, t);
	digest_free(t);
	return error == -ESTALE ? 0 : error;
}

/* ---- while data is written in order ---- */

struct digest_stream {
	struct digest_table *table;
	struct hash hash;
	uint64_t at;
	bool hashing;
	int error;
};

int digest_stream_begin(struct disk *d, struct digest_stream **ret)
{
	struct digest_stream *s = calloc(1, sizeof(*s));
	int error = s ? table_load_any(d, &s->table) : -ENOMEM;

	*ret = NULL;
	if (!error &&
	    (s->table->head.size_bytes != d->size_bytes || s->table->head.present || d->is_child))
		error = -ENOENT;
	if (error) {
		digest_stream_free(s);
		return error == -ENOENT ? 0 : error;
	}
	*ret = s;
	return 0;
}

void digest_stream_free(struct digest_stream *s)
{
	if (s && s->hashing)
		hash_end(&s->hash);
	if (s)
		digest_free(s->table);
	free(s);
}

static void add_zeros(struct hash *h, uint64_t bytes)
{
	static const uint8_t zeros[65536];

	for (uint64_t n; bytes; bytes -= n) {
		n = bytes < sizeof(zeros) ? bytes : sizeof(zeros);
		hash_add(h, zeros, n);
	}
}

/* Within a block. One that is zero to its end has no digest, so that leading zeros wait for
 * something else. */
static void add_to_block(struct digest_stream *s, const uint8_t *data, uint64_t bytes)
{
	uint64_t before = s->at % s->table->head.block_bytes;

	if (!s->hashing && data && !is_zero(data, bytes)) {
		s->error = s->error ? s->error : hash_begin(&s->hash, s->table->head.algorithm);
		s->hashing = !s->error;
		if (s->hashing)
			add_zeros(&s->hash, before);
	}
	if (s->hashing && data)
		hash_add(&s->hash, data, bytes);
	else if (s->hashing)
		add_zeros(&s->hash, bytes);
}

void digest_stream_add(struct digest_stream *s, const uint8_t *data, uint64_t bytes)
{
	while (s && bytes) {
		uint64_t block = s->table->head.block_bytes;
		uint64_t left = block - s->at % block;
		uint64_t n = bytes < left ? bytes : left;

		add_to_block(s, data, n);
		s->at += n;
		if (s->hashing && (n == left || s->at == s->table->head.size_bytes)) {
			s->table->of[(s->at - 1) / block] = hash_end(&s->hash);
			s->hashing = false;
		}
		data = data ? data + n : NULL;
		bytes -= n;
	}
}

int digest_stream_end(struct digest_stream *s, struct disk *d)
{
	int error = disk_flush(d);

	if (error || !s)
		return error;
	error = s->error ? s->error : table_save(d, s->table);
	if (error)
		return error;
	memset(d->touched, 0, d->touched_blocks / 8 + 1);
	d->opened_id = disk_data_id(d);
	d->opened_current = true;
	return 0;
}
