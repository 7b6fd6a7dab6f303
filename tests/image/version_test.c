/* Debian's order of versions, against the cases of deb-version(7) and dpkg itself. */
#include <stdio.h>
#include <stdlib.h>

#include "image/image.h"

static unsigned faults;

static void check(const char *a, const char *op, const char *b)
{
	int is = version_compare(a, b);
	int want = *op == '<' ? -1 : *op == '>';

	is = (is > 0) - (is < 0);
	if (is != want || version_compare(b, a) * (want ? -want : 1) < 0) {
		printf("version_test: %s %s %s is wrong\n", a, op, b);
		faults++;
	}
}

static uint32_t random_state = 7;

static unsigned rnd(unsigned n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % n;
}

static void random_version(char *to)
{
	static const char letters[] = "0123019~ab+.-";
	unsigned n = rnd(7);

	*to++ = (char)('0' + rnd(3));
	while (n--)
		*to++ = letters[rnd(sizeof(letters) - 1)];
	*to = 0;
}

/* dpkg --compare-versions is the oracle. */
static void against_dpkg(unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		char a[16], b[16], command[128];
		int less, equal;

		random_version(a);
		random_version(b);
		snprintf(command, sizeof(command),
			 "dpkg --compare-versions '%s' lt '%s' 2>/dev/null", a, b);
		less = system(command);
		snprintf(command, sizeof(command),
			 "dpkg --compare-versions '%s' eq '%s' 2>/dev/null", a, b);
		equal = system(command);
		/* not a version for dpkg */
		if ((less != 0 && less != 256) || (equal != 0 && equal != 256))
			continue;
		if (!less)
			check(a, "<", b);
		else
			check(a, equal ? ">" : "=", b);
	}
}

int main(void)
{
	struct version_term term;

	check("1.0", "<", "1.1");
	check("1.0~rc1", "<", "1.0");
	check("1.0", "=", "1.0");
	check("1.0-1", "<", "1.0-2");
	check("1.0", "<", "1.0-1");
	check("1:0.9", ">", "2.0");
	check("3.0.9-1", "<", "3.0.15-1");
	check("1.0a", "<", "1.0+");
	check("0009", "=", "9");
	check("1.2.3-4+deb12u1", ">", "1.2.3-4");
	against_dpkg(400);
	if (!version_parse("openssl<=3.0", &term) || !version_matches(&term, "3.0") ||
	    version_matches(&term, "3.1") || version_parse("<3", &term) ||
	    version_parse("a<", &term) || version_parse("a<>3", &term)) {
		printf("version_test: terms are wrong\n");
		faults++;
	}
	printf("version_test: %u faults\n", faults);
	return faults != 0;
}
