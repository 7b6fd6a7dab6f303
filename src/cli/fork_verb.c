/*
 * umbra fork: what each child is given is made here, the broker of the machine has it forked, and
 * each child gets a broker of its own, which is this program anew (process/broker_fork.h has the
 * other side).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "balance_join.h"
#include "cli.h"
#include "fork_disks.h"
#include "fork_nets.h"
#include "ipc/block.h"
#include "ipc/connection_slots.h"
#include "ipc/forker.h"
#include "ipc/spawn.h"
#include "names.h"
#include "process/broker.h"
#include "process/plan.h"

enum { LINE_BYTES = 16384, ERRNO_MAX = 4095 };

static const char fork_help[] =
	"usage: umbra fork NAME [--name CHILD] [-n COUNT] "
	"[--keep-parent|--suspend-parent|--end-parent]\n"
	"                  [--console FILE] [--disks FOLDER] [--net NET]... [-p PORT]...\n"
	"                  [--mac new|keep] [--json]\n"
	"Makes COUNT machines (1) of the running machine NAME, all of one moment. Each has its\n"
	"memory, processors and devices as they were then, and goes on by itself, as NAME does.\n"
	"A child is called CHILD, several are CHILD-1, CHILD-2 and so on; without --name CHILD is\n"
	"NAME-fork. Children have no console but a FILE, to which -1, -2 and so on is added when\n"
	"there are several.\n"
	"NAME goes on, stands still until umbra resume, or ends.\n"
	"Disks that are written (VHDX) are frozen as they were then. NAME and each child go on in\n"
	"files of their own, DISK.NAME.vhdx and DISK.CHILD.vhdx, in FOLDER or beside the disk.\n"
	"Each child has its networks to itself: another one in user mode, another port of the\n"
	"same switch, or NET as umbra run has it, once for each card (a tap needs that).\n"
	"Connections and ports of the host stay NAME's; -p gives the child some. On a switch or a\n"
	"tap the guest gets a new card with an address of its own; in user mode with --mac new.\n";

struct child {
	char name[NAME_MAX_BYTES + 1];
	int control, console, pidfd;
	pid_t pid, broker; /* pid: 0: it was not made */
	int kit[KIT_MOST_FDS];
	int ask, kit_socket; /* its broker's ends */
	struct child_nets nets;
};

struct fork_command {
	const char *name, *child_name, *console, *parent;
	unsigned long count;
	bool json;
	int peer;
	json_t *machine; /* what the parent says of itself */
	struct fork_disks disks;
	struct fork_nets nets;
	struct child child[FORK_CHILDREN];
};

/* ---- what a child is given ---- */

static int child_name(const struct fork_command *f, unsigned n, char name[NAME_MAX_BYTES + 1])
{
	const char *base = f->child_name ? f->child_name : f->name;
	const char *fork = f->child_name ? "" : "-fork";
	char number[16] = "";
	int bytes;

	if (f->count > 1)
		snprintf(number, sizeof(number), "-%u", n + 1);
	bytes = snprintf(name, NAME_MAX_BYTES + 1, "%s%s%s", base, fork, number);
	return bytes > NAME_MAX_BYTES ? -EINVAL : 0;
}

/* Also for a machine without a bus, or without sockets, which closes them. */
static int make_slots(struct child *c)
{
	c->kit[KIT_CONNECTIONS] =
		spawn_share("umbra-connections", sizeof(struct connection_memory));
	c->kit[KIT_CONNECTION_BELL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->kit[KIT_SLOTS] = spawn_share("umbra-slots", sizeof(struct block_memory));
	c->kit[KIT_DOORBELL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->kit[KIT_ANSWER] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->kit[KIT_SLOTS] < 0 || c->kit[KIT_CONNECTIONS] < 0)
		return -ENOMEM;
	return c->kit[KIT_DOORBELL] < 0 || c->kit[KIT_ANSWER] < 0 ||
			       c->kit[KIT_CONNECTION_BELL] < 0
		       ? -errno
		       : 0;
}

/* Its code is part of its overhead: so it has at most as much, and nobody can change that. */
static int make_code_memory(const struct fork_command *f)
{
	json_int_t bytes = json_integer_value(json_object_get(f->machine, "overhead"));

	return bytes > 0 ? spawn_share("umbra-code", (size_t)bytes) : -EPROTO;
}

static int make_kit(const struct fork_command *f, struct child *c)
{
	int ask[2];
	int kit[2];
	int ready[2];
	int error = broker_make_rings(&c->kit[KIT_RINGS]);

	if (!error)
		error = make_slots(c);
	if (!error)
		error = forker_make_sockets(ask, kit);
	if (error)
		return error;
	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	c->ask = ask[0];
	c->kit_socket = kit[0];
	c->kit[KIT_ASK] = ask[1];
	c->kit[KIT_KIT] = kit[1];
	c->kit[KIT_READY] = ready[1];
	c->kit[KIT_READY_HERE] = ready[0];
	c->kit[KIT_CODE] = make_code_memory(f);
	return c->kit[KIT_CODE] < 0 ? c->kit[KIT_CODE] : 0;
}

static int open_console(const struct fork_command *f, unsigned n, struct child *c)
{
	char path[PLAN_PATH_BYTES];

	c->console = -1;
	if (!f->console)
		return 0;
	if (f->count > 1)
		snprintf(path, sizeof(path), "%s-%u", f->console, n + 1);
	else
		snprintf(path, sizeof(path), "%s", f->console);
	c->console = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	return c->console < 0 ? -errno : 0;
}

static int make_child(struct fork_command *f, unsigned n)
{
	struct child *c = &f->child[n];
	int error = child_name(f, n, c->name);

	if (!error) {
		c->control = name_listen(c->name);
		error = c->control < 0 ? c->control : open_console(f, n, c);
	}
	if (!error)
		error = make_kit(f, c);
	if (!error)
		return fork_nets_of_child(&f->nets, c->name, &c->nets, c->kit);
	return complain(error == -EADDRINUSE || error == -EINVAL ? EXIT_USAGE : EXIT_UNUSABLE,
			error == -EADDRINUSE ? "a machine of that name runs" : strerror(-error),
			c->name, "give another --name or --console");
}

/* ---- its broker ---- */

/* What the balancer asks of a machine's description. */
static void describe_memory(const json_t *parent, json_t *child)
{
	static const char *const keys[] = { "memory-start", "memory-min", "memory-buffer",
					    "memory-weight" };

	for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++)
		json_object_set(child, keys[n], json_object_get(parent, keys[n]));
}

static bool is_adjusted(const json_t *machine)
{
	const json_int_t most = json_integer_value(json_object_get(machine, "memory"));
	const json_t *least = json_object_get(machine, "memory-min");
	const json_t *start = json_object_get(machine, "memory-start");

	return least && start &&
	       (json_integer_value(least) < most || json_integer_value(start) < most);
}

static int describe_child(const struct fork_command *f, const struct child *c, struct plan *plan)
{
	json_t *j = json_pack("{s:s, s:i, s:O, s:O, s:O, s:O, s:I, s:s}", "name", c->name, "pid",
			      (int)getpid(), "cpus", json_object_get(f->machine, "cpus"), "memory",
			      json_object_get(f->machine, "memory"), "overhead",
			      json_object_get(f->machine, "overhead"), "from",
			      json_object_get(f->machine, "from"), "started",
			      (json_int_t)time(NULL), "parent", f->name);
	char *text = NULL;
	int error;

	describe_memory(f->machine, j);
	if (j && !fork_disks_describe_child(&f->disks, &plan->disks, j) &&
	    !fork_nets_describe(&plan->nets, &plan->relay, j))
		text = json_dumps(j, JSON_COMPACT);
	error = text ? plan_set_text(plan->description, sizeof(plan->description), text) : -EINVAL;
	json_decref(j);
	free(text);
	return error;
}

/* In a process of its own. */
static int become_broker(const struct fork_command *f, const struct child *c, struct plan *plan,
			 int program)
{
	struct grants grants;
	int error = describe_child(f, c, plan);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (error)
		return error;
	plan->adopts = true;
	plan->machine_pid = c->pid;
	plan->machine.forks = true;
	plan->console = c->console < 0 ? CONSOLE_NONE : CONSOLE_FILE;
	grants_clear(&grants);
	grants.fd[GRANT_PROGRAM] = program;
	grants.fd[GRANT_PLAN] = plan_seal(plan, ROLE_BROKER);
	grants.fd[GRANT_RINGS] = c->kit[KIT_RINGS];
	grants.fd[GRANT_TO_BROKER] = c->kit[KIT_TO_BROKER];
	grants.fd[GRANT_TO_MACHINE] = c->kit[KIT_TO_MACHINE];
	grants.fd[GRANT_SLOTS] = c->kit[KIT_SLOTS];
	grants.fd[GRANT_DOORBELL] = c->kit[KIT_DOORBELL];
	grants.fd[GRANT_ANSWER] = c->kit[KIT_ANSWER];
	grants.fd[GRANT_CONNECTIONS] = c->kit[KIT_CONNECTIONS];
	grants.fd[GRANT_CONNECTION_BELL] = c->kit[KIT_CONNECTION_BELL];
	grants.fd[GRANT_MACHINE] = c->pidfd;
	grants.fd[GRANT_FORK_ASK] = c->ask;
	grants.fd[GRANT_FORK_KIT] = c->kit_socket;
	grants.fd[GRANT_CONTROL] = c->control;
	grants.fd[GRANT_CONSOLE] = c->console;
	child_nets_give(&c->nets, &grants);
	setsid();
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			return -errno;
	return spawn_become(ROLE_BROKER, &grants);
}

static void leave_child(struct child *c)
{
	close(c->pidfd);
	close(c->ask);
	close(c->kit_socket);
	close(c->control);
	if (c->console >= 0)
		close(c->console);
	child_nets_close(&c->nets);
}

/* Its disks first, then who has them. Without a broker it ends: its sockets are closed. */
static int start_broker(const struct fork_command *f, struct child *c, int program)
{
	struct plan *plan = plan_new();
	int code = plan ? fork_disks_of_child(&f->disks, c->name, &plan->disks)
			: complain(EXIT_FAULT, strerror(ENOMEM), c->name, "see umbra doctor");

	if (!code)
		code = fork_nets_listen(&f->nets, c->name, &c->nets, &plan->relay);
	if (!code) {
		plan->nets = c->nets.plan;
		c->broker = fork();
	}
	if (!code && !c->broker)
		_exit(complain(EXIT_FAULT, strerror(-become_broker(f, c, plan, program)), c->name,
			       "see umbra doctor"));
	if (!code && is_adjusted(f->machine)) /* without a balancer it follows its own guest */
		balance_join(c->name);
	leave_child(c);
	free(plan);
	return code;
}

/* ---- what is said ---- */

static int say(int peer, const char *line, const int *files, size_t count)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(KIT_MOST_FDS * sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(count * sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec vector = { .iov_base = (void *)(uintptr_t)line, .iov_len = strlen(line) };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = count ? &ancillary : NULL,
				  .msg_controllen = count ? CMSG_SPACE(count * sizeof(int)) : 0 };

	if (count)
		memcpy(CMSG_DATA(&ancillary.head), files, count * sizeof(*files));
	return sendmsg(peer, &message, MSG_NOSIGNAL) == (ssize_t)vector.iov_len ? 0 : -ECONNRESET;
}

/* A line, and the descriptor that came with it (-1); NULL: nobody is there. */
static json_t *hear(int peer, int *ret_fd)
{
	static char line[LINE_BYTES];
	static size_t used;
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(int))];
	} ancillary;
	char *end;
	json_t *j;

	*ret_fd = -1;
	while (!(end = memchr(line, '\n', used))) {
		struct iovec vector = { .iov_base = line + used, .iov_len = sizeof(line) - used };
		struct msghdr message = { .msg_iov = &vector,
					  .msg_iovlen = 1,
					  .msg_control = &ancillary,
					  .msg_controllen = sizeof(ancillary) };
		ssize_t n = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);

		if (n <= 0)
			return NULL;
		if (message.msg_controllen && ancillary.head.cmsg_type == SCM_RIGHTS)
			memcpy(ret_fd, CMSG_DATA(&ancillary.head), sizeof(*ret_fd));
		used += (size_t)n;
	}
	j = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
	used -= (size_t)(end + 1 - line);
	memmove(line, end + 1, used);
	return j;
}

/* 0, or what was answered; -ECONNRESET: nothing was. */
static int answer_error(const json_t *answer)
{
	json_int_t number = json_integer_value(json_object_get(answer, "errno"));

	if (json_is_true(json_object_get(answer, "ok")))
		return 0;
	return number > 0 && number <= ERRNO_MAX ? -(int)number : -ECONNRESET;
}

/* NULL: it is gone. */
static json_t *ask_machine(const struct fork_command *f)
{
	int unused;
	int error = say(f->peer, "{\"id\":1,\"do\":\"info\"}\n", NULL, 0);
	json_t *answer = error ? NULL : hear(f->peer, &unused);
	json_t *machine = json_incref(json_object_get(answer, "machine"));

	json_decref(answer);
	return machine;
}

static int learn_machine(struct fork_command *f)
{
	f->peer = name_connect(f->name);
	if (f->peer < 0)
		return f->peer;
	f->machine = ask_machine(f);
	return json_is_object(f->machine) ? 0 : -ECONNRESET;
}

static int send_layer(const struct fork_command *f, unsigned n)
{
	const struct fork_disk *disk = &f->disks.disk[n];
	json_t *question = json_pack("{s:i, s:s, s:i, s:s}", "id", 1, "do", "layer", "disk", (int)n,
				     "file", disk->layer);
	char *text = json_dumps(question, JSON_COMPACT);
	char line[LINE_BYTES];
	json_t *answer;
	int unused;
	int error;

	snprintf(line, sizeof(line), "%s\n", text ?: "");
	error = say(f->peer, line, &disk->layer_file, 1);
	answer = error ? NULL : hear(f->peer, &unused);
	error = error ? error : answer_error(answer);
	json_decref(answer);
	json_decref(question);
	free(text);
	return error;
}

static int send_layers(const struct fork_command *f)
{
	int error = 0;

	for (unsigned n = 0; n < f->disks.count && !error; n++)
		if (!f->disks.disk[n].choice.read_only)
			error = send_layer(f, n);
	return error;
}

static int send_kits(const struct fork_command *f)
{
	const unsigned fds = fork_kit_fds(f->nets.options.cards);
	char line[128];
	int error = send_layers(f);

	for (unsigned n = 0; n + 1 < f->count && !error; n++) {
		int unused;
		json_t *answer;

		error = say(f->peer, "{\"id\":1,\"do\":\"kit\"}\n", f->child[n].kit, fds);
		answer = error ? NULL : hear(f->peer, &unused);
		error = error ? error : answer_error(answer);
		json_decref(answer);
	}
	snprintf(line, sizeof(line), "{\"id\":1,\"do\":\"fork\",\"parent\":\"%s\"}\n", f->parent);
	return error ? error : say(f->peer, line, f->child[f->count - 1].kit, fds);
}

/* Until all are there. */
static int take_children(struct fork_command *f, unsigned *made)
{
	int error = 1;

	while (error > 0) {
		int fd;
		json_t *answer = hear(f->peer, &fd);

		if (json_object_get(answer, "child") && fd >= 0 && *made < f->count) {
			struct child *c = &f->child[(*made)++];

			c->pid = (pid_t)json_integer_value(json_object_get(answer, "pid"));
			c->pidfd = fd;
		} else {
			error = answer_error(answer);
		}
		json_decref(answer);
	}
	return error;
}

/* Those that were made, also when some were not. */
static int start_brokers(struct fork_command *f, unsigned made)
{
	int program = spawn_open_program();
	int code = made ? fork_disks_freeze(&f->disks) : 0;

	for (unsigned n = 0; n < made; n++) {
		if (code)
			leave_child(&f->child[n]);
		else
			code = start_broker(f, &f->child[n], program);
	}
	close(program);
	return code;
}

/* ---- the verb ---- */

static void print_children(const struct fork_command *f, unsigned made)
{
	json_t *all = json_array();

	for (unsigned n = 0; n < made; n++)
		if (f->json)
			json_array_append_new(all, json_pack("{s:s, s:i, s:i}", "name",
							     f->child[n].name, "pid",
							     (int)f->child[n].broker, "process",
							     (int)f->child[n].pid));
		else
			puts(f->child[n].name);
	if (f->json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		puts("");
	}
	json_decref(all);
}

static int fork_failed(const struct fork_command *f, int error)
{
	switch (error) {
	case -ENOENT:
		return complain(EXIT_UNUSABLE, "no machine of that name runs", f->name,
				"umbra ps lists those that do");
	case -EOPNOTSUPP:
		return complain(EXIT_UNUSABLE, "it cannot be forked", f->name,
				"with ports, without a name or with sanitizers it is not");
	case -EBUSY:
		return complain(EXIT_UNUSABLE, "it is being saved or forked", f->name, "wait");
	case -EAGAIN:
		return complain(EXIT_UNUSABLE, "the host has no room for another process", f->name,
				"end some, or raise its limits");
	case -ECONNRESET:
		return complain(EXIT_UNUSABLE, "the machine went away", f->name, "see umbra ps");
	default: return complain(EXIT_UNUSABLE, strerror(-error), f->name, "see umbra ps");
	}
}

static int make_all(struct fork_command *f)
{
	int code = fork_disks_learn(&f->disks, f->name, f->machine);

	if (!code)
		code = fork_nets_learn(&f->nets, f->name, f->count, f->machine);

	for (unsigned n = 0; n < f->count && !code; n++)
		code = make_child(f, n);
	return code ? code : fork_disks_make_layers(&f->disks, f->name);
}

static void drop_layers(struct fork_command *f)
{
	json_t *now = f->machine ? ask_machine(f) : NULL;

	fork_disks_drop_layers(&f->disks, now);
	json_decref(now);
}

static int run(struct fork_command *f)
{
	unsigned made = 0;
	int error = learn_machine(f);
	int code = error ? 0 : make_all(f);

	if (!error && !code)
		error = send_kits(f);
	if (!error && !code)
		error = take_children(f, &made);
	if (!error || made)
		code = code ? code : start_brokers(f, made);
	if (error || code)
		drop_layers(f);
	if (!code)
		print_children(f, made);
	json_decref(f->machine);
	return error ? fork_failed(f, error) : code;
}

static int parse_mac_rule(struct fork_command *f, const char *word)
{
	if (!strcmp(word, "new"))
		f->nets.mac = FORK_MAC_NEW;
	else if (!strcmp(word, "keep"))
		f->nets.mac = FORK_MAC_KEEP;
	else
		return complain(EXIT_USAGE, "not new or keep", word, "see umbra fork --help");
	return 0;
}

static int parse(struct fork_command *f, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "name", 1, 0, 'N' },	       { "count", 1, 0, 'n' },
		{ "keep-parent", 0, 0, 'k' },  { "suspend-parent", 0, 0, 's' },
		{ "end-parent", 0, 0, 'e' },   { "console", 1, 0, 'c' },
		{ "disks", 1, 0, 'd' },	       { "json", 0, 0, 'j' },
		{ "net", 1, 0, 'W' },	       { "publish", 1, 0, 'p' },
		{ "mac", 1, 0, 'm' },	       { "help", 0, 0, 'h' },
		{ 0 },
	};
	char *end = NULL;
	int code = 0;
	int option;

	while (!code && (option = getopt_long(argc, argv, "n:p:", longs, NULL)) != -1)
		switch (option) {
		case 'N': f->child_name = optarg; break;
		case 'n': f->count = strtoul(optarg, &end, 10); break;
		case 'k': f->parent = "keep"; break;
		case 's': f->parent = "suspend"; break;
		case 'e': f->parent = "end"; break;
		case 'c': f->console = optarg; break;
		case 'd': f->disks.folder = optarg; break;
		case 'j': f->json = true; break;
		case 'W': code = net_option_add(&f->nets.options, optarg); break;
		case 'p': code = net_option_forward(&f->nets.options, optarg); break;
		case 'm': code = parse_mac_rule(f, optarg); break;
		case 'h': fputs(fork_help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	if (code)
		return code;
	if ((end && *end) || !f->count || f->count > FORK_CHILDREN)
		return complain(EXIT_USAGE, "not a number of children from 1 to 30", "-n",
				"fork a child, or fork again");
	if (argc - optind != 1)
		return complain(EXIT_USAGE, "wrong number of arguments", argv[0],
				"see umbra fork --help");
	f->name = argv[optind];
	return 0;
}

int verb_fork(int argc, char **argv)
{
	struct fork_command *f = calloc(1, sizeof(*f));
	int code;

	if (!f)
		return complain(EXIT_FAULT, strerror(ENOMEM), "fork", "see umbra doctor");
	f->count = 1;
	f->parent = "keep";
	code = parse(f, argc, argv);
	if (!code)
		code = run(f);
	free(f);
	return code;
}
