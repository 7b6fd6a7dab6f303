/* Tables of content digests: computing, keeping, bringing up to date. */
#include "digest.h"

#include "hash_wide.h"

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
	bool wide;
	XXH3_state_t *xxh3;
	crypto_generichash_blake2b_state blake2b;
};

static int hash_begin(struct hash *hash, enum digest_algorithm algorithm)
{
	hash->algorithm = algorithm;
	hash->xxh3 = NULL;
	if (algorithm == DIGEST_BLAKE2B)
		return crypto_generichash_blake2b_init(&hash->blake2b, NULL, 0,
						       sizeof(struct digest))
			       ? -EIO
			       : 0;
	hash->wide = hash_wide_is_there();
	hash->xxh3 = XXH3_createState();
	return hash->xxh3 && XXH3_128bits_reset(hash->xxh3) == XXH_OK ? 0 : -ENOMEM;
}

static void hash_add(struct hash *hash, const void *at, size_t bytes)
{
	if (hash->algorithm == DIGEST_BLAKE2B)
		crypto_generichash_blake2b_update(&hash->blake2b, at, bytes);
	else if (hash->wide)
		hash_wide_add(hash->xxh3, at, bytes);
	else
		XXH3_128bits_update(hash->xxh3, at, bytes);
}

static struct digest hash_end(struct hash *hash)
{
	XXH128_canonical_t canonical;
	struct digest digest;

	if (hash->algorithm == DIGEST_BLAKE2B) {
		crypto_generichash_blake2b_final(&hash->blake2b, digest.byte, sizeof(digest));
		return digest;
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash->xxh3));
	XXH3_freeState(hash->xxh3);
	memcpy(digest.byte, canonical.digest, sizeof(digest));
	return digest;
}

static bool is_empty(const struct digest *digest)
{
	return !memcmp(digest, &(struct digest){ { 0 } }, sizeof(*digest));
}

/* Goes over what the file has of a block: content is told of in order, absent ranges as they are,
 * merged. */
struct walk { struct hash hash; bool any, all_zero; uint64_t absent_at, absent_bytes; };

static void end_absent(struct walk *walk)
{
	const uint64_t range[2] = { walk->absent_at, walk->absent_bytes };

	if (walk->absent_bytes)
		hash_add(&walk->hash, range, sizeof(range));
	walk->absent_bytes = 0;
}

static int add_data(struct walk *walk, struct disk *disk, enum disk_range_kind kind,
		    uint64_t offset, uint64_t bytes, uint8_t *buffer)
{
	int error = 0;

	while (bytes && !error) {
		uint64_t n = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;

		if (kind == DISK_RANGE_ZERO)
			memset(buffer, 0, n);
		else
			error = disk_read(disk, offset, buffer, n);
		if (!error)
			hash_add(&walk->hash, buffer, n);
		walk->all_zero = walk->all_zero && (kind == DISK_RANGE_ZERO || is_zero(buffer, n));
		offset += n;
		bytes -= n;
		/* this may run beside somebody who waits for an answer: for no longer than a buffer
		 * takes */
		sched_yield();
	}
	return error;
}

int digest_block(struct disk *disk, const struct digest_table *table, uint64_t block,
		 struct digest *ret)
{
	uint64_t at = block * table->head.block_bytes;
	uint64_t end = at + table->head.block_bytes;
	struct disk_range range = { .bytes = 0 };
	struct walk walk = { .all_zero = true };
	uint8_t *buffer;
	int error;

	assert(block < table->blocks);
	*ret = (struct digest){ { 0 } };
	end = end < disk->size_bytes ? end : disk->size_bytes;
	if (at >= end)
		return 0;
	error = disk_range(disk, at, end - at, &range);
	if (error)
		return error;
	if (range.bytes == end - at &&
	    (range.kind == DISK_RANGE_ABSENT || (range.kind == DISK_RANGE_ZERO && !disk->is_child)))
		return 0; /* nothing to say, which is the usual case */
	buffer = malloc(BUFFER_BYTES);
	error = buffer ? hash_begin(&walk.hash, table->head.algorithm) : -ENOMEM;
	if (error) {
		free(buffer);
		return error;
	}
	for (uint64_t from = at; at < end && !error; at += range.bytes) {
		error = disk_range(disk, at, end - at, &range);
		if (!error && range.kind == DISK_RANGE_ABSENT) {
			if (!walk.absent_bytes)
				walk.absent_at = at - from;
			walk.absent_bytes += range.bytes;
			continue;
		}
		walk.any = true;
		end_absent(&walk);
		if (!error)
			error = add_data(&walk, disk, range.kind, at, range.bytes, buffer);
	}
	end_absent(&walk);
	free(buffer);
	*ret = hash_end(&walk.hash);
	if (!walk.any || (walk.all_zero && !disk->is_child))
		*ret = (struct digest){ { 0 } };
	return error;
}

/* ---- tables ---- */

void check_digests(const struct digest_table *table)
{
	uint64_t block_bytes = table->head.block_bytes;

	assert(table->head.magic == MAGIC && table->head.version == VERSION);
	assert(table->head.algorithm == DIGEST_XXH3 || table->head.algorithm == DIGEST_BLAKE2B);
	assert(block_bytes >= DIGEST_BLOCK_MIN && !(block_bytes & (block_bytes - 1)));
	assert(table->of && table->blocks && table->head.present <= table->blocks);
	assert(table->head.size_bytes > (table->blocks - 1) * block_bytes);
	assert(table->head.size_bytes - (table->blocks - 1) * block_bytes <= block_bytes);
}

struct digest_table *digest_new(uint64_t size_bytes, uint32_t block_bytes,
				enum digest_algorithm algorithm)
{
	struct digest_table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->head = (struct digest_head){ .magic = MAGIC,
					    .version = VERSION,
					    .algorithm = algorithm,
					    .block_bytes = block_bytes,
					    .size_bytes = size_bytes };
	table->blocks = (size_bytes + block_bytes - 1) / block_bytes;
	table->of = calloc(table->blocks, sizeof(*table->of));
	if (!table->of) {
		free(table);
		table = NULL;
	}
	return table;
}

void digest_free(struct digest_table *table)
{
	if (table)
		free(table->of);
	free(table);
}

static struct digest root_of(enum digest_algorithm algorithm, const uint8_t *at, size_t bytes)
{
	XXH128_canonical_t canonical;
	struct digest digest;

	if (algorithm == DIGEST_BLAKE2B) {
		crypto_generichash_blake2b(digest.byte, sizeof(digest), at, bytes, NULL, 0);
		return digest;
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(at, bytes));
	memcpy(digest.byte, canonical.digest, sizeof(digest));
	return digest;
}

int digest_encode(struct digest_table *table, uint8_t **ret, size_t *ret_bytes)
{
	size_t bits = (table->blocks + 7) / 8;
	uint8_t *bytes, *to;

	table->head.present = 0;
	for (uint64_t n = 0; n < table->blocks; n++)
		table->head.present += !is_empty(&table->of[n]);
	*ret_bytes = sizeof(table->head) + bits + table->head.present * sizeof(struct digest);
	*ret = bytes = calloc(1, *ret_bytes);
	if (!bytes)
		return -ENOMEM;
	to = bytes + sizeof(table->head) + bits;
	for (uint64_t n = 0; n < table->blocks; n++)
		if (!is_empty(&table->of[n])) {
			bytes[sizeof(table->head) + n / 8] |= (uint8_t)(1 << (n & 7));
			memcpy(to, &table->of[n], sizeof(struct digest));
			to += sizeof(struct digest);
		}
	table->head.root = root_of(table->head.algorithm, bytes + sizeof(table->head),
				   *ret_bytes - sizeof(table->head));
	memcpy(bytes, &table->head, sizeof(table->head));
	CHECK(check_digests(table));
	return 0;
}

int digest_decode(const uint8_t *bytes, size_t count, uint64_t size_bytes,
		  struct digest_table **ret)
{
	struct digest_head head;
	struct digest_table *table;
	struct digest root;
	uint64_t blocks;
	uint64_t used = 0;

	if (count < sizeof(head))
		return -EBADMSG;
	memcpy(&head, bytes, sizeof(head));
	if (head.magic != MAGIC ||
	    (head.algorithm != DIGEST_XXH3 && head.algorithm != DIGEST_BLAKE2B))
		return -EBADMSG;
	if (head.version != VERSION)
		return -ENOTSUP;
	if (head.block_bytes < DIGEST_BLOCK_MIN || head.block_bytes > 256 << 20 ||
	    head.block_bytes & (head.block_bytes - 1) || !head.size_bytes ||
	    (size_bytes && head.size_bytes != size_bytes))
		return -EBADMSG;
	blocks = head.size_bytes / head.block_bytes + !!(head.size_bytes % head.block_bytes);
	if (blocks > BLOCKS_MAX || head.present > blocks ||
	    count != sizeof(head) + (blocks + 7) / 8 + head.present * sizeof(struct digest))
		return -EBADMSG;
	root = root_of(head.algorithm, bytes + sizeof(head), count - sizeof(head));
	if (memcmp(&root, &head.root, sizeof(root)))
		return -EBADMSG;
	table = digest_new(head.size_bytes, head.block_bytes, head.algorithm);
	if (!table)
		return -ENOMEM;
	table->head = head;
	for (uint64_t n = 0; n < blocks; n++) {
		if (!(bytes[sizeof(head) + n / 8] >> (n & 7) & 1))
			continue;
		if (used == head.present) {
			digest_free(table);
			return -EBADMSG;
		}
		memcpy(&table->of[n],
		       bytes + sizeof(head) + (blocks + 7) / 8 + used++ * sizeof(struct digest),
		       sizeof(struct digest));
	}
	CHECK(check_digests(table));
	*ret = table;
	return 0;
}

int digest_compute(struct disk *disk, enum digest_algorithm algorithm, struct digest_table **ret)
{
	struct digest_table *table =
		digest_new(disk->size_bytes, digest_block_bytes(disk), algorithm);
	int error = table ? 0 : -ENOMEM;

	for (uint64_t n = 0; !error && n < table->blocks; n++)
		error = digest_block(disk, table, n, &table->of[n]);
	if (error) {
		digest_free(table);
		return error;
	}
	table->head.data_id = disk_data_id(disk);
	*ret = table;
	return 0;
}

static int table_load_any(struct disk *disk, struct digest_table **ret)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(disk, DIGEST_ITEM_OWN, &bytes, &count);

	if (error)
		return error;
	error = digest_decode(bytes, count, 0, ret);
	free(bytes);
	return error;
}

static bool table_is_current(struct disk *disk, const struct digest_table *table, struct guid id)
{
	if (table->head.size_bytes != disk->size_bytes)
		return false;
	return guid_is_zero(id) ? disk_stamp_holds(disk, &table->head.stamp)
				: guid_equal(table->head.data_id, id);
}

int digest_load(struct disk *disk, struct digest_table **ret)
{
	struct digest_table *table;
	int error = table_load_any(disk, &table);

	if (!error && !table_is_current(disk, table, disk_data_id(disk))) {
		digest_free(table);
		error = -ESTALE;
	}
	if (!error)
		*ret = table;
	return error;
}

static int table_save(struct disk *disk, struct digest_table *table)
{
	uint8_t *bytes = NULL;
	size_t count;
	int error;

	table->head.data_id = disk_data_id(disk);
	if (guid_is_zero(table->head.data_id))
		disk_stamp_settle(disk, &table->head.stamp);
	error = digest_encode(table, &bytes, &count);
	if (!error)
		error = disk_write_item(disk, DIGEST_ITEM_OWN, DISK_ITEM_OF_FILE, bytes, count);
	free(bytes);
	return error;
}

int digest_refresh(struct disk *disk)
{
	struct digest_table *table = NULL;
	int error = disk_flush(disk);

	if (!error)
		error = digest_compute(disk, DIGEST_XXH3, &table);
	if (!error)
		error = table_save(disk, table);
	digest_free(table);
	return error;
}

/* ---- bringing up to date ---- */

static void touched_mark(uint8_t *bits, const struct disk *disk, uint64_t offset, uint64_t bytes)
{
	uint64_t last = (offset + bytes - 1) / disk->touched_bytes;

	for (uint64_t n = offset / disk->touched_bytes; n <= last && n < disk->touched_blocks;
	     n++) {
		uint8_t bit = (uint8_t)(1 << (n & 7));

		if (!(__atomic_load_n(&bits[n / 8], __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(&bits[n / 8], bit, __ATOMIC_SEQ_CST);
	}
}

void digest_touch(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	touched_mark(disk->touched, disk, offset, bytes);
}

void digest_written(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	uint8_t *copied = __atomic_load_n(&disk->copied, __ATOMIC_ACQUIRE);

	if (copied)
		touched_mark(copied, disk, offset, bytes);
}

void digest_touch_from(struct disk *disk, uint64_t offset)
{
	if (offset < disk->touched_from)
		disk->touched_from = offset;
}

/* The same digests for a disk of another size. */
static int table_fit(struct disk *disk, struct digest_table *table)
{
	struct digest *of;
	uint64_t blocks =
		(disk->size_bytes + table->head.block_bytes - 1) / table->head.block_bytes;

	if (table->head.size_bytes == disk->size_bytes)
		return 0;
	of = realloc(table->of, blocks * sizeof(*of));
	if (!of)
		return -ENOMEM;
	if (blocks > table->blocks)
		memset(of + table->blocks, 0, (blocks - table->blocks) * sizeof(*of));
	table->of = of;
	table->blocks = blocks;
	table->head.size_bytes = disk->size_bytes;
	return 0;
}

void digest_continue(struct disk *disk)
{
	struct digest_table *table;

	if (table_load_any(disk, &table))
		return;
	disk->opened_id = table->head.data_id;
	digest_free(table);
}

static bool was_touched(const struct disk *disk, const struct digest_table *table, uint64_t block)
{
	uint64_t offset = block * table->head.block_bytes;
	uint64_t n = offset / disk->touched_bytes;

	return offset + table->head.block_bytes > disk->touched_from ||
	       (n < disk->touched_blocks && disk->touched[n / 8] >> (n & 7) & 1);
}

static bool any_touched(const struct disk *disk)
{
	uint8_t any = disk->touched_from != UINT64_MAX;

	for (uint64_t n = 0; n < (disk->touched_blocks + 7) / 8; n++)
		any |= disk->touched[n];
	return any;
}

/* A table that was not current when the disk was opened stays so: only a check computes everything.
 * */
int digest_close(struct disk *disk)
{
	struct digest_table *table;
	int error = !disk->touched || !any_touched(disk) ? -ENOENT : table_load_any(disk, &table);

	if (error)
		return digest_is_missing(error) ? 0 : error;
	if (guid_is_zero(disk->opened_id) ? !disk->opened_current
					  : !guid_equal(table->head.data_id, disk->opened_id))
		error = -ESTALE;
	else if (table->head.block_bytes != disk->touched_bytes)
		error = -ESTALE;
	else
		error = table_fit(disk, table);
	for (uint64_t n = 0; !error && n < table->blocks; n++)
		if (was_touched(disk, table, n))
			error = digest_block(disk, table, n, &table->of[n]);
	if (!error)
		error = table_save(disk, table);
	digest_free(table);
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

int digest_stream_begin(struct disk *disk, struct digest_stream **ret)
{
	struct digest_stream *stream = calloc(1, sizeof(*stream));
	int error = stream ? table_load_any(disk, &stream->table) : -ENOMEM;

	*ret = NULL;
	if (!error && (stream->table->head.size_bytes != disk->size_bytes ||
		       stream->table->head.present || disk->is_child))
		error = -ENOENT;
	if (error) {
		digest_stream_free(stream);
		return error == -ENOENT ? 0 : error;
	}
	*ret = stream;
	return 0;
}

void digest_stream_free(struct digest_stream *stream)
{
	if (stream && stream->hashing)
		hash_end(&stream->hash);
	if (stream)
		digest_free(stream->table);
	free(stream);
}

static void add_zeros(struct hash *hash, uint64_t bytes)
{
	static const uint8_t zeros[65536];

	for (uint64_t n; bytes; bytes -= n) {
		n = bytes < sizeof(zeros) ? bytes : sizeof(zeros);
		hash_add(hash, zeros, n);
	}
}

/* Within a block. One that is zero to its end has no digest, so that leading zeros wait for
 * something else. */
static void add_to_block(struct digest_stream *stream, const uint8_t *data, uint64_t bytes)
{
	uint64_t before = stream->at % stream->table->head.block_bytes;

	if (!stream->hashing && data && !is_zero(data, bytes)) {
		stream->error = stream->error
					? stream->error
					: hash_begin(&stream->hash, stream->table->head.algorithm);
		stream->hashing = !stream->error;
		if (stream->hashing)
			add_zeros(&stream->hash, before);
	}
	if (stream->hashing && data)
		hash_add(&stream->hash, data, bytes);
	else if (stream->hashing)
		add_zeros(&stream->hash, bytes);
}

void digest_stream_add(struct digest_stream *stream, const uint8_t *data, uint64_t bytes)
{
	assert(!stream || bytes <= stream->table->head.size_bytes - stream->at);
	while (stream && bytes) {
		uint64_t block = stream->table->head.block_bytes;
		uint64_t left = block - stream->at % block;
		uint64_t n = bytes < left ? bytes : left;

		add_to_block(stream, data, n);
		stream->at += n;
		if (stream->hashing &&
		    (n == left || stream->at == stream->table->head.size_bytes)) {
			stream->table->of[(stream->at - 1) / block] = hash_end(&stream->hash);
			stream->hashing = false;
		}
		data = data ? data + n : NULL;
		bytes -= n;
	}
}

int digest_stream_end(struct digest_stream *stream, struct disk *disk)
{
	int error = disk_flush(disk);

	if (error || !stream)
		return error;
	error = stream->error ? stream->error : table_save(disk, stream->table);
	if (error)
		return error;
	memset(disk->touched, 0, disk->touched_blocks / 8 + 1);
	disk->opened_id = disk_data_id(disk);
	disk->opened_current = true;
	return 0;
}
