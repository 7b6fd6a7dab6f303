/* Versions in Debian's order (deb-version(7)): epoch, upstream, revision; letters before the rest,
 * ~ before everything. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

static int weight(int character)
{
	if (character == '~')
		return -1;
	if (isdigit(character) || !character)
		return 0;
	return isalpha(character) ? character : character + 256;
}

static int compare_part(const char *a, const char *a_end, const char *b, const char *b_end)
{
	while (a < a_end || b < b_end) {
		int first = 0;

		while ((a < a_end && !isdigit((uint8_t)*a)) ||
		       (b < b_end && !isdigit((uint8_t)*b))) {
			int one = weight(a < a_end ? (uint8_t)*a : 0);
			int other = weight(b < b_end ? (uint8_t)*b : 0);

			if (one != other)
				return one - other;
			a += a < a_end;
			b += b < b_end;
		}
		while (a < a_end && *a == '0')
			a++;
		while (b < b_end && *b == '0')
			b++;
		while (a < a_end && b < b_end && isdigit((uint8_t)*a) && isdigit((uint8_t)*b)) {
			first = first ? first : *a - *b;
			a++;
			b++;
		}
		if (a < a_end && isdigit((uint8_t)*a))
			return 1;
		if (b < b_end && isdigit((uint8_t)*b))
			return -1;
		if (first)
			return first;
	}
	return 0;
}

int version_compare(const char *a, const char *b)
{
	const char *ca = strchr(a, ':');
	const char *cb = strchr(b, ':');
	const char *ra, *rb;
	long ea = ca ? strtol(a, NULL, 10) : 0;
	long eb = cb ? strtol(b, NULL, 10) : 0;
	int order;

	if (ea != eb)
		return ea < eb ? -1 : 1;
	a = ca ? ca + 1 : a;
	b = cb ? cb + 1 : b;
	ra = strrchr(a, '-');
	rb = strrchr(b, '-');
	order = compare_part(a, ra ? ra : a + strlen(a), b, rb ? rb : b + strlen(b));
	if (order)
		return order;
	ra = ra ? ra + 1 : "";
	rb = rb ? rb + 1 : "";
	return compare_part(ra, ra + strlen(ra), rb, rb + strlen(rb));
}

bool version_parse(const char *text, struct version_term *term)
{
	size_t name = strcspn(text, "<>=!");
	size_t op = strspn(text + name, "<>=!");

	if (!name || name >= sizeof(term->name) || op >= sizeof(term->op) ||
	    strlen(text + name + op) >= sizeof(term->version) || (op && !text[name + op]))
		return false;
	*term = (struct version_term){ { 0 }, { 0 }, { 0 } };
	memcpy(term->name, text, name);
	memcpy(term->op, text + name, op);
	strcpy(term->version, text + name + op);
	return !op || !strcmp(term->op, "<") || !strcmp(term->op, "<=") || !strcmp(term->op, "=") ||
	       !strcmp(term->op, ">=") || !strcmp(term->op, ">") || !strcmp(term->op, "!=");
}

bool version_matches(const struct version_term *term, const char *version)
{
	int order = version_compare(version, term->version);

	switch (term->op[0]) {
	case '<': return order < 0 || (term->op[1] && !order);
	case '>': return order > 0 || (term->op[1] && !order);
	case '=': return !order;
	case '!': return order;
	default: return true;
	}
}
