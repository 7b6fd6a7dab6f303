/*
 * Loaded before a program's own libraries: writes down what it does to files, act by act, into the
 * file that ACTS_LOG names, so that power_cuts.py can make what a power cut would have left.
 *
 * A record: struct act, one or two names, and of a write its data. Files are told apart by their
 * inode. A file without a name (O_TMPFILE) is nobody's after a cut, and not written down.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE, WRITE, TRUNCATE, PUNCH, SYNC, RENAME, UNLINK, LINK };
struct act {
	uint32_t kind, name_bytes, other_bytes, data_bytes;
	uint64_t inode, offset, bytes;
};
enum { DESCRIPTORS = 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t inode_of[DESCRIPTORS]; /* 0: not written down */
static int log_fd = -1;

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static void put(const void *from, size_t bytes)
{
	if (REAL(write)(log_fd, from, bytes) != (ssize_t)bytes)
		abort();
}

static void note(struct act act, const char *name, const char *other, const struct iovec *iov,
		 int count)
{
	if (log_fd < 0 && getenv("ACTS_LOG"))
		log_fd = REAL(open64)(getenv("ACTS_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC,
				      0600);
	if (log_fd < 0)
		return;
	act.name_bytes = name ? (uint32_t)strlen(name) : 0;
	act.other_bytes = other ? (uint32_t)strlen(other) : 0;
	for (int n = 0; n < count; n++)
		act.data_bytes += (uint32_t)iov[n].iov_len;
	pthread_mutex_lock(&lock);
	put(&act, sizeof(act));
	put(name, act.name_bytes);
	put(other, act.other_bytes);
	for (int n = 0; n < count; n++)
		put(iov[n].iov_base, iov[n].iov_len);
	pthread_mutex_unlock(&lock);
}

static int opened(int fd, const char *path, int flags, int was_there)
{
	struct stat st;
	int saved = errno;

	if (fd < 0 || fd >= DESCRIPTORS)
		return fd;
	inode_of[fd] = 0;
	if ((flags & O_TMPFILE) != O_TMPFILE && !fstat(fd, &st) &&
	    (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && st.st_nlink) {
		inode_of[fd] = st.st_ino;
		if (flags & O_CREAT && !was_there)
			note((struct act){ .kind = CREATE, .inode = st.st_ino }, path, NULL, NULL,
			     0);
		else if (flags & O_TRUNC)
			note((struct act){ .kind = TRUNCATE, .inode = st.st_ino }, NULL, NULL, NULL,
			     0);
	}
	errno = saved;
	return fd;
}

int open64(const char *path, int flags, ...)
{
	struct stat st;
	int was_there = !stat(path, &st);
	mode_t mode = 0;
	va_list list;

	va_start(list, flags);
	if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE)
		mode = va_arg(list, mode_t);
	va_end(list);
	return opened(REAL(open64)(path, flags, mode), path, flags, was_there);
}

int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags) { return open64(path, flags); }

int acts_close(int fd) __asm__("close");
int acts_close(int fd)
{
	if (fd >= 0 && fd < DESCRIPTORS)
		inode_of[fd] = 0;
	return REAL(close)(fd);
}

static uint64_t inode(int fd) { return fd >= 0 && fd < DESCRIPTORS ? inode_of[fd] : 0; }

static void note_write(int fd, uint64_t offset, const struct iovec *iov, int count)
{
	if (inode(fd))
		note((struct act){ .kind = WRITE, .inode = inode(fd), .offset = offset }, NULL,
		     NULL, iov, count);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off_t offset)
{
	note_write(fd, (uint64_t)offset, iov, count);
	return REAL(pwritev64)(fd, iov, count, offset);
}

ssize_t pwrite64(int fd, const void *from, size_t bytes, off_t offset)
{
	note_write(fd, (uint64_t)offset, &(struct iovec){ (void *)(uintptr_t)from, bytes }, 1);
	return REAL(pwrite64)(fd, from, bytes, offset);
}

ssize_t acts_write(int fd, const void *from, size_t bytes) __asm__("write");
ssize_t acts_write(int fd, const void *from, size_t bytes)
{
	if (inode(fd))
		note_write(fd, (uint64_t)lseek(fd, 0, SEEK_CUR),
			   &(struct iovec){ (void *)(uintptr_t)from, bytes }, 1);
	return REAL(write)(fd, from, bytes);
}

int ftruncate64(int fd, off_t bytes)
{
	if (inode(fd))
		note((struct act){ .kind = TRUNCATE, .inode = inode(fd), .bytes = (uint64_t)bytes },
		     NULL, NULL, NULL, 0);
	return REAL(ftruncate64)(fd, bytes);
}

int fallocate64(int fd, int mode, off_t offset, off_t bytes)
{
	if (inode(fd))
		note((struct act){ .kind = PUNCH,
				   .inode = inode(fd),
				   .offset = (uint64_t)offset,
				   .bytes = (uint64_t)bytes },
		     NULL, NULL, NULL, 0);
	return REAL(fallocate64)(fd, mode, offset, bytes);
}

static void note_sync(int fd)
{
	if (inode(fd))
		note((struct act){ .kind = SYNC, .inode = inode(fd) }, NULL, NULL, NULL, 0);
}

/* The machine that this runs on keeps its power. */
int fdatasync(int fd)
{
	note_sync(fd);
	return 0;
}
int fsync(int fd)
{
	note_sync(fd);
	return 0;
}

int acts_rename(const char *from, const char *to) __asm__("rename");
int acts_rename(const char *from, const char *to)
{
	int result = REAL(rename)(from, to);

	if (!result)
		note((struct act){ .kind = RENAME }, from, to, NULL, 0);
	return result;
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	int result = REAL(renameat2)(from_fd, from, to_fd, to, flags);

	if (!result)
		note((struct act){ .kind = RENAME }, from, to, NULL, 0);
	return result;
}

int acts_unlink(const char *path) __asm__("unlink");
int acts_unlink(const char *path)
{
	int result = REAL(unlink)(path);

	if (!result)
		note((struct act){ .kind = UNLINK }, path, NULL, NULL, 0);
	return result;
}

/*
 * What goes by a ring is not seen here: there is none. The library that makes one may be linked
 * into the program, so that it is the kernel that refuses it.
 */
static __attribute__((constructor)) void refuse_rings(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { .len = sizeof(filter) / sizeof(filter[0]),
					    .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		abort();
}
