/* See sessions.h. */
#include "sessions.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "lib/check.h"

enum { SECRET_BYTES = (SECRET_TEXT_BYTES - 1) / 2 };

static void check_secrets(const struct secret *secrets, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		const char *text = secrets[n].text;

		if (!secrets[n].until_ms) {
			assert(sodium_is_zero((const unsigned char *)text, SECRET_TEXT_BYTES));
			continue;
		}
		assert(!text[SECRET_TEXT_BYTES - 1]);
		assert(strspn(text, "0123456789abcdef") == SECRET_TEXT_BYTES - 1);
		for (unsigned other = 0; other < n; other++)
			assert(sodium_memcmp(secrets[other].text, text, SECRET_TEXT_BYTES));
	}
}

void check_sessions(const struct sessions *sessions)
{
	check_secrets(sessions->ticket, TICKETS);
	check_secrets(sessions->session, SESSIONS);
}

static void add(struct secret *secrets, unsigned count, uint64_t until_ms,
		char ret[SECRET_TEXT_BYTES])
{
	struct secret *first = secrets;
	unsigned char random[SECRET_BYTES];

	for (unsigned n = 1; n < count; n++)
		if (secrets[n].until_ms < first->until_ms)
			first = &secrets[n];
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(first->text, sizeof(first->text), random, sizeof(random));
	first->until_ms = until_ms;
	memcpy(ret, first->text, SECRET_TEXT_BYTES);
	sodium_memzero(random, sizeof(random));
}

static struct secret *find(struct secret *secrets, unsigned count, uint64_t now_ms,
			   const char *text)
{
	char given[SECRET_TEXT_BYTES] = "";
	struct secret *found = NULL;

	snprintf(given, sizeof(given), "%s", text);
	if (strlen(text) != SECRET_TEXT_BYTES - 1)
		return NULL;
	for (unsigned n = 0; n < count; n++)
		if (secrets[n].until_ms > now_ms &&
		    !sodium_memcmp(secrets[n].text, given, SECRET_TEXT_BYTES))
			found = &secrets[n];
	return found;
}

void sessions_ticket(struct sessions *sessions, uint64_t now_ms, char ret[SECRET_TEXT_BYTES])
{
	add(sessions->ticket, TICKETS, now_ms + TICKET_MS, ret);
	CHECK(check_sessions(sessions));
}

bool sessions_enter(struct sessions *sessions, uint64_t now_ms, const char *ticket,
		    char ret[SECRET_TEXT_BYTES])
{
	struct secret *found = find(sessions->ticket, TICKETS, now_ms, ticket);

	if (!found)
		return false;
	sodium_memzero(found, sizeof(*found));
	add(sessions->session, SESSIONS, now_ms + SESSION_MS, ret);
	CHECK(check_sessions(sessions));
	return true;
}

bool sessions_knows(struct sessions *sessions, uint64_t now_ms, const char *text)
{
	struct secret *found = find(sessions->session, SESSIONS, now_ms, text);

	if (found)
		found->until_ms = now_ms + SESSION_MS;
	return found;
}

void sessions_end(struct sessions *sessions) { sodium_memzero(sessions, sizeof(*sessions)); }
