/* umbra mcp: executes this program's own verbs, and keeps what they say. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { MCP_ERROR_BYTES = 16 << 10 };

struct mcp_run {
	const char *const *words; /* after the program's name, ended by NULL */
	const char *input;
	size_t input_bytes;
	size_t output_most_bytes;
	unsigned seconds; /* after which it is killed */
};

struct mcp_said {
	int code; /* as a shell has it */
	bool is_late, is_cut;
	char *output; /* to be freed, ended by a zero byte */
	size_t output_bytes;
	char errors[MCP_ERROR_BYTES];
	size_t error_bytes;
};

/* 0 or -errno, and *ret holds nothing. What is more than fits is read and lost. */
int mcp_run(const struct mcp_run *run, struct mcp_said *ret);
