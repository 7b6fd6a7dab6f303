/*
 * umbra run --detach: the machine's processes go on in a session of their own, and the command ends
 * once the machine runs, or has said why it does not. What it would say on standard error is in a
 * file beside its socket (name_log_path()).
 */
#pragma once

#include <stdbool.h>

/* Of the process that goes on. */
struct detach { const char *name; int told; };

/*
 * True in a new process, which goes on; false in this one, once that runs or has ended: *ret_code.
 */
bool detach_begin(const char *name, struct detach *ret, int *ret_code);
/* What the last one of this name has said is forgotten. */
void detach_forget(const char *name);
/* Where the processes of one of this name say what goes wrong; -errno. */
int detach_open_log(const char *name);
/*
 * Of a broker that was begun by other means: until its machine runs, or it has ended. 0 or an exit
 * code, and on standard error what it has said.
 */
int detach_wait(const char *name, int broker_pidfd);
/* Nothing is said any more before the broker is there. 0 or an exit code. */
int detach_finish(const struct detach *detach);
