/*
 * Programs that come with this one: umbra-agent, which is for guests, and umbra-builder, umbra-wire
 * and umbra-demo, which are run here. They lie beside it, where it was built, or in ../lib/umbra
 * where it was installed.
 */
#pragma once

#include <stddef.h>

/* 0; -ENOENT: it is at none of these places; -ENAMETOOLONG. */
int helper_program_find(const char *name, char *path, size_t bytes);
/*
 * umbra-builder with these words (NULL at the end), which says itself what is wrong. Returns the
 * exit code.
 */
int helper_builder_run(const char *const *words);
