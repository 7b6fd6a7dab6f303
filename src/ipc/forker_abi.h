/* What forker.h, forker.S and the list of calls agree upon; also for the assembler. */
#pragma once

/* grant_fd() of GRANT_FORK_ASK, GRANT_FORK_KIT and GRANT_FORK_SELF (forker.c asserts it). */
#define FORKER_ASK_FD 56
#define FORKER_KIT_FD 57
#define FORKER_SELF_FD 58

/* CLONE_PARENT | CLONE_SETTLS | SIGCHLD: another machine process. */
#define FORKER_FORK_FLAGS 0x00088011
/* CLONE_VM | CLONE_PARENT | SIGCHLD: its forker, with the same memory. */
#define FORKER_SELF_FLAGS 0x00008111
/* CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS. */
#define FORKER_THREAD_FLAGS 0x000d0f00

/* struct fork_place */
#define FORK_PLACE_RBX 0
#define FORK_PLACE_RBP 8
#define FORK_PLACE_R12 16
#define FORK_PLACE_R13 24
#define FORK_PLACE_R14 32
#define FORK_PLACE_R15 40
#define FORK_PLACE_RSP 48
#define FORK_PLACE_RIP 56
#define FORK_PLACE_TLS 64
#define FORK_PLACE_GOES 72

/* Threads of what is forked, beside the one that it has. */
#define FORKER_THREADS_MOST 96

/* A set of the host's processors: on a host with more what is forked stays on none. */
#define FORKER_PROCESSORS_BYTES 128

/* Room for the descriptors of a kit. */
#define FORKER_CONTROL_BYTES 512
