/*
 * A folder of the host's in this guest: mounted as FUSE, whose messages are passed on as they are,
 * to the host and back, each way by a process of its own: neither waits for the other.
 *
 * Nothing is asked before the host says so: until then another process there has the line.
 *
 * It is mounted as long as the connection lasts. Who is in it then, or has a file of it open, finds
 * it ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

/* As the host serves it: a write of 128 KiB, and its head. */
enum { DATA_BYTES = 128 << 10, HEAD_BYTES = 4 << 10, MESSAGE_BYTES = DATA_BYTES + HEAD_BYTES };
enum { OPTIONS_BYTES = 160 };

static uint8_t message[MESSAGE_BYTES];

/* The device: -errno. */
static int mount_at(const char *path, bool read_only)
{
	char options[OPTIONS_BYTES];
	const unsigned long flags = MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0);
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (device < 0)
		return -errno;
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,"
		 "max_read=%d",
		 device, DATA_BYTES);
	if ((mkdir(path, 0755) && errno != EEXIST) ||
	    mount("umbra", path, "fuse", flags, options)) {
		int error = -errno;

		close(device);
		return error;
	}
	return device;
}

/* Until it is not mounted any more, or the host is gone. */
static void pass_questions(int fd, int device)
{
	for (;;) {
		const ssize_t got = read(device, message, sizeof(message));

		if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue; /* ENOENT: one that was interrupted before it was read */
		if (got <= 0)
			return;
		for (ssize_t at = 0; at < got; at += AGENT_FRAME_BYTES) {
			const size_t left = (size_t)(got - at);
			const size_t bytes = left < AGENT_FRAME_BYTES ? left : AGENT_FRAME_BYTES;

			if (!line_write(fd, AGENT_FUSE, message + at, bytes))
				return;
		}
	}
}

/* One whole answer: its length is its first word. False: the host is gone. */
static bool pass_answer(int fd, int device)
{
	static struct line_frame frame;
	uint32_t bytes = 0;
	size_t used = 0;

	do {
		if (!line_read(fd, &frame) || frame.head.kind != AGENT_FUSE ||
		    frame.head.bytes > sizeof(message) - used)
			return false;
		memcpy(message + used, frame.data, frame.head.bytes);
		used += frame.head.bytes;
		if (used >= sizeof(bytes))
			memcpy(&bytes, message, sizeof(bytes));
	} while (used < sizeof(bytes) || used < bytes);
	/* an answer to what was given up meanwhile is for nobody */
	return write(device, message, used) == (ssize_t)used || errno == ENOENT;
}

void agent_share(int fd, const struct line_frame *frame)
{
	static struct line_frame begin;
	size_t at = sizeof(uint32_t);
	const char *path = frame->head.bytes > at ? line_text(frame, &at) : NULL;
	uint32_t read_only = 0;
	int device;
	pid_t answers;

	memcpy(&read_only, frame->data, path ? sizeof(read_only) : 0);
	device = path && *path == '/' ? mount_at(path, read_only) : -EINVAL;
	if (device < 0) {
		line_write_number(fd, AGENT_FAILED, (uint32_t)-device);
		return;
	}
	if (!line_write(fd, AGENT_DONE, "", 0) || !line_read(fd, &begin) ||
	    begin.head.kind != AGENT_FUSE) {
		umount2(path, MNT_DETACH);
		return;
	}
	answers = fork();
	if (!answers) {
		const pid_t questions = getppid();

		while (pass_answer(fd, device))
			;
		umount2(path, MNT_DETACH);
		kill(questions, SIGKILL);
		_exit(0);
	}
	pass_questions(fd, device);
	umount2(path, MNT_DETACH);
	if (answers > 0)
		kill(answers, SIGKILL);
}
