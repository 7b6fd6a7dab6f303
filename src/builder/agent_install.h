/*
 * What a root file system lacks to be lived in: umbra-agent and the unit that starts it, and where
 * its root is, when it says nothing of that.
 */
#pragma once

struct volume_writer;

/* Open for reading; where the agent lies in the guest, agent_unit_text is of. */
int agent_install(struct volume_writer *writer, int agent_fd);
/* A line for / in /etc/fstab, where there is no line. */
int root_install(struct volume_writer *writer);
/* systemd's unit, for other places that it is written to. */
extern const char agent_unit_text[];
