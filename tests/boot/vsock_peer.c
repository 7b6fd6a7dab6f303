/*
 * A program of a guest's for connections by AF_VSOCK: `connect PORT` copies what the host says back
 * to it until it has finished; `count PORT BYTES` sends that many numbered bytes; `accept PORT` is
 * the same as connect, for one connection that comes; `hold PORT` accepts and never reads.
 */
#include <linux/vm_sockets.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void echo(int fd)
{
	static uint8_t data[1 << 16];
	ssize_t got;

	while ((got = read(fd, data, sizeof(data))) > 0)
		for (ssize_t at = 0, put; at < got; at += put) {
			put = write(fd, data + at, (size_t)(got - at));
			if (put < 0)
				exit(3);
		}
	shutdown(fd, SHUT_WR);
}

static void count(int fd, long bytes)
{
	static uint8_t data[5000];

	for (long at = 0; at < bytes;) {
		long some = bytes - at < (long)sizeof(data) ? bytes - at : (long)sizeof(data);

		for (long n = 0; n < some; n++)
			data[n] = (uint8_t)((at + n) * 7 >> 3);
		if (write(fd, data, (size_t)some) != some)
			exit(3);
		at += some;
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_vm at = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (argc < 3 || fd < 0)
		return 2;
	at.svm_port = (unsigned)strtoul(argv[2], NULL, 10);
	if (!strcmp(argv[1], "accept") || !strcmp(argv[1], "hold")) {
		at.svm_cid = VMADDR_CID_ANY;
		if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) || listen(fd, 8))
			return 2;
		puts("LISTENS");
		fflush(stdout);
		fd = accept(fd, NULL, NULL);
	} else if (connect(fd, (const struct sockaddr *)&at, sizeof(at))) {
		return 1;
	}
	if (!strcmp(argv[1], "count"))
		count(fd, strtol(argv[3], NULL, 10));
	else if (!strcmp(argv[1], "hold"))
		pause();
	else
		echo(fd);
	return 0;
}
