/* What an extent of one of ESX's sparse kinds has at an offset. */
#pragma once

#include <stdint.h>

enum sparse_kind { SPARSE_SILENT, SPARSE_ZERO, SPARSE_DATA };
/* at: in the file, of data */
struct sparse_run {
	enum sparse_kind kind;
	uint64_t bytes, at;
};
