/*
 * What `umbra exec` and `umbra cp` say to the agent in a guest (src/agent), over a connection to
 * its port of AF_VSOCK for each: frames both ways, little-endian.
 *
 *   host   EXEC, then INPUT, INPUT_END, SIGNAL, RESIZE     agent  OUTPUT, ERRORS, then EXITED
 *          PUT, then DATA, DATA_END                               DONE
 *          GET                                                    FILE, DATA, DATA_END
 *          TWIN                                                   DONE
 *          SHARE                                                  DONE
 *          FUSE without bytes: it may begin                       FUSE both ways
 *   instead of any answer: FAILED
 *
 * After an EXEC with AGENT_AGAIN whose EXITED says `again` the connection is there for another
 * question, of whoever then has it (net/relay): to make one takes more than most programs do.
 * INPUT, INPUT_END, SIGNAL and RESIZE may come behind EXITED, for a program that has ended.
 */
#pragma once

#include <stdint.h>

enum { AGENT_PORT = 50111, AGENT_FRAME_BYTES = 16 << 10 };

enum agent_kind {
	AGENT_EXEC = 1,   /* struct agent_exec, arguments, then variables, each with its NUL */
	AGENT_INPUT,      /* bytes */
	AGENT_INPUT_END,
	AGENT_SIGNAL,     /* u32 number */
	AGENT_RESIZE,     /* struct agent_size */
	AGENT_PUT,        /* struct agent_file, path, name, each with its NUL */
	AGENT_GET,        /* path with its NUL */
	AGENT_DATA,       /* bytes */
	AGENT_DATA_END,
	AGENT_TWIN,       /* struct agent_twin, hostname, machine-id, each with its NUL; "": none */
	AGENT_SHARE,      /* u32: 1 for reading alone; path with its NUL: where it is mounted */
	AGENT_FUSE,       /* bytes of one message of the kernel's, or of its answer */
	AGENT_OUTPUT = 64, /* bytes of standard output, or of the terminal */
	AGENT_ERRORS,     /* bytes of standard error */
	AGENT_EXITED,     /* struct agent_exited, or its first word alone */
	AGENT_FILE,       /* struct agent_file */
	AGENT_DONE,
	AGENT_FAILED,     /* u32: errno */
};

struct agent_frame { uint32_t kind, bytes; };
struct agent_size { uint16_t rows, columns; };
enum { AGENT_TERMINAL = 1, AGENT_AGAIN = 2, AGENT_RANDOM_BYTES = 32 };
struct agent_exec { uint32_t flags, arguments; struct agent_size size; };
/* code: an exit code, or 128 and the signal's number; again: 1. */
struct agent_exited { uint32_t code, again; };
/* mode: permissions. */
struct agent_file { uint32_t mode, reserved; uint64_t bytes; };
/* Of a machine that was forked: random numbers for its kernel. */
struct agent_twin { uint8_t random[AGENT_RANDOM_BYTES]; };
_Static_assert(sizeof(struct agent_exec) == 12 && sizeof(struct agent_file) == 16, "frames");
