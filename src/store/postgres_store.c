/*
 * The store in a PostgreSQL database (store.h), for a fleet: daemons of many users and hosts may
 * have one. Each keeps what is its own under its owner, UID@HOST, and sees nothing else. HOST is
 * what the caller says, and stays when the host is called otherwise; what was kept under its name
 * before is taken over once.
 *
 * The connection is made anew when it was lost, at most once in AGAIN_MS; until then everything
 * fails with -EIO, and the daemon goes on with what it knows.
 *
 *  1. A statement is a transaction of its own, with a time for locks (STORE_WAIT_MS) and for
 *     itself.
 *  2. Everything may be done twice, as nobody knows whether a commit was done that was not
 *     answered: an event is found again by its id, and has the number that it had.
 *  3. No statement takes the caller longer than SILENT_MS, whatever the server does: then the
 *     connection is dropped. (A new connection has CONNECT_S.)
 *  4. Whoever starts first makes the tables, under a lock. Another role needs no right to make
 *     any, if it may use these (GRANT).
 *  5. Numbers of events are counted for each owner, in the transaction that keeps the event.
 */
#include "store.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STORE_VERSION = 1, OWNER_BYTES = 320, NUMBER_BYTES = 24, AGAIN_MS = 5000 };
/* the server's own word that a statement took too long comes before it is silent */
enum { STATEMENT_MS = 5000, SILENT_MS = STATEMENT_MS + 1000 };
enum { CONNECT_S = 3, HOST_BYTES = 256, NS_PER_MS = 1000000, MS_PER_S = 1000 };

struct postgres_store {
	PGconn *connection;
	char owner[OWNER_BYTES];
	int64_t tried_ms; /* when it was connected last, or was not */
};

/* One transaction: text after text, without a word about it. 0x756d627261: of these tables. */
static const char schema[] =
	"SET LOCAL lock_timeout = 5000; SELECT pg_advisory_xact_lock(504403227233);"
	"CREATE TABLE IF NOT EXISTS umbra_store (version int PRIMARY KEY);"
	"INSERT INTO umbra_store SELECT 1 WHERE NOT EXISTS (SELECT FROM umbra_store);"
	"CREATE TABLE IF NOT EXISTS umbra_document (owner text, kind text, key text,"
	" text text NOT NULL, PRIMARY KEY (owner, kind, key));"
	"CREATE TABLE IF NOT EXISTS umbra_counter (owner text PRIMARY KEY, last bigint NOT NULL);"
	"CREATE TABLE IF NOT EXISTS umbra_event (owner text, sequence bigint, text text NOT NULL,"
	" id text, PRIMARY KEY (owner, sequence));"
	/* a table of before, whose events have none */
	"ALTER TABLE umbra_event ADD COLUMN IF NOT EXISTS id text;"
	"CREATE UNIQUE INDEX IF NOT EXISTS umbra_event_id ON umbra_event (owner, id);"
	/* what is no JSON is the oldest */
	"DO $make$ BEGIN IF to_regprocedure('umbra_at(text)') IS NULL THEN"
	" CREATE FUNCTION umbra_at(said text) RETURNS bigint LANGUAGE plpgsql AS $$"
	" BEGIN RETURN COALESCE((said::json->>'at')::bigint, 0);"
	" EXCEPTION WHEN others THEN RETURN 0; END $$; END IF; END $make$;";

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * MS_PER_S + now.tv_nsec / NS_PER_MS;
}

/* ---- errors ---- */

/* By the begin of their SQLSTATE (PostgreSQL, appendix A); the longer ones stand first. */
static int error_of_state(const char *state)
{
	static const struct {
		const char *begin;
		int error;
	} rows[] = {
		{ "53100", -ENOSPC },  { "25006", -EROFS },  { "55P03", -EBUSY },
		{ "57014", -EBUSY },   { "42501", -EACCES }, { "40", -EBUSY },
		{ "53", -EBUSY },      { "28", -EACCES },    { "XX001", -EBADMSG },
		{ "XX002", -EBADMSG }, { "23505", -EBUSY },
	};

	for (size_t n = 0; state && n < sizeof(rows) / sizeof(rows[0]); n++)
		if (!strncmp(state, rows[n].begin, strlen(rows[n].begin)))
			return rows[n].error;
	return -EIO;
}

static int error_of(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return 0;
	return error_of_state(PQresultErrorField(result, PG_DIAG_SQLSTATE));
}

/* ---- the connection ---- */

static void be_silent(void *context, const char *message)
{
	(void)context;
	(void)message;
}

/* False: it is silent, or gone. */
static bool wait_for(PGconn *connection, short events, int64_t until_ms)
{
	struct pollfd wanted = { .fd = PQsocket(connection), .events = events };
	int64_t left_ms = until_ms - now_ms();

	if (wanted.fd < 0 || left_ms <= 0)
		return false;
	return poll(&wanted, 1, (int)left_ms) > 0 || (errno == EINTR && now_ms() < until_ms);
}

/* Sends what is left, and reads until a whole answer is there. */
static bool is_answered(PGconn *connection, int64_t until_ms)
{
	int unsent = PQflush(connection);

	while (unsent > 0) {
		if (!wait_for(connection, POLLIN | POLLOUT, until_ms) ||
		    !PQconsumeInput(connection))
			return false;
		unsent = PQflush(connection);
	}
	while (!unsent && PQisBusy(connection))
		if (!wait_for(connection, POLLIN, until_ms) || !PQconsumeInput(connection))
			return false;
	return !unsent;
}

/* libpq finds it broken, and it is made anew. */
static void drop(PGconn *connection)
{
	if (PQsocket(connection) < 0)
		return;
	shutdown(PQsocket(connection), SHUT_RDWR);
	while (PQstatus(connection) == CONNECTION_OK && PQconsumeInput(connection))
		PQclear(PQgetResult(connection));
}

/* The last result of what was sent, or the first that is an error; NULL: none in time. */
static PGresult *answer(PGconn *connection)
{
	const int64_t until_ms = now_ms() + SILENT_MS;
	PGresult *last = NULL;

	while (is_answered(connection, until_ms)) {
		PGresult *next = PQgetResult(connection);

		if (!next)
			return last;
		if (last && error_of(last)) {
			PQclear(next);
			continue;
		}
		PQclear(last);
		last = next;
	}
	drop(connection);
	PQclear(last);
	return NULL;
}

/* Without values it may be several statements, a transaction together. */
static PGresult *ask(PGconn *connection, const char *text, const char *const *values, int count)
{
	int sent;

	if (PQsetnonblocking(connection, 1))
		return NULL;
	sent = values ? PQsendQueryParams(connection, text, count, NULL, values, NULL, NULL, 0)
		      : PQsendQuery(connection, text);
	return sent ? answer(connection) : NULL;
}

/* How long a session waits: for locks of others, for a statement, for nobody. */
static int set_times(PGconn *connection)
{
	char text[160];
	PGresult *result;
	int error;

	snprintf(text, sizeof(text),
		 "SET lock_timeout = %d; SET statement_timeout = %d;"
		 "SET client_min_messages = warning",
		 STORE_WAIT_MS, STATEMENT_MS);
	PQsetNoticeProcessor(connection, be_silent, NULL);
	result = ask(connection, text, NULL, 0);
	error = error_of(result);
	PQclear(result);
	return error;
}

/* Whether it can be asked. */
static bool is_connected(struct postgres_store *store)
{
	if (PQstatus(store->connection) == CONNECTION_OK)
		return true;
	if (now_ms() - store->tried_ms < AGAIN_MS)
		return false;
	store->tried_ms = now_ms();
	PQreset(store->connection);
	return PQstatus(store->connection) == CONNECTION_OK && !set_times(store->connection);
}

/* values: texts for $1 and so on. *ret: to be cleared, also after an error. */
static int execute(struct postgres_store *store, const char *text, const char *const *values,
		   int count, PGresult **ret)
{
	*ret = NULL;
	if (!is_connected(store))
		return -EIO;
	*ret = ask(store->connection, text, values, count);
	if (!*ret && PQstatus(store->connection) != CONNECTION_OK)
		store->tried_ms = now_ms(); /* it was waited for long enough */
	return error_of(*ret);
}

/* Also twice, where the connection was lost in between (2). */
static int execute_again(struct postgres_store *store, const char *text, const char *const *values,
			 int count, PGresult **ret)
{
	int error = execute(store, text, values, count, ret);

	if (!error || !*ret || PQstatus(store->connection) == CONNECTION_OK)
		return error;
	PQclear(*ret);
	return execute(store, text, values, count, ret);
}

static int run(struct postgres_store *store, const char *text, const char *const *values, int count)
{
	PGresult *result;
	int error = execute_again(store, text, values, count, &result);

	PQclear(result);
	return error;
}

/* ---- its begin and end ---- */

static void postgres_store_close(void *self)
{
	struct postgres_store *store = self;

	PQfinish(store->connection);
	free(store);
}

/* A later version's tables are not understood: -EBADMSG. */
static int check_version(struct postgres_store *store)
{
	PGresult *result;
	int error = execute(store, "SELECT max(version) FROM umbra_store", NULL, 0, &result);

	if (!error && atoi(PQgetvalue(result, 0, 0)) != STORE_VERSION)
		error = -EBADMSG;
	PQclear(result);
	return error;
}

static int make_tables(struct postgres_store *store)
{
	PGresult *result;
	int error = execute(store,
			    "SELECT to_regclass('umbra_event_id') IS NOT NULL"
			    " AND to_regprocedure('umbra_at(text)') IS NOT NULL",
			    NULL, 0, &result);
	const bool is_made = !error && *PQgetvalue(result, 0, 0) == 't';

	PQclear(result);
	if (!error && !is_made) {
		error = execute(store, schema, NULL, 0, &result);
		PQclear(result);
	}
	return error ? error : check_version(store);
}

static int connect_to(struct postgres_store *store, const char *where)
{
	static const char *const names[] = { "dbname", "connect_timeout", "application_name",
					     "client_encoding", NULL };
	char seconds[NUMBER_BYTES];
	const char *const values[] = { where, seconds, "umbrad", "UTF8", NULL };

	snprintf(seconds, sizeof(seconds), "%d", CONNECT_S);
	store->connection = PQconnectdbParams(names, values, 1);
	store->tried_ms = now_ms();
	if (!store->connection)
		return -ENOMEM;
	if (PQstatus(store->connection) != CONNECTION_OK)
		return -ENOTCONN;
	return set_times(store->connection);
}

/*
 * Owners were called by the host's name. Whoever is the first of a host that has another word has
 * what stands there; nothing, where it has something already.
 */
static int take_over(struct postgres_store *store, const char *before)
{
	const char *const values[] = { store->owner, before };
	PGresult *result;
	int error;

	if (!strcmp(store->owner, before))
		return 0;
	error = execute(store,
			"WITH is_new AS (SELECT WHERE NOT EXISTS"
			" (SELECT FROM umbra_document WHERE owner = $1) AND NOT EXISTS"
			" (SELECT FROM umbra_counter WHERE owner = $1)),"
			" counters AS (UPDATE umbra_counter SET owner = $1 WHERE owner = $2"
			" AND EXISTS (SELECT FROM is_new)),"
			" events AS (UPDATE umbra_event SET owner = $1 WHERE owner = $2"
			" AND EXISTS (SELECT FROM is_new))"
			" UPDATE umbra_document SET owner = $1 WHERE owner = $2"
			" AND EXISTS (SELECT FROM is_new)",
			values, 2, &result);
	PQclear(result);
	return error;
}

static int postgres_store_open(const char *where, const char *host, void **ret_self)
{
	struct postgres_store *store = calloc(1, sizeof(*store));
	char name[HOST_BYTES] = "";
	char before[OWNER_BYTES];
	int error;

	if (!store)
		return -ENOMEM;
	gethostname(name, sizeof(name) - 1);
	snprintf(before, sizeof(before), "%u@%s", (unsigned)getuid(), name);
	snprintf(store->owner, sizeof(store->owner), "%u@%s", (unsigned)getuid(),
		 host ? host : name);
	error = connect_to(store, where);
	if (!error)
		error = make_tables(store);
	if (!error)
		error = take_over(store, before);
	if (error)
		postgres_store_close(store);
	else
		*ret_self = store;
	return error;
}

/* ---- documents ---- */

static int postgres_store_put(void *self, const char *kind, const char *key, const char *text)
{
	struct postgres_store *store = self;
	const char *const values[] = { store->owner, kind, key, text };

	return run(store,
		   "INSERT INTO umbra_document (owner, kind, key, text) VALUES ($1, $2, $3, $4)"
		   " ON CONFLICT (owner, kind, key) DO UPDATE SET text = excluded.text",
		   values, 4);
}

static int postgres_store_get(void *self, const char *kind, const char *key, char **ret_text)
{
	struct postgres_store *store = self;
	const char *const values[] = { store->owner, kind, key };
	PGresult *result;
	int error = execute_again(store,
				  "SELECT text FROM umbra_document"
				  " WHERE owner = $1 AND kind = $2 AND key = $3",
				  values, 3, &result);

	if (!error && !PQntuples(result))
		error = -ENOENT;
	if (!error) {
		*ret_text = strdup(PQgetvalue(result, 0, 0));
		error = *ret_text ? 0 : -ENOMEM;
	}
	PQclear(result);
	return error;
}

static int postgres_store_drop(void *self, const char *kind, const char *key)
{
	struct postgres_store *store = self;
	const char *const values[] = { store->owner, kind, key };

	return run(store, "DELETE FROM umbra_document WHERE owner = $1 AND kind = $2 AND key = $3",
		   values, 3);
}

static int postgres_store_each(void *self, const char *kind, store_taker *take, void *context)
{
	struct postgres_store *store = self;
	const char *const values[] = { store->owner, kind };
	PGresult *result;
	int error = execute_again(store,
				  "SELECT key, text FROM umbra_document"
				  " WHERE owner = $1 AND kind = $2 ORDER BY key COLLATE \"C\"",
				  values, 2, &result);

	for (int n = 0; !error && n < PQntuples(result); n++)
		if (!take(context, PQgetvalue(result, n, 0), PQgetvalue(result, n, 1)))
			break;
	PQclear(result);
	return error;
}

static int postgres_store_trim(void *self, const char *kind, int64_t before, uint64_t keep,
			       uint64_t keep_bytes)
{
	struct postgres_store *store = self;
	char numbers[3][NUMBER_BYTES];
	const char *const values[] = { store->owner, kind, numbers[0], numbers[1], numbers[2] };

	snprintf(numbers[0], NUMBER_BYTES, "%ld", before);
	snprintf(numbers[1], NUMBER_BYTES, "%lu", keep & INT64_MAX);
	snprintf(numbers[2], NUMBER_BYTES, "%lu", keep_bytes & INT64_MAX);
	return run(store,
		   "DELETE FROM umbra_document WHERE owner = $1 AND kind = $2 AND key IN"
		   " (SELECT key FROM (SELECT key, at, row_number() OVER young AS place,"
		   " sum(bytes) OVER young AS bytes FROM (SELECT key, octet_length(text) AS bytes,"
		   " umbra_at(text) AS at FROM umbra_document"
		   " WHERE owner = $1 AND kind = $2) AS one WINDOW young AS (ORDER BY at DESC,"
		   " key ROWS UNBOUNDED PRECEDING)) AS all_of_it"
		   " WHERE at < $3::bigint OR place > $4::bigint OR bytes > $5::bigint)",
		   values, 5);
}

/* ---- events ---- */

/*
 * A session that was lost may still be at it: who is later waits for the counter's row, and then
 * finds the id taken, which is an error; the next time it is known.
 */
static int postgres_store_append(void *self, const char *id, const char *text,
				 uint64_t *ret_sequence)
{
	struct postgres_store *store = self;
	const char *const values[] = { store->owner, text, id };
	PGresult *result;
	int error = execute_again(
		store,
		"WITH known AS (SELECT sequence FROM umbra_event WHERE owner = $1 AND id = $3),"
		" next AS (INSERT INTO umbra_counter (owner, last) SELECT $1, 1"
		" WHERE NOT EXISTS (SELECT FROM known) ON CONFLICT (owner)"
		" DO UPDATE SET last = umbra_counter.last + 1 RETURNING last),"
		" made AS (INSERT INTO umbra_event (owner, sequence, text, id)"
		" SELECT $1, last, $2, $3 FROM next RETURNING sequence)"
		" SELECT sequence FROM known UNION ALL SELECT sequence FROM made",
		values, 3, &result);

	if (!error && PQntuples(result) != 1)
		error = -EIO;
	if (!error)
		*ret_sequence = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	return error;
}

static int postgres_store_since(void *self, uint64_t sequence, unsigned most,
				store_event_taker *take, void *context)
{
	struct postgres_store *store = self;
	char numbers[2][NUMBER_BYTES];
	const char *const values[] = { store->owner, numbers[0], numbers[1] };
	PGresult *result;
	int error;

	snprintf(numbers[0], NUMBER_BYTES, "%lu", sequence & INT64_MAX);
	snprintf(numbers[1], NUMBER_BYTES, "%u", most);
	error = execute_again(store,
			      "SELECT sequence, text FROM umbra_event WHERE owner = $1"
			      " AND sequence > $2::bigint ORDER BY sequence LIMIT $3::bigint",
			      values, 3, &result);
	for (int n = 0; !error && n < PQntuples(result); n++)
		if (!take(context, strtoull(PQgetvalue(result, n, 0), NULL, 10),
			  PQgetvalue(result, n, 1)))
			break;
	PQclear(result);
	return error;
}

static int postgres_store_last(void *self, uint64_t *ret_sequence)
{
	struct postgres_store *store = self;
	const char *const values[] = { store->owner };
	PGresult *result;
	int error = execute_again(store, "SELECT last FROM umbra_counter WHERE owner = $1", values,
				  1, &result);

	if (!error)
		*ret_sequence = PQntuples(result) ? strtoull(PQgetvalue(result, 0, 0), NULL, 10)
						  : 0;
	PQclear(result);
	return error;
}

static int postgres_store_forget(void *self, uint64_t keep)
{
	struct postgres_store *store = self;
	char number[NUMBER_BYTES];
	const char *const values[] = { store->owner, number };

	snprintf(number, sizeof(number), "%lu", keep & INT64_MAX);
	return run(store,
		   "DELETE FROM umbra_event WHERE owner = $1 AND sequence <="
		   " (SELECT last FROM umbra_counter WHERE owner = $1) - $2::bigint",
		   values, 2);
}

const struct store_driver store_postgres = {
	.open = postgres_store_open,
	.close = postgres_store_close,
	.put = postgres_store_put,
	.get = postgres_store_get,
	.drop = postgres_store_drop,
	.each = postgres_store_each,
	.trim = postgres_store_trim,
	.append = postgres_store_append,
	.since = postgres_store_since,
	.last = postgres_store_last,
	.forget = postgres_store_forget,
};
