/* See fork_nets.h. */
#include "fork_nets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "ipc/net_card.h"
#include "control/names.h"
#include "lib/write_all.h"

enum { MAC_TEXT_BYTES = 18 };

static const char *const kinds[NET_CHOICES] = { [NET_USER] = "user",
						[NET_TAP] = "tap",
						[NET_SWITCH] = "switch" };

/* ---- what is said of them ---- */

/* As -p has it. */
static json_t *describe_forward(const struct net_forward *forward)
{
	const struct in_addr address = { .s_addr = forward->address };
	char host[INET_ADDRSTRLEN + 1] = "";

	if (forward->address != INADDR_ANY &&
	    inet_ntop(AF_INET, &address, host, INET_ADDRSTRLEN))
		strcat(host, ":");
	return json_sprintf("%s%u:%u%s", host, forward->host_port, forward->guest_port,
			    forward->is_udp ? "/udp" : "");
}

static json_t *describe_card(const struct net_choice *card)
{
	char mac[MAC_TEXT_BYTES];
	json_t *forwards = json_array();
	json_t *about;

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", card->mac[0], card->mac[1],
		 card->mac[2], card->mac[3], card->mac[4], card->mac[5]);
	about = json_pack("{s:s, s:s, s:s, s:b}", "kind", kinds[card->kind], "name", card->name,
			  "mac", mac, "host-loopback", card->host_loopback);
	for (unsigned n = 0; n < card->forwards; n++)
		json_array_append_new(forwards, describe_forward(&card->forward[n]));
	if (card->forwards)
		json_object_set(about, "forwards", forwards);
	json_decref(forwards);
	return about;
}

int fork_nets_describe(const struct net_plan *nets, const struct relay_plan *relay, json_t *machine)
{
	json_t *cards = json_array();
	int error = 0;

	for (unsigned n = 0; n < nets->count && !error; n++)
		error = json_array_append_new(cards, describe_card(&nets->card[n]));
	if (!error && nets->count)
		error = json_object_set(machine, "cards", cards);
	json_decref(cards);
	if (!error && relay->name[0])
		error = json_object_set_new(machine, "sockets", json_true());
	return error ? -EINVAL : 0;
}

/* ---- what is learned ---- */

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

/* As --net would say it: it is one word of that, also of a file that lies. */
static int learn_card(struct net_options *options, const char *machine, const json_t *about)
{
	const char *kind = text_of(about, "kind");
	const char *name = text_of(about, "name");
	const bool is_user = !strcmp(kind, kinds[NET_USER]);
	char text[PLAN_NET_NAME_BYTES + 32];

	if (!strcmp(kind, kinds[NET_TAP]))
		return complain(EXIT_UNUSABLE, "a tap has one machine", name,
				"name another network for the child, with --net");
	if ((!is_user && strcmp(kind, kinds[NET_SWITCH]) != 0) || strchr(name, ','))
		return complain(EXIT_UNUSABLE, "what it says of its cards is wrong", machine,
				"see umbra info");
	snprintf(text, sizeof(text), "%s%s%s%s", kind, is_user ? "" : "=",
		 is_user ? "" : name,
		 is_user && json_is_true(json_object_get(about, "host-loopback")) ? ",host-loopback"
										   : "");
	return net_option_add(options, text);
}

static int choose_address(struct fork_nets *nets, unsigned n, const json_t *about)
{
	struct net_options *options = &nets->options;
	const bool is_alone = options->card[n].kind == NET_USER;

	if (options->has_mac[n] || nets->mac == FORK_MAC_NEW)
		return 0;
	if (!is_alone && nets->mac == FORK_MAC_KEEP)
		return complain(EXIT_USAGE, "two machines of one address can meet", "--mac keep",
				"leave it out: the child gets an address of its own");
	if (!is_alone)
		return 0;
	options->has_mac[n] = net_option_parse_mac(text_of(about, "mac"), options->card[n].mac);
	return options->has_mac[n] ? 0
				   : complain(EXIT_UNUSABLE, "what it says of its cards is wrong",
					      text_of(about, "mac"), "see umbra info");
}

/* What only one machine can have. */
static int check_alone(const struct fork_nets *nets)
{
	const struct net_options *options = &nets->options;
	bool is_for_one = options->forwards != 0;

	for (unsigned n = 0; n < options->cards; n++)
		is_for_one |= options->has_mac[n] || options->card[n].kind == NET_TAP;
	return is_for_one ? complain(EXIT_USAGE, "only one child can have that",
				     "-p, mac= and tap=", "fork one at a time")
			  : 0;
}

int fork_nets_learn(struct fork_nets *nets, const char *machine, unsigned long children,
		    const json_t *info)
{
	const json_t *all = json_object_get(info, "cards");
	const size_t count = json_array_size(all);
	const bool is_given = nets->options.cards;
	int code = children > 1 ? check_alone(nets) : 0;

	nets->has_sockets = json_is_true(json_object_get(info, "sockets"));
	if (count > NET_CARDS)
		return complain(EXIT_UNUSABLE, "it says of more than four network cards", machine,
				"see umbra info");
	for (size_t n = 0; n < count && !code && !is_given; n++)
		code = learn_card(&nets->options, machine, json_array_get(all, n));
	if (!code && (nets->options.none || net_options_count(&nets->options) != count))
		return complain(EXIT_USAGE, "a child has as many network cards as its parent",
				machine, "say --net once for each of them, or not at all");
	for (unsigned n = 0; n < count && !code; n++)
		code = choose_address(nets, n, json_array_get(all, n));
	return code;
}

/* ---- a child's ---- */

/* As the broker makes those of a machine that starts (process/broker_main.c). */
static int make_card(struct child_nets *nets, unsigned n, int kit[KIT_CARD_FDS])
{
	const off_t mac_at = offsetof(struct net_card_memory, mac);
	int bell[2];
	int answer[2];
	int error;

	nets->card[n] = spawn_share("umbra-card", sizeof(struct net_card_memory));
	if (nets->card[n] < 0)
		return nets->card[n];
	error = write_all_at(nets->card[n], nets->plan.card[n].mac, NET_MAC_BYTES, mac_at);
	if (error)
		return error;
	if (pipe2(bell, O_CLOEXEC | O_NONBLOCK) || pipe2(answer, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	nets->bell[n] = bell[0];
	nets->answer[n] = answer[1];
	kit[KIT_CARD] = nets->card[n];
	kit[KIT_CARD_BELL] = bell[1];
	kit[KIT_CARD_ANSWER] = answer[0];
	return 0;
}

void child_nets_begin(struct child_nets *nets)
{
	memset(&nets->plan, 0, sizeof(nets->plan));
	grants_clear(&nets->grants);
	memset(nets->card, -1, sizeof(nets->card));
	memset(nets->bell, -1, sizeof(nets->bell));
	memset(nets->answer, -1, sizeof(nets->answer));
	nets->listener = -1;
}

int fork_nets_of_child(struct fork_nets *nets, const char *child, struct child_nets *ret,
		       int kit[KIT_MOST_FDS])
{
	int code;
	int error = 0;

	child_nets_begin(ret);
	code = net_option_take(&nets->options, child, &ret->plan, &ret->grants);
	for (unsigned n = 0; n < ret->plan.count && !code && !error; n++)
		error = make_card(ret, n, kit + KIT_FDS + n * KIT_CARD_FDS);
	return error ? complain(EXIT_FAULT, strerror(-error), child, "see umbra doctor") : code;
}

int fork_nets_of_image(struct fork_nets *nets, const char *machine, const json_t *info,
		       struct child_nets *ret, int kit[KIT_MOST_FDS])
{
	const json_t *all = json_object_get(info, "cards");
	int error = json_array_size(all) > NET_CARDS ? -EPROTO : 0;

	child_nets_begin(ret);
	if (!error)
		ret->plan.count = nets->options.cards = (unsigned)json_array_size(all);
	for (unsigned n = 0; n < ret->plan.count && !error; n++)
		error = net_option_parse_mac(text_of(json_array_get(all, n), "mac"),
					     ret->plan.card[n].mac)
				? make_card(ret, n, kit + KIT_FDS + n * KIT_CARD_FDS)
				: -EPROTO;
	return error ? complain(EXIT_UNUSABLE, strerror(-error), machine, "see umbra info") : 0;
}

int fork_nets_listen(const struct fork_nets *nets, const char *child, struct child_nets *ret,
		     struct relay_plan *relay)
{
	char path[PLAN_SOCKET_BYTES];
	int error;

	if (!nets->has_sockets)
		return 0;
	error = name_make_socket_place(child, path, sizeof(path));
	if (!error)
		ret->listener = name_listen_at(path);
	if (!error && ret->listener < 0)
		error = ret->listener;
	if (!error)
		error = plan_set_relay(relay, path);
	return error ? complain(EXIT_UNUSABLE, strerror(-error), child,
				"see the folder of its name")
		     : 0;
}

void child_nets_give(const struct child_nets *nets, struct grants *ret)
{
	for (unsigned n = 0; n < NET_CARDS; n++) {
		ret->fd[GRANT_CARDS + n] = nets->card[n];
		ret->fd[GRANT_CARD_BELLS + n] = nets->bell[n];
		ret->fd[GRANT_CARD_ANSWERS + n] = nets->answer[n];
		ret->fd[GRANT_CARD_TAPS + n] = nets->grants.fd[GRANT_CARD_TAPS + n];
	}
	ret->fd[GRANT_LISTENER] = nets->listener;
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

void child_nets_close(struct child_nets *nets)
{
	for (unsigned n = 0; n < NET_CARDS; n++) {
		close_if(nets->bell[n]);
		close_if(nets->answer[n]);
		close_if(nets->grants.fd[GRANT_CARD_TAPS + n]);
	}
	close_if(nets->listener);
}
