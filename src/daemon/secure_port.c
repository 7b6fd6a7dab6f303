/* See secure_port.h. */
#include "secure_port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 10, TOKEN_LEAST = 32, TOKEN_MOST = 500, HOST_BYTES = 128 };
enum { OTHERS = S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH };

/* ---- files ---- */

static int check_file(int fd, bool is_secret)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (is_secret && (st.st_mode & OTHERS || st.st_uid != getuid()))
		return -EPERM;
	return st.st_size > FILE_BYTES ? -EMSGSIZE : 0;
}

/* *ret: to be freed, ended by a zero byte. */
static int read_file(const char *path, bool is_secret, char **ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int error = fd < 0 ? -errno : check_file(fd, is_secret);
	char *text = error ? NULL : calloc(1, FILE_BYTES + 1);
	ssize_t got = text ? read(fd, text, FILE_BYTES) : -1;

	if (!error && got < 0)
		error = text ? -errno : -ENOMEM;
	if (fd >= 0)
		close(fd);
	if (error) {
		free(text);
		text = NULL;
	}
	*ret = text;
	return error;
}

/* Its first line: no more than a header can hold, and enough that nobody guesses it. */
static int check_token(char *token)
{
	size_t bytes = strcspn(token, "\r\n");

	token[bytes] = 0;
	for (size_t n = 0; n < bytes; n++)
		if (token[n] <= ' ' || token[n] > '~')
			return -EKEYREJECTED;
	return bytes < TOKEN_LEAST || bytes > TOKEN_MOST ? -EKEYREJECTED : 0;
}

/* ---- the port ---- */

/* ADDRESS:PORT or [ADDRESS]:PORT. */
static int split(const char *text, char host[HOST_BYTES], const char **ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t bytes = colon ? (size_t)(colon - text) : 0;

	if (!bytes || bytes >= HOST_BYTES || !colon[1])
		return -EADDRNOTAVAIL;
	if (*text == '[' && text[bytes - 1] == ']') {
		text++;
		bytes -= 2;
	}
	snprintf(host, HOST_BYTES, "%.*s", (int)bytes, text);
	*ret_port = colon + 1;
	return 0;
}

static int listen_at(const struct addrinfo *at)
{
	const int on = 1;
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, at->ai_addr, at->ai_addrlen) && !listen(fd, SOMAXCONN))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/* By number alone: a name could be anywhere tomorrow. */
static int open_listener(const char *text)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	char host[HOST_BYTES];
	const char *number;
	int fd = split(text, host, &number);

	if (fd)
		return fd;
	if (getaddrinfo(host, number, &hints, &found))
		return -EADDRNOTAVAIL;
	fd = listen_at(found);
	freeaddrinfo(found);
	return fd;
}

static int read_all(const struct secure_options *options, struct secure_port *port,
		    const char **ret_where)
{
	char *certificate = NULL;
	char *key = NULL;
	char *token = NULL;
	int error;

	*ret_where = options->certificate;
	error = read_file(options->certificate, false, &certificate);
	if (!error) {
		*ret_where = options->key;
		error = read_file(options->key, true, &key);
	}
	if (!error) {
		*ret_where = options->token;
		error = read_file(options->token, true, &token);
	}
	if (!error)
		error = check_token(token);
	port->tls = (struct front_door){
		.certificate = certificate, .key = key, .token = token
	};
	return error;
}

int secure_port_open(const struct secure_options *options, struct secure_port *ret,
		     const char **ret_where)
{
	int error;

	*ret = (struct secure_port){ .listener = -1 };
	*ret_where = "--listen";
	if (!options->listen)
		return 0;
	if (!options->certificate || !options->key || !options->token)
		return -EINVAL;
	error = read_all(options, ret, ret_where);
	if (!error) {
		*ret_where = options->listen;
		ret->listener = open_listener(options->listen);
		error = ret->listener < 0 ? ret->listener : 0;
	}
	if (error)
		secure_port_close(ret);
	return error;
}

static void forget(const char *secret)
{
	char *text = (char *)(uintptr_t)secret;

	if (text)
		sodium_memzero(text, strlen(text));
	free(text);
}

void secure_port_close(struct secure_port *port)
{
	free((char *)(uintptr_t)port->tls.certificate);
	forget(port->tls.key);
	forget(port->tls.token);
	*port = (struct secure_port){ .listener = -1 };
}
