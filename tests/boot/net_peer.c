/*
 * Both ends of a test of networks, on the host and, linked statically, in guests:
 *
 *   net_peer listen PORT             serves connections, each in a process: a line says what it is
 *   net_peer udp-echo PORT           sends datagrams back
 *   net_peer take HOST PORT BYTES    gets bytes from who listens; prints "take bytes seconds"
 *   net_peer give HOST PORT BYTES    the other way, as the rest
 *   net_peer ask HOST PORT COUNT     one byte there and back, COUNT times
 *   net_peer udp HOST PORT           a datagram there and back: "UDP"
 *   net_peer flood HOST PORT         datagrams, as many as go, until it is killed
 *   net_peer check-give-until HOST PORT FILE   until there is such a file, at a pace
 *
 * take and give with "check-" before them look at every byte: words are numbered.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 18, LINE_BYTES = 64, PACE_US = 20000 };
static _Alignas(8) uint8_t chunk[CHUNK_BYTES];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (!inet_aton(host, &a.sin_addr))
		fail(host);
	return a;
}

static void fill(uint64_t at, size_t bytes)
{
	for (size_t n = 0; n < bytes / 8; n++)
		((uint64_t *)(void *)chunk)[n] = (at / 8 + n) * 0x9e3779b97f4a7c15;
}

static void give_chunk(int fd, uint64_t at, size_t count, bool is_checked)
{
	if (is_checked)
		fill(at, count);
	for (size_t done = 0; done < count;) {
		ssize_t sent = send(fd, chunk + done, count - done, MSG_NOSIGNAL);

		if (sent <= 0)
			fail("send");
		done += (size_t)sent;
	}
}

static void give(int fd, uint64_t bytes, bool is_checked)
{
	for (uint64_t at = 0; at < bytes;) {
		size_t count = bytes - at < CHUNK_BYTES ? (size_t)(bytes - at) : CHUNK_BYTES;

		give_chunk(fd, at, count, is_checked);
		at += count;
	}
}

/* At a pace at which it takes little of the host. How many. */
static uint64_t give_until(int fd, const char *file)
{
	uint64_t at;

	for (at = 0; access(file, F_OK); at += CHUNK_BYTES) {
		give_chunk(fd, at, CHUNK_BYTES, true);
		usleep(PACE_US);
	}
	return at;
}

/* To the end; how many. */
static uint64_t take(int fd, bool is_checked)
{
	static uint8_t got_bytes[CHUNK_BYTES];
	uint64_t at = 0;
	ssize_t got;

	while ((got = recv(fd, got_bytes, CHUNK_BYTES, 0)) > 0) {
		for (ssize_t n = 0; is_checked && n < got; n++) {
			uint64_t word = (at + (uint64_t)n) / 8 * 0x9e3779b97f4a7c15;

			if (got_bytes[n] != (uint8_t)(word >> (at + (uint64_t)n) % 8 * 8)) {
				printf("WRONG byte %lu\n", at + (uint64_t)n);
				exit(1);
			}
		}
		at += (uint64_t)got;
	}
	if (got < 0)
		fail("recv");
	return at;
}

static void echo(int fd)
{
	char byte;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	while (recv(fd, &byte, 1, 0) == 1)
		if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
			return;
}

/* The line is read byte by byte: what follows it is not to be lost. */
static void serve(int fd)
{
	char line[LINE_BYTES] = "";
	uint64_t bytes;

	for (unsigned n = 0; n < LINE_BYTES - 1 && recv(fd, line + n, 1, 0) == 1; n++)
		if (line[n] == '\n')
			break;
	if (sscanf(line, "take %lu", &bytes) == 1)
		give(fd, bytes, false);
	else if (sscanf(line, "check-take %lu", &bytes) == 1)
		give(fd, bytes, true);
	else if (!strncmp(line, "ask", 3))
		echo(fd);
	else {
		bytes = take(fd, !strncmp(line, "check-", 6));
		send(fd, &bytes, sizeof(bytes), MSG_NOSIGNAL);
	}
}

static void listen_at(const char *port)
{
	const struct sockaddr_in at = address("0.0.0.0", port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) || listen(fd, 64))
		fail("listen");
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int peer = accept(fd, NULL, NULL);

		if (peer >= 0 && !fork()) {
			serve(peer);
			_exit(0);
		}
		close(peer);
	}
}

static void udp_echo(const char *port)
{
	const struct sockaddr_in at = address("0.0.0.0", port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in from;
	socklen_t bytes = sizeof(from);
	ssize_t got;

	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)))
		fail("bind");
	while ((got = recvfrom(fd, chunk, CHUNK_BYTES, 0, (struct sockaddr *)&from, &bytes)) >= 0)
		sendto(fd, chunk, (size_t)got, 0, (struct sockaddr *)&from, bytes);
}

static void udp_ask(const char *host, const char *port)
{
	const struct sockaddr_in to = address(host, port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char back[5] = "";

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 1 },
		   sizeof(struct timeval));
	for (int n = 0; n < 5; n++) {
		sendto(fd, "ping", 4, 0, (const struct sockaddr *)&to, sizeof(to));
		if (recv(fd, back, 4, 0) == 4 && !strcmp(back, "ping")) {
			puts("UDP");
			return;
		}
	}
}

/* What becomes of them, and whether there is a way for them, is of no account. */
static void flood(const char *host, const char *port)
{
	const struct sockaddr_in to = address(host, port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	for (;;)
		sendto(fd, "flood", 5, 0, (const struct sockaddr *)&to, sizeof(to));
}

static int connect_to(const char *host, const char *port, const char *what, const char *number)
{
	const struct sockaddr_in to = address(host, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char line[LINE_BYTES];
	int bytes = snprintf(line, sizeof(line), "%s %s\n", what, number);

	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	if (send(fd, line, (size_t)bytes, MSG_NOSIGNAL) != bytes)
		fail("send");
	return fd;
}

static void ask(int fd, uint64_t count)
{
	char byte = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	for (uint64_t n = 0; n < count; n++)
		if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
			fail("ask");
}

static void be_client(const char *what, const char *host, const char *port, const char *number)
{
	const bool is_checked = !strncmp(what, "check-", 6);
	const char *kind = is_checked ? what + 6 : what;
	uint64_t count = strtoull(number, NULL, 0);
	int fd = connect_to(host, port, what, number);
	double begun = now();
	uint64_t there = count;

	if (!strcmp(kind, "take"))
		there = take(fd, is_checked);
	else if (!strcmp(kind, "ask"))
		ask(fd, count);
	else {
		if (!strcmp(kind, "give-until"))
			count = give_until(fd, number);
		else
			give(fd, count, is_checked);
		shutdown(fd, SHUT_WR);
		if (recv(fd, &there, sizeof(there), MSG_WAITALL) != sizeof(there))
			fail("the sum");
	}
	if (there != count) {
		printf("WRONG %lu of %lu\n", there, count);
		exit(1);
	}
	printf("%s %lu %.6f\n", kind, count, now() - begun);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "listen"))
		listen_at(argv[2]);
	else if (argc == 3 && !strcmp(argv[1], "udp-echo"))
		udp_echo(argv[2]);
	else if (argc == 4 && !strcmp(argv[1], "udp"))
		udp_ask(argv[2], argv[3]);
	else if (argc == 4 && !strcmp(argv[1], "flood"))
		flood(argv[2], argv[3]);
	else if (argc == 5)
		be_client(argv[1], argv[2], argv[3], argv[4]);
	else
		return 64;
	return 0;
}
