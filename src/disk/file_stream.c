/* A pipe, or whatever takes bytes in order alone, as the file below a disk that is written once. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"

/* at: how many bytes have gone; the next ones have to follow them. */
struct stream {
	int fd;
	uint64_t at;
};

static int stream_put(struct stream *stream, const uint8_t *from, size_t bytes)
{
	while (bytes) {
		ssize_t done = write(stream->fd, from, bytes);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		from += done;
		bytes -= (size_t)done;
		stream->at += (uint64_t)done;
	}
	return 0;
}

static int stream_writev(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	struct stream *stream = context;
	int error = offset == stream->at ? 0 : -ESPIPE;

	for (int n = 0; n < count && !error; n++)
		error = stream_put(stream, iov[n].iov_base, iov[n].iov_len);
	return error;
}

static int stream_readv(void *context, uint64_t offset, const struct iovec *iov, int count)
{
	(void)context;
	(void)offset;
	(void)iov;
	(void)count;
	return -ESPIPE;
}

/* A pipe keeps nothing. */
static int stream_flush(void *context)
{
	(void)context;
	return 0;
}

static int stream_truncate(void *context, uint64_t bytes)
{
	(void)context;
	(void)bytes;
	return -ESPIPE;
}

static int stream_discard(void *context, uint64_t offset, uint64_t bytes)
{
	(void)context;
	(void)offset;
	(void)bytes;
	return -ESPIPE;
}

static int64_t stream_size(void *context) { return (int64_t)((struct stream *)context)->at; }
static void stream_close(void *context) { free(context); }

static const struct disk_file_ops stream_ops = {
	.readv = stream_readv,
	.writev = stream_writev,
	.flush = stream_flush,
	.truncate = stream_truncate,
	.discard = stream_discard,
	.size = stream_size,
	.close = stream_close,
};

int disk_file_stream(int fd, struct disk_file *ret)
{
	struct stream *stream = malloc(sizeof(*stream));

	if (!stream)
		return -ENOMEM;
	*stream = (struct stream){ .fd = fd };
	*ret = (struct disk_file){ .ops = &stream_ops,
				   .context = stream,
				   .sync = PTHREAD_MUTEX_INITIALIZER };
	return 0;
}
