/*
 * What of this host a machine that arrives may have, as umbra listen was told. All that it asks for
 * its sender has said, who is hostile.
 *
 *  - A card is on a switch only where that switch is named by --switch; and no network leads to
 *    services of this host (saved_host.h), nor to a tap.
 *  - Where its disks do not come with it, they and their parents lie in folders that --parents
 *    names. Of a file elsewhere it is not said whether it is there.
 */
#pragma once

#include "fork_disks.h"
#include "net_option.h"

enum { PERMITTED_SWITCHES = 16 };

struct arrival_permits {
	unsigned switches, folders;
	const char *switch_name[PERMITTED_SWITCHES];
	char *folder[PLAN_PARENTS]; /* absolute */
};

/* --switch NAME and --parents FOLDER, each as often as one likes; 0 or the exit code. */
int arrival_permit_switch(struct arrival_permits *permits, const char *name);
int arrival_permit_folder(struct arrival_permits *permits, const char *folder);
/* Whether it may have these cards. 0 or the exit code. */
int arrival_check_cards(const struct arrival_permits *permits, const struct net_options *cards);
/* Whether it may have these disks, whose parents are then looked for there alone; likewise. */
int arrival_limit_disks(const struct arrival_permits *permits, struct fork_disks *disks);
