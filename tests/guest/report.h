/* What a bare-metal guest says: one line per check on the serial port, TAP. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void print(const char *text);
/* Hexadecimal. */
void print_number(uint64_t value);
/* Decimal. */
void print_count(unsigned count);
/* One line of TAP: "ok N - name" or "not ok N - name". */
void check(const char *name, bool good);
void check_equal(const char *name, uint64_t got, uint64_t want);
/* The beginning of such a line, whose name the caller prints. */
void check_begin(bool good);
/* Prints the plan and ends the machine; the exit code says whether every check was good. */
void finish(void) __attribute__((noreturn));

/* The next number of a text, for instance of the command line; `otherwise` if there is none. */
uint64_t next_number(const char **text, uint64_t otherwise);

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}
static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
	return value;
}
/* Whether there is something to be read from the serial port: how a test tells a guest to. */
static inline bool has_input(void) { return inb(0x3fd) & 1; }
