/* Sizes as the command line has them: digits, then nothing, K, M, G or T. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { BITS_PER_LETTER = 10 };

bool parse_size(const char *text, uint64_t *ret)
{
	static const char letters[] = "KMGT";
	unsigned long long number;
	const char *letter;
	unsigned shift = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	number = strtoull(text, &end, 10);
	letter = *end ? strchr(letters, *end) : NULL;
	if (errno || (*end && (!letter || end[1])))
		return false;
	if (letter)
		shift = (unsigned)(letter - letters + 1) * BITS_PER_LETTER;
	if (number > UINT64_MAX >> shift)
		return false;
	*ret = number << shift;
	assert(*ret >> shift == number);
	return true;
}
