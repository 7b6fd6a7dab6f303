/* See place.h. */
#include "place.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 16 };

int place_parse(const char *text, const char *default_port, struct place *ret)
{
	const char *colon = text ? strrchr(text, ':') : NULL;
	const char *service = colon ? colon + 1 : text;
	const int bytes = colon ? (int)(colon - text) : 0;

	if (bytes >= PLACE_HOST_BYTES || (service && strlen(service) >= PLACE_PORT_BYTES) ||
	    (service && !*service))
		return -EINVAL;
	snprintf(ret->host, sizeof(ret->host), "%.*s", bytes, bytes ? text : "");
	if (!bytes)
		snprintf(ret->host, sizeof(ret->host), "127.0.0.1");
	snprintf(ret->port, sizeof(ret->port), "%s", service ? service : default_port);
	return 0;
}

int place_listen(const struct place *place)
{
	const struct addrinfo wanted = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *found = NULL;
	const int one = 1;
	int fd = -EADDRNOTAVAIL;

	if (getaddrinfo(place->host, place->port, &wanted, &found))
		return -EADDRNOTAVAIL;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, BACKLOG)) {
		const int error = -errno;

		if (fd >= 0)
			close(fd);
		fd = error;
	}
	freeaddrinfo(found);
	return fd;
}

void place_say(int fd)
{
	struct sockaddr_storage address;
	socklen_t bytes = sizeof(address);
	struct place at;

	if (!getsockname(fd, (struct sockaddr *)&address, &bytes) &&
	    !getnameinfo((struct sockaddr *)&address, bytes, at.host, sizeof(at.host), at.port,
			 sizeof(at.port), NI_NUMERICHOST | NI_NUMERICSERV))
		printf("listens at %s:%s\n", at.host, at.port);
	fflush(stdout);
}

int place_connect(const char *host, const char *port)
{
	const struct addrinfo wanted = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	int fd = -EHOSTUNREACH;

	if (getaddrinfo(host, port, &wanted, &found))
		return -EHOSTUNREACH;
	for (struct addrinfo *at = found; at && fd < 0; at = at->ai_next) {
		fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen)) {
			const int error = -errno;

			close(fd);
			fd = error;
		}
	}
	freeaddrinfo(found);
	return fd;
}
