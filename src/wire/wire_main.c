/*
 * umbra-wire: one connection to another host's Umbra, by TLS 1.3 with a key that both have, or with
 * a certificate of each (secret.h). What is said on it comes and goes by a socket here, in the
 * clear; it is not looked at.
 *
 *   umbra-wire accept|connect|wait|later [keys]
 *           descriptors: 3 the connection, 4 the socket here, 5 the key
 *
 * On the socket comes one byte first, once the other side has shown that it has the key, or a
 * certificate of the authority that is believed, which names the host that was meant. One that
 * waits has a socket that listens (and does not block) at 3, is ready but for that, and says
 * another byte before, with the connection, once it has one; it ends when its starter does. One
 * that connects later has 4 alone, by which a byte comes with 3 and 5.
 *
 * With `keys` it says those of the records that follow in place of that byte, and soon ends: its
 * starter seals and opens them (record.h), and nobody stands between him and the other side any
 * more. Where that cannot be, of another cipher or of a processor without its instructions, it
 * stays.
 *
 *   - Before a byte of the other side's is read the process has given up its rights (who connects
 *     has said its first word by then: the other side has work to do meanwhile), as every role
 *     does (ipc/role.c, ROLE_WIRE): it opens nothing, connects nowhere and makes no process. It has
 *     these descriptors alone: what listened is closed by then.
 *   - Who has not shown within HANDSHAKE_MS that he has the key is left.
 *   - The end of a connection that was not said is no end, but a loss (EXIT_LOST).
 *   - What has come is handed on at once, all of it: who waits for it wakes up once, and nothing is
 *     kept back for more.
 *
 * GnuTLS is in this program alone: no process of a machine's loads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "lib/pass_fds.h"
#include "lib/write_all.h"
#include "secret.h"

enum {
	CONNECTION_FD = GRANT_FIRST_FD + GRANT_WIRE_CONNECTION,
	PLAIN_FD = GRANT_FIRST_FD + GRANT_WIRE_LINE,
	KEY_FD = GRANT_FIRST_FD + GRANT_WIRE_KEY,
	KEY_BYTES = 32,
	ABOVE_FD = 10,
	HOST_BYTES = 256
};
enum { EXIT_LOST = 3, EXIT_KEY = 2, EXIT_HERE = 1, HANDSHAKE_MS = 20000 };
enum { LEAVES_MS = 1000 };
/* Of a record; and what is handed on at once: a block, with its head, and what follows it. */
enum { RECORD_BYTES = 16384, ROOM_BYTES = 5 * RECORD_BYTES };
/*
 * Keys are exchanged anew each time: who gets the key later reads nothing of what was said. With a
 * key that both have GnuTLS would take ChaCha20 before AES-128, which a processor with instructions
 * for AES does in a fifteenth of the time; without them it is slower, and its tables leave traces.
 * It would begin with keys of two groups, of which one is used.
 */
#define WITH_KEY "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:-GROUP-ALL:+GROUP-X25519:" \
		 "+GROUP-SECP256R1"
#define AES_FIRST ":-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
static const char priority[] = WITH_KEY;
static const char with_aes[] = WITH_KEY AES_FIRST;
#define WITH_CERTIFICATES "NORMAL:-VERS-ALL:+VERS-TLS1.3"
static const char with_certificates[] = WITH_CERTIFICATES;
static const char with_certificates_and_aes[] = WITH_CERTIFICATES AES_FIRST;
static const char who[] = "umbra";

#ifdef __SANITIZE_ADDRESS__
/* Who looks for leaks at the end makes a process, and is killed: with it the exit code is lost. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:use_sigaltstack=0:allocator_release_to_os_interval_ms=-1";
}
#endif

struct wire {
	gnutls_session_t session;
	bool is_server;
	size_t bytes; /* of what it knows the other side by */
	uint8_t secret[WIRE_SECRET_BYTES];
	gnutls_datum_t part[WIRE_PARTS];
	char host[HOST_BYTES];
	gnutls_typed_vdata_st about[2]; /* what is asked of the other side's certificate */
	bool may_hear; /* its rights are given up */
	bool is_relaying; /* hands are shaken: what has come is read, and not waited for */
	bool has_more; /* of what is sent now another record follows */
	bool gives_keys;
	uint8_t room[ROOM_BYTES]; /* of what goes through, one way or the other */
};

/* ---- rights ---- */

/* But the list of calls. */
static int give_up_rights(void)
{
	const struct rlimit nothing = { 0, 0 };
	const int error = lockdown_before_threads(ROLE_WIRE, NULL);

	if (error)
		return error;
	if (setrlimit(RLIMIT_NPROC, &nothing) || setrlimit(RLIMIT_CORE, &nothing) ||
	    prctl(PR_SET_DUMPABLE, 0))
		return -errno;
	return 0;
}

/* ---- one that waits ---- */

static int say_connection(int connection)
{
	const uint8_t byte = WIRE_CONNECTION;

	return pass_fds(PLAIN_FD, &byte, sizeof(byte), &connection, 1) ? 0 : -errno;
}

/* The connection, in the listener's place; or -errno: its starter is gone. */
static int accept_one(void)
{
	struct pollfd fds[] = { { .fd = CONNECTION_FD, .events = POLLIN }, { .fd = PLAIN_FD } };
	int connection;

	do {
		if (poll(fds, 2, -1) < 0 || fds[1].revents)
			return -ESRCH;
		connection = accept4(CONNECTION_FD, NULL, NULL, SOCK_CLOEXEC);
	} while (connection < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED));
	if (connection < 0 || dup2(connection, CONNECTION_FD) < 0)
		return -errno;
	close(connection);
	return say_connection(CONNECTION_FD);
}

/* ---- one that connects later ---- */

static int move_up(int fd)
{
	const int up = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_FD);

	close(fd);
	return up;
}

/* 0; -errno: nothing comes any more. */
static int take_both(void)
{
	int fds[WIRE_LATER_FDS];
	unsigned count;
	uint8_t byte;
	int error;

	if (take_fds(PLAIN_FD, &byte, sizeof(byte), fds, WIRE_LATER_FDS, &count) != 1 ||
	    count != WIRE_LATER_FDS)
		return -ESRCH;
	for (unsigned n = 0; n < WIRE_LATER_FDS; n++) /* each may lie where the other belongs */
		fds[n] = move_up(fds[n]);
	error = dup2(fds[0], CONNECTION_FD) < 0 || dup2(fds[1], KEY_FD) < 0 ? -errno : 0;
	for (unsigned n = 0; n < WIRE_LATER_FDS; n++)
		close(fds[n]);
	return error;
}

/* ---- the key ---- */

static int give_key(gnutls_session_t session, const char *name, gnutls_datum_t *ret)
{
	const struct wire *wire = gnutls_session_get_ptr(session);

	(void)name; /* who has the key is who may come */
	ret->data = gnutls_malloc(KEY_BYTES);
	if (!ret->data)
		return GNUTLS_E_MEMORY_ERROR;
	memcpy(ret->data, wire->secret, KEY_BYTES);
	ret->size = KEY_BYTES;
	return 0;
}

static int set_key(struct wire *wire)
{
	const gnutls_datum_t key = { .data = wire->secret, .size = KEY_BYTES };
	gnutls_psk_server_credentials_t server;
	gnutls_psk_client_credentials_t client;
	int error;

	if (wire->is_server) {
		error = gnutls_psk_allocate_server_credentials(&server);
		if (error)
			return error;
		gnutls_psk_set_server_credentials_function(server, give_key);
		return gnutls_credentials_set(wire->session, GNUTLS_CRD_PSK, server);
	}
	error = gnutls_psk_allocate_client_credentials(&client);
	if (!error)
		error = gnutls_psk_set_client_credentials(client, who, &key, GNUTLS_PSK_KEY_RAW);
	return error ? error : gnutls_credentials_set(wire->session, GNUTLS_CRD_PSK, client);
}

/* ---- certificates ---- */

static bool find_parts(struct wire *wire)
{
	size_t at = 1;

	for (unsigned n = 0; n < WIRE_PARTS; n++) {
		uint32_t length;

		if (wire->bytes - at < sizeof(length))
			return false;
		memcpy(&length, wire->secret + at, sizeof(length));
		at += sizeof(length);
		if (length > wire->bytes - at)
			return false;
		wire->part[n] = (gnutls_datum_t){ .data = wire->secret + at, .size = length };
		at += length;
	}
	return at == wire->bytes && wire->part[WIRE_HOST].size < HOST_BYTES;
}

static int set_certificates(struct wire *wire)
{
	gnutls_certificate_credentials_t own;
	int error = find_parts(wire) ? gnutls_certificate_allocate_credentials(&own)
				     : GNUTLS_E_PARSING_ERROR;

	if (error)
		return error;
	error = gnutls_certificate_set_x509_trust_mem(own, &wire->part[WIRE_AUTHORITY],
						      GNUTLS_X509_FMT_PEM);
	if (error <= 0)
		return error ? error : GNUTLS_E_PARSING_ERROR;
	error = gnutls_certificate_set_x509_key_mem(own, &wire->part[WIRE_CERTIFICATE],
						    &wire->part[WIRE_PRIVATE_KEY],
						    GNUTLS_X509_FMT_PEM);
	return error < 0 ? error
			 : gnutls_credentials_set(wire->session, GNUTLS_CRD_CERTIFICATE, own);
}

/* Of the authority, for this use, and of the host that is meant; each side asks it of the other. */
static void ask_for_certificate(struct wire *wire)
{
	const char *use = wire->is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
	unsigned asked = 1;

	memcpy(wire->host, wire->part[WIRE_HOST].data, wire->part[WIRE_HOST].size);
	wire->about[0] = (gnutls_typed_vdata_st){ .type = GNUTLS_DT_KEY_PURPOSE_OID,
						  .data = (unsigned char *)(uintptr_t)use };
	if (!wire->is_server)
		wire->about[asked++] =
			(gnutls_typed_vdata_st){ .type = GNUTLS_DT_DNS_HOSTNAME,
						 .data = (unsigned char *)wire->host };
	if (wire->is_server)
		gnutls_certificate_server_set_request(wire->session, GNUTLS_CERT_REQUIRE);
	gnutls_session_set_verify_cert2(wire->session, wire->about, asked, 0);
}

static int read_secret(struct wire *wire)
{
	ssize_t got;

	while ((got = read(KEY_FD, wire->secret + wire->bytes,
			   sizeof(wire->secret) - wire->bytes)) > 0)
		wire->bytes += (size_t)got;
	close(KEY_FD);
	return wire->bytes == KEY_BYTES || (wire->bytes && *wire->secret == WIRE_CERTIFICATES)
		       ? 0
		       : -EBADF;
}

static const char *priority_of(bool has_key)
{
	const bool has_aes = gcm_has_instructions();

	if (!has_key)
		return has_aes ? with_certificates_and_aes : with_certificates;
	return has_aes ? with_aes : priority;
}

/* ---- what comes ---- */

static ssize_t hear(gnutls_transport_ptr_t of, void *data, size_t bytes)
{
	const struct wire *wire = of;

	if (wire->may_hear)
		return recv(CONNECTION_FD, data, bytes, wire->is_relaying ? MSG_DONTWAIT : 0);
	gnutls_transport_set_errno(wire->session, EAGAIN);
	return -1;
}

static int wait_to_hear(gnutls_transport_ptr_t of, unsigned ms)
{
	const struct wire *wire = of;
	struct pollfd connection = { .fd = CONNECTION_FD, .events = POLLIN };

	if (!wire->may_hear)
		return 1;
	return poll(&connection, 1, ms == GNUTLS_INDEFINITE_TIMEOUT ? -1 : (int)ms);
}

/* Records of which more follow leave with these: the other side wakes up once. */
static ssize_t tell(gnutls_transport_ptr_t of, const giovec_t *parts, int count)
{
	const struct wire *wire = of;
	const struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)parts,
					.msg_iovlen = (size_t)count };

	return sendmsg(CONNECTION_FD, &message,
		       MSG_NOSIGNAL | (wire->has_more ? MSG_MORE : 0));
}

static void set_transport(struct wire *wire)
{
	gnutls_transport_set_ptr(wire->session, wire);
	gnutls_transport_set_vec_push_function(wire->session, tell);
	gnutls_transport_set_pull_function(wire->session, hear);
	gnutls_transport_set_pull_timeout_function(wire->session, wait_to_hear);
}

/* ---- its begin ---- */

static int begin(struct wire *wire)
{
	const bool has_key = wire->bytes == KEY_BYTES;
	const unsigned flags = wire->is_server ? GNUTLS_SERVER : GNUTLS_CLIENT;
	int error = gnutls_init(&wire->session, flags | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL |
							(has_key ? GNUTLS_KEY_SHARE_TOP : 0));

	if (error)
		return error;
	gnutls_session_set_ptr(wire->session, wire);
	error = gnutls_priority_set_direct(wire->session, priority_of(has_key), NULL);
	if (!error)
		error = has_key ? set_key(wire) : set_certificates(wire);
	if (!error && !has_key)
		ask_for_certificate(wire);
	set_transport(wire);
	gnutls_handshake_set_timeout(wire->session, HANDSHAKE_MS);
	return error;
}

/*
 * Of who connects: the other side has its part to do while this one gives up its rights. What fails
 * fails once more when it goes on.
 */
static void begin_to_shake_hands(struct wire *wire)
{
	if (!wire->is_server)
		gnutls_handshake(wire->session);
}

static int shake_hands(struct wire *wire)
{
	int error;

	do
		error = gnutls_handshake(wire->session);
	while (error && !gnutls_error_is_fatal(error));
	if (error) /* so that it hears of another key */
		gnutls_alert_send_appropriate(wire->session, error);
	return error;
}

/* ---- what is said ---- */

/* A client has finished its handshake before its certificate is looked at. */
static bool was_refused(const struct wire *wire, ssize_t error)
{
	if (error != GNUTLS_E_FATAL_ALERT_RECEIVED)
		return false;
	switch (gnutls_alert_get(wire->session)) {
	case GNUTLS_A_BAD_CERTIFICATE: case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_CERTIFICATE_EXPIRED: case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_CERTIFICATE_REQUIRED: case GNUTLS_A_UNSUPPORTED_CERTIFICATE: return true;
	default: return false;
	}
}

/* What has come, of `most` bytes; *ret: of the last record that was looked for. */
static size_t hear_records(struct wire *wire, uint8_t *to, size_t most, ssize_t *ret)
{
	size_t got = 0;

	do {
		*ret = gnutls_record_recv(wire->session, to + got, most - got);
		got += *ret > 0 ? (size_t)*ret : 0;
	} while (*ret > 0 && got < most);
	return got;
}

/* 1: it goes on; 0: the other side has said that no more comes; or the exit code, negative. */
static int from_connection(struct wire *wire)
{
	ssize_t n;
	const size_t got = hear_records(wire, wire->room, sizeof(wire->room), &n);

	if (got && write_all(PLAIN_FD, wire->room, got))
		return -EXIT_HERE;
	if (n > 0 || n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		return 1;
	if (!n)
		return 0;
	return was_refused(wire, n) ? -EXIT_KEY : -EXIT_LOST;
}

static int say_record(struct wire *wire, const uint8_t *from, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = gnutls_record_send(wire->session, from + done, bytes - done);

		if (n < 0 && n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED)
			return -EXIT_LOST;
		done += n > 0 ? (size_t)n : 0;
	}
	return 1;
}

static int to_connection(struct wire *wire)
{
	const ssize_t count = read(PLAIN_FD, wire->room, sizeof(wire->room));
	int here = count > 0;

	for (size_t done = 0; here > 0 && done < (size_t)count; done += RECORD_BYTES) {
		const size_t left = (size_t)count - done;

		wire->has_more = left > RECORD_BYTES;
		here = say_record(wire, wire->room + done, wire->has_more ? RECORD_BYTES : left);
	}
	wire->has_more = false;
	return here;
}

/* Each side is told of the other's end, and may go on. */
static int hear_here(struct wire *wire)
{
	int here = to_connection(wire);

	if (!here)
		gnutls_bye(wire->session, GNUTLS_SHUT_WR);
	return here;
}

static int hear_there(struct wire *wire)
{
	int there = from_connection(wire);

	if (!there)
		shutdown(PLAIN_FD, SHUT_WR);
	return there;
}

static int relay(struct wire *wire)
{
	int here = 1;
	int there = 1;

	wire->is_relaying = true;
	while ((here > 0 || there > 0) && here >= 0 && there >= 0) {
		struct pollfd fds[] = { { .fd = there ? CONNECTION_FD : -1, .events = POLLIN },
					{ .fd = here ? PLAIN_FD : -1, .events = POLLIN } };
		const bool waits = there && gnutls_record_check_pending(wire->session) != 0;

		if (poll(fds, 2, waits ? 0 : -1) < 0)
			return EXIT_HERE;
		if (fds[1].revents)
			here = hear_here(wire);
		if (waits || fds[0].revents)
			there = hear_there(wire);
	}
	return here < 0 ? -here : -there;
}

/* ---- its end ---- */

static bool get_keys(const struct wire *wire, bool of_what_comes, struct record_keys *ret)
{
	unsigned char number[sizeof(ret->number)];
	gnutls_datum_t mac;
	gnutls_datum_t nonce;
	gnutls_datum_t key;

	if (gnutls_record_get_state(wire->session, of_what_comes, &mac, &nonce, &key, number) ||
	    nonce.size != sizeof(ret->nonce) || key.size != sizeof(ret->key))
		return false;
	memcpy(ret->key, key.data, sizeof(ret->key));
	memcpy(ret->nonce, nonce.data, sizeof(ret->nonce));
	memcpy(&ret->number, number, sizeof(number));
	ret->number = __builtin_bswap64(ret->number);
	return true;
}

/* Whether it has: then there is nothing left to do here. */
static bool give_keys(const struct wire *wire)
{
	uint8_t said[1 + sizeof(struct wire_keys)] = { WIRE_KEYS };
	struct wire_keys keys;

	if (!wire->gives_keys ||
	    gnutls_cipher_get(wire->session) != GNUTLS_CIPHER_AES_128_GCM ||
	    gnutls_record_check_pending(wire->session) ||
	    !get_keys(wire, true, &keys.from) || !get_keys(wire, false, &keys.to))
		return false;
	memcpy(said + 1, &keys, sizeof(keys));
	return !write_all(PLAIN_FD, said, sizeof(said));
}

/* Its end takes milliseconds of a processor, and its starter has most to do just now. */
static void leave_later(void)
{
	struct pollfd here = { .fd = PLAIN_FD, .events = 0 };

	poll(&here, 1, LEAVES_MS);
}

static bool is_loss(int error)
{
	return error == GNUTLS_E_PREMATURE_TERMINATION || error == GNUTLS_E_PULL_ERROR ||
	       error == GNUTLS_E_PUSH_ERROR || error == GNUTLS_E_TIMEDOUT;
}

static bool is_mode(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	if (argc > 3 || (argc == 3 && strcmp(argv[2], "keys") != 0))
		return false;
	return !strcmp(word, "accept") || !strcmp(word, "connect") || !strcmp(word, "wait") ||
	       !strcmp(word, "later");
}

int main(int argc, char **argv)
{
	static struct wire wire;
	bool waits;
	int error;

	if (!is_mode(argc, argv)) {
		fputs("umbra-wire: it is started by umbra fork --to and umbra listen\n", stderr);
		return EXIT_HERE;
	}
	wire.gives_keys = argc == 3;
	waits = !strcmp(argv[1], "wait");
	wire.is_server = waits || !strcmp(argv[1], "accept");
	if ((!strcmp(argv[1], "later") && take_both()) || read_secret(&wire) || begin(&wire))
		return EXIT_HERE;
	begin_to_shake_hands(&wire);
	if (give_up_rights() || (waits && accept_one()) || lockdown(ROLE_WIRE))
		return EXIT_HERE;
	wire.may_hear = true;
	error = shake_hands(&wire);
	if (is_loss(error))
		return EXIT_LOST;
	if (error)
		return EXIT_KEY;
	if (give_keys(&wire)) {
		leave_later();
		return 0;
	}
	return write_all(PLAIN_FD, &(uint8_t){ WIRE_SHOWN }, 1) ? EXIT_HERE : relay(&wire);
}
