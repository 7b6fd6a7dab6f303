/* Accesses to an address that is told, and the page faults that they are to end with. */
#pragma once

#include "guest.h"

enum { CODE_P = 1, CODE_W = 2, CODE_U = 4, CODE_RESERVED = 8, CODE_FETCH = 16 };

static uint32_t target;
static void read_target(void) { (void)read32(target); }
static void write_target(void) { write32(target, 0x77); }
static void call_target(void) { ((void (*)(void))target)(); }

static void check_fault(const char *name, void (*code)(void), uint32_t gva, uint32_t error)
{
	target = gva;
	check_equal(name, (uint32_t)try_code(code), PF);
	check_equal("its code", last.code, error);
	check_equal("CR2", last_cr2, gva);
}

static void check_none(const char *name, void (*code)(void), uint32_t gva)
{
	target = gva;
	check_equal(name, (uint32_t)try_code(code), (uint32_t)NONE);
}
