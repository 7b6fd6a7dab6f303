/* What a peer asks of a machine, as the bytes of a record (ipc/record_ring.h). */
#pragma once

#include "machine_control.h"

/* ask->kind and ask->data. How many bytes; -EINVAL: a member has not its form, or is too long. */
int ask_data(const struct control_request *request, struct control_ask *ask);
