/*
 * A port's window as a machine process has it: exchanged for one that two share and for its own
 * again, with what is kept; and what is left of one that was taken away before it was exchanged.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/port_window.h"

enum { PAGE = SLOT_PAGE_BYTES, SLOTS_BYTES = 16 * PAGE };

static int failures;

static void expect(const char *what, bool got)
{
	printf("%s %s\n", got ? "ok  " : "FAIL", what);
	failures += !got;
}

/* A machine's, with a joiner's end of its line. */
struct end {
	struct port_window window;
	struct share_memory *memory;
	int line;
	uint8_t *seen, *slots, *read, *written;
	uint64_t word;
};

static void *own(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

static void make_end(struct end *end, unsigned half)
{
	int line[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line))
		abort();
	*end = (struct end){ .memory = own(sizeof(*end->memory)), .line = line[0],
			     .seen = own(WINDOW_HALF_BYTES), .slots = own(SLOTS_BYTES),
			     .read = own(WINDOW_HALF_BYTES), .written = own(SLOTS_BYTES) };
	if (!port_window_make(&end->window, line[1]) ||
	    !port_window_show(&end->window, WINDOW_BOTH, !half, end->seen, WINDOW_HALF_BYTES,
			      false) ||
	    !port_window_show(&end->window, WINDOW_BOTH, half, end->slots, SLOTS_BYTES, true) ||
	    !port_window_show(&end->window, WINDOW_OTHERS, 0, end->read, WINDOW_HALF_BYTES,
			      false) ||
	    !port_window_show(&end->window, WINDOW_OWN, 0, end->written, SLOTS_BYTES, true))
		abort();
	end->window.word = &end->word;
}

static void put_word(struct end *end, struct window_word word, int fd)
{
	union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int))]; } control = {
		.head = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
			  .cmsg_len = CMSG_LEN(sizeof(int)) },
	};
	struct iovec part = { .iov_base = (void *)(uintptr_t)&word, .iov_len = sizeof(word) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		head.msg_control = &control;
		head.msg_controllen = sizeof(control);
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	if (sendmsg(end->line, &head, 0) != sizeof(word))
		abort();
}

/* As the joiner does, of a window with a part or more; fd -1: none. */
static void give_parts(struct end *end, const int fds[WINDOW_PARTS], uint32_t parts)
{
	struct window_word word = { .number = end->memory->window_wanted + 1, .parts = parts };

	for (; word.part < parts || !word.part; word.part++)
		put_word(end, word, fds[word.part]);
	end->memory->window_wanted = word.number;
}

static void give(struct end *end, int fd)
{
	give_parts(end, (const int[WINDOW_PARTS]){ fd, -1, -1 }, fd < 0 ? 0 : 1);
}

static int new_part(unsigned part)
{
	const int made = memfd_create("window", MFD_ALLOW_SEALING);
	const int fd = fcntl(made, F_DUPFD, 20); /* the lowest is for what comes */

	if (fd < 0 || ftruncate(fd, (off_t)share_part_bytes(part)))
		abort();
	close(made);
	return fd;
}

static int new_window(void) { return new_part(SHARE_PART_BOTH); }

static bool exchange(struct end *end)
{
	if (!port_window_exchange(&end->window, end->memory))
		return false;
	port_window_accept(&end->window, end->memory);
	return end->memory->window_accepted == end->memory->window_wanted;
}

static void two_share(struct end *one, struct end *other, int fd)
{
	strcpy((char *)one->slots, "kept");
	one->seen[PAGE] = 1;
	give(one, fd);
	expect("another one is wanted", port_window_is_wanted(&one->window, one->memory));
	expect("and nothing is before that", !other->window.is_shared && !other->seen[0]);
	give(other, fd);
	expect("its guest has none so far", !one->word && !other->word);
	expect("both have it", exchange(one) && exchange(other) && one->window.is_shared);
	expect("and a number for it", one->word && other->word);
	expect("what is kept is there, and the other sees it",
	       !strcmp((char *)one->slots, "kept") && !strcmp((char *)other->seen, "kept"));
	expect("and nothing else of before", !one->seen[PAGE]);
	other->window.memory->page[1][3][5] = 9;
	expect("what one lends the other sees", one->seen[3 * PAGE + 5] == 9);
}

static void taken_away(struct end *one, struct end *other, int fd)
{
	give(one, -1);
	expect("it is taken from one", exchange(one) && !one->window.is_shared && !one->word);
	expect("who keeps what it had", !strcmp((char *)one->slots, "kept"));
	strcpy((char *)other->seen, "lies");
	memset(other->window.memory, 0xee, sizeof(struct share_window));
	expect("that the other does not reach", !strcmp((char *)one->slots, "kept"));
	expect("of whose nothing is seen", !one->seen[3 * PAGE + 5] && !one->seen[PAGE]);
	if (ftruncate(fd, 0))
		abort();
	expect("which loses no byte with the window", one->slots[0] == 'k' && !one->seen[0]);
}

/* The other one has not come to it yet. */
static int look_at_lost(struct end *other, bool is_guarded)
{
	int status = 0;
	pid_t child;

	for (unsigned n = 0; n < other->window.places; n++)
		madvise(other->window.place[n].at, other->window.place[n].bytes, MADV_DOFORK);
	child = fork();
	if (!child) {
		struct sigaction action = { .sa_flags = SA_SIGINFO };

		signal(SIGBUS, SIG_DFL);
		if (is_guarded && !sigaction(SIGBUS, &action, NULL))
			port_windows_guard(&other->window, 1, NULL, 0);
		status = *(volatile uint8_t *)&other->seen[PAGE];
		status |= *(volatile uint8_t *)&other->window.memory->page[1][0][0];
		_exit(status || *(volatile uint64_t *)&other->word);
	}
	waitpid(child, &status, 0);
	return status;
}

static int first_byte(int fd)
{
	uint8_t byte;

	return pread(fd, &byte, 1, 0) == 1 ? byte : -1;
}

static void many_words(struct end *end)
{
	int first = new_window();
	int second = new_window();

	give(end, first);
	give(end, -1);
	give(end, second);
	end->window.memory->page[0][0][0] = 4;
	expect("what came meanwhile is passed over", exchange(end) && end->window.is_shared);
	end->window.memory->page[0][0][0] = 5;
	expect("the last is it", first_byte(second) == 5);
	expect("one that was taken away before it was had is not", !first_byte(first));
	give(end, -1);
	expect("its own again", exchange(end) && !end->window.is_shared);
	expect("nothing has come", !port_window_exchange(&end->window, end->memory));
}

/* Slots of a machine that had not come to exchanging it when the window had its end. */
static int lose_slots(struct end *end, int fd)
{
	int status = 0;
	pid_t child = fork();

	if (!child) {
		struct sigaction action = { .sa_flags = SA_SIGINFO };
		bool is_kept;

		signal(SIGBUS, SIG_DFL);
		if (sigaction(SIGBUS, &action, NULL))
			_exit(8);
		port_windows_guard(&end->window, 1, NULL, 0);
		end->slots[PAGE] = 0xab;
		give(end, fd);
		give(end, -1);
		give(end, fd);
		is_kept = exchange(end) && end->slots[PAGE] == 0xab &&
			  !port_window_take_lost(&end->window);
		give(end, -1);
		if (ftruncate(fd, 0))
			abort();
		_exit(!(is_kept && exchange(end) && port_window_take_lost(&end->window) &&
			!port_window_take_lost(&end->window)));
	}
	waitpid(child, &status, 0);
	return status;
}

/* ---- what the other only reads ---- */

static int open_to_read(int fd)
{
	char path[32];
	int low;
	int high;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	low = open(path, O_RDONLY);
	high = fcntl(low, F_DUPFD, 20);
	if (high < 0)
		abort();
	close(low);
	return high;
}

static void parts_pass(struct end *one, struct end *other)
{
	const int both = new_window();
	const int ones = new_part(SHARE_PART_SERVES);
	const int others = new_part(SHARE_PART_BINDS);
	int status = 0;

	strcpy((char *)one->written, "kept, too");
	give_parts(one, (const int[]){ both, ones, open_to_read(others) }, WINDOW_PARTS);
	give_parts(other, (const int[]){ both, others, open_to_read(ones) }, WINDOW_PARTS);
	expect("both have all parts", exchange(one) && exchange(other) &&
					      one->window.is_all_shared &&
					      other->window.is_all_shared);
	expect("what is kept for the other to read it reads",
	       !strcmp((char *)one->written, "kept, too") &&
		       !strcmp((char *)other->read, "kept, too"));
	one->window.own[20][5] = 9;
	other->window.own[20][5] = 8;
	expect("what each lends so the other reads",
	       other->read[20 * PAGE + 5] == 9 && one->read[20 * PAGE + 5] == 8);
	expect("and cannot make it its own to write",
	       mprotect(other->read, PAGE, PROT_READ | PROT_WRITE) == -1);
	give(one, new_window());
	expect("another has the first part alone", exchange(one) && one->window.is_shared &&
							   !one->window.is_all_shared);
	expect("and nothing of the others but what is kept",
	       !strcmp((char *)one->written, "kept, too") && !one->read[20 * PAGE + 5] &&
		       !one->window.own[20][5]);
	put_word(one, (struct window_word){ .number = one->memory->window_wanted + 1,
					    .parts = WINDOW_PARTS }, both);
	one->memory->window_wanted++;
	expect("one of which a part is missing is none", !exchange(one) &&
								 !one->window.is_shared);
	expect("and leaves no descriptor", fcntl(WINDOW_RECEIVED_FD, F_GETFD) < 0);
	if (!fork()) {
		port_window_forked(&other->window);
		_exit(other->window.is_shared || other->read[20 * PAGE + 5] ||
		      other->window.own[20][5] || other->window.number);
	}
	wait(&status);
	expect("what is forked has none of it", WIFEXITED(status) && !WEXITSTATUS(status));
	give(one, -1);
	give(other, -1);
	expect("its own again", exchange(one) && exchange(other) && !other->window.is_all_shared);
	expect("with nothing of theirs", !other->read[20 * PAGE + 5]);
}

int main(void)
{
	struct end one;
	struct end other;
	struct end third;
	struct end fourth;
	int fd;

	make_end(&one, 0);
	make_end(&other, 1);
	make_end(&third, 0);
	make_end(&fourth, 1);
	fd = new_window();
	close(WINDOW_RECEIVED_FD);
	two_share(&one, &other, fd);
	taken_away(&one, &other, fd);
	expect("who looks at it ends without a guard", WTERMSIG(look_at_lost(&other, false)));
	expect("and with one sees nothing", look_at_lost(&other, true) == 0);
	expect("what is lost of slots is said to be, once", lose_slots(&one, new_window()) == 0);
	many_words(&one);
	parts_pass(&third, &fourth);
	return failures != 0;
}
