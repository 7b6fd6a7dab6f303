/* See file_arriving.h. */
#include "file_arriving.h"

#include <errno.h>
#include <stdlib.h>

struct arriving_file { struct disk_file below; struct file_arrivals arrivals; };

static int arriving_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	const struct arriving_file *file = context;
	const struct file_arrivals *arrivals = &file->arrivals;
	uint64_t bytes = 0;
	int error;

	for (int n = 0; n < count; n++)
		bytes += iov[n].iov_len;
	error = bytes ? arrivals->wait(arrivals->context, arrivals->first, offset, bytes) : 0;
	return error ? error : file_readv(&file->below, offset, iov, count);
}

static int arriving_writev(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	(void)context;
	(void)offset;
	(void)iov;
	(void)count;
	return -EROFS;
}

static int arriving_flush(void *context)
{
	(void)context;
	return 0;
}

static int arriving_truncate(void *context, uint64_t bytes)
{
	(void)context;
	(void)bytes;
	return -EROFS;
}

static int arriving_discard(void *context, uint64_t offset, uint64_t bytes)
{
	(void)context;
	(void)offset;
	(void)bytes;
	return -EROFS;
}

/* It has its length from the beginning. */
static int64_t arriving_size(void *context)
{
	return file_size(&((const struct arriving_file *)context)->below);
}

static int arriving_lock(void *context, enum file_lock lock)
{
	return file_lock(&((const struct arriving_file *)context)->below, lock);
}

static void arriving_close(void *context)
{
	struct arriving_file *file = context;

	file_close(&file->below);
	free(file);
}

static const struct disk_file_ops arriving_ops = {
	.readv = arriving_readv,
	.writev = arriving_writev,
	.flush = arriving_flush,
	.truncate = arriving_truncate,
	.discard = arriving_discard,
	.size = arriving_size,
	.close = arriving_close,
	.lock = arriving_lock,
};

int disk_file_arriving(struct disk_file below, const struct file_arrivals *arrivals,
		       struct disk_file *ret)
{
	struct arriving_file *file = malloc(sizeof(*file));

	if (!file) {
		file_close(&below);
		return -ENOMEM;
	}
	*file = (struct arriving_file){ .below = below, .arrivals = *arrivals };
	*ret = (struct disk_file){ .ops = &arriving_ops,
				   .context = file,
				   .sync = PTHREAD_MUTEX_INITIALIZER };
	return 0;
}
