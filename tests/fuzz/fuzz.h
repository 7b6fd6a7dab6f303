/* A fuzz target: libFuzzer's entry, and seeds for our own driver. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { FUZZ_MAX_BYTES = 1 << 17 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
/* Seed number n into data (FUZZ_MAX_BYTES); its length. */
size_t fuzz_seed(unsigned n, uint8_t *data);
/*
 * A message, or another act of whoever lies, was handed to what is tested: of a target that counts
 * them an input has many.
 */
void fuzz_message(void);
