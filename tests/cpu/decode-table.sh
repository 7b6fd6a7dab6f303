#!/bin/sh
# decode-table.sh GENERATOR TABLE: the committed instruction table is what its generator makes.
set -eu
"$1" | cmp - "$2" || { echo "$2 is not what tools/gen-decode-table.c makes: run make decode-table"; exit 1; }
