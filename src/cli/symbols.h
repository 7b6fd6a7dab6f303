/*
 * A kernel's symbols, from a System.map or /proc/kallsyms: "address type name" a line. Where the
 * kernel was put elsewhere (KASLR) the addresses of a running one differ by a distance.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct symbols;

/* 0, and *ret is to be freed; or -errno, -EBADMSG: no symbol is in it. */
int symbols_read(const char *path, struct symbols **ret);
void symbols_free(struct symbols *symbols);
/* The address of this name; 0: there is none. */
uint64_t symbols_find(const struct symbols *symbols, const char *name);
/* The code at or before the address; NULL: none near. */
const char *symbols_name(const struct symbols *symbols, uint64_t address, uint64_t *ret_offset);
