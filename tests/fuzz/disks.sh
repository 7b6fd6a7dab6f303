#!/bin/bash
# Every kind of disk file, COUNT inputs each (10000000), without a sanitizer: for once and by hand. What crashes, hangs or takes memory is
# kept, and repeated by `fuzz-TARGET @FILE`. usage: disks.sh BUILD [COUNT [SEED]]
set -u
build=$1 count=${2:-10000000} seed=${3:-1} bad=0
kept=$(mktemp -d)
run() { # target, how many kinds it has
	for kind in $(seq 0 $(($2 - 1))); do
		printf '%s, kind %d: ' "$1" "$kind"
		FUZZ_KEEP=$kept/$1-$kind "$build/tests/fuzz/fuzz-$1" "$count" "$seed" "$kind" && rm "$kept/$1-$kind" ||
			{ echo "FAILED: $kept/$1-$kind"; bad=1; }
	done
}
run formats 14
run vhdx 4
run appliance 3
rmdir "$kept" 2>/dev/null
exit $bad
