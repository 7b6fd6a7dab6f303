/* A running machine's disks as they are now: a fork without a child (fork_verb.c). */
#pragma once

/*
 * Its file systems stand still meanwhile, where the guest can. Each disk that is written is frozen,
 * and the machine goes on in a file beside it, or in `folder` where that is not NULL. Returns the
 * exit code.
 */
int fork_snapshot(const char *machine, const char *folder);
