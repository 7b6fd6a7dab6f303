/* See net_option.h. */
#include "net_option.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "cli.h"
#include "control/names.h"
#include "net/tap/tap.h"

enum { LOCALLY_ADMINISTERED = 2, GROUP = 1, WORD_BYTES = 256 };

/* ---- --net ---- */

bool net_option_parse_mac(const char *text, uint8_t mac[NET_MAC_BYTES])
{
	unsigned byte[NET_MAC_BYTES];
	int used = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3],
		   &byte[4], &byte[5], &used) != NET_MAC_BYTES ||
	    text[used])
		return false;
	for (unsigned n = 0; n < NET_MAC_BYTES; n++)
		mac[n] = (uint8_t)byte[n];
	return !(mac[0] & GROUP);
}

static const char *after(const char *word, const char *prefix)
{
	return strncmp(word, prefix, strlen(prefix)) ? NULL : word + strlen(prefix);
}

static int take_tap(struct net_choice *card, int *fd, const char *name)
{
	const char *number = after(name, "fd:");
	char *end;

	card->kind = NET_TAP;
	*fd = -1;
	if (plan_set_text(card->name, sizeof(card->name), name) || !*name)
		return complain(EXIT_USAGE, "not the name of a tap", name,
				"say for example --net tap=tap0");
	if (!number)
		return 0;
	*fd = (int)strtol(number, &end, 10);
	if (end == number || *end || *fd < 3 || fcntl(*fd, F_GETFD) < 0)
		return complain(EXIT_USAGE, "not an open descriptor", name,
				"say for example --net tap=fd:3 3<>/dev/net/tun");
	return 0;
}

static int take_switch(struct net_choice *card, const char *name)
{
	int error = plan_set_text(card->name, sizeof(card->name), name);

	card->kind = NET_SWITCH;
	if (!error)
		error = name_switch_path(name, card->path, sizeof(card->path));
	return error ? complain(EXIT_USAGE, strerror(-error), name,
				"say --net switch=NAME, of letters, digits, '.', '_' and '-'")
		     : 0;
}

static int take_kind(struct net_options *options, const char *word)
{
	const unsigned n = options->cards;
	const char *name = after(word, "tap=");

	options->tap_fd[n] = -1;
	if (name)
		return take_tap(&options->card[n], &options->tap_fd[n], name);
	name = after(word, "switch=");
	if (name)
		return take_switch(&options->card[n], name);
	if (!strcmp(word, "user")) {
		options->card[n].kind = NET_USER;
		return 0;
	}
	return complain(EXIT_USAGE, "not a network", word,
			"say --net user, tap=NAME, switch=NAME or none");
}

static int take_word(struct net_options *options, const char *word)
{
	const unsigned n = options->cards;
	const char *mac = after(word, "mac=");

	if (mac) {
		options->has_mac[n] = true;
		return net_option_parse_mac(mac, options->card[n].mac)
			       ? 0
			       : complain(EXIT_USAGE, "not an address of a network card", mac,
					  "say for example mac=02:00:00:00:00:01");
	}
	if (!strcmp(word, "host-loopback") && options->card[n].kind == NET_USER) {
		options->card[n].host_loopback = true;
		return 0;
	}
	return complain(EXIT_USAGE, "not an option of this network", word,
			"say mac=ADDRESS, and of user host-loopback");
}

int net_option_add(struct net_options *options, const char *text)
{
	char words[WORD_BYTES];
	char *rest = words;
	char *word;
	int code;

	if (!strcmp(text, "none")) {
		options->none = true;
		return 0;
	}
	if (options->cards == NET_CARDS)
		return complain(EXIT_USAGE, "too many network cards", text, "there may be four");
	if (plan_set_text(words, sizeof(words), text))
		return complain(EXIT_USAGE, "too long", "--net", "see umbra run --help");
	word = strsep(&rest, ",");
	code = take_kind(options, word);
	while (!code && (word = strsep(&rest, ",")))
		code = take_word(options, word);
	options->cards++;
	return code;
}

/* ---- -p ---- */

static bool parse_port(const char *text, uint16_t *ret)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);

	*ret = (uint16_t)port;
	return *text >= '0' && *text <= '9' && !*end && port && port <= UINT16_MAX;
}

/* Its parts, from the end; `text` is cut. */
static bool parse_forward(char *text, struct net_forward *ret)
{
	char *protocol = strchr(text, '/');
	struct in_addr address = { .s_addr = INADDR_ANY };
	char *guest;
	char *host;

	if (protocol) {
		*protocol++ = 0;
		ret->is_udp = !strcmp(protocol, "udp");
		if (!ret->is_udp && strcmp(protocol, "tcp"))
			return false;
	}
	guest = strrchr(text, ':');
	if (!guest)
		return false;
	*guest++ = 0;
	host = strrchr(text, ':');
	if (host) {
		*host++ = 0;
		if (!inet_aton(text, &address))
			return false;
	} else {
		host = text;
	}
	ret->address = address.s_addr;
	return parse_port(host, &ret->host_port) && parse_port(guest, &ret->guest_port);
}

int net_option_forward(struct net_options *options, const char *text)
{
	struct net_forward forward = { .is_udp = false };
	char copy[WORD_BYTES];

	if (options->forwards == PLAN_FORWARDS)
		return complain(EXIT_USAGE, "too many ports", text, "there may be 32");
	if (plan_set_text(copy, sizeof(copy), text) || !parse_forward(copy, &forward))
		return complain(EXIT_USAGE, "not [ADDRESS:]PORT:GUEST[/udp]", text,
				"say for example -p 8080:80 or -p 127.0.0.1:5353:53/udp");
	options->forward[options->forwards++] = forward;
	return 0;
}

/* ---- all of it ---- */

unsigned net_options_count(const struct net_options *options)
{
	return options->cards ? options->cards : options->forwards != 0;
}

/*
 * One of this user's on this host: of a machine with a name always the same, of another one never
 * the same again.
 */
static void choose_mac(const char *name, unsigned number, uint8_t mac[NET_MAC_BYTES])
{
	char text[WORD_BYTES] = "";
	char host[65] = "";
	uint64_t hash;

	if (name) {
		gethostname(host, sizeof(host) - 1);
		snprintf(text, sizeof(text), "%u %s %u %s", (unsigned)getuid(), host, number, name);
		hash = XXH64(text, strlen(text), 0);
	} else if (getrandom(&hash, sizeof(hash), 0) != sizeof(hash)) {
		hash = (uint64_t)getpid() << 8 | number;
	}
	memcpy(mac, &hash, NET_MAC_BYTES);
	mac[0] = (uint8_t)((mac[0] & ~GROUP) | LOCALLY_ADMINISTERED);
}

static int open_tap(const struct net_options *options, unsigned n, struct grants *grants)
{
	const struct net_choice *card = &options->card[n];
	int fd = options->tap_fd[n] < 0 ? tap_open(card->name) : options->tap_fd[n];

	if (fd < 0)
		return complain(
			EXIT_UNUSABLE, strerror(-fd), card->name,
			"make one that is yours: ip tuntap add NAME mode tap user YOU vnet_hdr");
	if (!tap_is_one(fd))
		return complain(EXIT_UNUSABLE, "not a tap with vnet_hdr and without packet info",
				card->name, "open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR");
	grants->fd[GRANT_CARD_TAPS + n] = fd;
	return 0;
}

static int give_forwards(const struct net_options *options, struct net_plan *nets)
{
	struct net_choice *card = NULL;

	for (unsigned n = nets->count; n-- > 0;)
		if (nets->card[n].kind == NET_USER)
			card = &nets->card[n];
	if (!options->forwards)
		return 0;
	if (!card)
		return complain(EXIT_USAGE, "there is no network in user mode for it", "-p",
				"add --net user");
	card->forwards = options->forwards;
	memcpy(card->forward, options->forward, sizeof(card->forward));
	return 0;
}

int net_option_take(struct net_options *options, const char *name, struct net_plan *nets,
		    struct grants *grants)
{
	if (options->none && (options->cards || options->forwards))
		return complain(EXIT_USAGE, "none and another network", "--net", "leave one out");
	nets->count = net_options_count(options);
	for (unsigned n = 0; n < nets->count; n++) {
		int code = 0;

		nets->card[n] = options->card[n];
		if (!options->has_mac[n])
			choose_mac(name, n, nets->card[n].mac);
		if (nets->card[n].kind == NET_TAP)
			code = open_tap(options, n, grants);
		if (code)
			return code;
	}
	return give_forwards(options, nets);
}
