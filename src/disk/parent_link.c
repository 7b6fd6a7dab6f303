/* What a child knows of the content its parent had, and whether the parent still has it. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"

enum { MAGIC = 0x4b4e4c55, VERSION = 1 };

struct link_record {
	uint32_t magic, version;
	struct file_stamp stamp;
	struct guid parent_data_id;
	struct digest root; /* of the parent's table */
};

struct link {
	struct disk *child;
	struct digest_table *table;
	uint8_t *verified; /* a bit a block */
	pthread_mutex_t lock;
};

int link_encode(struct disk *parent, enum link_source source, struct link_items *ret)
{
	struct digest_table *table;
	struct link_record record = { .magic = MAGIC,
				      .version = VERSION,
				      .parent_data_id = disk_data_id(parent) };
	int error;

	*ret = (struct link_items){ 0 };
	/* before: what changes meanwhile makes it differ */
	disk_stamp_settle(parent, &record.stamp);
	error = source == LINK_COMPUTED ? -ESTALE : digest_load(parent, &table);
	if (error && source != LINK_KEPT)
		error = digest_compute(parent, DIGEST_XXH3, &table);
	if (error)
		return error;
	error = digest_encode(table, &ret->table, &ret->table_bytes);
	record.root = table->head.root;
	digest_free(table);
	ret->link = malloc(sizeof(record));
	ret->link_bytes = sizeof(record);
	if (ret->link)
		memcpy(ret->link, &record, sizeof(record));
	if (error || !ret->link) {
		free(ret->link);
		free(ret->table);
		*ret = (struct link_items){ 0 };
		return error ? error : -ENOMEM;
	}
	return 0;
}

int link_make(struct disk *child, enum link_source source)
{
	struct link_items items;
	int error = child->parent ? link_encode(child->parent, source, &items) : -EINVAL;

	if (error)
		return error;
	error = disk_write_item(child, DIGEST_ITEM_PARENT, DISK_ITEM_OF_FILE, items.table,
				items.table_bytes);
	if (!error)
		error = disk_write_item(child, DIGEST_ITEM_LINK, DISK_ITEM_OF_FILE, items.link,
					items.link_bytes);
	free(items.link);
	free(items.table);
	return error;
}

int link_drop(struct disk *child)
{
	int error = disk_write_item(child, DIGEST_ITEM_LINK, DISK_ITEM_OF_FILE, NULL, 0);

	return error ? error
		     : disk_write_item(child, DIGEST_ITEM_PARENT, DISK_ITEM_OF_FILE, NULL, 0);
}

static int link_load_table(struct disk *child, struct digest_table **ret)
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(child, DIGEST_ITEM_PARENT, &bytes, &count);

	if (error)
		return error;
	error = digest_decode(bytes, count, 0, ret);
	free(bytes);
	return error;
}

int link_load(struct disk *child, struct link **ret)
{
	struct link_record record;
	struct link *known;
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(child, DIGEST_ITEM_LINK, &bytes, &count);

	*ret = NULL;
	if (error)
		return error == -ENOENT ? 0 : error;
	if (count == sizeof(record))
		memcpy(&record, bytes, sizeof(record));
	error = count != sizeof(record) || record.magic != MAGIC ? -EBADMSG : 0;
	free(bytes);
	if (error || record.version != VERSION ||
	    disk_stamp_holds(child->parent, &record.stamp))
		return error;
	known = calloc(1, sizeof(*known));
	if (!known)
		return -ENOMEM;
	pthread_mutex_init(&known->lock, NULL);
	known->child = child;
	error = link_load_table(child, &known->table);
	if (!error && memcmp(&known->table->head.root, &record.root, sizeof(record.root)))
		error = -EBADMSG;
	if (!error) {
		known->verified = calloc(1, known->table->blocks / 8 + 1);
		error = known->verified ? 0 : -ENOMEM;
	}
	if (error) {
		link_free(known);
		return error == -ENOENT ? -EBADMSG : error;
	}
	*ret = known;
	return 0;
}

void link_free(struct link *known)
{
	if (!known)
		return;
	digest_free(known->table);
	free(known->verified);
	pthread_mutex_destroy(&known->lock);
	free(known);
}

static int link_verify_block(struct link *known, struct disk *parent, uint64_t block)
{
	struct digest now;
	int error;

	if (known->verified[block / 8] >> (block & 7) & 1)
		return 0;
	error = digest_block(parent, known->table, block, &now);
	if (error || memcmp(&now, &known->table->of[block], sizeof(now)))
		return error ? error : -ESTALE;
	known->verified[block / 8] |= (uint8_t)(1 << (block & 7));
	return 0;
}

int link_verify(struct link *known, struct disk *parent, uint64_t offset, uint64_t bytes)
{
	uint64_t block = offset / known->table->head.block_bytes;
	uint64_t last = (offset + bytes - 1) / known->table->head.block_bytes;
	int error = 0;

	if (parent->size_bytes != known->table->head.size_bytes)
		return -ESTALE;
	pthread_mutex_lock(&known->lock);
	for (; block <= last && block < known->table->blocks && !error; block++)
		error = link_verify_block(known, parent, block);
	pthread_mutex_unlock(&known->lock);
	return error;
}

int link_compare(struct disk *child, struct disk *parent, int (*report)(void *, uint64_t, uint64_t),
		 void *context)
{
	struct digest_table *table;
	uint64_t from = 0;
	uint64_t bytes = 0;
	int error = link_load_table(child, &table);

	if (error)
		return error;
	for (uint64_t n = 0; n < table->blocks && !error; n++) {
		uint64_t at = n * table->head.block_bytes;
		uint64_t size = table->head.size_bytes - at < table->head.block_bytes
					? table->head.size_bytes - at
					: table->head.block_bytes;
		struct digest now;

		error = digest_block(parent, table, n, &now);
		if (error || !memcmp(&now, &table->of[n], sizeof(now)))
			continue;
		if (bytes && from + bytes != at) {
			error = report(context, from, bytes);
			bytes = 0;
		}
		if (!bytes)
			from = at;
		bytes += size;
	}
	if (!error && bytes)
		error = report(context, from, bytes);
	if (!error && parent->size_bytes > table->head.size_bytes)
		error = report(context, table->head.size_bytes,
			       parent->size_bytes - table->head.size_bytes);
	digest_free(table);
	return error;
}
