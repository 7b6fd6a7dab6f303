/* See page_port.h. */
#include "page_port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "failure.h"

enum { ADDRESS_BYTES = 128 };

void page_port_init(struct page_port *port, struct daemon *daemon)
{
	port->number = 0;
	daemon->page = port;
}

void page_port_close(struct page_port *port)
{
	if (port->number)
		front_close(&port->front);
	port->number = 0;
}

/* A socket at any port of the loopback address, or -errno. */
static int listen_at_any(unsigned *ret_number)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&at, bytes) && !listen(fd, SOMAXCONN) &&
	    !getsockname(fd, (struct sockaddr *)&at, &bytes)) {
		*ret_number = ntohs(at.sin_port);
		return fd;
	}
	error = -errno;
	close(fd);
	return error;
}

static int open_port(struct page_port *port, struct daemon *daemon)
{
	unsigned number = 0;
	int fd = listen_at_any(&number);
	const struct front_door door = { .sessions = &daemon->sessions };
	int error;

	if (fd < 0)
		return fd;
	error = front_open(&port->front, daemon, fd, &door);
	if (error) {
		close(fd);
		return error;
	}
	snprintf(port->front.host, sizeof(port->front.host), "127.0.0.1:%u", number);
	port->number = number;
	return 0;
}

void call_page(struct api_call *call)
{
	struct daemon *daemon = call->daemon;
	struct page_port *port = daemon->page;
	int error = port->number ? 0 : open_port(port, daemon);
	char address[ADDRESS_BYTES];
	char ticket[SECRET_TEXT_BYTES];

	if (error) {
		call_fail_errno(call, error, "no port could be opened at 127.0.0.1");
		return;
	}
	if (call_flag(call, "end")) {
		sessions_end(&daemon->sessions);
		front_end_streams(&port->front);
	}
	sessions_ticket(&daemon->sessions, loop_now_ms(), ticket);
	snprintf(address, sizeof(address), "http://%s/#ticket=%s", port->front.host, ticket);
	call_answer(call, 201, json_pack("{s:s}", "address", address));
}

void call_session(struct api_call *call)
{
	char session[SECRET_TEXT_BYTES];

	if (sessions_enter(&call->daemon->sessions, loop_now_ms(), call_text(call, "ticket"),
			   session))
		call_answer(call, 201, json_pack("{s:s}", "session", session));
	else
		call_fail(call, 401, FAILURE_POLICY,
			  "no such ticket, or it was used, or is too old",
			  "take the address that umbra page says");
}
