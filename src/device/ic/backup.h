/*
 * The guest's file systems stand still for a moment (VSS, hv_vss_daemon), so that what its disks
 * hold then is whole.
 *
 *   idle -> asked to freeze -> frozen -> asked to thaw -> idle
 *
 *  1. One question at a time. Whoever asked hears once how it ended.
 *  2. A guest that was asked to freeze is asked to thaw, however that ended, and at the latest
 *     BACKUP_FROZEN_SECONDS later: nobody can forget it.
 *
 * Lock: the channel's. Messages: 5.0.
 */
#pragma once

#include "vmbus/vmbus.h"

enum { BACKUP_FROZEN_SECONDS = 60 };

struct backup;

struct backup_host {
	/* 0; -EIO: the guest could not; -ETIMEDOUT. With the channel's lock. */
	void (*answered)(void *context, int error);
	void *context;
};

/* The unit: a struct backup. */
extern const struct unit_ops backup_unit;

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct backup *backup_create(struct bus *bus, const struct backup_host *host);
void backup_destroy(struct backup *backup);
/*
 * 0: the answer comes by backup_host.answered(); -ENOTCONN: nobody in the guest listens; -EBUSY: it
 * is asked already; -EALREADY: it is so.
 */
int backup_ask(struct backup *backup, bool freeze);
void backup_tick(struct backup *backup);
