/*
 * Lines of TAP on the serial port, how a guest ends, and what the compiler calls by itself: for
 * guests of 64 and of 32 bits.
 */
#include "report.h"

static unsigned checks, failures;

/* The compiler's own calls. */
void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

void *memcpy(void *to, const void *from, size_t bytes)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return start;
}

void *memset(void *to, int value, size_t bytes)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
	return start;
}

void print(const char *text)
{
	while (*text)
		outb(0x3f8, (uint8_t)*text++);
}

void print_number(uint64_t value)
{
	char digits[19] = "0x";
	char *at = digits + 2;

	for (int shift = 60; shift >= 0; shift -= 4)
		if (value >> shift || shift == 0)
			*at++ = "0123456789abcdef"[value >> shift & 15];
	*at = 0;
	print(digits);
}

void print_count(unsigned count)
{
	char digits[12];
	char *at = digits + sizeof(digits) - 1;

	*at = 0;
	do
		*--at = (char)('0' + count % 10);
	while (count /= 10);
	print(at);
}

/* "ok N - name": the Test Anything Protocol, whose plan finish() prints. */
void check_begin(bool good)
{
	checks++;
	failures += !good;
	print(good ? "ok " : "not ok ");
	print_count(checks);
	print(" - ");
}

void check(const char *name, bool good)
{
	check_begin(good);
	print(name);
	print("\n");
}

void check_equal(const char *name, uint64_t got, uint64_t want)
{
	check(name, got == want);
	if (got != want) {
		print("# got ");
		print_number(got);
		print(", want ");
		print_number(want);
		print("\n");
	}
}

void finish(void)
{
	print("1..");
	print_count(checks);
	print("\n");
	outb(0xf4, failures ? 1 : 0);
	for (;;)
		__asm__ volatile("cli; hlt");
}

uint64_t next_number(const char **text, uint64_t otherwise)
{
	uint64_t value = 0;

	while (**text == ' ')
		(*text)++;
	if (**text < '0' || **text > '9')
		return otherwise;
	while (**text >= '0' && **text <= '9')
		value = value * 10 + (uint64_t)(*(*text)++ - '0');
	return value;
}
