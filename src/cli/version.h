/* Which Umbra this is. */
#pragma once

/*
 * The build's commit (version.c, made by meson); "unknown" where it was not built from a
 * repository.
 */
extern const char umbra_commit[];
