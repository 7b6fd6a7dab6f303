/* What the files of umbra image share. */
#pragma once

#include <stdbool.h>

#include "disk_cli.h"

/* Each returns the exit code; catalog NULL: the user's. */
int image_index(const char *catalog, const char *const *directories, unsigned count, bool json);
int image_search(const char *catalog, const char *query, const char *limit, bool json,
		 bool explain);

enum { IMAGE_VALUES = 256, IMAGE_KEPT_BYTES = 31 << 20 };

struct image_arguments {
	struct arguments disk;
	const char *values[IMAGE_VALUES], *key, *catalog, *limit, *size, *agent;
	unsigned count;
	bool digests, packages_only, explain;
};

int image_cli_open(const struct image_arguments *arguments, enum image_action action,
		   struct disk **ret);
int image_failed(const char *path, int error);
int image_failed_content(const char *path, int error);
int image_verb_build(struct image_arguments *arguments);
int image_verb_scan(struct image_arguments *arguments);
int image_verb_get(struct image_arguments *arguments);
int image_verb_set(struct image_arguments *arguments);
int image_verb_tag(struct image_arguments *arguments);
int image_verb_packages(struct image_arguments *arguments);
int image_verb_files(struct image_arguments *arguments);
int image_verb_export(struct image_arguments *arguments);
int image_verb_history(struct image_arguments *arguments);
int image_verb_policy(struct image_arguments *arguments);
int image_verb_key(struct image_arguments *arguments);
int image_verb_sign(struct image_arguments *arguments);
int image_verb_verify(struct image_arguments *arguments);
int image_verb_keep(struct image_arguments *arguments);
int image_verb_drop(struct image_arguments *arguments);
int image_verb_fetch(struct image_arguments *arguments);
