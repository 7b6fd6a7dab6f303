#!/bin/sh
# tables.sh EVENTS [SEED]: page tables tortured (tables.c) on one, two and four processors.
set -eu
for cpus in 1 2 4; do
	"$(dirname "$0")/run" tables "$cpus" --append "${2:-1} $1"
done
