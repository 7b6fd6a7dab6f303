/*
 * umbra fork: what each child is given is made here (fork_child.c), the broker of the machine has
 * it forked (process/broker_fork.h has the other side), and each child gets a broker of its own.
 * Several children are of one that never runs (fork_many.c).
 */
#include <errno.h>
#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"
#include "control/machine_control.h"
#include "fork_extents.h"
#include "fork_internal.h"
#include "fork_snapshot.h"
#include "fork_source.h"
#include "option.h"
#include "ipc/role.h"
#include "ipc/spawn.h"
#include "save_machine.h"
#include "saved_host.h"
#include "say.h"
#include "share_option.h"
#include "talk.h"
#include "process/broker.h"
#include "process/plan.h"

enum { ERRNO_MAX = 4095, CHILDREN_MOST = 2000, CHILD_FDS = 2,
       BESIDE_FDS = 512, LEAST_FDS = HELPERS_FIRST_FD + 60,
       OWN_PAGES_BYTES = 65536 };

static const char fork_help[] =
	"usage: umbra fork NAME [--name CHILD] [-n COUNT] "
	"[--keep-parent|--suspend-parent|--end-parent]\n"
	"                  [--console FILE] [--disks FOLDER] [--net NET]... [-p PORT]...\n"
	"                  [--mac new|keep] [--renew WHAT] [--with-secrets] [--json]\n"
	"                  [--serve NAME[=packet|=disk]]...\n"
	"                  [--bind MACHINE/NAME[=packet|=disk]]...\n"
	"       umbra fork NAME --to HOST:PORT --key FILE [--name CHILD] [--limit RATE]\n"
	"                  (or --cert FILE --cert-key FILE --ca FILE)\n"
	"                  [--wait SECONDS] [--keep-parent|--end-parent] [--disks FOLDER]\n"
	"                  [--json]\n"
	"Makes COUNT machines (1) of the running machine NAME, all of one moment. Each has its\n"
	"memory, processors and devices as they were then, and goes on by itself, as NAME does.\n"
	"A child is called CHILD, several are CHILD-1, CHILD-2 and so on; without --name CHILD is\n"
	"NAME-fork. Children have no console but a FILE, to which -1, -2 and so on is added when\n"
	"there are several.\n"
	"NAME goes on, stands still until umbra resume, or ends. When it was started with\n"
	"--secrets this needs --with-secrets: a child has all that is in its memory and on disks.\n"
	"--renew has the agent in each child's guest renew WHAT before this returns: random (its\n"
	"kernel's random numbers), hostname (as the child's name), machine-id, all; by commas. A\n"
	"child whose agent does not is ended.\n"
	"Disks that are written (VHDX) are frozen as they were then. NAME and each child go on in\n"
	"files of their own, DISK.NAME.vhdx and DISK.CHILD.vhdx, in FOLDER or beside the disk.\n"
	"Each child has its networks to itself: another one in user mode, another port of the\n"
	"same switch, or NET as umbra run has it, once for each card (a tap needs that).\n"
	"NAME's channels to other machines (--serve, --bind of umbra run) stay NAME's. With as\n"
	"many --serve and --bind of the same kinds a child has a place for its own; without,\n"
	"nobody is at them.\n"
	"Connections and ports of the host stay NAME's; -p gives the child some. On a switch or a\n"
	"tap the guest gets a new card with an address of its own; in user mode with --mac new.\n"
	"--to sends CHILD (NAME) to where umbra listen waits for it, which has the same key, and\n"
	"a folder for its disks (umbra listen --disks), or these are reached by the same names.\n"
	"It runs there once its processors and devices are there; memory and disks come while\n"
	"it runs: what it asks for at once, the rest at most RATE bytes a second (also\n"
	"--bandwidth RATE). What those have asked for\n"
	"that were sent before goes ahead; --json says how much. This ends when all is there. A\n"
	"connection that is lost is made again, for SECONDS (60). In the place of a key each side\n"
	"may have a certificate of an authority that the other believes; that of HOST names it.\n";

/* ---- what is said ---- */

/* A line, and the descriptor that came with it (-1); NULL: nobody is there. */
static json_t *hear(int peer, int *ret_fd)
{
	static char line[CONTROL_OUT_BYTES];
	static size_t used;
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(int))];
	} ancillary;
	char *end;
	json_t *json;

	*ret_fd = -1;
	while (!(end = memchr(line, '\n', used))) {
		struct iovec vector = { .iov_base = line + used, .iov_len = sizeof(line) - used };
		struct msghdr message = { .msg_iov = &vector,
					  .msg_iovlen = 1,
					  .msg_control = &ancillary,
					  .msg_controllen = sizeof(ancillary) };
		ssize_t n = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);

		if (n <= 0 || message.msg_flags & MSG_CTRUNC)
			return NULL;
		if (message.msg_controllen && ancillary.head.cmsg_type == SCM_RIGHTS)
			memcpy(ret_fd, CMSG_DATA(&ancillary.head), sizeof(*ret_fd));
		used += (size_t)n;
	}
	json = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
	used -= (size_t)(end + 1 - line);
	memmove(line, end + 1, used);
	return json;
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
static json_t *ask_machine(const struct fork_command *command)
{
	int unused;
	int error = say_line(command->peer, "{\"id\":1,\"do\":\"info\"}\n", NULL, 0);
	json_t *answer = error ? NULL : hear(command->peer, &unused);
	json_t *machine = json_incref(json_object_get(answer, "machine"));

	json_decref(answer);
	return machine;
}

static int learn_machine(struct fork_command *command)
{
	command->peer = name_connect(command->name);
	if (command->peer < 0)
		return command->peer;
	command->machine = ask_machine(command);
	return json_is_object(command->machine) ? 0 : -ECONNRESET;
}

int fork_ask(const struct fork_command *command, const char *word)
{
	char line[64];
	json_t *answer;
	int unused;
	int error;

	snprintf(line, sizeof(line), "{\"id\":1,\"do\":\"%s\"}\n", word);
	error = say_line(command->peer, line, NULL, 0);
	answer = error ? NULL : hear(command->peer, &unused);
	error = error ? error : answer_error(answer);
	json_decref(answer);
	return error;
}

static int send_layer(const struct fork_command *command, unsigned n)
{
	int error = fork_disks_send_layer(&command->disks, n, command->peer);
	int unused;
	json_t *answer = error ? NULL : hear(command->peer, &unused);

	error = error ? error : answer_error(answer);
	json_decref(answer);
	return error;
}

static int send_layers(const struct fork_command *command)
{
	int error = 0;

	for (unsigned n = 0; n < command->disks.count && !error; n++)
		if (!command->disks.disk[n].choice.read_only)
			error = send_layer(command, n);
	return error;
}

int fork_send(const struct fork_command *command, struct child_kit *kit, const char *parent)
{
	char asked[80] = "";
	char line[224];
	int error = send_layers(command);

	if (error)
		return error;
	if (command->asked)
		snprintf(asked, sizeof(asked), ",\"asked\":%lu,\"number\":%lu", command->asked,
			 command->number);
	snprintf(line, sizeof(line), "{\"id\":1,\"do\":\"fork\",\"parent\":\"%s\"%s%s}\n",
		 parent, command->with_secrets ? ",\"secrets\":\"copied\"" : "", asked);
	if (!kit)
		return say_line(command->peer, line, NULL, 0);
	error = say_line(command->peer, line, kit->fd,
			 fork_kit_fds(kit->nets.plan.count, kit->ports.count));
	fork_kit_sent(kit);
	return error;
}

int fork_take(const struct fork_command *command, struct child *ret)
{
	int error = 1;

	ret->pid = 0;
	while (error > 0) {
		int fd;
		json_t *answer = hear(command->peer, &fd);

		if (json_object_get(answer, "child") && fd >= 0 && !ret->pid) {
			ret->pid = (pid_t)json_integer_value(json_object_get(answer, "pid"));
			ret->pidfd = fd;
		} else {
			error = answer_error(answer);
		}
		json_decref(answer);
	}
	return error;
}

/* As it stands: of one child nobody else is between. */
static int fork_one(struct fork_command *command, unsigned *ret_made, int *ret_error)
{
	struct child *child = &command->child[0];
	struct brokers_start start;
	struct child_kit kit;
	int code = brokers_begin(&start);
	int failed;

	if (code)
		return code;
	code = fork_child_make_kit(command, child, FORKED_TO_RUN, &kit);
	if (!code)
		*ret_error = fork_send(command, &kit, command->parent);
	if (!code && !*ret_error)
		*ret_error = fork_take(command, child);
	*ret_made = !code && child->pid && *ret_error != -EINPROGRESS;
	if (!*ret_made && child->pid)
		fork_child_end(child); /* what it is to be made on is not settled */
	if (*ret_made) {
		code = fork_disks_freeze(&command->disks);
		if (code)
			fork_child_end(child);
		else
			code = fork_child_start_broker(command, child, &kit, &start);
	}
	fork_kit_close(&kit);
	failed = brokers_end(&start, command);
	return code ? code : failed;
}

/* Nobody shall take one for a machine of its own that is not. */
static int renew_children(const struct fork_command *command, unsigned made)
{
	int code = 0;

	for (unsigned n = 0; n < made; n++) {
		const struct child *child = &command->child[n];
		int failed = fork_renew(&command->renew, child->name);

		if (failed)
			kill(child->broker, SIGKILL); /* which its machine ends with */
		code = code ? code : failed;
	}
	return code;
}

/* ---- a fork ---- */

static void print_children(const struct fork_command *command, unsigned made)
{
	json_t *all = json_array();

	for (unsigned n = 0; n < made; n++)
		if (command->json)
			json_array_append_new(
				all, json_pack("{s:s, s:i, s:i}", "name", command->child[n].name,
					       "pid", (int)command->child[n].broker, "process",
					       (int)command->child[n].pid));
		else
			puts(command->child[n].name);
	if (command->json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		puts("");
	}
	json_decref(all);
}

/* What says of its devices what a child would need to know says of its ports, too. */
static int cannot_be_forked(const struct fork_command *command)
{
	if (command->machine && !json_object_get(command->machine, "ports"))
		return complain(EXIT_UNUSABLE, "the paths of its disks are too long together",
				command->name, "start it with some of 8 KiB in all");
	return complain(EXIT_UNUSABLE, "it cannot be forked", command->name,
			"without a name or with sanitizers it is not");
}

static int fork_failed(const struct fork_command *command, int error)
{
	switch (error) {
	case -ENOENT:
		return complain(EXIT_UNUSABLE, "no machine of that name runs", command->name,
				"umbra ps lists those that do");
	case -EOPNOTSUPP: return cannot_be_forked(command);
	case -EPERM:
		return complain(EXIT_UNUSABLE, "it holds secrets, which a child has as well",
				command->name, "say --with-secrets if that is meant");
	case -EBUSY:
		return complain(EXIT_UNUSABLE, "it is being saved or forked", command->name,
				"wait");
	case -ENOSPC:
		return complain(EXIT_UNUSABLE, "there is no room for what its disks go on in",
				command->name, "make some, or name a folder with --disks");
	case -ECHILD:
		return complain(EXIT_UNUSABLE, "what was forked ended before it ran", command->name,
				"the host may have no room for its processes or memory: end "
				"some, or raise its limits");
	case -EAGAIN:
		return complain(EXIT_UNUSABLE, "the host has no room for another process",
				command->name, "end some, or raise its limits");
	case -ECONNRESET:
		return complain(EXIT_UNUSABLE, "the machine went away", command->name,
				"see umbra ps");
	case -ETIMEDOUT:
		return complain(EXIT_UNUSABLE, "it, or what was forked of it, does not answer",
				command->name,
				"see umbra ps for the children that are there, and fork again");
	case -ESRCH:
		return complain(EXIT_UNUSABLE, "its forker does not answer, or is gone",
				command->name,
				"it goes on, but is not forked any more: save it, and restore it");
	case -ETIME:
		return complain(EXIT_UNUSABLE, "its disks do not answer", command->name,
				"it stands until they do: umbra kill ends it");
	case -EINPROGRESS:
		return complain(EXIT_UNUSABLE, "what its disks had is not durable yet",
				command->name,
				"it goes on in new files: fork it again once their disk is faster");
	default: return complain(EXIT_UNUSABLE, strerror(-error), command->name, "see umbra ps");
	}
}

static int make_all(struct fork_command *command)
{
	int code = fork_disks_learn(&command->disks, command->name, command->machine);

	if (!code)
		code = fork_nets_learn(&command->nets, command->name, command->count,
				       command->machine);
	if (!code)
		code = fork_ports_learn(&command->ports, command->name, command->machine);

	for (unsigned n = 0; n < command->count && !code; n++)
		code = fork_child_begin(command, n);
	return code ? code : fork_disks_make_layers(&command->disks, command->name);
}

static void drop_layers(struct fork_command *command)
{
	json_t *now = command->machine ? ask_machine(command) : NULL;

	fork_disks_drop_layers(&command->disks, now);
	json_decref(now);
}

static int run(struct fork_command *command)
{
	unsigned made = 0;
	int error = learn_machine(command);
	int code = error ? 0 : make_all(command);

	if (!error && !code && command->count > 1)
		code = fork_many(command, &made, &error);
	else if (!error && !code)
		code = fork_one(command, &made, &error);
	if (error || code)
		drop_layers(command);
	if (!error && !code)
		code = renew_children(command, made);
	if (!code)
		print_children(command, made);
	json_decref(command->machine);
	return error ? fork_failed(command, error) : code;
}

static int parse_mac_rule(struct fork_command *command, const char *word)
{
	if (!strcmp(word, "new"))
		command->nets.mac = FORK_MAC_NEW;
	else if (!strcmp(word, "keep"))
		command->nets.mac = FORK_MAC_KEEP;
	else
		return complain(EXIT_USAGE, "not new or keep", word, "see umbra fork --help");
	return 0;
}

/* ---- a snapshot: a fork without a child ---- */

/* Where it is not, its disks are as after a power cut. */
static bool freeze_guest(const struct fork_command *command)
{
	int error = fork_ask(command, "freeze");
	const bool is_alone = error == -ENOTCONN || error == -EIO;

	if (error)
		complain(0, is_alone ? "no hv_vss_daemon freezes it" : strerror(-error),
			 command->name,
			 "its disks are kept as they were at one moment, not frozen");
	return !error;
}

static int switch_disks(struct fork_command *command)
{
	bool is_frozen = freeze_guest(command);
	struct child nobody;
	int error = fork_send(command, NULL, command->parent);

	if (!error)
		error = fork_take(command, &nobody);
	if (is_frozen && !error)
		error = fork_ask(command, "thaw");
	return error;
}

static void print_layers(const struct fork_command *command)
{
	for (unsigned n = 0; n < command->disks.count; n++)
		if (!command->disks.disk[n].choice.read_only)
			printf("%s is kept, and goes on in %s\n",
			       command->disks.disk[n].choice.path, command->disks.disk[n].layer);
}

static int snapshot(struct fork_command *command)
{
	int error = learn_machine(command);
	int code = error ? 0 : make_all(command);

	if (!error && !code && !fork_disks_are_written(&command->disks))
		code = complain(EXIT_UNUSABLE, "it has no disk that is written", command->name,
				"there is nothing to keep");
	if (!error && !code)
		error = switch_disks(command);
	if (!error && !code)
		code = fork_disks_freeze(&command->disks);
	if (error || code)
		drop_layers(command);
	else
		print_layers(command);
	json_decref(command->machine);
	return error ? fork_failed(command, error) : code;
}

int fork_snapshot(const char *machine, const char *folder)
{
	struct fork_command *command = calloc(1, sizeof(*command));
	int code;

	if (!command)
		return complain(EXIT_FAULT, strerror(ENOMEM), machine, "see umbra doctor");
	command->name = machine;
	command->parent = "keep";
	command->disks.folder = folder;
	code = snapshot(command);
	free(command);
	return code;
}

/* ---- the verb ---- */

static int parse_limit(struct fork_command *command, const char *text)
{
	return parse_size(text, &command->away.bytes_per_s) && command->away.bytes_per_s
		       ? 0
		       : complain(EXIT_USAGE, "not a number of bytes a second", text,
				  "say for example --limit 20M");
}

/* As the door says it: WISH,CHILD (fork_door.c). */
static void parse_asked(struct fork_command *command, const char *text)
{
	char *end;

	command->asked = strtoul(text, &end, 10);
	command->number = *end == ',' ? strtoul(end + 1, NULL, 10) : 0;
}

/* What a child at another place cannot have from here. */
static int check_away(const struct fork_command *command)
{
	const struct fork_away *away = &command->away;
	const bool is_of_here = command->count != 1 || command->console ||
				command->nets.options.cards || command->nets.options.none ||
				command->nets.options.forwards || command->nets.mac ||
				command->ports.given.count ||
				command->renew.random || command->renew.hostname ||
				command->renew.machine_id || !strcmp(command->parent, "suspend");

	if (away->to && is_of_here)
		return complain(EXIT_USAGE, "a child at another place has none of these", "--to",
				"leave out -n, --suspend-parent, --console, --net, -p, --mac, "
				"--serve, --bind and --renew");
	if (!away->to && (away->key || away->certificates.certificate || away->certificates.key ||
			  away->certificates.authority || away->bytes_per_s || away->has_wait))
		return complain(EXIT_USAGE, "the child stays here",
				"--key, --cert, --cert-key, --ca, --limit, --wait",
				"say --to HOST:PORT");
	return 0;
}

/* ---- to another place ---- */

/* A child that has no name here, and nobody's networks: it never runs. */
static int make_image(struct fork_command *command, struct child_kit *kit)
{
	int code = fork_disks_learn(&command->disks, command->name, command->machine);

	if (!code)
		code = fork_ports_learn(&command->ports, command->name, command->machine);
	if (!code)
		code = fork_kit_make_still(command, FORKED_TO_SERVE, kit);
	return code ? code : fork_disks_make_layers(&command->disks, command->name);
}

static int add_host_part(const struct fork_command *command, struct fork_source *source)
{
	char *text = NULL;
	int code = fork_disks_freeze(&command->disks);

	if (!code)
		code = saved_host_text(&command->disks, command->machine, &text);
	if (!code && fork_source_add_host(source, text))
		code = complain(EXIT_FAULT, strerror(ENOMEM), command->name, "see umbra doctor");
	free(text);
	return code;
}

static int open_source(const struct fork_command *command, const struct child_kit *kit,
		       struct fork_source *source)
{
	const bool has_bus = json_is_true(json_object_get(command->machine, "bus"));
	const int error =
		fork_source_open(source, kit->fd, command->child[0].pidfd,
				 save_most_bytes(command->machine), has_bus);

	switch (error) {
	case 0: return has_bus ? add_host_part(command, source) : 0;
	case -EBADMSG:
		return complain(EXIT_UNUSABLE,
				"what its machine process says is not this machine",
				command->name, "do not trust it: end it with umbra kill");
	case -EOPNOTSUPP:
		return complain(EXIT_UNUSABLE, strerror(-error), command->name,
				"with --test-device it cannot be sent");
	default:
		return complain(EXIT_UNUSABLE, strerror(-error), command->name,
				"see umbra ps: it goes on here");
	}
}

/* It stands still until now, and runs elsewhere. Nothing of it is needed here any more. */
static int end_here(const struct fork_command *command)
{
	int error = 0;
	FILE *peer = talk_to(command->name, &error);
	const int code = peer ? save_stop_machine(command->name, peer)
			      : talk_failed(command->name, error);

	if (peer)
		fclose(peer);
	if (!code)
		fork_disks_remove_layers(&command->disks);
	return code;
}

static void print_counts(const struct fork_command *command, struct fork_away_counts counts)
{
	json_t *said = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "name",
				 command->child_name ? command->child_name : command->name, "bytes",
				 (json_int_t)counts.bytes, "asked", (json_int_t)counts.wants,
				 "ahead", (json_int_t)counts.ahead, "ran-after-us",
				 (json_int_t)(counts.until_it_ran_ns / 1000), "sent-before",
				 (json_int_t)counts.bytes_before);

	json_dumpf(said, stdout, JSON_INDENT(2));
	puts("");
	json_decref(said);
}

/* Who is to end here stands still for this connection: whatever happens before, it goes on. */
static int send_image(struct fork_command *command, const struct child_kit *kit,
		      struct sending *sending)
{
	const bool ends = !strcmp(command->parent, "hold");
	static struct fork_extents extents;
	struct fork_source source = { .memory = NULL };
	int code = open_source(command, kit, &source);

	if (!code)
		code = fork_extents_open(&extents, &command->disks, source.bytes);
	if (!code)
		code = fork_away_deliver(sending, &source, &extents, command->name,
					 command->machine);
	if (!code && ends)
		code = end_here(command);
	if (!code)
		code = fork_away_send_rest(sending);
	if (!code && !ends)
		fork_away_keep_wanted(sending, command->name, command->machine);
	if (!code && command->json)
		print_counts(command, fork_away_count(sending));
	fork_extents_close(&extents);
	fork_source_close(&source);
	return code;
}

static int fork_image(struct fork_command *command, struct sending *sending)
{
	const bool stands = !strcmp(command->parent, "hold"); /* until it is connected */
	struct child_kit kit;
	int error;
	int code;

	command->child[0].pidfd = -1;
	if (stands)
		fork_away_connect(sending);
	error = learn_machine(command);
	code = error ? 0 : make_image(command, &kit);
	if (!error && !code)
		error = fork_send(command, &kit, command->parent);
	if (!error && !code && !stands)
		fork_away_connect(sending); /* while the machine is forked */
	if (!error && !code)
		error = fork_take(command, &command->child[0]);
	if (!error && !code && command->child[0].pid)
		code = send_image(command, &kit, sending);
	fork_child_end(&command->child[0]);
	if (error || code)
		drop_layers(command);
	json_decref(command->machine);
	return error ? fork_failed(command, error) : code;
}

static int run_away(struct fork_command *command)
{
	const char *child = command->child_name ? command->child_name : command->name;
	struct sending *sending;
	int code;

	if (!strcmp(command->parent, "end"))
		command->parent = "hold";
	signal(SIGPIPE, SIG_IGN);
	sending = fork_away_begin(&command->away, child, &code);
	if (!sending)
		return code;
	code = fork_image(command, sending);
	fork_away_end(sending);
	return code;
}

static int parse(struct fork_command *command, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "name", 1, 0, 'N' },	       { "count", 1, 0, 'n' },
		{ "keep-parent", 0, 0, 'k' },  { "suspend-parent", 0, 0, 's' },
		{ "end-parent", 0, 0, 'e' },   { "console", 1, 0, 'c' },
		{ "disks", 1, 0, 'd' },	       { "json", 0, 0, 'j' },
		{ "net", 1, 0, 'W' },	       { "publish", 1, 0, 'p' },
		{ "mac", 1, 0, 'm' },	       { "with-secrets", 0, 0, 'S' },
		{ "renew", 1, 0, 'R' },	       { "to", 1, 0, 't' },
		{ "key", 1, 0, 'K' },	       { "limit", 1, 0, 'l' },
		{ "bandwidth", 1, 0, 'l' },    { "wait", 1, 0, 'w' },
		{ "asked", 1, 0, 'A' }, /* who forks it for its guest says so */
		{ "cert", 1, 0, 'C' },	       { "cert-key", 1, 0, 'P' },
		{ "serve", 1, 0, 'V' },	       { "bind", 1, 0, 'I' },
		{ "ca", 1, 0, 'B' },	       { "help", 0, 0, 'h' },
		{ 0 },
	};
	char *end = NULL;
	int code = 0;
	int option;

	while (!code && (option = option_of_verb(argv[0], argc, argv, "n:p:", longs)) != -1)
		switch (option) {
		case 'N': command->child_name = optarg; break;
		case 'n': command->count = strtoul(optarg, &end, 10); break;
		case 'k': command->parent = "keep"; break;
		case 's': command->parent = "suspend"; break;
		case 'e': command->parent = "end"; break;
		case 'c': command->console = optarg; break;
		case 'd': command->disks.folder = optarg; break;
		case 'j': command->json = true; break;
		case 'S': command->with_secrets = true; break;
		case 'R': code = fork_renew_parse(&command->renew, optarg); break;
		case 'W': code = net_option_add(&command->nets.options, optarg); break;
		case 'p': code = net_option_forward(&command->nets.options, optarg); break;
		case 'm': code = parse_mac_rule(command, optarg); break;
		case 'V': code = share_option_serve(&command->ports.given, optarg); break;
		case 'I': code = share_option_bind(&command->ports.given, optarg); break;
		case 't': command->away.to = optarg; break;
		case 'K': command->away.key = optarg; break;
		case 'C': command->away.certificates.certificate = optarg; break;
		case 'P': command->away.certificates.key = optarg; break;
		case 'B': command->away.certificates.authority = optarg; break;
		case 'l': code = parse_limit(command, optarg); break;
		case 'w':
			command->away.has_wait = true;
			code = option_wait(optarg, INT32_MAX, &command->away.wait_s);
			break;
		case 'A': parse_asked(command, optarg); break;
		case 'h': fputs(fork_help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	if (code)
		return code;
	if ((end && *end) || !command->count || command->count > CHILDREN_MOST)
		return complain(EXIT_USAGE, "not a number of children from 1 to 2000", "-n",
				"fork a child, or fork again");
	if (argc - optind != 1)
		return complain(EXIT_USAGE, "wrong number of arguments", argv[0],
				"see umbra fork --help");
	command->name = argv[optind];
	return check_away(command);
}

/* Before anything is forked: what a child lacks would be missed once it is there. */
static int raise_descriptors(const struct fork_command *command)
{
	const unsigned each = (unsigned)command->count * CHILD_FDS;
	struct rlimit limit;

	spawn_raise_descriptors(each + BESIDE_FDS);
	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= each + LEAST_FDS)
		return 0;
	return complain(EXIT_UNUSABLE, strerror(EMFILE), command->name,
			"permit more, ulimit -n 1024");
}

static int run_verb(struct fork_command *command)
{
	int code;

	/* brokers go on in this process's memory: what they need of it is theirs alone */
	mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
	command->child = calloc(command->count, sizeof(*command->child));
	if (!command->child)
		return complain(EXIT_FAULT, strerror(ENOMEM), "fork", "see umbra doctor");
	if (command->away.to) {
		code = run_away(command);
	} else {
		code = raise_descriptors(command);
		code = code ? code : run(command);
	}
	free(command->child);
	return code;
}

/* Before anything else is looked at: it takes longest, and nothing of it has to be known. */
static void load_early(struct fork_away *away, int argc, char **argv)
{
	away->early.socket = -1;
	for (int n = 1; n < argc && away->early.socket < 0; n++)
		if (!strcmp(argv[n], "--to") || !strncmp(argv[n], "--to=", strlen("--to=")))
			fork_away_load(away);
}

int verb_fork(int argc, char **argv)
{
	struct fork_command *command = calloc(1, sizeof(*command));
	int code;

	if (!command)
		return complain(EXIT_FAULT, strerror(ENOMEM), "fork", "see umbra doctor");
	load_early(&command->away, argc, argv);
	command->count = 1;
	command->parent = "keep";
	command->called = argv[-1];
	command->away.wait_s = FORK_AWAY_WAIT_S;
	code = parse(command, argc, argv);
	if (!code)
		code = run_verb(command);
	fork_away_unload(&command->away);
	free(command);
	return code;
}
