/*
 * Listening: a thread for each connection of either socket, at most CONNECTIONS of them; until told
 * to stop.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "served.h"

enum { CONNECTIONS = 64, LOOK_MS = 200 };

struct slot {
	struct served *served;
	void (*talk)(struct served *served, int fd);
	int fd;
	pthread_t thread;
	bool used, over;
};

static int listen_on(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct stat st;
	int fd, error;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, path, strlen(path));
	/* of one that is gone; a living one still answers */
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode)) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		error = fd >= 0 && !connect(fd, (struct sockaddr *)&un, sizeof(un)) ? -EADDRINUSE
										    : 0;
		close(fd);
		if (error)
			return error;
		unlink(path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	fchmod(fd, 0600); /* Linux: what bind() makes the file with */
	error = bind(fd, (struct sockaddr *)&un, sizeof(un)) || listen(fd, 16) ? -errno : 0;
	if (!error)
		return fd;
	close(fd);
	return error;
}

static void *talk(void *context)
{
	struct slot *slot = context;

	slot->talk(slot->served, slot->fd);
	shutdown(slot->fd, SHUT_RDWR);
	__atomic_store_n(&slot->over, true, __ATOMIC_RELEASE);
	return NULL;
}

static void collect(struct slot *slots, bool all)
{
	for (unsigned n = 0; n < CONNECTIONS; n++) {
		if (!slots[n].used || (!all && !__atomic_load_n(&slots[n].over, __ATOMIC_ACQUIRE)))
			continue;
		shutdown(slots[n].fd, SHUT_RDWR);
		pthread_join(slots[n].thread, NULL);
		close(slots[n].fd);
		slots[n].used = false;
	}
}

static void take(struct served *served, struct slot *slots, int listener,
		 void (*what)(struct served *, int))
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	unsigned n = 0;

	if (fd < 0)
		return;
	while (n < CONNECTIONS && slots[n].used)
		n++;
	if (n < CONNECTIONS)
		slots[n] = (struct slot){ .served = served, .talk = what, .fd = fd, .used = true };
	if (n == CONNECTIONS || pthread_create(&slots[n].thread, NULL, talk, &slots[n])) {
		if (n < CONNECTIONS)
			slots[n].used = false;
		close(fd);
	}
}

int serve(struct served *served, const char *nbd_path, const char *control_path)
{
	struct slot *slots = calloc(CONNECTIONS, sizeof(*slots));
	int nbd = slots ? listen_on(nbd_path) : -ENOMEM;
	int control = nbd < 0 ? nbd : listen_on(control_path);
	struct pollfd fds[2] = { { .fd = nbd, .events = POLLIN },
				 { .fd = control, .events = POLLIN } };

	while (control >= 0 && !__atomic_load_n(&served->stop, __ATOMIC_RELAXED)) {
		if (poll(fds, 2, LOOK_MS) > 0) {
			if (fds[0].revents)
				take(served, slots, nbd, nbd_serve);
			if (fds[1].revents)
				take(served, slots, control, control_serve);
		}
		collect(slots, false);
	}
	if (slots)
		collect(slots, true);
	free(slots);
	if (control >= 0) {
		close(control);
		unlink(control_path);
	}
	if (nbd >= 0) {
		close(nbd);
		unlink(nbd_path);
	}
	if (nbd < 0)
		return nbd;
	return control < 0 ? control : 0;
}
