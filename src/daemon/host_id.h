/*
 * By what this host is known where the daemons of many have one store: made of /etc/machine-id,
 * which stays when the host gets another name, and is not told itself (machine-id(5)).
 */
#pragma once

enum { HOST_ID_BYTES = 33 };

/* 0, -ENOENT or -EINVAL: it has none. */
int host_id_read(char ret[HOST_ID_BYTES]);
