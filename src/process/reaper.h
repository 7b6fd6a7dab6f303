/*
 * Who ends a process that may not be killed with its parent, since it still has to write, and that
 * is not to stay for ever either: a child of its own, which waits for the end of the machine, and
 * then so long.
 *
 *   broker ---- GRANT_END ----.                killed by force, too: the pipe is closed
 *     |                       v
 *     `-- disk process -- its reaper           waits for either end; kills the one it is of
 *
 *   - It is made before the process reads anything that others made, and has nothing in common with
 *     it but a copy of its memory from then: it holds the pipe's end and the process, and no
 *     capability, reads nothing, and nobody can write to it.
 *   - The process cannot end it: neither of its lists has a call that names another (ipc/role.c).
 *   - It ends when the process has ended.
 */
#pragma once

/* As a broker waits for its helpers, and more: that is the one that says what happened. */
enum { REAPER_MS = 70000 };

/* This process is killed so long after end_fd was closed at its other end. 0 or -errno. */
int reaper_make(int end_fd, int patience_ms);
