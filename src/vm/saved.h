/* Saved machines, within a machine (saved.c says more). */
#pragma once

#include "machine_internal.h"

struct saved_head { uint64_t memory_bytes, features, tsc_hz; uint32_t cpus; uint16_t debug_exit; };

/* What the machine has to be. 0, or -EBADMSG or -ENOTSUP with *ret_reason. */
int saved_read_head(const struct boot_file *file, struct saved_head *ret, const char **ret_reason);
/* Whether a machine that was told of one rate can run at the other. */
int saved_check_rate(uint64_t saved_hz, uint64_t host_hz, const char **ret_reason);
/* options.saved, behind its head, into a machine made as the head says; unmapped afterwards. Before any processor runs. As saved_read_head(). */
int saved_load(struct machine *machine, const char **ret_reason);
