/* A switch with ports that behave, and ports that lie, flood or do not read. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "net/switch/switch.h"

enum { FRAME_BYTES = 200, WAIT_MS = 20000, QUIET_MS = 60 };

static int failures;
static char path[] = "/tmp/umbra-switch-XXXXXX/s";

struct wire {
	struct net_frame frame;
	uint8_t data[NET_FRAME_BYTES];
};
static struct wire wire;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

static const uint8_t *mac(uint8_t number)
{
	static uint8_t macs[256][NET_MAC_BYTES];

	memcpy(macs[number], (uint8_t[]){ 2, 0, 0, 0, 0, number }, NET_MAC_BYTES);
	return macs[number];
}

static int join(uint8_t number) { return line_open(path, mac(number)); }

static bool send_with(int flags, int fd, const uint8_t *to, uint8_t from, uint32_t bytes,
		      uint8_t mark)
{
	memset(&wire, mark, sizeof(wire.frame) + bytes);
	wire.frame = (struct net_frame){ .bytes = bytes };
	memcpy(wire.data, to, NET_MAC_BYTES);
	memcpy(wire.data + NET_MAC_BYTES, mac(from), NET_MAC_BYTES);
	return send(fd, &wire, sizeof(wire.frame) + bytes, MSG_NOSIGNAL | flags) > 0;
}

static bool send_frame(int fd, const uint8_t *to, uint8_t from, uint32_t bytes, uint8_t mark)
{
	return send_with(0, fd, to, from, bytes, mark);
}

/* The mark of the next frame; -1: none comes; -2: the line is cut. */
static int take_frame(int fd, int timeout_ms)
{
	struct pollfd waiting = { .fd = fd, .events = POLLIN };
	ssize_t got;

	if (poll(&waiting, 1, timeout_ms) <= 0)
		return -1;
	got = recv(fd, &wire, sizeof(wire), 0);
	return got <= (ssize_t)sizeof(wire.frame) + NET_HEAD_BYTES ? -2 : wire.data[NET_HEAD_BYTES];
}

/* Returns when the switch knows the port `number` behind `fd`, and `one`'s, which is 1. */
static void wait_until_joined(int one, int fd, uint8_t number)
{
	for (unsigned n = 0; n < WAIT_MS / QUIET_MS; n++) {
		send_frame(one, mac(number), 1, FRAME_BYTES, 99);
		if (take_frame(fd, QUIET_MS) == 99)
			break;
	}
	while (take_frame(fd, QUIET_MS) == 99)
		;
}

static void *serve(void *listen_fd)
{
	switch_serve(*(int *)listen_fd);
	return NULL;
}

static int start(pthread_t *thread)
{
	static int fd;
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	path[strlen(path) - 2] = 0;
	if (!mkdtemp(path))
		exit(1);
	path[strlen(path)] = '/';
	memcpy(at.sun_path, path, sizeof(path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) || listen(fd, SWITCH_PORTS) ||
	    pthread_create(thread, NULL, serve, &fd))
		exit(1);
	return fd;
}

static void passes(int one, int two, int three)
{
	static const uint8_t all[] = { 255, 255, 255, 255, 255, 255 };

	send_frame(one, mac(2), 1, FRAME_BYTES, 11);
	expect("a frame comes", take_frame(two, WAIT_MS) == 11);
	send_frame(one, mac(2), 1, NET_FRAME_BYTES, 12);
	expect("the longest frame comes", take_frame(two, WAIT_MS) == 12);
	send_frame(one, all, 1, FRAME_BYTES, 13);
	expect("a frame for all comes to one", take_frame(two, WAIT_MS) == 13);
	expect("and to the other", take_frame(three, WAIT_MS) == 13);
	send_frame(one, mac(2), 1, FRAME_BYTES, 14);
	expect("a frame for one comes", take_frame(two, WAIT_MS) == 14);
	expect("to nobody else", take_frame(three, QUIET_MS) == -1);
	expect("nor back", take_frame(one, 0) == -1);
	send_frame(one, mac(99), 1, FRAME_BYTES, 15);
	send_frame(one, mac(2), 3, FRAME_BYTES, 16);
	send_frame(one, mac(2), 1, FRAME_BYTES, 17);
	expect("nobody's frame, and one of a false address, are lost",
	       take_frame(two, WAIT_MS) == 17);
	expect("for all of them", take_frame(three, QUIET_MS) == -1);
}

static void refuses_one(const char *what, const void *message, size_t bytes, bool joins_first)
{
	int fd = joins_first ? join(50) : socket(AF_UNIX, SOCK_SEQPACKET, 0);
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	memcpy(at.sun_path, path, sizeof(path));
	if (!joins_first && connect(fd, (const struct sockaddr *)&at, sizeof(at)))
		exit(1);
	send(fd, message, bytes, MSG_NOSIGNAL);
	expect(what, take_frame(fd, WAIT_MS) == -2);
	close(fd);
}

static void refuses(void)
{
	struct switch_hello hello = { .magic = SWITCH_MAGIC,
				      .version = SWITCH_VERSION,
				      .mac = { 1 } };
	struct {
		struct net_frame frame;
		uint8_t data[64];
	} bad = { .frame.bytes = 64 };

	refuses_one("a hello for a group", &hello, sizeof(hello), false);
	hello.mac[0] = 0;
	refuses_one("a hello of nobody", &hello, sizeof(hello), false);
	hello.mac[0] = 2;
	refuses_one("a short hello", &hello, sizeof(hello) - 1, false);
	hello.version++;
	refuses_one("another version", &hello, sizeof(hello), false);
	hello.version--;
	hello.magic++;
	refuses_one("another protocol", &hello, sizeof(hello), false);
	refuses_one("less than a head", &bad, sizeof(bad.frame) - 1, true);
	refuses_one("less than it says", &bad, sizeof(bad) - 1, true);
	bad.frame.bytes = 63;
	refuses_one("more than it says", &bad, sizeof(bad), true);
	bad.frame = (struct net_frame){ .bytes = 64, .flags = NET_LARGE };
	refuses_one("segments of nothing", &bad, sizeof(bad), true);
	bad.frame =
		(struct net_frame){ .bytes = 64, .flags = NET_CHECKSUM_MISSING, .checksum_at = 63 };
	refuses_one("a sum outside", &bad, sizeof(bad), true);
	bad.frame = (struct net_frame){ .bytes = 13 };
	refuses_one("less than Ethernet", &bad, sizeof(bad.frame) + 13, true);
}

static void floods(int one, int two)
{
	static const uint8_t all[] = { 255, 255, 255, 255, 255, 255 };
	unsigned came = 0;

	for (unsigned n = 0; n < 6000; n++) {
		send_frame(one, all, 1, FRAME_BYTES, 21);
		while (take_frame(two, 0) == 21)
			came++;
	}
	while (take_frame(two, QUIET_MS) == 21)
		came++;
	printf("# %u of 6000 came\n", came);
	expect("a flood has a limit", came && came < 6000);
	send_frame(one, mac(2), 1, FRAME_BYTES, 22);
	expect("and the rest goes on", take_frame(two, WAIT_MS) == 22);
}

/* One that does not read: who sends to it waits, then loses; the others go on. */
static void stalls(int one, int two)
{
	int deaf = join(60);
	bool others = true;

	wait_until_joined(one, deaf, 60);
	for (unsigned n = 0; n < 40; n++) {
		send_frame(one, mac(60), 1, 60000, 31);
		others &= send_frame(two, mac(1), 2, FRAME_BYTES, 32) &&
			  take_frame(one, WAIT_MS) == 32;
	}
	expect("others go on beside one that does not read", others);
	send_frame(one, mac(2), 1, FRAME_BYTES, 33);
	expect("who has sent to it goes on", take_frame(two, WAIT_MS) == 33);
	while (take_frame(deaf, QUIET_MS) == 31)
		;
	send_frame(one, mac(60), 1, FRAME_BYTES, 34);
	expect("it reads again", take_frame(deaf, WAIT_MS) == 34);
	close(deaf);
}

enum { SHARED_FRAMES = 2000, LEAST_SHARE = SHARED_FRAMES / 3 };

/* One sends without end; how many of the frames that the third takes are the other's. */
static unsigned frames_of_two(int one, int two, int busy, unsigned *ret_of_one)
{
	enum { LONG_BYTES = 8000 };
	unsigned of_one = 0;
	unsigned of_two = 0;
	unsigned sent = 0;

	for (unsigned n = 0; n < SHARED_FRAMES; n++) {
		int mark;

		while (send_with(MSG_DONTWAIT, one, mac(61), 1, LONG_BYTES, 41))
			;
		sent += send_with(MSG_DONTWAIT, two, mac(61), 2, LONG_BYTES, 42);
		mark = take_frame(busy, WAIT_MS);
		of_one += mark == 41;
		of_two += mark == 42;
	}
	printf("# %u frames of one, %u of %u of the other\n", of_one, of_two, sent);
	*ret_of_one = of_one;
	return of_two;
}

/*
 * Two that send to a third more than it takes, one of them without end: the other has its share,
 * however many frames the first has in its line. A host that lets this process wait takes from that
 * share, as the third takes nothing then, and it is lost for both: the best of some rounds counts.
 */
static void shares(int one, int two)
{
	enum { ROUNDS = 6 };
	int busy = join(61);
	unsigned of_one = 0;
	unsigned of_two = 0;

	wait_until_joined(one, busy, 61);
	for (unsigned n = 0; n < ROUNDS && of_two < LEAST_SHARE; n++)
		of_two = frames_of_two(one, two, busy, &of_one);
	expect("who sends without end has no more than its share", of_two >= LEAST_SHARE);
	expect("and gets through, too", of_one >= SHARED_FRAMES / 10);
	close(busy);
	send_frame(one, mac(2), 1, FRAME_BYTES, 43);
	expect("both go on", take_frame(two, WAIT_MS) == 43);
}

/*
 * One that takes a frame now and then: who sends to it waits for it for a part of each second,
 * and then what it does not take is lost.
 */
static void trickles(int one, int two)
{
	enum { TIMES = 1500, AT_ONCE = 8 };
	const struct timespec pause = { .tv_nsec = 300000 };
	int slow = join(62);
	int from = join(63); /* which has waited for nobody yet */
	unsigned sent = 0;
	unsigned came = 0;

	wait_until_joined(one, slow, 62);
	wait_until_joined(one, from, 63);
	for (unsigned n = 0; n < TIMES; n++) {
		for (unsigned k = 0; k < AT_ONCE; k++)
			sent += send_with(MSG_DONTWAIT, from, mac(62), 63, FRAME_BYTES, 51);
		nanosleep(&pause, NULL);
		came += take_frame(slow, WAIT_MS) == 51;
		/* to nobody: the switch looks again before the line is nearly empty */
		send_with(MSG_DONTWAIT, two, mac(99), 2, FRAME_BYTES, 53);
	}
	while (take_frame(slow, QUIET_MS) == 51)
		came++;
	printf("# %u of %u frames came\n", came, sent);
	expect("one that takes little has nobody wait all the time", came < sent);
	close(slow);
	send_frame(from, mac(2), 63, FRAME_BYTES, 52);
	expect("nor others", take_frame(two, WAIT_MS) == 52);
	close(from);
}

/* Of frames that one port has for two others in turn, how many a second come to the second. */
static unsigned come_beside(int from, int slow, int two, unsigned slow_us)
{
	unsigned came = 0;
	struct timespec begun;
	struct timespec now;
	int64_t us = 0;
	int64_t taken_us = 0;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	while (us < 1000000) {
		send_with(MSG_DONTWAIT, from, mac(64), 65, 1400, 61);
		send_with(MSG_DONTWAIT, from, mac(2), 65, 1400, 62);
		while (take_frame(two, 0) == 62)
			came++;
		clock_gettime(CLOCK_MONOTONIC, &now);
		us = (now.tv_sec - begun.tv_sec) * 1000000 + (now.tv_nsec - begun.tv_nsec) / 1000;
		for (; taken_us + slow_us < us && take_frame(slow, 0) == 61; taken_us += slow_us)
			;
	}
	while (take_frame(two, QUIET_MS) == 62)
		came++;
	return came;
}

/* What isolation.md says is not promised, as numbers: the best of three; the host may be busy. */
static void measure(int one, int two)
{
	static const unsigned paces_us[] = { 1, 90, 1000, 20000, 2000000 };
	int slow = join(64);
	int from = join(65);

	wait_until_joined(one, slow, 64);
	wait_until_joined(one, from, 65);
	for (unsigned k = 0; k < sizeof(paces_us) / sizeof(paces_us[0]); k++) {
		unsigned best = 0;

		for (unsigned n = 0; n < 3; n++) {
			const unsigned came = come_beside(from, slow, two, paces_us[k]);

			best = came > best ? came : best;
			while (take_frame(slow, QUIET_MS) == 61)
				;
		}
		printf("# %u frames to a third beside one that takes a frame in %u us\n", best,
		       paces_us[k]);
	}
	close(slow);
	close(from);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int listen_fd = start(&thread);
	int one = join(1);
	int two = join(2);
	int three = join(3);
	int many[2 * SWITCH_PORTS];

	wait_until_joined(one, two, 2);
	wait_until_joined(one, three, 3);
	passes(one, two, three);
	refuses();
	floods(one, two);
	stalls(one, two);
	shares(one, two);
	trickles(one, two);
	if (argc > 1 && !strcmp(argv[1], "--measure"))
		measure(one, two);
	close(three);
	three = join(3);
	wait_until_joined(one, three, 3);
	send_frame(one, mac(3), 1, FRAME_BYTES, 41);
	expect("who comes again is found", take_frame(three, WAIT_MS) == 41);
	for (unsigned n = 0; n < 2 * SWITCH_PORTS; n++)
		many[n] = join((uint8_t)(100 + n));
	usleep(100000);
	send_frame(one, mac(2), 1, FRAME_BYTES, 42);
	expect("too many ports are nobody's trouble", take_frame(two, WAIT_MS) == 42);
	for (unsigned n = 0; n < 2 * SWITCH_PORTS; n++)
		close(many[n]);
	close(one);
	close(two);
	close(three);
	pthread_join(thread, NULL);
	expect("it ends when it is alone", true);
	close(listen_fd);
	unlink(path);
	*strrchr(path, '/') = 0;
	rmdir(path);
	return failures != 0;
}
