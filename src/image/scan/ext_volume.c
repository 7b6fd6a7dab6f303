/* See ext_volume.h. */
#include "ext_volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct struct_io_manager manager;

static errcode_t volume_open(const char *name, int flags, io_channel *ret)
{
	io_channel channel = calloc(1, sizeof(*channel));
	void *volume;

	(void)flags;
	if (!channel || sscanf(name, "%p", &volume) != 1) {
		free(channel);
		return ENOMEM;
	}
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = &manager;
	channel->block_size = 1024;
	channel->refcount = 1;
	channel->private_data = volume;
	channel->name = strdup("volume");
	*ret = channel;
	return 0;
}

static errcode_t volume_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t volume_block_size(io_channel channel, int bytes)
{
	channel->block_size = bytes;
	return 0;
}

/* A negative count is in bytes. */
static errcode_t read_blocks(io_channel channel, unsigned long long block, int count, void *to)
{
	size_t bytes = count < 0 ? (size_t)-count : (size_t)count * (size_t)channel->block_size;

	if (block > UINT64_MAX / 2 / (unsigned)channel->block_size)
		return EIO;
	return (errcode_t)-volume_read(channel->private_data, block * (unsigned)channel->block_size,
				       to, bytes);
}

static errcode_t read_blocks32(io_channel channel, unsigned long block, int count, void *to)
{
	return read_blocks(channel, block, count, to);
}
static errcode_t no_write(io_channel channel, unsigned long block, int count, const void *from)
{
	(void)channel;
	(void)block;
	(void)count;
	(void)from;
	return EROFS;
}
static errcode_t no_write64(io_channel channel, unsigned long long block, int count,
			    const void *from)
{
	(void)channel;
	(void)block;
	(void)count;
	(void)from;
	return EROFS;
}
static errcode_t nothing(io_channel channel)
{
	(void)channel;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "umbra",
	.open = volume_open,
	.close = volume_close,
	.set_blksize = volume_block_size,
	.read_blk = read_blocks32,
	.write_blk = no_write,
	.flush = nothing,
	.read_blk64 = read_blocks,
	.write_blk64 = no_write64,
};

bool ext_volume_open(const struct scan_volume *volume, int flags, ext2_filsys *ret)
{
	char name[32];

	snprintf(name, sizeof(name), "%p", (const void *)volume);
	return !ext2fs_open2(name, NULL, EXT2_FLAG_64BITS | flags, 0, 0, &manager, ret);
}
