/*
 * umbra-agent: what `umbra exec` and `umbra cp` talk to in a guest. It listens at a port of
 * AF_VSOCK, where only the host can connect, and serves each connection in a process of its own,
 * with the rights that it was started with: root's, as a rule.
 *
 * Called as umbra-guest it is what programs of the guest call: umbra-guest fork.
 *
 * It is linked statically and needs nothing in its guest but a kernel with hv_sock.
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "guest_fork.h"

enum { BACKLOG = 32, RETRY_SECONDS = 1 };

/* True: another may follow. */
static bool serve_request(int fd, const struct line_frame *frame)
{
	switch (frame->head.kind) {
	case AGENT_EXEC: return agent_exec(fd, frame);
	case AGENT_PUT: agent_put(fd, frame); return false;
	case AGENT_GET: agent_get(fd, frame); return false;
	case AGENT_TWIN: agent_twin(fd, frame); return false;
	case AGENT_SHARE: agent_share(fd, frame); return false;
	/* for a program that has ended meanwhile */
	case AGENT_INPUT: case AGENT_INPUT_END: case AGENT_SIGNAL: case AGENT_RESIZE: return true;
	default: line_write_number(fd, AGENT_FAILED, ENOSYS); return false;
	}
}

static void serve(int fd)
{
	static struct line_frame frame;

	while (line_read(fd, &frame) && serve_request(fd, &frame))
		;
}

/* Modules of the kernel may come later. */
static int listen_when_possible(void)
{
	const struct sockaddr_vm at = { .svm_family = AF_VSOCK,
					.svm_cid = VMADDR_CID_ANY,
					.svm_port = AGENT_PORT };
	bool was_said = false;

	for (;;) {
		int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd >= 0 && !bind(fd, (const struct sockaddr *)&at, sizeof(at)) &&
		    !listen(fd, BACKLOG))
			return fd;
		if (errno == EADDRINUSE)
			return -1;
		if (!was_said)
			fprintf(stderr, "umbra-agent: %s; waiting for hv_sock\n", strerror(errno));
		was_said = true;
		if (fd >= 0)
			close(fd);
		sleep(RETRY_SECONDS);
	}
}

static void serve_in_child(int listener, int fd)
{
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	close(listener);
	serve(fd);
	shutdown(fd, SHUT_RDWR);
	close(fd);
	_exit(0);
}

/* As umbra-guest, a link to this. */
static int serve_guest(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "fork"))
		return guest_fork();
	fprintf(stderr,
		"usage: umbra-guest fork\n"
		"Forks this machine, where its host permits it (umbra run --guest-forks): prints\n"
		"parent CHILD here, child CHILD in the machine that was made; ends with 0.\n");
	return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
}

int main(int argc, char **argv)
{
	const char *called = argc ? argv[0] : "";
	const char *slash = strrchr(called, '/');
	int listener;

	if (!strcmp(slash ? slash + 1 : called, "umbra-guest"))
		return serve_guest(argc, argv);

	/* who starts an agent in the background may have it ignore some; so would its programs */
	for (int number = 1; number < _NSIG; number++)
		signal(number, SIG_DFL);
	listener = listen_when_possible();
	if (listener < 0) {
		fprintf(stderr, "umbra-agent: another one listens already\n");
		return 1;
	}
	signal(SIGCHLD, SIG_IGN); /* nobody waits for children */
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		pid_t child = fd < 0 ? -1 : fork();

		if (!child)
			serve_in_child(listener, fd);
		if (fd >= 0)
			close(fd);
		else
			usleep(10000); /* no descriptors, or no memory: later */
	}
}
