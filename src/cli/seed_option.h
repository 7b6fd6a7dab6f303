/*
 * --user-data and --ssh-key of umbra run: a seed for cloud-init (NoCloud), a small disk that the
 * machine has besides its own. It lies where the user's machines have their names, and goes when
 * the machine is gone, as its socket does.
 */
#pragma once

#include "process/plan.h"

enum { SEED_KEYS = 16 };

struct seed_options { const char *user_data, *key[SEED_KEYS]; unsigned keys; };

/* A file with one public key. Each: 0 or the exit code. */
int seed_option_add_key(struct seed_options *options, const char *path);
bool seed_is_wanted(const struct seed_options *options);
/* Its place among the disks: the last one. */
int seed_option_plan(const struct seed_options *options, const char *name,
		     struct disk_plan *disks);
/* Once nobody else has the name: the file. */
int seed_option_write(const struct seed_options *options, const char *name);
