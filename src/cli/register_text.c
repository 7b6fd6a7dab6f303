/* See register_text.h. The machine says what it likes: every member may be missing. */
#include "register_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "symbols.h"

static const char *text_of(const json_t *processor, const char *name)
{
	const char *text = json_string_value(json_object_get(processor, name));

	return text ? text : "?";
}

static uint64_t number_of(const json_t *processor, const char *name)
{
	return strtoull(text_of(processor, name), NULL, 16);
}

/*
 * How far a Linux kernel lies from where its symbols say: its way into system calls is in a
 * register.
 */
static uint64_t distance_of(const struct symbols *symbols, const json_t *processor)
{
	uint64_t linked = symbols_find(symbols, "entry_SYSCALL_64");
	uint64_t entry = number_of(processor, "lstar");

	return linked && entry ? entry - linked : 0;
}

bool registers_function(const json_t *processor, const struct symbols *symbols, char *name,
			size_t bytes)
{
	uint64_t rip = number_of(processor, "rip");
	uint64_t offset;
	const char *found = json_string_value(json_object_get(processor, "symbol"));

	if (symbols)
		found = symbols_name(symbols, rip - distance_of(symbols, processor), &offset);
	if (found)
		snprintf(name, bytes, "%.*s", (int)strcspn(found, "+"), found);
	return found;
}

static void print_place(unsigned n, const json_t *processor, const struct symbols *symbols)
{
	uint64_t rip = number_of(processor, "rip");
	uint64_t offset = 0;
	const char *name =
		symbols ? symbols_name(symbols, rip - distance_of(symbols, processor), &offset)
			: NULL;
	char what[32];

	snprintf(what, sizeof(what), "processor %u", n);
	printf("%-12s %s, rip %#lx", what, text_of(processor, "state"), rip);
	if (name)
		printf(" (%s+%#lx)", name, offset);
	else if (!symbols && json_object_get(processor, "symbol"))
		printf(" (%s)", text_of(processor, "symbol"));
	printf(", last exception %lld\n",
	       (long long)json_integer_value(json_object_get(processor, "last-exception")));
}

static void print_registers(const json_t *processor)
{
	static const char *const rows[][4] = {
		{ "rax", "rbx", "rcx", "rdx" },    { "rsi", "rdi", "rbp", "rsp" },
		{ "r8", "r9", "r10", "r11" },      { "r12", "r13", "r14", "r15" },
		{ "rflags", "cs", "ss", "cr0" },   { "cr2", "cr3", "cr4", "efer" },
	};

	for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
		for (unsigned n = 0; n < 4; n++)
			printf("  %-6s %-18s", rows[row][n], text_of(processor, rows[row][n]));
		puts("");
	}
}

int registers_print(const json_t *processors, const char *path)
{
	struct symbols *symbols = NULL;
	int error = path ? symbols_read(path, &symbols) : 0;
	json_t *processor;
	size_t n;

	if (error)
		return complain(EXIT_UNUSABLE,
				error == -EBADMSG ? "no symbols are in it" : strerror(-error), path,
				"name a System.map, or what /proc/kallsyms of the guest says");
	json_array_foreach((json_t *)(uintptr_t)processors, n, processor) {
		print_place((unsigned)n, processor, symbols);
		print_registers(processor);
	}
	symbols_free(symbols);
	return 0;
}
